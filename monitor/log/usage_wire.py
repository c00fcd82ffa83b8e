"""Requests of one host as they stand in a record, schema usage.v2: columns of bytes. In: Usage. Out: UsageColumns.

Nothing is done here for one request after the other: a figure is copied from the record into the columns of the
accounting as it stands.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from operator import attrgetter
from sys import byteorder
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from collectors.units import UnixSeconds
from monitor.core.attribution.pieces import Column
from monitor.core.usage import Placed, Usage
from monitor.core.usage_columns import NO_USAGES, Route, UsageColumns

_FIGURES: Final = (
    "start",
    "end",
    "scheduled",
    "first_token",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "weight",
    "work_amount",
)
"""In the order of the rows of `UsageColumns.figures`."""
_NAN: Final = float("nan")
_FIGURE: Final = np.dtype("<f8")
_PLACE: Final = np.dtype("<u4")
_UNTOLD: Final = {"weight": 1.0}
"""What a figure is that no request of a record told; others are NaN."""
_WORK: Final = _FIGURES.index("work_amount")


class WireRoute(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """A `Route` without its host."""

    namespace: str
    model: str
    team: str
    deployment: str = ""
    devices: tuple[str, ...] | None = None
    labels: dict[str, str] = {}
    status: str = "ok"
    attempt: int = 0
    work_unit: str | None = None


class UsageBatch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The parts of n requests on one host.

    `route` are n little-endian uint32, places in `routes`; every figure n little-endian float64, NaN where an event did
    not tell, or no bytes where none told (a `weight` is 1 then). Two requests have 8 bytes of `route`, 16 of `start`.
    """

    host: str
    request_ids: tuple[str, ...]
    routes: tuple[WireRoute, ...]
    route: bytes
    start: bytes
    end: bytes
    scheduled: bytes = b""
    first_token: bytes = b""
    input_tokens: bytes = b""
    cached_input_tokens: bytes = b""
    output_tokens: bytes = b""
    weight: bytes = b""
    work_amount: bytes = b""

    def __len__(self) -> int:
        return len(self.request_ids)

    def names(self) -> list[tuple[str, str, int]]:
        """(namespace, request_id, attempt) of each, in order."""
        routes = [self.routes[place] for place in np.frombuffer(self.route, _PLACE).tolist()]
        told = zip(routes, self.request_ids, strict=True)
        return [(route.namespace, request_id, route.attempt) for route, request_id in told]

    def usages(self) -> tuple[Usage, ...]:
        """Each request as a record of its own, in order."""
        return tuple(columns_of_batches([self]).usages())


def check_whole(batch: UsageBatch) -> None:
    """Every column is as long as the requests are many. Raises msgspec.ValidationError: then nothing in it is told."""
    count = len(batch.request_ids)
    for name in _FIGURES:
        size = len(getattr(batch, name))
        if size != 8 * count and (size or name in ("start", "end")):
            raise msgspec.ValidationError(f"{name} has {size} bytes, {count} requests have {8 * count}")
    if len(batch.route) != 4 * count:
        raise msgspec.ValidationError(f"route has {len(batch.route)} bytes, {count} requests have {4 * count}")
    if count and (most := int(np.frombuffer(batch.route, _PLACE).max())) >= len(batch.routes):
        raise msgspec.ValidationError(f"a request is of route {most}, there are {len(batch.routes)}")


_of_a_route: Final = attrgetter("namespace", "model", "team", "deployment", "devices", "status", "attempt")
_of_its_own: Final = attrgetter(
    "request_id",
    "start",
    "end",
    "scheduled",
    "first_token",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "weight",
    "work",
)


class HostParts:
    """Parts of requests on one host on their way into records, in the order in which they come.

    Of each only its own figures are kept, and the place of its route: an ingest that held on to events would spend
    more on memory than on decoding them.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._rows: list[tuple[Any, ...]] = []
        self._routes: dict[tuple[Any, ...], int] = {}
        self._route: list[int] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, part: Placed) -> None:
        """A Usage or an event that is of this host."""
        labels, work = part.labels, part.work
        said = tuple(labels.items()) if labels else ()
        key = (_of_a_route(part), said, None if work is None else work.unit)
        self._route.append(self._routes.setdefault(key, len(self._routes)))
        self._rows.append(_of_its_own(part))

    def batch(self, begin: int, end: int) -> UsageBatch:
        """Those of the places from `begin` up to `end`, with no other routes than theirs."""
        if begin == end:
            return UsageBatch(host=self._host, request_ids=(), routes=(), route=b"", start=b"", end=b"")
        ids, starts, ends, scheduled, first_tokens, inputs, cached, outputs, weights, works = zip(
            *self._rows[begin:end], strict=True
        )
        used: dict[int, int] = {}
        route = array("I", [used.setdefault(place, len(used)) for place in self._route[begin:end]])
        known = list(self._routes)
        worked = works.count(None) < len(works)
        return UsageBatch(
            host=self._host,
            request_ids=ids,
            routes=tuple([_wire_route(*known[place]) for place in used]),
            route=_little(route),
            start=_little(array("d", starts)),
            end=_little(array("d", ends)),
            scheduled=_told(scheduled),
            first_token=_told(first_tokens),
            input_tokens=_told(inputs),
            cached_input_tokens=_told(cached),
            output_tokens=_told(outputs),
            weight=b"" if weights.count(1.0) == len(weights) else _little(array("d", weights)),
            work_amount=_told([None if work is None else work.amount for work in works]) if worked else b"",
        )


def batch_of(host: str, parts: Iterable[Placed]) -> UsageBatch:
    """These parts of requests, all of them on that host, in their order."""
    gathered = HostParts(host)
    for part in parts:
        gathered.add(part)
    return gathered.batch(0, len(gathered))


def _wire_route(fixed: tuple[Any, ...], labels: tuple[tuple[str, str], ...], unit: str | None) -> WireRoute:
    namespace, model, team, deployment, devices, status, attempt = fixed
    return WireRoute(namespace, model, team, deployment, devices, dict(labels), status, attempt, unit)


def _told(values: Sequence[Any]) -> bytes:
    """A figure that events need not tell: no bytes where none did."""
    if (untold := values.count(None)) == len(values):
        return b""
    return _little(array("d", [_NAN if each is None else each for each in values] if untold else values))


def _little(values: "array[float] | array[int]") -> bytes:
    if byteorder == "big":
        values.byteswap()
    return values.tobytes()


def columns_of_batches(
    batches: Sequence[UsageBatch], first_number: int = 0, log_times: Sequence[UnixSeconds] | None = None
) -> UsageColumns:
    """All requests of these, one after the other, numbered from there on; a batch has one log time, 0 if none is told.

    The batches are whole (`check_whole`). Labels in another order are the same labels.
    """
    counts = [len(batch.request_ids) for batch in batches]
    if not (total := sum(counts)):
        return NO_USAGES
    figures = np.empty((len(_FIGURES), total))
    for row, name in enumerate(_FIGURES):
        figures[row] = _figure([getattr(batch, name) for batch in batches], counts, _UNTOLD.get(name, _NAN))
    places: dict[Route, int] = {}
    global_places = np.array([places.setdefault(route, len(places)) for route in _routes(batches)], dtype=np.intp)
    begins = np.cumsum([0, *(len(batch.routes) for batch in batches[:-1])])
    route = np.frombuffer(b"".join([batch.route for batch in batches]), _PLACE) + np.repeat(begins, counts)
    ids = list(chain.from_iterable([batch.request_ids for batch in batches]))
    columns = UsageColumns(
        np.arange(first_number, first_number + total, dtype=np.intp),
        np.zeros(total) if log_times is None else np.repeat(np.array(log_times, dtype=np.float64), counts),
        np.array(ids, dtype=np.object_),
        global_places[route],
        list(places),
        figures,
    )
    if any(batch.work_amount for batch in batches):
        figures[_WORK, columns.where(lambda each: each.work_unit is None)] = np.nan  # an amount of nothing
    return columns


def _figure(said: Sequence[bytes], counts: Sequence[int], untold: float) -> Column | float:
    if not any(said):
        return untold
    if not all(said):
        said = [each or np.full(count, untold, _FIGURE).tobytes() for each, count in zip(said, counts, strict=True)]
    told: NDArray[np.float64] = np.frombuffer(b"".join(said), _FIGURE)
    return told


def _routes(batches: Sequence[UsageBatch]) -> Iterator[Route]:
    for batch in batches:
        for each in batch.routes:
            labels = tuple(sorted(each.labels.items()) if len(each.labels) > 1 else each.labels.items())
            yield Route(
                batch.host,
                each.namespace,
                each.attempt,
                each.model,
                each.team,
                each.deployment,
                each.devices,
                labels,
                each.status,
                each.work_unit,
            )
