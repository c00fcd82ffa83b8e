"""Lines of a file that somebody else wrote: numbered, and never more of one in memory than its limit."""

import hashlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from collectors.errors import Rejected
from collectors.recording_error import RecordingError
from collectors.rejected import RejectedInput, rejected_input
from collectors.units import UnixSeconds

BOM: Final = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """A line with its end. Longer than the limit, it has the digest of its bytes instead of these."""

    number: int
    raw: bytes
    too_long_sha256: str | None = None

    def rejected(self, verdict: Rejected, source: str, at: UnixSeconds | None = None) -> RejectedInput:
        """The verdict on this line, as it is counted and listed."""
        position = str(self.number)
        if self.too_long_sha256 is None:
            return rejected_input(verdict, source=source, position=position, raw=self.raw, at=at)
        return RejectedInput(
            source=source,
            position=position,
            reason=verdict.reason,
            detail=verdict.detail,
            sha256=self.too_long_sha256,
            at=at,
        )


def lines_of(file: BinaryIO, limit_bytes: int) -> Iterator[Line]:
    """The lines from the file's start, numbered from 1, without a BOM before the first."""
    number = 0
    while raw := file.readline(limit_bytes + 1):
        number += 1
        if len(raw) > limit_bytes and not raw.endswith(b"\n"):
            yield Line(number, b"", _digest_to_end(file, raw, limit_bytes))
        else:
            yield Line(number, raw.removeprefix(BOM) if number == 1 else raw)


def lines_numbered(path: Path, numbers: Collection[int], limit_bytes: int) -> dict[int, Line]:
    """These lines of the file again, by number."""
    with path.open("rb") as file:
        return {line.number: line for line in lines_of(file, limit_bytes) if line.number in numbers}


def open_lines(path: Path) -> BinaryIO:
    """The open file; raises RecordingError if there is none or it cannot be read."""
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise RecordingError(path, "there is no such file", "a recording has one, see docs/recording.md") from None
    except OSError as error:
        raise RecordingError(path, f"cannot be read: {error.strerror}", "check its kind and permissions") from None


def _digest_to_end(file: BinaryIO, beginning: bytes, limit_bytes: int) -> str:
    """The digest of a line whose beginning was read, read on to its end."""
    digest = hashlib.sha256(beginning)
    while part := file.readline(limit_bytes):
        digest.update(part)
        if part.endswith(b"\n"):
            break
    return digest.hexdigest()
