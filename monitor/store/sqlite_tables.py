"""The SQL text of the embedded store's tables, made from points.MEASUREMENTS. Pure; nothing here opens a database.

What has many rows per set of tags (energy, meter, usage) keeps its tags once, in a table NAME_series. What has new tags
with every row (a request's id) keeps them in the row. Names come from points only; values are always bound.
"""

from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from collectors.units import UnixSeconds
from monitor.core.points import BOOKS, MEASUREMENTS, PROVISIONAL, REQUEST_ENERGY, Measurement, Row
from monitor.store.protocol import Resolution

_INTERNED: Final = frozenset(measurement.name for measurement in (*BOOKS, *PROVISIONAL))
_LOOKED_UP_BY: Final = {REQUEST_ENERGY.name: "request_id"}

ROLLED_UP_SQL: Final = (
    "CREATE TABLE IF NOT EXISTS rolled_up (resolution TEXT NOT NULL, start REAL NOT NULL, host TEXT NOT NULL,"
    " PRIMARY KEY (resolution, start, host)) STRICT, WITHOUT ROWID"
)
ROLLED_UP_OF_ALL_HOSTS_SQL: Final = "ALTER TABLE rolled_up RENAME TO rolled_up_of_all_hosts"
FORGET_HOURS_SQL: Final = (
    "DELETE FROM rolled_up WHERE resolution = 'hour' AND NOT EXISTS (SELECT 1 FROM meter_hour AS d"
    " JOIN meter_series AS s ON s.id = d.series WHERE d.time = rolled_up.start AND s.host = rolled_up.host)"
    " AND NOT EXISTS (SELECT 1 FROM usage_hour AS d"
    " JOIN usage_series AS s ON s.id = d.series WHERE d.time = rolled_up.start AND s.host = rolled_up.host)"
)


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement at one resolution."""

    measurement: Measurement
    resolution: Resolution

    @property
    def name(self) -> str:
        """`energy`, `energy_hour`, `energy_day`."""
        suffix = "" if self.resolution == "window" else f"_{self.resolution}"
        return self.measurement.name + suffix

    @property
    def series(self) -> str | None:
        """The table that holds the tags, or None where they stand in the row."""
        return f"{self.measurement.name}_series" if self.measurement.name in _INTERNED else None

    @property
    def tag_owner(self) -> str:
        """The alias of the table with the tag columns in a SELECT."""
        return "s" if self.series else "d"

    def create(self) -> list[str]:
        """Makes the table, its series and its index, where they are not yet."""
        tags = self.measurement.tags
        columns = ", ".join(f"{_quoted(name)} {kind}" for name, kind in self.columns().items())
        if self.series is None:
            keys = ", ".join(map(_quoted, ("time", *tags)))
            texts = ", ".join(f"{_quoted(tag)} TEXT NOT NULL" for tag in tags)
            table = f"{self.name} (time REAL NOT NULL, {texts}, {columns}, PRIMARY KEY ({keys}))"
            statements = [f"CREATE TABLE IF NOT EXISTS {table} STRICT, WITHOUT ROWID"]
        else:
            table = f"{self.name} (time REAL NOT NULL, series INTEGER NOT NULL, {columns}, PRIMARY KEY (time, series))"
            statements = [
                self._create_series(self.series),
                f"CREATE TABLE IF NOT EXISTS {table} STRICT, WITHOUT ROWID",
                f"CREATE INDEX IF NOT EXISTS {self.name}_of_series ON {self.name} (series, time)",
            ]
        if (tag := _LOOKED_UP_BY.get(self.measurement.name)) is not None:
            statements.append(f"CREATE INDEX IF NOT EXISTS {self.name}_of_{tag} ON {self.name} ({_quoted(tag)}, time)")
        return statements

    def _create_series(self, series: str) -> str:
        tags = ", ".join(map(_quoted, self.measurement.tags))
        texts = ", ".join(f"{_quoted(tag)} TEXT NOT NULL" for tag in self.measurement.tags)
        return (
            f"CREATE TABLE IF NOT EXISTS {series}"
            f" (id INTEGER PRIMARY KEY AUTOINCREMENT, {texts}, UNIQUE ({tags})) STRICT"
        )

    def columns(self) -> dict[str, str]:
        """The fields' columns and types. A fact keeps the type it came with: 4 stays an integer, 4.0 a float."""
        sums = dict.fromkeys(self.measurement.sums, "REAL")
        return sums | dict.fromkeys(self.measurement.facts, "ANY")

    def add_column(self, name: str) -> str:
        """For a field that points has and an older database has not: its rows do not know it (NULL)."""
        return f"ALTER TABLE {self.name} ADD COLUMN {_quoted(name)} {self.columns()[name]}"

    def insert_series(self) -> str | None:
        """To run with (time, *tags) as ?1.. before `upsert`; None where the tags stand in the row."""
        if self.series is None:
            return None
        tags = ", ".join(map(_quoted, self.measurement.tags))
        found = f"SELECT 1 FROM {self.series} WHERE {self._same_tags()}"
        values = self._marks(2, len(self.measurement.tags))
        return f"INSERT INTO {self.series} ({tags}) SELECT {values} WHERE NOT EXISTS ({found})"

    def upsert(self) -> str:
        """To run with (time, *tags, *fields) as ?1.. for each row; replaces the whole row."""
        tags, fields = self.measurement.tags, self.measurement.fields
        names = ", ".join(map(_quoted, fields))
        values = self._marks(2 + len(tags), len(fields))
        if self.series is None:
            keys = ", ".join(map(_quoted, ("time", *tags)))
            values = self._marks(1, 1 + len(tags) + len(fields))
            return f"INSERT OR REPLACE INTO {self.name} ({keys}, {names}) VALUES ({values})"
        return (
            f"INSERT OR REPLACE INTO {self.name} (time, series, {names})"
            f" SELECT ?1, id, {values} FROM {self.series} WHERE {self._same_tags()}"
        )

    def _same_tags(self) -> str:
        return " AND ".join(f"{_quoted(tag)} = ?{2 + number}" for number, tag in enumerate(self.measurement.tags))

    @staticmethod
    def _marks(first: int, count: int) -> str:
        return ", ".join(f"?{first + number}" for number in range(count))

    def select(
        self,
        start: UnixSeconds,
        end: UnixSeconds,
        where: Mapping[str, Collection[str]],
        limit: int | None,
        after: Row | None,
    ) -> tuple[str, list[object]]:
        """Rows as (time, *tags, *fields) in the order of time and tags, with what to bind."""
        owner = self.tag_owner
        order = ["d.time", *(f"{owner}.{_quoted(tag)}" for tag in self.measurement.tags)]
        columns = [*order, *(f"d.{_quoted(field)}" for field in self.measurement.fields)]
        conditions, bound = self._conditions(start, end, where)
        if after is not None:
            marks = ", ".join("?" * len(order))
            # The second condition says nothing new; it lets the search begin at that time instead of at `start`.
            conditions += [f"({', '.join(order)}) > ({marks})", "d.time >= ?"]
            bound += [after.time, *after.tags, after.time]
        text = (
            f"SELECT {', '.join(columns)} FROM {self._source()} WHERE {' AND '.join(conditions)}"
            f" ORDER BY {', '.join(order)}"
        )
        if limit is not None:
            text, bound = f"{text} LIMIT ?", [*bound, limit]
        return text, bound

    def _source(self) -> str:
        # CROSS JOIN fixes the order of the loops in SQLite: rows by time outside, so that only ties need sorting.
        return (
            f"{self.name} AS d CROSS JOIN {self.series} AS s ON s.id = d.series" if self.series else f"{self.name} AS d"
        )

    def _conditions(
        self, start: UnixSeconds, end: UnixSeconds, where: Mapping[str, Collection[str]]
    ) -> tuple[list[str], list[object]]:
        # The plus keeps SQLite from searching by time where few rows of an id are wanted out of many in the interval.
        time = "+d.time" if _LOOKED_UP_BY.get(self.measurement.name) in where else "d.time"
        conditions = [f"{time} >= ?", f"{time} < ?"]
        values: list[object] = [start, end]
        for tag, wanted in where.items():
            if tag not in self.measurement.tags:
                raise ValueError(f"{self.measurement.name} has no tag {tag!r}")
            conditions.append(f"{self.tag_owner}.{_quoted(tag)} IN ({', '.join('?' * len(wanted))})")
            values += sorted(wanted)
        return conditions, values

    def last_times(self, tag: str) -> str:
        """(value of the tag, newest time), one index search for each series."""
        if tag not in self.measurement.tags:
            raise ValueError(f"{self.measurement.name} has no tag {tag!r}")
        if self.series is None:
            return f"SELECT {_quoted(tag)}, max(time) FROM {self.name} GROUP BY 1"
        newest = f"(SELECT max(time) FROM {self.name} WHERE series = s.id)"
        return f"SELECT {_quoted(tag)}, max({newest}) FROM {self.series} AS s GROUP BY 1"

    def hosts(self) -> str:
        """The hosts with a row in [?1, ?2), one index search for each series."""
        if self.series is None:
            return f"SELECT DISTINCT host FROM {self.name} WHERE time >= ?1 AND time < ?2"
        within = f"SELECT 1 FROM {self.name} WHERE series = s.id AND time >= ?1 AND time < ?2"
        return f"SELECT DISTINCT host FROM {self.series} AS s WHERE EXISTS ({within})"

    def delete_window(self) -> str:
        """Deletes the rows of one time and host (?1, ?2)."""
        if self.series is None:
            return f"DELETE FROM {self.name} WHERE time = ?1 AND host = ?2"
        return f"DELETE FROM {self.name} WHERE time = ?1 AND series IN (SELECT id FROM {self.series} WHERE host = ?2)"


def tables() -> dict[tuple[str, Resolution], Table]:
    """All tables by measurement and resolution: the books at three, the rest at window resolution."""
    found: dict[tuple[str, Resolution], Table] = {}
    resolutions: tuple[Resolution, ...] = ("window", "hour", "day")
    for measurement in MEASUREMENTS.values():
        for resolution in resolutions if measurement in BOOKS else resolutions[:1]:
            found[measurement.name, resolution] = Table(measurement=measurement, resolution=resolution)
    return found


def rolled_up_by_host() -> list[str]:
    """Carries the marks of an older database over, which held for all hosts that have rows of that hour or day."""
    statements = []
    for resolution in ("hour", "day"):
        for measurement in BOOKS:
            name = measurement.name
            statements.append(
                "INSERT OR IGNORE INTO rolled_up (resolution, start, host)"
                " SELECT DISTINCT old.resolution, old.start, s.host FROM rolled_up_of_all_hosts AS old"
                f" JOIN {name}_{resolution} AS d ON d.time = old.start JOIN {name}_series AS s ON s.id = d.series"
                f" WHERE old.resolution = '{resolution}'"
            )
    return [*statements, "DROP TABLE rolled_up_of_all_hosts"]


def _quoted(name: str) -> str:
    return f'"{name}"'
