"""The store of a fleet: InfluxDB 2.x, 3.x or 1.x. In: rows. Out: rows, to any reader that has a token.

rows --> lines (influx_layout) --> Writer --> buckets --> Reader --> rows

Retention is the server's; nothing is deleted here. A window's provisional rows count only with the version that the
window's mark has, so replacing them needs no deletion either.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Final, NamedTuple

from collectors.clock import Clock, SystemClock
from collectors.units import UnixSeconds
from monitor.config.output_sections import InfluxDb
from monitor.core.points import Measurement, Row
from monitor.store.dump import dump
from monitor.store.influx_http import Server
from monitor.store.influx_layout import (
    MARK,
    ROLLED_UP,
    SECOND,
    Layout,
    layout,
    lines,
    provisional_lines,
    rolled_up_lines,
)
from monitor.store.influx_query import FIRST_NANOSECOND, LAST_NANOSECOND, Found, Reader, Where, picks
from monitor.store.influx_write import Quarantine, Writer
from monitor.store.line_protocol import nanoseconds, seconds, unstored
from monitor.store.protocol import Resolution

_PAGE_ROWS: Final = 10_000
_EVER: Final = (FIRST_NANOSECOND, LAST_NANOSECOND)
_TRIES: Final = 10
_Page = tuple[str, int]
"""A host, and the nanosecond at which its window starts."""


class _Mark(NamedTuple):
    """Which version of a window's points counts, and how many there are of it."""

    version: int
    points: int

    def of(self, found: Iterable[Found]) -> list[Found]:
        """Those that count."""
        return [each for each in found if each.version == self.version]


class InfluxStore:
    """A Store. Any number of threads may use it. Opening it asks the server nothing.

    What the server will never take, for a bad value or a time past its retention, goes to `quarantine`. With
    `[influxdb] requests = false` rows of single requests are passed by, and none are read.
    """

    def __init__(self, settings: InfluxDb, *, quarantine: Quarantine, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._server = Server(settings)
        self._writer = Writer(self._server, quarantine, self._clock)
        self._reader = Reader(self._server)
        self._version = 0

    def write(self, rows: Sequence[Row], *, resolution: Resolution = "window") -> None:
        """Returns once all rows are stored; after StoreUnavailable some may be, and are written again."""
        for part, texts in lines(rows, resolution).items():
            if part != "_requests" or self._settings.requests:
                self._writer.write(self._settings.bucket + part, texts)

    def replace_provisional(self, host: str, window_start: UnixSeconds, rows: Sequence[Row]) -> None:
        """Makes these the only provisional rows of that host and window; none takes all away."""
        self.replace_provisional_pages({(host, window_start): rows})

    def replace_provisional_pages(self, pages: Mapping[tuple[str, UnixSeconds], Sequence[Row]]) -> None:
        """The same for many hosts and windows, in few requests."""
        # Of two writers' versions neither need be the greater: a row counts if it has the mark's, whichever that is.
        self._version = max(self._version + 1, nanoseconds(self._clock.now()))
        texts = [
            text
            for (host, start), rows in pages.items()
            for text in provisional_lines(host, start, rows, self._version)
        ]
        self._writer.write(self._settings.bucket + "_provisional", texts)

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
        first = start if after is None else max(start, after.time)
        batches = self._batches(layout(measurement, resolution), first, end, where or {}, limit)
        rows = chain.from_iterable(batches)
        if after is not None:
            behind = (after.time, after.tags)
            rows = (row for row in rows if (row.time, row.tags) > behind)  # type: ignore[assignment]
        return list(islice(rows, limit))

    def stream(
        self,
        measurement: Measurement,
        start: UnixSeconds,
        end: UnixSeconds,
        *,
        where: Mapping[str, Collection[str]] | None = None,
        resolution: Resolution = "window",
    ) -> Iterator[Row]:
        """What `read` gives, bit by bit."""
        for batch in self._batches(layout(measurement, resolution), start, end, where or {}, _PAGE_ROWS):
            yield from batch

    def hosts(self, measurement: Measurement, start: UnixSeconds, end: UnixSeconds) -> frozenset[str]:
        """The hosts that have a row at window resolution with start <= time < end."""
        return frozenset(self._lasts(layout(measurement), "host", _bounds(start, end)))

    def span(
        self, measurement: Measurement, *, resolution: Resolution = "window"
    ) -> tuple[UnixSeconds, UnixSeconds] | None:
        """The times of the first and the last row, or None where there is none."""
        place = layout(measurement, resolution)
        if not self._kept(place):
            return None
        times = [time for chosen in ("first", "last") for _, time in self._chosen(chosen, place, None, _EVER)]
        return (times[0], times[1]) if times else None

    def last_times(self, measurement: Measurement, tag: str) -> dict[str, UnixSeconds]:
        """For each value of a tag, the time of its newest row at window resolution."""
        return self._lasts(layout(measurement), tag, _EVER)

    def rolled_up(
        self, start: UnixSeconds, end: UnixSeconds, resolution: Resolution
    ) -> Mapping[UnixSeconds, frozenset[str]]:
        """The starts of the hours (or days) in [start, end) that have been rolled up, each with its hosts."""
        begin, stop = _bounds(start, end)
        text = f'SELECT "done", "host" FROM "{ROLLED_UP}" WHERE time >= $begin AND time < $end AND "resolution" = $unit'
        bound = {"begin": begin, "end": stop, "unit": resolution}
        found: dict[UnixSeconds, set[str]] = {}
        for series in self._reader.ask(self._settings.bucket + "_days", text, bound, tuple[int, int, str | None]):
            for nanosecond, _, host in series.values:
                found.setdefault(seconds(nanosecond), set()).add(unstored(host or ""))
        return {unit: frozenset(hosts) for unit, hosts in found.items()}

    def mark_rolled_up(self, starts: Iterable[UnixSeconds], resolution: Resolution, hosts: Collection[str]) -> None:
        """Records that these hosts' hours (or days) have their roll-up rows."""
        self._writer.write(self._settings.bucket + "_days", rolled_up_lines(starts, resolution, hosts))

    def trim(self, now: UnixSeconds) -> int:
        """Nothing: the server deletes what is past its bucket's retention."""
        return 0

    def dump(self, measurements: Iterable[Measurement]) -> Iterator[str]:
        """Every stored row of these as a line: equal to the lines of a SQLite store that holds the same."""
        return dump(self, measurements)

    def close(self) -> None:
        """Lets go of the connections; never raises."""
        self._writer.close()
        self._server.close()

    def _kept(self, place: Layout) -> bool:
        return self._settings.requests or place.part != "_requests"

    def _bucket(self, place: Layout) -> str:
        return self._settings.bucket + place.part

    def _batches(
        self, place: Layout, start: UnixSeconds, end: UnixSeconds, where: Where, page_rows: int | None
    ) -> Iterator[list[Row]]:
        """The rows in order. A batch ends where a time ends: so rows of one time are ordered by us, however many."""
        for name in where:
            if name not in place.measurement.tags:
                raise ValueError(f"{place.measurement.name} has no tag {name!r}")
        if not self._kept(place) or not all(where.values()):
            return
        begin, stop = _bounds(start, end)
        if place.scattered:
            begin, stop = max(begin // SECOND * SECOND, FIRST_NANOSECOND), min(stop + SECOND, LAST_NANOSECOND)
        picked = picks(where, all_of_them=place.versioned)
        for found in self._pages(place, begin, stop, where, page_rows):
            rows = (each.row for each in found)
            yield sorted(
                (
                    row
                    for row in rows
                    if start <= row.time < end and (picked is None or picked(row, place.measurement.tags))
                ),
                key=_identity,
            )

    def _pages(self, place: Layout, begin: int, end: int, where: Where, page_rows: int | None) -> Iterator[list[Found]]:
        if place.versioned:
            yield self._current(place, begin, end, where)
            return
        if page_rows is None:
            yield self._fetch(place, begin, end, where)
            return
        tie = place.tie_nanoseconds
        while begin < end:
            found = self._fetch(place, begin, end, where, page_rows + 1)
            if len(found) <= page_rows:
                yield found
                return
            cut = found[-1].nanosecond // tie * tie
            last = self._fetch(place, cut, min(cut + tie, end), where)
            yield [each for each in found if each.nanosecond < cut] + last
            begin = cut + tie

    def _fetch(self, place: Layout, begin: int, end: int, where: Where, limit: int | None = None) -> list[Found]:
        return list(self._reader.rows(place, self._bucket(place), (begin, end), where, limit))

    def _current(self, place: Layout, begin: int, end: int, where: Where) -> list[Found]:
        """The provisional points that count: those with their window's version.

        A mark tells how many points its window has. Where there are not as many, the window is being replaced right
        now and is read again; not for ever, as a writer that was killed may have left it so.
        """
        hosts = {"host": where["host"]} if "host" in where else {}  # whole windows, so that they can be counted
        marks = self._marks(place, begin, end, hosts)
        found = _by_page(self._fetch(place, begin, end, hosts))
        for _ in range(_TRIES):
            torn = [page for page, mark in marks.items() if mark.points != len(mark.of(found.get(page, [])))]
            if not torn:
                break
            times = [nanosecond for _, nanosecond in torn]
            first, last = min(times), max(times) + 1
            hosts = {"host": {host for host, _ in torn}}
            newer = self._marks(place, first, last, hosts)
            fresh = _by_page(self._fetch(place, first, last, hosts))
            for page in torn:
                marks[page], found[page] = newer.get(page, marks[page]), fresh.get(page, [])
        return [each for page, mark in marks.items() for each in mark.of(found.get(page, []))]

    def _marks(self, place: Layout, begin: int, end: int, where: Where) -> dict[_Page, _Mark]:
        count = place.measurement.name
        text = f'SELECT "version", "{count}", "host" FROM "{MARK}" WHERE time >= $begin AND time < $end'
        found = self._reader.ask(
            self._bucket(place), text, {"begin": begin, "end": end}, tuple[int, int, int, str | None]
        )
        wanted = frozenset(where["host"]) if "host" in where else None
        return {
            (host, nanosecond): _Mark(version, points)
            for series in found
            for nanosecond, version, points, stored_host in series.values
            for host in (unstored(stored_host or ""),)
            if wanted is None or host in wanted
        }

    def _lasts(self, place: Layout, tag: str, bounds: tuple[int, int]) -> dict[str, UnixSeconds]:
        if tag not in place.measurement.tags:
            raise ValueError(f"{place.measurement.name} has no tag {tag!r}")
        if not self._kept(place):
            return {}
        if tag in place.texts or (place.versioned and tag != "host"):  # no series to ask: all its rows tell
            at = place.measurement.tags.index(tag)
            batches = self._batches(place, seconds(bounds[0]), seconds(bounds[1]), {}, _PAGE_ROWS)
            return {row.tags[at]: row.time for batch in batches for row in batch}
        return dict(self._chosen("last", place, tag, bounds))

    def _chosen(
        self, chosen: str, place: Layout, tag: str | None, bounds: tuple[int, int]
    ) -> Iterator[tuple[str, UnixSeconds]]:
        """The time of the first or last row, for each value of the tag."""
        name, field, condition = place.measurement.name, "unknown", "time >= $begin AND time < $end"
        if place.versioned:  # a mark tells how many rows its window has; rows without one do not count
            name, field, condition = MARK, "version", f'{condition} AND "{name}" > 0'
        elif place.scattered:
            field = "window_start"
        text = f'SELECT {chosen}("{field}") FROM "{name}" WHERE {condition}' + (f' GROUP BY "{tag}"' if tag else "")
        bound = {"begin": bounds[0], "end": bounds[1]}
        for series in self._reader.ask(self._bucket(place), text, bound, tuple[int, str | float]):
            for nanosecond, value in series.values:
                time = float(value) if place.scattered else seconds(nanosecond)
                yield unstored(series.tags.get(tag or "", "")), time


def _identity(row: Row) -> tuple[UnixSeconds, tuple[str, ...]]:
    return row.time, row.tags


def _by_page(found: Iterable[Found]) -> dict[_Page, list[Found]]:
    pages: dict[_Page, list[Found]] = {}
    for each in found:
        pages.setdefault((each.row.tags[0], each.nanosecond), []).append(each)
    return pages


def _bounds(start: UnixSeconds, end: UnixSeconds) -> tuple[int, int]:
    """Nanoseconds that the server knows: from 1677 to 2262."""
    return _bound(start), _bound(end)


def _bound(moment: UnixSeconds) -> int:
    far = LAST_NANOSECOND // SECOND
    if -far < moment < far:
        return nanoseconds(moment)
    return FIRST_NANOSECOND if moment < 0 else LAST_NANOSECOND
