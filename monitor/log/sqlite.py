"""The embedded log: one SQLite database, one partition. In: records. Out: the same, in the order they came.

Write-ahead log, so that readers never wait for the writer; synchronous FULL, so that what `append` returned for has
reached the disk; AUTOINCREMENT, so that no offset is used twice, even when all rows are gone; a checksum per row.
Offsets and stamps are of one sequence over all streams, so their order is the order of log time.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from collectors.units import UnixSeconds
from monitor.log.protocol import Append, Commit, DeadLetter, Hole, LogRecord, LogUnavailable, Stream
from monitor.log.sqlite_file import LogFile
from monitor.log.sqlite_rows import COLUMNS, TABLES, corrupt, opened, sealed

_INSERT = "INSERT INTO log (stream, stamp, key, schema, body, crc) VALUES (?, ?, ?, ?, ?, ?)"
_INSERT_LETTER = (
    "INSERT OR IGNORE INTO dead_letters (source, position, reason, detail, sha256, at) VALUES (?, ?, ?, ?, ?, ?)"
)
# The rows of readings and usage, each stream from (or up to) an offset of its own, and any row whose stream is none of
# the three: it is damaged and has to be found by somebody. The unary plus keeps SQLite from reading out of order.
_SIDES = "offset {0} ? AND (+stream NOT IN ('readings', 'usage', 'facts') OR (+stream = 'readings' AND offset {0} ?)"
_SIDES += " OR (+stream = 'usage' AND offset {0} ?))"
_IN_STEP = f"SELECT {COLUMNS} FROM log WHERE {_SIDES.format('>=')} ORDER BY offset LIMIT ?"
_TRIM = f"DELETE FROM log WHERE {_SIDES.format('<')}"
_LOST = (
    "SELECT count(*), min(stamp), max(stamp) FROM log WHERE offset < ?"
    " AND ((+stream = 'readings' AND offset >= ?) OR (+stream = 'usage' AND offset >= ?))"
)
_PARTS: tuple[Stream, Stream] = ("readings", "usage")
_PAST_ALL = 2**63 - 1


class Dropped(msgspec.Struct, frozen=True, kw_only=True):
    """Records that nobody has read and nobody can read any more, and the stamps of the first and the last of them."""

    records: int
    start: UnixSeconds
    end: UnixSeconds


class SqliteLog:
    """A Log in the file `path`, made if it is not there. Any number of threads may use it; one process writes.

    `read_only` is for other processes: no lock is taken, nothing is written, a damaged row is passed by and left for
    the writing process to name. Raises LogUnavailable, here and in every method.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._path = path
        self._read_only = read_only
        self._file = LogFile(path, read_only=read_only)
        self._caught_up = False
        try:
            self._last_stamp = -math.inf if read_only else self._open()
        except LogUnavailable:
            self._file.close()
            raise

    def append(self, records: Sequence[Append], now: UnixSeconds) -> Sequence[Append]:
        """Stores all of them or none, in order, in one transaction; returns once they are on disk. It refuses none."""
        if not records:
            return ()
        with self._file.transaction() as connection:
            rows, last_stamp = [], self._last_stamp
            for record in records:
                last_stamp = max(last_stamp, _finite(now if record.stamp is None else record.stamp))
                rows.append(sealed(record, last_stamp))
            connection.executemany(_INSERT, rows)
            # Still within the lock. If the commit fails, log time is ahead of the log rather than behind it.
            self._last_stamp = last_stamp
        return ()

    def read(self, positions: Mapping[str, int], limit: int) -> list[LogRecord]:
        """The next records of readings and usage at or behind `positions`, in the order of their offsets."""
        readings, usage = (positions.get(stream, 0) for stream in _PARTS)
        behind = min(readings, usage)
        found: list[LogRecord] = []
        while len(found) < limit:
            wanted = limit - len(found)
            rows = self._file.fetch(_IN_STEP, (behind, readings, usage, wanted))
            found += self._intact(rows)
            if len(rows) < wanted:
                break
            behind = rows[-1][0] + 1
        self._caught_up = len(found) < limit
        return found

    def caught_up(self) -> bool:
        """Whether the last `read` gave all that there is right now."""
        return self._caught_up

    def again(self) -> "SqliteLog":
        """A reader whose positions disturb nobody's: here every `read` is one, so this is a second look at the file."""
        return SqliteLog(self._path, read_only=True)

    def hole(self) -> Hole | None:
        """Never any: `trim` keeps what the newest commit needs."""
        return None

    def facts(self, after: int = 0) -> list[LogRecord]:
        """All records of the facts stream behind that offset, to its end."""
        text = f"SELECT {COLUMNS} FROM log WHERE stream = 'facts' AND offset > ? ORDER BY offset"
        return self._intact(self._file.fetch(text, (after,)))

    def last(self, stream: Stream, key: str, schema: str | None = None) -> LogRecord | None:
        """The newest intact record with that key, and that schema if given."""
        return self._before(_PAST_ALL, "+stream = ? AND key = ? AND schema = ifnull(?, schema)", stream, key, schema)

    def log_time(self) -> UnixSeconds | None:
        """The newest stamp; None in a log that never held a record."""
        newest = self._newest_stamp() if self._read_only else self._last_stamp
        return None if newest == -math.inf else newest

    def count_from(self, offset: int) -> int:
        """How many records of any stream were appended at this offset or behind it."""
        return self._end() - max(offset, 1)

    def position_at(self, stream: Stream, log_time: UnixSeconds) -> int:
        """The first offset of the stream that stands at that log time or later; past the log's end if none does."""
        low = self._offset_at(log_time)
        record = self._from(low, "+stream = ?", stream)
        return self._end() if record is None else record.offset

    def start(self) -> tuple[UnixSeconds, bool] | None:
        """The stamp of the oldest record of readings and usage, and whether records before it were trimmed away."""
        oldest = self._from(0, "+stream != 'facts'")
        return None if oldest is None else (oldest.stamp, bool(self._file.fetch("SELECT 1 FROM trimmed")))

    def trim(self, before: UnixSeconds) -> int:
        """Deletes records stamped before that and standing before the committed positions; facts never."""
        commit = self.committed()
        if commit is None:
            return 0
        line = self._offset_at(before)
        readings, usage = (min(line, commit.positions.get(stream, 0)) for stream in _PARTS)
        with self._file.transaction() as connection:
            count = connection.execute(_TRIM, (max(readings, usage), readings, usage)).rowcount
            if count:  # log time has to outlive the rows
                connection.execute("INSERT OR REPLACE INTO trimmed VALUES (1, ?)", (self._last_stamp,))
        return count

    def trim_to_size(self, most_bytes: int) -> int:
        """Deletes the oldest records of a log that holds more bytes than that; returns how many. Bound like `trim`."""
        kept = self._kept_within(most_bytes)
        return 0 if kept is None else self.trim(kept.stamp)

    def drop_to_size(self, most_bytes: int) -> Dropped | None:
        """As `trim_to_size`, but whether records are committed or not; says what of those that were not is lost so.

        The newest record of readings stays: in it are the counters to go on from.
        """
        kept = self._kept_within(most_bytes)
        newest = self._before(_PAST_ALL, "+stream = 'readings'")
        if kept is None or newest is None:
            return None
        line, commit = min(kept.offset, newest.offset), self.committed()
        committed = [0 if commit is None else commit.positions.get(stream, 0) for stream in _PARTS]
        with self._file.transaction() as connection:
            count, start, end = connection.execute(_LOST, (line, *committed)).fetchone()
            connection.execute("DELETE FROM log WHERE offset < ? AND +stream != 'facts'", (line,))
            connection.execute("INSERT OR REPLACE INTO trimmed VALUES (1, ?)", (self._last_stamp,))
        return Dropped(records=count, start=start, end=end) if count else None

    def _kept_within(self, most_bytes: int) -> LogRecord | None:
        """The oldest record that may stay in a log of that size; None where it is smaller."""
        ((pages, free, page_bytes),) = self._file.fetch(
            "SELECT page_count, freelist_count, page_size"
            " FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
        )
        held = (pages - free) * page_bytes
        oldest = self._from(0, "+stream != 'facts'")
        if held <= most_bytes or oldest is None:
            return None
        share = round((self._end() - oldest.offset) * most_bytes / held)
        return self._from(self._end() - share, "+stream != 'facts'") or self._before(_PAST_ALL, "+stream != 'facts'")

    def commit(self, commit: Commit) -> None:
        """Stores the commit in the place of the one before."""
        body = msgspec.msgpack.encode(commit)
        with self._file.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO commits VALUES (1, ?, ?)", (body, zlib.crc32(body)))

    def committed(self) -> Commit | None:
        """The newest commit, or None."""
        rows = self._file.fetch("SELECT body, crc FROM commits")
        if not rows:
            return None
        body, crc = rows[0]
        if not isinstance(body, bytes) or zlib.crc32(body) != crc:
            raise LogUnavailable(f"{self._path}: its commit is damaged; restore the data folder from a copy")
        return msgspec.msgpack.decode(body, type=Commit)

    def reject(self, letters: Sequence[DeadLetter]) -> None:
        """Keeps dead letters; one that is there already stays as it is."""
        if letters:
            with self._file.transaction() as connection:
                connection.executemany(_INSERT_LETTER, [msgspec.structs.astuple(letter) for letter in letters])

    def rejected(self) -> dict[str, int]:
        """How many dead letters there are for each reason."""
        rows = self._file.fetch("SELECT reason, count(*) FROM dead_letters GROUP BY reason ORDER BY reason")
        return {_text(reason): count for reason, count in rows}

    def rejections(self, limit: int = 100, after: int = 0) -> list[tuple[int, DeadLetter]]:
        """Dead letters in the order they came, numbered, for paging."""
        text = (
            "SELECT number, source, position, reason, detail, sha256, at FROM dead_letters"
            " WHERE number > ? ORDER BY number LIMIT ?"
        )
        names = DeadLetter.__struct_fields__[:-1]
        return [
            (number, DeadLetter(**dict(zip(names, map(_text, texts), strict=True)), at=at))
            for number, *texts, at in self._file.fetch(text, (after, limit))
        ]

    def close(self) -> None:
        """Lets go of the file and its lock."""
        self._file.close()

    def _open(self) -> UnixSeconds:
        with self._file.transaction() as connection:
            for statement in TABLES:
                connection.execute(statement)
        return self._newest_stamp()

    def _newest_stamp(self) -> UnixSeconds:
        """The stamp of the newest intact row, or of the newest one that was trimmed away; -inf if there was none."""
        newest = self._before(_PAST_ALL)
        if newest is not None:
            return newest.stamp
        trimmed = self._file.fetch("SELECT newest_stamp FROM trimmed")
        return float(trimmed[0][0]) if trimmed else -math.inf

    def _end(self) -> int:
        """The offset that the next record will get."""
        rows = self._file.fetch("SELECT seq + 1 FROM sqlite_sequence WHERE name = 'log'")
        return int(rows[0][0]) if rows else 1

    def _offset_at(self, log_time: UnixSeconds) -> int:
        """An offset with all older records before it and none behind it, by bisection: stamps rise with offsets."""
        low, high = 0, self._end()
        while low < high:
            middle = (low + high) // 2
            record = self._from(middle)
            if record is None or record.stamp >= log_time:
                high = middle
            else:
                low = record.offset + 1
        return low

    def _from(self, offset: int, condition: str = "1", *bound: object) -> LogRecord | None:
        """The first intact record at or behind an offset that meets the condition."""
        text = f"SELECT {COLUMNS} FROM log WHERE offset >= ? AND {condition} ORDER BY offset LIMIT 1"
        while rows := self._file.fetch(text, (offset, *bound)):
            if (record := opened(rows[0])) is not None:
                return record
            offset = rows[0][0] + 1
        return None

    def _before(self, offset: int, condition: str = "1", *bound: object) -> LogRecord | None:
        """The last intact record before an offset that meets the condition."""
        text = f"SELECT {COLUMNS} FROM log WHERE offset < ? AND {condition} ORDER BY offset DESC LIMIT 1"
        while rows := self._file.fetch(text, (offset, *bound)):
            if (record := opened(rows[0])) is not None:
                return record
            offset = rows[0][0]
        return None

    def _intact(self, rows: Sequence[tuple[Any, ...]]) -> list[LogRecord]:
        """The records of the rows that match their checksum; the others become dead letters."""
        records = [opened(row) for row in rows]
        found = [record for record in records if record is not None]
        if len(found) < len(rows) and not self._read_only:
            at = self.log_time() or 0.0
            self.reject([corrupt(row, at) for row, record in zip(rows, records, strict=True) if record is None])
        return found


def _finite(stamp: UnixSeconds) -> UnixSeconds:
    if not math.isfinite(stamp):
        raise ValueError(f"a record's stamp is {stamp}: log time would never be right again")
    return stamp


def _text(column: bytes) -> str:
    return column.decode(errors="replace")
