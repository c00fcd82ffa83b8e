"""Follows a file of request events, one JSON object a line, from where it was left."""

from pathlib import Path

import msgspec

from collectors.errors import RetryLater

READ_BYTES = 4 * 2**20


class Place(msgspec.Struct, frozen=True):
    """Where the reading of a file stands: which file (inode) and how many bytes of it are done."""

    inode: int = 0
    offset: int = 0


class Line(msgspec.Struct, frozen=True):
    """A complete line without its end, and where it begins: a name for it that never changes."""

    raw: bytes
    position: str


class EventFile:
    """A Source[Line]: complete lines that were appended since `place`.

    It begins anew where the file was replaced or cut short.
    """

    def __init__(self, name: str, path: Path, place: Place | None = None) -> None:
        self.name = name
        self._path = path
        self.place = place or Place()

    def open(self) -> None:
        """Nothing to make ready: the file may come later."""

    def read(self) -> list[Line]:
        """The next complete lines, possibly none. Raises RetryLater where the file is not there or not readable."""
        try:
            with self._path.open("rb") as file:
                status = self._path.stat()
                if status.st_ino != self.place.inode or status.st_size < self.place.offset:
                    self.place = Place(status.st_ino, 0)
                file.seek(self.place.offset)
                chunk = file.read(READ_BYTES)
        except OSError as error:
            raise RetryLater(f"{self._path}: {error.strerror}; it is tried again") from error
        whole = chunk[: chunk.rfind(b"\n") + 1]
        if not whole and len(chunk) == READ_BYTES:
            whole = chunk  # a line beyond any limit: handed on in pieces, each of them refused
        lines, offset = [], self.place.offset
        for raw in whole.splitlines(keepends=True):
            if raw.strip():
                lines.append(Line(raw.rstrip(b"\r\n"), f"{self.place.inode}:{offset}"))
            offset += len(raw)
        self.place = Place(self.place.inode, offset)
        return lines

    def close(self) -> None:
        """Nothing is held open between reads."""
