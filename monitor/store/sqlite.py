"""The embedded store: one SQLite database. In: rows. Out: rows, also to readers in other processes.

Write-ahead log, so that readers never wait for the writer; synchronous FULL, so that what `write` returned for has
reached the disk. A row's identity is the primary key: what is written again replaces it.
"""

import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from collectors.units import SECONDS_PER_DAY, UnixSeconds
from monitor.core.points import BOOKS, PROVISIONAL, REQUEST_ENERGY, RESTATEMENT, TOO_LATE, Measurement, Row
from monitor.store.line_protocol import line
from monitor.store.protocol import RESOLUTION_SECONDS, Resolution, StoreUnavailable
from monitor.store.sqlite_tables import ROLLED_UP_SQL, Table, tables

_PAGE_ROWS = 10_000


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How long each kind of row is kept, in seconds.

    A window row of the books goes only when its hour has been rolled up, an hourly row only when its day has: what no
    roll-up holds is kept as long as `days_seconds`.
    """

    windows_seconds: float = 35 * SECONDS_PER_DAY
    requests_seconds: float = 35 * SECONDS_PER_DAY
    provisional_seconds: float = 3 * SECONDS_PER_DAY
    hours_seconds: float = 400 * SECONDS_PER_DAY
    days_seconds: float = 3_660 * SECONDS_PER_DAY


class SqliteStore:
    """A Store in the file `path`, made if it is not there. Any number of threads may use it; one process writes.

    Raises StoreUnavailable, here and in every method, when SQLite does not take or give rows.
    """

    def __init__(self, path: Path, *, retention: Retention | None = None, read_only: bool = False) -> None:
        self._path = path
        self._retention = retention or Retention()
        self._tables = tables()
        self._lock = threading.RLock()
        with self._guarded("open"):
            self._connection = _connect(path, read_only=read_only)
        try:
            self._check_columns() if read_only else self._make_tables()
        except StoreUnavailable:
            self._connection.close()
            raise

    def write(self, rows: Sequence[Row], *, resolution: Resolution = "window") -> None:
        """Stores all rows or none; returns once they are on disk."""
        with self._transaction("write"):
            self._upsert(rows, resolution)

    def replace_provisional(self, host: str, window_start: UnixSeconds, rows: Sequence[Row]) -> None:
        """Makes these the only provisional rows of that host and window; none deletes them."""
        with self._transaction("write"):
            for measurement in PROVISIONAL:
                statement = self._table(measurement).delete_window()
                self._connection.execute(statement, (window_start, host))
            self._upsert(rows, "window")

    def read(
        self,
        measurement: Measurement,
        start: UnixSeconds,
        end: UnixSeconds,
        *,
        where: Mapping[str, Collection[str]] | None = None,
        resolution: Resolution = "window",
        limit: int | None = None,
        after: Row | None = None,
    ) -> list[Row]:
        """Rows with start <= time < end in the order of (time, tags), whose tags are among `where`'s values."""
        text, bound = self._table(measurement, resolution).select(start, end, where or {}, limit, after)
        name, split = measurement.name, 1 + len(measurement.tags)
        return [Row(name, found[0], found[1:split], found[split:]) for found in self._fetch(text, bound)]

    def span(
        self, measurement: Measurement, *, resolution: Resolution = "window"
    ) -> tuple[UnixSeconds, UnixSeconds] | None:
        """The times of the first and the last row, or None where there is none."""
        name = self._table(measurement, resolution).name
        first, last = self._fetch(f"SELECT (SELECT min(time) FROM {name}), (SELECT max(time) FROM {name})")[0]
        return None if first is None else (first, last)

    def last_times(self, measurement: Measurement, tag: str) -> dict[str, UnixSeconds]:
        """For each value of a tag, the time of its newest row at window resolution."""
        found = self._fetch(self._table(measurement).last_times(tag))
        return {value: time for value, time in found if time is not None}

    def rolled_up(self, start: UnixSeconds, end: UnixSeconds, resolution: Resolution) -> frozenset[UnixSeconds]:
        """The starts of the hours (or days) in [start, end) that have been rolled up."""
        text = "SELECT start FROM rolled_up WHERE resolution = ? AND start >= ? AND start < ?"
        return frozenset(found[0] for found in self._fetch(text, (resolution, start, end)))

    def mark_rolled_up(self, starts: Iterable[UnixSeconds], resolution: Resolution) -> None:
        """Records that these hours (or days) have their roll-up rows."""
        with self._transaction("write"):
            text = "INSERT OR IGNORE INTO rolled_up (resolution, start) VALUES (?, ?)"
            self._connection.executemany(text, [(resolution, start) for start in starts])

    def trim(self, now: UnixSeconds) -> int:
        """Deletes what is past its retention, in whole hours and days; returns the number of rows."""
        kept = self._retention
        ages = [
            (REQUEST_ENERGY, kept.requests_seconds),
            (RESTATEMENT, kept.days_seconds),
            (TOO_LATE, kept.days_seconds),
        ]
        ages += [(measurement, kept.provisional_seconds) for measurement in PROVISIONAL]
        with self._transaction("trim"):
            count = sum(self._delete(self._table(measurement), now - age) for measurement, age in ages)
            count += self._trim_books("window", now - kept.windows_seconds, now, held_by="hour")
            count += self._trim_books("hour", now - kept.hours_seconds, now, held_by="day")
            for measurement in BOOKS:
                count += self._delete(self._table(measurement, "day"), now - kept.days_seconds)
        return count

    def dump(self, measurements: Iterable[Measurement]) -> Iterator[str]:
        """Every stored row of these as a line of InfluxDB line protocol, by identity: equal stores give equal lines.

        Roll-ups follow their windows, under the names of their tables (`energy_hour`).
        """
        for measurement in sorted(measurements, key=lambda each: each.name):
            for (name, resolution), table in self._tables.items():
                if name == measurement.name:
                    for row in self._all(measurement, resolution):
                        yield line(measurement, row, table.name)

    def close(self) -> None:
        """Lets go of the file; never raises."""
        with self._lock:
            self._connection.close()

    def _make_tables(self) -> None:
        with self._transaction("make tables"):
            self._connection.execute(ROLLED_UP_SQL)
            for table in self._tables.values():
                for statement in table.create():
                    self._connection.execute(statement)
                for name in self._missing_columns(table):
                    self._connection.execute(table.add_column(name))

    def _check_columns(self) -> None:
        for table in self._tables.values():
            if missing := self._missing_columns(table):
                raise StoreUnavailable(
                    f"{self._path}: {table.name} has no {missing[0]}: it is no store, or of another version;"
                    " start the daemon of this version on it once"
                )

    def _missing_columns(self, table: Table) -> list[str]:
        present = {found[1] for found in self._fetch(f"PRAGMA table_info({table.name})")}
        return [name for name in table.columns() if name not in present]

    def _table(self, measurement: Measurement, resolution: Resolution = "window") -> Table:
        return self._tables[measurement.name, resolution]

    def _upsert(self, rows: Sequence[Row], resolution: Resolution) -> None:
        by_measurement: dict[str, list[tuple[Any, ...]]] = {}
        for row in rows:
            by_measurement.setdefault(row.measurement, []).append((row.time, *row.tags, *row.fields))
        for name, bound in by_measurement.items():
            table = self._tables[name, resolution]
            if (statement := table.insert_series()) is not None:
                end = 1 + len(table.measurement.tags)
                new = {values[1:end]: values[:end] for values in bound}
                self._connection.executemany(statement, list(new.values()))
            self._connection.executemany(table.upsert(), bound)

    def _trim_books(self, resolution: Resolution, before: UnixSeconds, now: UnixSeconds, *, held_by: Resolution) -> int:
        unit = RESOLUTION_SECONDS[held_by]
        cutoff = before // unit * unit
        held = (
            f" AND (time < ? OR CAST(time / {unit} AS INTEGER) * {unit}"
            " IN (SELECT start FROM rolled_up WHERE resolution = ?))"
        )
        bound = (now - self._retention.days_seconds, held_by)
        count = sum(self._delete(self._table(measurement, resolution), cutoff, held, bound) for measurement in BOOKS)
        if resolution == "hour":  # a mark without its rows would make a query read nothing there
            gone = "DELETE FROM rolled_up WHERE resolution = 'hour' AND NOT EXISTS"
            self._connection.execute(f"{gone} (SELECT 1 FROM meter_hour WHERE time = rolled_up.start)")
        return count

    def _delete(self, table: Table, before: UnixSeconds, condition: str = "", bound: Sequence[object] = ()) -> int:
        text = f"DELETE FROM {table.name} WHERE time < ?{condition}"
        return self._connection.execute(text, (before, *bound)).rowcount

    def _all(self, measurement: Measurement, resolution: Resolution) -> Iterator[Row]:
        after = None
        while page := self.read(
            measurement, float("-inf"), float("inf"), resolution=resolution, limit=_PAGE_ROWS, after=after
        ):
            yield from page
            after = page[-1]

    def _fetch(self, text: str, bound: Sequence[object] = ()) -> list[Any]:
        with self._guarded("read"):
            return self._connection.execute(text, bound).fetchall()

    @contextmanager
    def _transaction(self, doing: str) -> Iterator[None]:
        with self._guarded(doing):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    @contextmanager
    def _guarded(self, doing: str) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except (sqlite3.ProgrammingError, sqlite3.InterfaceError):
                raise  # our mistake, not the disk's
            except sqlite3.Error as error:
                raise StoreUnavailable(f"{self._path}: cannot {doing} the store: {error}; {_advice(error)}") from error


def _connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=5.0)
    if not read_only:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    return connection


def _advice(error: sqlite3.Error) -> str:
    text = str(error)
    if "locked" in text:
        return "another process writes to it: only one daemon may use a data directory"
    if "full" in text:
        return "free space on its disk"
    if "open" in text or "readonly" in text:
        return "check that the folder exists and that this user may read and write it"
    if "malformed" in text or "not a database" in text:
        return "the file is damaged: move it aside and restore a copy, or let the daemon make it again from its log"
    return "check the disk and the file's permissions"
