"""The one gate for every reader. In: who asks, and what. Out: typed answers in pages, from the store's rows.

The gate decides what a principal may see and whether the question makes sense. Which rows are read is store/books.py's
matter, what they add up to core/allocation.py's.
"""

import base64
import binascii
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import Final, TypeVar, get_args

import msgspec

from collectors.units import UnixSeconds
from monitor.core.allocation import Allocator, window_sums
from monitor.core.allocation_lines import AllocationLine, AllocationRules, ShareIdle, is_dimension
from monitor.core.band import Gains
from monitor.core.points import (
    HOLE,
    MEASUREMENTS,
    METER,
    PROVISIONAL_METER,
    REQUEST_ENERGY,
    RESTATEMENT,
    TOO_LATE,
    Measurement,
    Row,
)
from monitor.core.questions import (
    MOST_LINES,
    AllocationPage,
    AllocationQuery,
    BadQuery,
    Denied,
    MetersPage,
    MeterWindow,
    Missing,
    Principal,
    RequestsPage,
    RequestsQuery,
    Restatement,
    Status,
    StepLine,
    TooLate,
    WindowBooks,
    WindowsPage,
    WindowsQuery,
)
from monitor.core.request_sums import RequestLine
from monitor.store.books import BooksReader, host_window
from monitor.store.protocol import Store

_REQUEST_TAGS: Final = ("host", "namespace", "request_id", "attempt", "model", "team", "deployment")
_METER_FIELDS: Final = ("energy_joules", "metered_joules", "covered_seconds", "parent")
_T = TypeVar("_T")


class Query:
    """Answers from one store. `rejected` counts dead letters by reason, None where nobody knows; `owners` maps (host,
    device) to a team. Not every store `keeps_requests`. `gains` are what meters may be off.

    Raises Denied, BadQuery, and the store's StoreUnavailable.
    """

    def __init__(
        self,
        store: Store,
        *,
        rejected: Callable[[], Mapping[str, int] | None],
        owners: Mapping[tuple[str, str], str] | None = None,
        keeps_requests: bool = True,
        gains: Gains | None = None,
    ) -> None:
        self._store = store
        self._reader = BooksReader(store)
        self._rejected = rejected
        self._keeps_requests = keeps_requests
        self._owners = owners or {}
        self._gains = gains or Gains()

    def allocation(self, principal: Principal, query: AllocationQuery) -> AllocationPage:
        """Lines by model, team, label.. with the totals of the whole interval on each page."""
        _check_allocation(query)
        filters = _with_teams(principal, query.filters)
        rules = AllocationRules(
            by=query.by,
            include_idle=query.include_idle,
            include_unattributed=query.include_unattributed,
            share_idle=query.share_idle,
            owners=self._owners,
            filters={name: wanted for name, wanted in filters.items() if name != "host"},
            gains=self._gains,
        )
        whole, steps = Allocator(rules), dict[int, Allocator]()
        for row in self._reader.books(query):
            whole.add(row)
            if query.step is not None:
                number = int((row.time - query.start) // query.step)
                steps.setdefault(number, Allocator(rules)).add(row)
        found = whole.result()
        lines = _step_lines(query, steps) if query.step is not None else [_whole(query, line) for line in found.lines]
        page, following = _page(lines, query.limit, query.after)
        return AllocationPage(
            query=query,
            lines=tuple(page),
            totals=None if principal.role == "team" else found.totals,
            idle_devices=None if principal.role == "team" else found.idle_devices,
            factors=found.factors,
            final_until=min(self._store.last_times(METER, "host").values(), default=None),
            next=following,
        )

    def windows(self, principal: Principal, query: WindowsQuery) -> WindowsPage:
        """Measured against attributed, idle and unattributed, for each host and window; from window rows alone."""
        _check_windows(principal, query)
        last = _token(query.after, tuple[float, str])
        rows = self._window_rows(query, None if last is None else last[0])
        books = (_window_books(place, list(group)) for place, group in groupby(rows, host_window))
        behind = (each for each in books if last is None or (each.time, each.host) > last)
        page = list(islice(behind, query.limit + 1))
        more = len(page) > query.limit
        page = page[: query.limit]
        return WindowsPage(windows=tuple(page), next=_make_token((page[-1].time, page[-1].host)) if more else None)

    def meters(self, principal: Principal, query: WindowsQuery) -> MetersPage:
        """What each device's meter told, window by window; children beside the meters that contain them."""
        _check_windows(principal, query)
        last = _token(query.after, tuple[float, str, str, str])
        rows = self._window_rows(query, None if last is None else last[0])
        groups = (list(group) for _, group in groupby(rows, host_window))
        meters = (each for group in groups for each in _meter_windows(group))
        page = list(islice((each for each in meters if last is None or _meter_place(each) > last), query.limit + 1))
        following = _make_token(_meter_place(page[query.limit - 1])) if len(page) > query.limit else None
        return MetersPage(meters=tuple(page[: query.limit]), next=following)

    def _window_rows(self, query: WindowsQuery, after: UnixSeconds | None) -> Iterator[Row]:
        start = query.start if after is None else max(query.start, after)
        where = {"host": query.hosts} if query.hosts else {}
        return self._reader.windows(start, query.end, where, query.include_provisional)

    def requests(self, principal: Principal, query: RequestsQuery) -> RequestsPage:
        """What each request used, added up over its windows and hosts within the interval."""
        if not self._keeps_requests:
            raise BadQuery(
                "requests",
                "are not kept in this store: set [influxdb] requests = true, or read the request-energy topic",
            )
        _check_interval(query.start, query.end)
        _check_limit(query.limit)
        for name in query.filters:
            if name not in _REQUEST_TAGS:
                raise BadQuery("filters", f"requests have no {name!r}; one of {', '.join(_REQUEST_TAGS)}")
        where = _with_teams(principal, query.filters)
        last = _token(query.after, tuple[float, list[str]])
        after = None if last is None else Row(REQUEST_ENERGY.name, last[0], tuple(last[1]), ())
        if after is not None and len(after.tags) != len(REQUEST_ENERGY.tags):
            raise BadQuery("after", "is not the `next` of a page of requests")
        found = list(islice(self._reader.requests(query.start, query.end, where, after, self._gains), query.limit + 1))
        page = found[: query.limit]
        following = _make_token((page[-1][0].time, page[-1][0].tags)) if len(found) > query.limit else None
        return RequestsPage(requests=tuple(line for _, line in page), next=following)

    def status(self, principal: Principal, since: UnixSeconds = -math.inf) -> Status:
        """How far the books are, what was rejected, and what was restated or came too late at marks from `since` on."""
        spans = {name: span for name, each in MEASUREMENTS.items() if (span := self._store.span(each)) is not None}
        hidden = principal.role == "team"
        return Status(
            spans=spans,
            final_until=self._store.last_times(METER, "host"),
            provisional_until=self._store.last_times(PROVISIONAL_METER, "host"),
            rejected=None if hidden else self._rejected_counts(),
            restatements=None if hidden else self._corrections(RESTATEMENT, Restatement, since),
            too_late=None if hidden else self._corrections(TOO_LATE, TooLate, since),
            holes=holes_of(self._store),
        )

    def _rejected_counts(self) -> dict[str, int] | None:
        counts = self._rejected()
        return None if counts is None else dict(counts)

    def _corrections(self, measurement: Measurement, kind: type[_T], since: UnixSeconds) -> tuple[_T, ...]:
        names = (*measurement.tags, *measurement.fields)
        rows = self._store.read(measurement, since, math.inf)
        values = (dict(zip(names, (*row.tags, *row.fields), strict=True)) | {"mark": row.time} for row in rows)
        return tuple(msgspec.convert(each, kind) for each in values)


def holes_of(store: Store) -> tuple[Missing, ...]:
    """What is missing in these books. Raises StoreUnavailable."""
    length, why = HOLE.fields.index("missing_seconds"), HOLE.fields.index("reason")
    found = [
        Missing(
            host=row.tags[0],
            start=row.time,
            end=row.time + float(row.fields[length] or 0.0),
            reason=str(row.fields[why] or ""),
        )
        for row in store.read(HOLE, -math.inf, math.inf)
    ]
    return tuple(sorted(found, key=lambda each: (each.start, each.host)))


def whole_allocation(query: Query, principal: Principal, allocation: AllocationQuery) -> AllocationPage:
    """All pages of an allocation as one."""
    page = query.allocation(principal, allocation)
    lines = list(page.lines)
    while page.next is not None:
        page = query.allocation(principal, msgspec.structs.replace(allocation, after=page.next))
        lines += page.lines
    return msgspec.structs.replace(page, query=allocation, lines=tuple(lines))


def every_window(query: Query, principal: Principal, windows: WindowsQuery) -> Iterator[WindowBooks]:
    """All windows, page by page, so that memory is bounded."""

    def page(after: str | None) -> tuple[Sequence[WindowBooks], str | None]:
        found = query.windows(principal, msgspec.structs.replace(windows, after=after))
        return found.windows, found.next

    return _every(page, windows.after)


def every_meter(query: Query, principal: Principal, windows: WindowsQuery) -> Iterator[MeterWindow]:
    """All meters' windows, page by page, so that memory is bounded."""

    def page(after: str | None) -> tuple[Sequence[MeterWindow], str | None]:
        found = query.meters(principal, msgspec.structs.replace(windows, after=after))
        return found.meters, found.next

    return _every(page, windows.after)


def every_request(query: Query, principal: Principal, requests: RequestsQuery) -> Iterator[RequestLine]:
    """All requests, page by page, so that memory is bounded."""

    def page(after: str | None) -> tuple[Sequence[RequestLine], str | None]:
        found = query.requests(principal, msgspec.structs.replace(requests, after=after))
        return found.requests, found.next

    return _every(page, requests.after)


def _every(page: Callable[[str | None], tuple[Sequence[_T], str | None]], after: str | None) -> Iterator[_T]:
    """The items of one page after the other; `page` gives those behind a token, and the token of the next."""
    while True:
        items, after = page(after)
        yield from items
        if after is None:
            return


def _check_allocation(query: AllocationQuery) -> None:
    _check_interval(query.start, query.end)
    _check_limit(query.limit)
    for field, names in (("by", query.by), ("filters", query.filters)):
        for name in names:
            if not is_dimension(name):
                raise BadQuery(field, f"{name!r} is none of model, team, deployment, host, device, kind, label:KEY")
    if len(set(query.by)) != len(query.by):
        raise BadQuery("by", "names a dimension twice")
    if query.share_idle not in get_args(ShareIdle):
        raise BadQuery("share_idle", f"{query.share_idle!r} is none of false, host, fleet, owner")
    if query.step is not None and not query.step > 0.0:
        raise BadQuery("step", "must be longer than 0 s")
    if query.step is not None and (query.end - query.start) / query.step > MOST_LINES:
        raise BadQuery("step", f"makes more than {MOST_LINES} steps of the interval")


def _check_windows(principal: Principal, query: WindowsQuery) -> None:
    if principal.role == "team":
        raise Denied(
            f"{principal.name} sees its own lines; the books of whole windows are for the roles read and admin"
        )
    _check_interval(query.start, query.end)
    _check_limit(query.limit)


def _check_interval(start: UnixSeconds, end: UnixSeconds) -> None:
    for field, moment in (("start", start), ("end", end)):
        if not math.isfinite(moment):
            raise BadQuery(field, "is not a moment")
    if not start < end:
        raise BadQuery("end", "must lie behind the start")


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= MOST_LINES:
        raise BadQuery("limit", f"must be 1 to {MOST_LINES}")


def _with_teams(principal: Principal, filters: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """The filters, narrowed to the teams that the principal may see."""
    if principal.role != "team":
        return dict(filters)
    asked = filters.get("team", principal.teams)
    if foreign := asked - principal.teams:
        raise Denied(f"{principal.name} may not see team {min(foreign)}")
    return {**filters, "team": asked}


def _whole(query: AllocationQuery, line: AllocationLine) -> StepLine:
    return StepLine(start=query.start, end=query.end, line=line)


def _step_lines(query: AllocationQuery, steps: Mapping[int, Allocator]) -> list[StepLine]:
    step = query.step or 0.0
    return [
        StepLine(start=query.start + number * step, end=min(query.start + (number + 1) * step, query.end), line=line)
        for number in sorted(steps)
        for line in steps[number].result().lines
    ]


def _line_place(line: StepLine) -> tuple[float, str, tuple[str, ...]]:
    # "attributed" < "idle" < "unattributed": the accounts' own order is that of their names.
    return line.start, line.line.account, line.line.key


def _page(lines: Sequence[StepLine], limit: int, after: str | None) -> tuple[list[StepLine], str | None]:
    last = _token(after, tuple[float, str, tuple[str, ...]])
    behind = [line for line in lines if last is None or _line_place(line) > last]
    page = behind[:limit]
    return page, _make_token(_line_place(page[-1])) if len(behind) > limit else None


def _window_books(place: tuple[UnixSeconds, str], rows: Sequence[Row]) -> WindowBooks:
    measured, attributed, idle, unattributed, imbalance = window_sums(rows)
    relative = abs(imbalance) / measured if measured else float(imbalance != 0.0)
    return WindowBooks(
        time=place[0],
        host=place[1],
        measured_joules=measured,
        attributed_joules=attributed,
        idle_joules=idle,
        unattributed_joules=unattributed,
        imbalance_ratio=relative,
        provisional=any(row.measurement.startswith("provisional") for row in rows),
    )


def _meter_windows(rows: Sequence[Row]) -> list[MeterWindow]:
    """The meters of one host's window, in order."""
    return sorted(
        (
            msgspec.convert(
                {
                    **dict(zip(METER.tags, row.tags, strict=True)),
                    **{name: row.fields[place] for place, name in enumerate(METER.fields) if name in _METER_FIELDS},
                    "time": row.time,
                    "provisional": row.measurement == PROVISIONAL_METER.name,
                },
                MeterWindow,
            )
            for row in rows
            if row.measurement in (METER.name, PROVISIONAL_METER.name)
        ),
        key=_meter_place,
    )


def _meter_place(meter: MeterWindow) -> tuple[UnixSeconds, str, str, str]:
    return meter.time, meter.host, meter.device, meter.kind


def _make_token(place: object) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode()


def _token(text: str | None, kind: type[_T]) -> _T | None:
    if text is None:
        return None
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(text.encode()), type=kind)
    except (msgspec.DecodeError, binascii.Error, ValueError) as error:
        raise BadQuery("after", "is not the `next` of a page") from error
