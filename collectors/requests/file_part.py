"""One physical file out of which lines are read: its identity, how far it is read, and its lines."""

import os
import zlib
from pathlib import Path
from typing import Final

import msgspec

from collectors.clock import monotonic
from collectors.units import UnixSeconds

READ_BYTES: Final = 4 * 2**20
HEAD_BYTES: Final = 1_024
_MOST_SKIPPED: Final = 64
"""Chunks of one endless line that are passed by in one read."""


class Line(msgspec.Struct, frozen=True):
    """A complete line without its end, and where it stood: a name for it that never changes."""

    raw: bytes
    position: str


class PartPlace(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a file is read. An inode number alone is used again, so a checksum over its first bytes goes with it.

    `head` is the CRC-32 of the first `head_bytes`, at most 1 024 of those that are read. `skipping`: the rest of a line
    beyond any limit is still to come.
    """

    inode: int = 0
    offset: int = 0
    head_bytes: int = 0
    head: int = 0
    skipping: bool = False


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where the reading of a file and of what it was before stands. `finished` are generations that are done."""

    inode: int = 0
    offset: int = 0
    head_bytes: int = 0
    head: int = 0
    skipping: bool = False
    older: tuple[PartPlace, ...] = ()
    finished: tuple[PartPlace, ...] = ()

    @property
    def current(self) -> PartPlace:
        """Of the file itself."""
        return PartPlace(
            inode=self.inode,
            offset=self.offset,
            head_bytes=self.head_bytes,
            head=self.head,
            skipping=self.skipping,
        )


class FilePart:
    """An open file and how far it is read. A rename does not part us from it."""

    def __init__(self, descriptor: int, place: PartPlace | None) -> None:
        self._descriptor = descriptor
        self.inode = os.fstat(descriptor).st_ino
        place = place or PartPlace()
        self._offset, self._head_bytes, self._head, self._skipping = (
            place.offset,
            place.head_bytes,
            place.head,
            place.skipping,
        )
        self._size = -1
        self.grown_at = monotonic()
        self.at_end = self.cut_short = False

    @property
    def written_at(self) -> UnixSeconds:
        """When somebody last wrote to it."""
        return os.fstat(self._descriptor).st_mtime

    @property
    def place(self) -> PartPlace:
        """How far it is read."""
        return PartPlace(
            inode=self.inode,
            offset=self._offset,
            head_bytes=self._head_bytes,
            head=self._head,
            skipping=self._skipping,
        )

    def read(self, most_bytes: int) -> list[Line]:
        """The next complete lines, none where `most_bytes` is not above 0. Begins anew where the file was cut short."""
        size = os.fstat(self._descriptor).st_size
        self.cut_short = size < self._offset or _head(self._descriptor, self._head_bytes) != self._head
        if self.cut_short:
            self._offset, self._head_bytes, self._head, self._skipping = 0, 0, 0, False
        if size != self._size:
            self._size, self.grown_at = size, monotonic()
        self.at_end = size <= self._offset
        if self.at_end or most_bytes <= 0:
            return []
        lines: list[Line] = []
        for _ in range(_MOST_SKIPPED):
            chunk = os.pread(self._descriptor, READ_BYTES, self._offset)
            self.at_end = len(chunk) < READ_BYTES
            lines += self._lines(chunk)
            if self.at_end or not self._skipping:
                break
        if self._head_bytes < HEAD_BYTES and self._offset > self._head_bytes:
            self._head_bytes = min(self._offset, HEAD_BYTES)
            self._head = _head(self._descriptor, self._head_bytes)
        return lines

    def rest(self) -> list[Line]:
        """What stands behind the last line end, as a line."""
        raw = os.pread(self._descriptor, READ_BYTES, self._offset)
        lines = [] if self._skipping or not raw.strip() else [self._line(raw, self._offset)]
        self._offset += len(raw)
        return lines

    def close(self) -> None:
        """Lets go of the file."""
        os.close(self._descriptor)

    def _lines(self, chunk: bytes) -> list[Line]:
        *whole, rest = chunk.split(b"\n")
        lines = []
        for raw in whole:
            if not self._skipping and raw.strip():
                lines.append(self._line(raw, self._offset))
            self._skipping = False
            self._offset += len(raw) + 1
        if not whole and len(rest) == READ_BYTES:  # a line beyond any limit: its beginning stands for it
            if not self._skipping:
                lines.append(self._line(rest, self._offset))
            self._skipping = True
            self._offset += len(rest)
        return lines

    def _line(self, raw: bytes, offset: int) -> Line:
        raw = raw.rstrip(b"\r")
        return Line(raw, f"{self.inode}:{offset}:{zlib.crc32(raw):08x}")


def opened_part(path: Path, place: PartPlace | None) -> FilePart:
    """The file, to be read from the place, else from its beginning. Raises OSError."""
    return FilePart(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), place)


def is_same(path: Path, place: PartPlace) -> bool:
    """Whether the file at the path is the one that the place speaks of, possibly cut short since."""
    try:
        if path.stat().st_ino != place.inode or not path.is_file() or not os.access(path, os.R_OK):
            return False
    except FileNotFoundError:
        return False
    known = part_place(path, place.head_bytes)
    return known.head == place.head or known.head_bytes < place.head_bytes


def is_copy(path: Path, place: PartPlace) -> bool:
    """Whether the file is the one of the place, or begins as that one does."""
    known = part_place(path, place.head_bytes)
    return known.head == place.head if place.head_bytes else known.inode == place.inode


def part_place(path: Path, head_bytes: int = HEAD_BYTES) -> PartPlace:
    """The identity of a file, as if it were read to its end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        head_bytes = min(head_bytes, status.st_size)
        return PartPlace(
            inode=status.st_ino,
            offset=status.st_size,
            head_bytes=head_bytes,
            head=_head(descriptor, head_bytes),
        )
    finally:
        os.close(descriptor)


def _head(descriptor: int, size_bytes: int) -> int:
    return zlib.crc32(os.pread(descriptor, size_bytes, 0)) if size_bytes else 0
