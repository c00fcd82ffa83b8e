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

from collectors.units import UnixSeconds
from monitor.core.points import BOOKS, PROVISIONAL, REQUEST_ENERGY, RESTATEMENT, TOO_LATE, Measurement, Row
from monitor.store.dump import dump
from monitor.store.protocol import RESOLUTION_SECONDS, Resolution, StoreUnavailable
from monitor.store.retention import Retention
from monitor.store.sqlite_tables import (
    FORGET_HOURS_SQL,
    ROLLED_UP_OF_ALL_HOSTS_SQL,
    ROLLED_UP_SQL,
    Table,
    rolled_up_by_host,
    tables,
)

_PAGE_ROWS = 10_000


class SqliteStore:
    """A Store in the file `path`, made if it is not there. Any number of threads may use it; one process writes.

    A window row of the books goes only when its hour has been rolled up, an hourly row only when its day has: what no
    roll-up holds is kept as long as days are.

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
        self.replace_provisional_pages({(host, window_start): rows})

    def replace_provisional_pages(self, pages: Mapping[tuple[str, UnixSeconds], Sequence[Row]]) -> None:
        """The same for many (host, window start) at once, in one transaction."""
        with self._transaction("write"):
            for measurement in PROVISIONAL:
                statement = self._table(measurement).delete_window()
                self._connection.executemany(statement, [(start, host) for host, start in pages])
            for rows in pages.values():
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

    def stream(
        self,
        measurement: Measurement,
        start: UnixSeconds,
        end: UnixSeconds,
        *,
        where: Mapping[str, Collection[str]] | None = None,
        resolution: Resolution = "window",
    ) -> Iterator[Row]:
        """What `read` gives, page by page."""
        after = None
        while page := self.read(
            measurement, start, end, where=where, resolution=resolution, limit=_PAGE_ROWS, after=after
        ):
            yield from page
            if len(page) < _PAGE_ROWS:
                return
            after = page[-1]

    def hosts(self, measurement: Measurement, start: UnixSeconds, end: UnixSeconds) -> frozenset[str]:
        """The hosts that have a row at window resolution with start <= time < end."""
        text = self._table(measurement).hosts()
        return frozenset(found[0] for found in self._fetch(text, (start, end)))

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

    def rolled_up(
        self, start: UnixSeconds, end: UnixSeconds, resolution: Resolution
    ) -> Mapping[UnixSeconds, frozenset[str]]:
        """The starts of the hours (or days) in [start, end) that have been rolled up, each with its hosts."""
        text = "SELECT start, host FROM rolled_up WHERE resolution = ? AND start >= ? AND start < ?"
        found: dict[UnixSeconds, set[str]] = {}
        for unit, host in self._fetch(text, (resolution, start, end)):
            found.setdefault(unit, set()).add(host)
        return {unit: frozenset(hosts) for unit, hosts in found.items()}

    def mark_rolled_up(self, starts: Iterable[UnixSeconds], resolution: Resolution, hosts: Collection[str]) -> None:
        """Records that these hosts' hours (or days) have their roll-up rows."""
        with self._transaction("write"):
            text = "INSERT OR IGNORE INTO rolled_up (resolution, start, host) VALUES (?, ?, ?)"
            self._connection.executemany(text, [(resolution, start, host) for start in starts for host in hosts])

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
        """Every stored row of these as a line of InfluxDB line protocol, by identity: equal stores give equal lines."""
        return dump(self, measurements)

    def close(self) -> None:
        """Lets go of the file; never raises."""
        with self._lock:
            self._connection.close()

    def _make_tables(self) -> None:
        with self._transaction("make tables"):
            for table in self._tables.values():
                for statement in table.create():
                    self._connection.execute(statement)
                for name in self._missing_columns(table):
                    self._connection.execute(table.add_column(name))
            old = self._columns("rolled_up")
            if old and "host" not in old:
                self._connection.execute(ROLLED_UP_OF_ALL_HOSTS_SQL)
            self._connection.execute(ROLLED_UP_SQL)
            if old and "host" not in old:
                for statement in rolled_up_by_host():
                    self._connection.execute(statement)

    def _check_columns(self) -> None:
        missing = [(table.name, name) for table in self._tables.values() for name in self._missing_columns(table)]
        if "host" not in self._columns("rolled_up"):
            missing.append(("rolled_up", "host"))
        if missing:
            name, column = missing[0]
            raise StoreUnavailable(
                f"{self._path}: {name} has no {column}: it is no store, or of another version;"
                " start the daemon of this version on it once"
            )

    def _missing_columns(self, table: Table) -> list[str]:
        present = self._columns(table.name)
        return [name for name in table.columns() if name not in present]

    def _columns(self, table: str) -> set[str]:
        return {found[1] for found in self._fetch(f"PRAGMA table_info({table})")}

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
        count = 0
        for measurement in BOOKS:
            table = self._table(measurement, resolution)
            held = (
                f" AND (time < ? OR EXISTS (SELECT 1 FROM rolled_up AS r JOIN {table.series} AS s ON s.host = r.host"
                f" WHERE s.id = {table.name}.series AND r.resolution = ?"
                f" AND r.start = CAST({table.name}.time / {unit} AS INTEGER) * {unit}))"
            )
            count += self._delete(table, cutoff, held, (now - self._retention.days_seconds, held_by))
        if resolution == "hour":  # a mark without its rows would make a query read nothing there
            self._connection.execute(FORGET_HOURS_SQL)
        return count

    def _delete(self, table: Table, before: UnixSeconds, condition: str = "", bound: Sequence[object] = ()) -> int:
        text = f"DELETE FROM {table.name} WHERE time < ?{condition}"
        return self._connection.execute(text, (before, *bound)).rowcount

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
