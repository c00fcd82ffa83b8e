"""Reads the books for the gate: each joule once, at the coarsest resolution that answers. In: a store. Out: rows.

Days and hours where they are rolled up, windows elsewhere, and behind each host's last final window the provisional
rows. Nothing is added up here but the rows of one request.
"""

import heapq
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from collectors.clock import rfc3339
from collectors.units import SECONDS_PER_HOUR, UnixSeconds
from monitor.core.band import Gains
from monitor.core.points import (
    BOOKS,
    ENERGY,
    METER,
    PROVISIONAL,
    PROVISIONAL_ENERGY,
    PROVISIONAL_METER,
    PROVISIONAL_USAGE,
    REQUEST_ENERGY,
    USAGE,
    Measurement,
    Row,
)
from monitor.core.questions import AllocationQuery, BadQuery
from monitor.core.request_sums import RequestKey, RequestLine, request_end, request_key, sum_request
from monitor.core.resolution import Segment, segments
from monitor.store.protocol import RESOLUTION_SECONDS, Resolution, Store

_REQUEST_ROWS: Final = 1_000
_Where = Mapping[str, Collection[str]]
_NONE: Final[frozenset[str]] = frozenset()


class _Part(NamedTuple):
    """A stretch at one resolution, of some hosts or of all (None); `read_finer` are read in other parts instead."""

    segment: Segment
    hosts: frozenset[str] | None
    read_finer: frozenset[str] = _NONE


class _Plan:
    """Which rows to read for which hosts: roll-ups of those that have them, finer rows of the others.

    Hosts are rolled up by different hands, so of an hour some may have a roll-up while others have none yet. Where all
    agree, which is the usual case, there is one plan for all.
    """

    def __init__(
        self,
        store: Store,
        fits: Callable[[UnixSeconds, UnixSeconds], bool],
        final_until: Mapping[str, UnixSeconds],
    ) -> None:
        self._store, self._fits, self._final_until = store, fits, final_until
        self._known = frozenset(final_until)

    def parts(
        self,
        start: UnixSeconds,
        end: UnixSeconds,
        hosts: frozenset[str] | None,
        resolutions: Sequence[Resolution],
    ) -> Iterator[_Part]:
        """Parts that cover [start, end) once for each host, at no coarser resolution than these."""
        marks: dict[Resolution, dict[UnixSeconds, frozenset[str]]] = {"day": {}, "hour": {}}
        found = gaps = [Segment(start, end, "window")]
        for resolution in resolutions:  # hours are asked for only where no day answers
            for gap in gaps:
                marks[resolution] |= self._marks(gap, hosts, resolution)
            found = segments(start, end, days=marks["day"], hours=marks["hour"], fits=self._fits)
            gaps = [each for each in found if each.resolution == "window"]
        for segment in found:
            if segment.resolution == "window":
                yield _Part(segment, hosts)
            else:
                yield from self._rolled_up(segment, hosts, marks[segment.resolution])

    def _marks(
        self, gap: Segment, hosts: frozenset[str] | None, resolution: Resolution
    ) -> dict[UnixSeconds, frozenset[str]]:
        marks = self._store.rolled_up(gap.start, gap.end, resolution)
        if hosts is None:
            return dict(marks)
        return {unit: marked & hosts for unit, marked in marks.items() if marked & hosts}

    def _rolled_up(
        self, segment: Segment, hosts: frozenset[str] | None, marks: Mapping[UnixSeconds, frozenset[str]]
    ) -> Iterator[_Part]:
        seconds = RESOLUTION_SECONDS[segment.resolution]
        wanted = self._known if hosts is None else hosts & self._known
        begun = unit = segment.start
        while unit < segment.end:
            if finer := self._without(wanted - marks[unit], unit, unit + seconds):
                if begun < unit:
                    yield _Part(Segment(begun, unit, segment.resolution), hosts)
                begun = unit + seconds
                yield _Part(Segment(unit, begun, segment.resolution), hosts, finer)
                yield from self.parts(unit, begun, finer, ("hour",) if segment.resolution == "day" else ())
            unit += seconds
        if begun < segment.end:
            yield _Part(Segment(begun, segment.end, segment.resolution), hosts)

    def _without(self, unmarked: frozenset[str], start: UnixSeconds, end: UnixSeconds) -> frozenset[str]:
        """Those hosts that have windows there at all."""
        if not any(self._final_until[host] >= start for host in unmarked):
            return _NONE
        return unmarked & _present(self._store, start, end)


class BooksReader:
    """Raises BadQuery where the rows that an answer needs are no longer kept, and the store's StoreUnavailable."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def books(self, query: AllocationQuery) -> Iterator[Row]:
        """All rows of the interval, each joule once.

        Provisional rows are read first and held against what is final afterwards: a window that becomes final
        meanwhile is then counted as final, neither twice nor not at all.
        """
        where = {"host": query.filters["host"]} if "host" in query.filters else {}
        provisional = self._provisional(query.start, query.end, where) if query.include_provisional else []
        final_until = self.final_until()
        yield from (row for row in provisional if row.time > final_until.get(row.tags[0], -math.inf))
        for part in self._parts(query, where, final_until):
            narrowed = where if part.hosts is None else {"host": part.hosts}
            for measurement in BOOKS:
                for row in self._rows(measurement, part.segment, narrowed):
                    host = row.tags[0]
                    if part.segment.resolution != "window":
                        if host not in part.read_finer:
                            yield row
                    elif row.time <= final_until.get(host, math.inf):
                        yield row

    def final_until(self) -> dict[str, UnixSeconds]:
        """The start of each host's newest final window: metered, or with no more than a request that ended in it."""
        return self._last_times(METER, USAGE)

    def _last_times(self, *measurements: Measurement) -> dict[str, UnixSeconds]:
        last: dict[str, UnixSeconds] = {}
        for measurement in measurements:
            for host, time in self._store.last_times(measurement, "host").items():
                last[host] = max(time, last.get(host, -math.inf))
        return last

    def _parts(self, query: AllocationQuery, where: _Where, final_until: Mapping[str, UnixSeconds]) -> Iterator[_Part]:
        """What to read for the interval, of which hosts."""

        def fits(start: UnixSeconds, end: UnixSeconds) -> bool:
            return query.step is None or (start - query.start) % query.step + (end - start) <= query.step

        hosts = frozenset(where["host"]) if "host" in where else None
        plan = _Plan(self._store, fits, final_until)
        for part in plan.parts(query.start, query.end, hosts, ("day", "hour")):
            if part.segment.resolution == "window":
                self._check_kept(part, query)
            yield part

    def _check_kept(self, part: _Part, query: AllocationQuery) -> None:
        """Part of a roll-up cannot be told once its windows are gone; then the question has to be a coarser one.

        Windows go by their age: where the oldest are kept, the others are.
        """
        end = part.segment.end
        for resolution, seconds in RESOLUTION_SECONDS.items():
            marks = self._store.rolled_up(part.segment.start // seconds * seconds, end, resolution)
            for unit in sorted(marks):
                if not (marked := marks[unit] if part.hosts is None else marks[unit] & part.hosts):
                    continue
                if not marked <= _present(self._store, unit, unit + seconds):
                    field = "start" if unit < query.start else "end" if unit + seconds > query.end else "step"
                    raise BadQuery(field, f"only whole {resolution}s (UTC) are kept of the time at {rfc3339(unit)}")
                break

    def _provisional(self, start: UnixSeconds, end: UnixSeconds, where: _Where) -> list[Row]:
        """Provisional rows of hosts that have some behind their last final window, in the order of time and host."""
        final, newest = self.final_until(), self._last_times(PROVISIONAL_METER, PROVISIONAL_USAGE)
        ahead = {host for host, time in newest.items() if time > final.get(host, -math.inf)}
        hosts = ahead & set(where["host"]) if "host" in where else ahead
        if not hosts:
            return []
        first = max(start, min(final.get(host, -math.inf) for host in hosts))
        rows = (self._store.read(each, first, end, where={"host": hosts}) for each in PROVISIONAL)
        return sorted((row for each in rows for row in each), key=host_window)

    def windows(self, start: UnixSeconds, end: UnixSeconds, where: _Where, include_provisional: bool) -> Iterator[Row]:
        """Energy and meter rows of windows, in the order of time and host."""
        provisional = self._provisional(start, end, where) if include_provisional else []
        final_until = self.final_until()
        window = Segment(start, end, "window")
        final = [
            (row for row in self._rows(each, window, where) if row.time <= final_until.get(row.tags[0], math.inf))
            for each in (METER, ENERGY)
        ]
        names = (PROVISIONAL_METER.name, PROVISIONAL_ENERGY.name)
        later = (
            row
            for row in provisional
            if row.measurement in names and row.time > final_until.get(row.tags[0], -math.inf)
        )
        return heapq.merge(*final, later, key=host_window)

    def _rows(self, measurement: Measurement, segment: Segment, where: _Where) -> Iterator[Row]:
        start, end = segment.start, segment.end
        return self._store.stream(measurement, start, end, where=where, resolution=segment.resolution)

    def _request_pages(
        self, start: UnixSeconds, end: UnixSeconds, where: _Where, after: Row | None
    ) -> Iterator[list[Row]]:
        while True:
            page = self._store.read(REQUEST_ENERGY, start, end, where=where, limit=_REQUEST_ROWS, after=after)
            if page:
                yield page
            if len(page) < _REQUEST_ROWS:
                return
            after = page[-1]

    def requests(
        self, start: UnixSeconds, end: UnixSeconds, where: _Where, after: Row | None, gains: Gains
    ) -> Iterator[tuple[Row, RequestLine]]:
        """Each request with its first row. Memory grows with the requests in flight at once, not with the interval."""
        met: dict[RequestKey, UnixSeconds] = {}
        for page in self._request_pages(start, end, where, after):
            firsts: dict[RequestKey, Row] = {}
            for row in page:
                if (key := request_key(row)) not in met:
                    firsts.setdefault(key, row)
            rows = self._rows_of(firsts, start, end, where)
            for key, first in firsts.items():
                met[key] = request_end(first)
                if rows[key][0].tags == first.tags and rows[key][0].time == first.time:  # else on an earlier page
                    yield first, sum_request(rows[key], start, end, gains)
            met = {key: ends for key, ends in met.items() if ends >= page[-1].time}

    def _rows_of(
        self, firsts: Mapping[RequestKey, Row], start: UnixSeconds, end: UnixSeconds, where: _Where
    ) -> dict[RequestKey, list[Row]]:
        """All rows of these requests within [start, end): in the windows from their start to their end."""
        if not firsts:
            return {}
        began = [float(key[3]) if isinstance(key[3], int | float) else start for key in firsts]
        start = max(start, min(began) - SECONDS_PER_HOUR)  # no window is longer
        end = min(end, math.nextafter(max(map(request_end, firsts.values())), math.inf))
        ids = {"request_id": {key[1] for key in firsts}}
        found: dict[RequestKey, list[Row]] = {}
        for row in self._store.read(REQUEST_ENERGY, start, end, where={**where, **ids}):
            found.setdefault(request_key(row), []).append(row)
        return found


def _present(store: Store, start: UnixSeconds, end: UnixSeconds) -> frozenset[str]:
    """The hosts with windows there, metered or with no more than a request that ended."""
    return store.hosts(METER, start, end) | store.hosts(USAGE, start, end)


def host_window(row: Row) -> tuple[UnixSeconds, str]:
    """The place of a row's window in the order of time and host."""
    return row.time, row.tags[0]
