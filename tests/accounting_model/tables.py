"""What a store holds, in memory, with the handle through which a member writes: a Store."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from math import inf

from monitor.core.points import MEASUREMENTS, PROVISIONAL, Measurement, Row
from monitor.store.protocol import Resolution

Tags = tuple[str, ...]


class Tables:
    """What outlives every member: rows by time and tags, for each measurement and resolution."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, Resolution], dict[float, dict[Tags, Row]]] = {}
        self.rolled_up: set[tuple[Resolution, float, str]] = set()

    def put(self, rows: Iterable[Row], resolution: Resolution) -> None:
        """Each in the place of the row of its identity."""
        for row in rows:
            table = self.rows.setdefault((row.measurement, resolution), {})
            table.setdefault(row.time, {})[row.tags] = row


class MemoryStore:
    """A member's hand on the tables: a Store that keeps everything."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def write(self, rows: Sequence[Row], *, resolution: Resolution = "window") -> None:
        """Stores all rows or none."""
        for row in rows:
            measurement = MEASUREMENTS[row.measurement]
            if (len(row.tags), len(row.fields)) != (len(measurement.tags), len(measurement.fields)):
                raise ValueError(f"cannot bind {row}")
        self._tables.put(rows, resolution)

    def replace_provisional(self, host: str, window_start: float, rows: Sequence[Row]) -> None:
        """Makes these the only provisional rows of that host and window."""
        self.replace_provisional_pages({(host, window_start): rows})

    def replace_provisional_pages(self, pages: Mapping[tuple[str, float], Sequence[Row]]) -> None:
        """The same for many (host, window start) at once."""
        for (host, window_start), rows in pages.items():
            for measurement in PROVISIONAL:
                at = self._tables.rows.get((measurement.name, "window"), {}).get(window_start, {})
                for tags in [tags for tags in at if tags[0] == host]:
                    del at[tags]
            self._tables.put(rows, "window")

    def read(
        self,
        measurement: Measurement,
        start: float,
        end: float,
        *,
        where: Mapping[str, Collection[str]] | None = None,
        resolution: Resolution = "window",
        limit: int | None = None,
        after: Row | None = None,
    ) -> list[Row]:
        """Rows of [start, end) in the order of (time, tags)."""
        if unknown := (where or {}).keys() - set(measurement.tags):
            raise ValueError(f"{measurement.name} has no tag {unknown.pop()!r}")
        wanted = [(measurement.tags.index(tag), set(values)) for tag, values in (where or {}).items()]
        table = self._tables.rows.get((measurement.name, resolution), {})
        found = [
            table[time][tags]
            for time in sorted(time for time in table if start <= time < end)
            for tags in sorted(table[time])
            if all(tags[place] in values for place, values in wanted)
        ]
        if after is not None:
            found = [row for row in found if (row.time, row.tags) > (after.time, after.tags)]
        return found[:limit]

    def stream(
        self,
        measurement: Measurement,
        start: float,
        end: float,
        *,
        where: Mapping[str, Collection[str]] | None = None,
        resolution: Resolution = "window",
    ) -> Iterator[Row]:
        """What `read` gives."""
        yield from self.read(measurement, start, end, where=where, resolution=resolution)

    def hosts(self, measurement: Measurement, start: float, end: float) -> frozenset[str]:
        """The hosts that have a row there."""
        table = self._tables.rows.get((measurement.name, "window"), {})
        return frozenset(tags[0] for time, rows in table.items() if start <= time < end for tags in rows)

    def span(self, measurement: Measurement, *, resolution: Resolution = "window") -> tuple[float, float] | None:
        """The times of the first and the last row."""
        rows = self.read(measurement, -inf, inf, resolution=resolution)
        return (rows[0].time, rows[-1].time) if rows else None

    def last_times(self, measurement: Measurement, tag: str) -> dict[str, float]:
        """For each value of a tag, the time of its newest row."""
        place = measurement.tags.index(tag)
        return {row.tags[place]: row.time for row in self.read(measurement, -inf, inf)}

    def rolled_up(self, start: float, end: float, resolution: Resolution) -> dict[float, frozenset[str]]:
        """The starts in [start, end) that have been rolled up, each with its hosts."""
        found: dict[float, set[str]] = {}
        for name, at, host in self._tables.rolled_up:
            if name == resolution and start <= at < end:
                found.setdefault(at, set()).add(host)
        return {at: frozenset(found[at]) for at in sorted(found)}

    def mark_rolled_up(self, starts: Iterable[float], resolution: Resolution, hosts: Collection[str]) -> None:
        """Records that these have their roll-up rows."""
        self._tables.rolled_up |= {(resolution, start, host) for start in starts for host in hosts}

    def trim(self, now: float) -> int:
        """Nothing goes."""
        return 0

    def close(self) -> None:
        """Nothing to let go of."""
