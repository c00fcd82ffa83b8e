"""Reads the books for the gate: each joule once, at the coarsest resolution that answers. In: a store. Out: rows.

Days and hours where they are rolled up, windows elsewhere, and behind each host's last final window the provisional
rows. Nothing is added up here but the rows of one request.
"""

import heapq
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from collectors.clock import rfc3339
from collectors.units import UnixSeconds
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
from monitor.store.protocol import RESOLUTION_SECONDS, Store

_PAGE_ROWS: Final = 10_000
_REQUEST_ROWS: Final = 1_000
_Where = Mapping[str, Collection[str]]


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
        for segment in self._segments(query):
            for measurement in BOOKS:
                for row in self._rows(measurement, segment, where):
                    if segment.resolution != "window" or row.time <= final_until.get(row.tags[0], math.inf):
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

    def _segments(self, query: AllocationQuery) -> list[Segment]:
        def fits(start: UnixSeconds, end: UnixSeconds) -> bool:
            return query.step is None or (start - query.start) % query.step + (end - start) <= query.step

        days = self._store.rolled_up(query.start, query.end, "day")
        hours = self._store.rolled_up(query.start, query.end, "hour")
        found = segments(query.start, query.end, days=days, hours=hours, fits=fits)
        for segment in found:
            if segment.resolution == "window":
                self._check_kept(segment, query)
        return found

    def _check_kept(self, segment: Segment, query: AllocationQuery) -> None:
        """Part of a roll-up cannot be told once its windows are gone; then the question has to be a coarser one."""
        for resolution, seconds in RESOLUTION_SECONDS.items():
            first = segment.start // seconds * seconds
            for unit in sorted(self._store.rolled_up(first, segment.end, resolution)):
                if not self._store.read(METER, unit, unit + seconds, limit=1):
                    field = "start" if unit < query.start else "end" if unit + seconds > query.end else "step"
                    raise BadQuery(field, f"only whole {resolution}s (UTC) are kept of the time at {rfc3339(unit)}")

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
        for page in self._pages(measurement, segment, where, _PAGE_ROWS, None):
            yield from page

    def _pages(
        self,
        measurement: Measurement,
        segment: Segment,
        where: _Where,
        limit: int,
        after: Row | None,
    ) -> Iterator[list[Row]]:
        page_of = self._store.read
        while True:
            page = page_of(
                measurement,
                segment.start,
                segment.end,
                where=where,
                resolution=segment.resolution,
                limit=limit,
                after=after,
            )
            if page:
                yield page
            if len(page) < limit:
                return
            after = page[-1]

    def requests(
        self, start: UnixSeconds, end: UnixSeconds, where: _Where, after: Row | None
    ) -> Iterator[tuple[Row, RequestLine]]:
        """Each request with its first row. Memory grows with the requests in flight at once, not with the interval."""
        met: dict[RequestKey, UnixSeconds] = {}
        for page in self._pages(REQUEST_ENERGY, Segment(start, end, "window"), where, _REQUEST_ROWS, after):
            firsts: dict[RequestKey, Row] = {}
            for row in page:
                if (key := request_key(row)) not in met:
                    firsts.setdefault(key, row)
            rows = self._rows_of(firsts, start, end, where)
            for key, first in firsts.items():
                met[key] = request_end(first)
                if rows[key][0].tags == first.tags and rows[key][0].time == first.time:  # else on an earlier page
                    yield first, sum_request(rows[key], start, end)
            met = {key: ends for key, ends in met.items() if ends >= page[-1].time}

    def _rows_of(
        self,
        keys: Collection[RequestKey],
        start: UnixSeconds,
        end: UnixSeconds,
        where: _Where,
    ) -> dict[RequestKey, list[Row]]:
        if not keys:
            return {}
        ids = {"request_id": {key[1] for key in keys}}
        found: dict[RequestKey, list[Row]] = {}
        for row in self._store.read(REQUEST_ENERGY, start, end, where={**where, **ids}):
            found.setdefault(request_key(row), []).append(row)
        return found


def host_window(row: Row) -> tuple[UnixSeconds, str]:
    """The place of a row's window in the order of time and host."""
    return row.time, row.tags[0]
