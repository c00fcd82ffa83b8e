"""Follows a file of request events, one JSON object a line, from where it was left, through rotation and truncation.

folder --> FilePart, FilePart, .. (older generations first, the file itself last) --> lines
"""

import os
import stat
from collections import Counter
from glob import escape
from pathlib import Path
from typing import Final

from collectors.clock import monotonic
from collectors.errors import RetryLater
from collectors.requests.file_part import (
    READ_BYTES,
    FilePart,
    Line,
    PartPlace,
    Place,
    is_copy,
    is_same,
    opened_part,
    part_place,
)
from collectors.units import SECONDS_PER_DAY, SECONDS_PER_HOUR, UnixSeconds

GRACE_SECONDS: Final = 300.0
"""So long a file that was rotated away may still be written to by who has it open."""
OVERLAP_SECONDS: Final = SECONDS_PER_HOUR
"""A generation that was last written so long before the one that was read is older than that one."""
LOOK_BACK_SECONDS: Final = SECONDS_PER_DAY
"""The same where the one that was read is gone."""
MOST_OLDER: Final = 8
MOST_FINISHED: Final = 64
_PACKED: Final = (".gz", ".xz", ".zst", ".bz2", ".lz4", ".zip")


class EventFile:
    """A Source[Line]: complete lines that were appended since `place`, each once.

    A file that is renamed is read to its end through its open descriptor, after a restart by looking for it in its
    folder; generations in between are found there too, unless they are compressed. A file that is cut short begins
    anew: what was cut off before it was read is lost, and `events` counts the cut. A last line without its end waits
    for it; of a file that was rotated away it is handed on after `grace_seconds`.
    """

    def __init__(
        self, name: str, path: Path, place: Place | None = None, *, grace_seconds: float = GRACE_SECONDS
    ) -> None:
        self.name = name
        self.events: Counter[str] = Counter()
        self._path, self._grace_seconds = path, grace_seconds
        self._place = self._before = place
        self._parts: list[FilePart] = []
        self._finished: list[PartPlace] = []
        self._begun = False

    def open(self) -> None:
        """Nothing to make ready: the file may come later."""

    @property
    def place(self) -> Place:
        """Where the reading stands, to go on from after a restart."""
        if not self._begun:
            return self._place or Place()
        older = tuple(part.place for part in self._parts[:-1])
        if not self._parts:
            return Place(finished=tuple(self._finished))
        now = self._parts[-1].place
        return Place(
            inode=now.inode,
            offset=now.offset,
            head_bytes=now.head_bytes,
            head=now.head,
            skipping=now.skipping,
            older=older,
            finished=tuple(self._finished),
        )

    def read(self) -> list[Line]:
        """The next complete lines, possibly none. Raises RetryLater where the file is not there or not readable."""
        try:
            if not self._begun:
                self._begin()
            self._before = self.place
            missing = self._look()
            lines: list[Line] = []
            for part in list(self._parts):
                lines += self._lines_of(part, READ_BYTES - sum(len(line.raw) for line in lines))
        except OSError as error:
            raise RetryLater(f"{self._path}: {error.strerror}; it is tried again") from error
        if missing is not None and not lines:
            raise RetryLater(f"{self._path}: {missing}; it is tried again")
        return lines

    def rewind(self) -> None:
        """Undoes the last read, whose lines could not be stored: the next one gives them again."""
        self.close()
        self._place = self._before

    def close(self) -> None:
        """Lets go of all files; a later read finds them again."""
        if self._begun:
            self._place = self.place
        self._begun = False
        self._let_go()

    def _let_go(self) -> None:
        for part in self._parts:
            part.close()
        self._parts.clear()

    def _begin(self) -> None:
        """Finds what was being read when the place was kept. The first time ever, what lies beside it is history."""
        self._let_go()
        if self._place is None:
            self._finished = [part_place(path) for path in self._generations(0.0)][-MOST_FINISHED:]
        else:
            self._finished = list(self._place.finished)
            current = self._place.current
            for place in (*self._place.older, *([current] if current.inode else [])):
                self._restore(place)
        self._begun = True

    def _restore(self, place: PartPlace) -> None:
        for path in (self._path, *self._path.parent.iterdir()):
            if is_same(path, place):
                self._parts.append(opened_part(path, place))
                return
        self.events["not_found"] += 1

    def _look(self) -> str | None:
        """Opens what is new in the folder; says why where the file itself is not there."""
        try:
            status = self._path.stat()
        except FileNotFoundError as error:
            return error.strerror
        if not stat.S_ISREG(status.st_mode):
            return "it is not a regular file"
        if self._parts and self._parts[-1].inode == status.st_ino:
            return None
        newest = opened_part(self._path, None)  # before its folder is searched: it may be renamed any moment
        if self._parts:
            self.events["rotated"] += 1
            since = self._parts[-1].written_at - OVERLAP_SECONDS
        else:
            since = status.st_mtime - LOOK_BACK_SECONDS
        opened = {part.inode for part in (*self._parts, newest)}
        known = [*self._finished, *(part.place for part in self._parts)]
        for path in self._generations(since):
            if path.stat().st_ino not in opened and not any(is_copy(path, place) for place in known):
                self._parts.append(opened_part(path, None))
        self._parts.append(newest)
        return None

    def _generations(self, since: UnixSeconds) -> list[Path]:
        """What the file was before: siblings with its name and more that were written since then, oldest first."""
        written = [
            (path.stat().st_mtime, path)
            for path in self._path.parent.glob(f"{escape(self._path.name)}?*")
            if path.suffix not in _PACKED and path.is_file() and os.access(path, os.R_OK)
        ]
        return [path for at, path in sorted(written) if at >= since]

    def _lines_of(self, part: FilePart, most_bytes: int) -> list[Line]:
        before = part.place
        lines = part.read(most_bytes)
        if part.cut_short:
            self.events["truncated"] += 1
            self._finish(before)  # copied away before it was cut, it is no news
        return lines + self._retired(part)

    def _finish(self, place: PartPlace) -> None:
        self._finished = [*self._finished, place][-MOST_FINISHED:]

    def _retired(self, part: FilePart) -> list[Line]:
        """The unfinished last line of a generation to which nobody has written for long; it is read no more."""
        older = self._parts[:-1]
        if part not in older or not part.at_end:
            return []
        if monotonic() - part.grown_at < self._grace_seconds and len(older) <= MOST_OLDER:
            return []
        rest = part.rest()
        self._finish(part.place)
        self._parts.remove(part)
        part.close()
        return rest
