"""RecordingError: why a whole recording cannot be used. A single bad row or event never raises it."""

from pathlib import Path

from collectors.errors import Broken


class RecordingError(Broken):
    """Names the file, the line (None: the file as a whole), what is wrong there, and what to do."""

    def __init__(self, file: Path, what: str, remedy: str, *, line: int | None = None) -> None:
        place = f"{file}" if line is None else f"{file}:{line}"
        super().__init__(f"{place}: {what}; {remedy}")
        self.file = file
        self.line = line
        self.what = what
        self.remedy = remedy
