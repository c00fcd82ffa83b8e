"""Requests of one host as they stand in a record, schema usage.v2: columns of bytes. In: Usage. Out: UsageColumns.

Nothing is done here for one request after the other: a figure is copied from the record into the columns of the
accounting as it stands.
"""

from array import array
from collections.abc import Iterator, Sequence
from itertools import chain, repeat
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


def batch_of(host: str, parts: Sequence[Placed]) -> UsageBatch:
    """These parts of requests, all of them on that host, in their order.

    Column by column: to read one attribute of all is a few times faster than to take each apart.
    """
    labels, works = [each.labels for each in parts], [each.work for each in parts]
    worked = works.count(None) < len(works)
    said = [tuple(each.items()) for each in labels] if any(labels) else repeat(())
    units = [None if work is None else work.unit for work in works] if worked else repeat(None)
    places: dict[tuple[Any, Any, str | None], int] = {}
    place_of = places.setdefault
    keys = zip(map(_of_a_route, parts), said, units, strict=False)
    route = array("I", [place_of(key, len(places)) for key in keys])
    weights = [each.weight for each in parts]
    return UsageBatch(
        host=host,
        request_ids=tuple([each.request_id for each in parts]),
        routes=tuple(_wire_route(*key) for key in places),
        route=_little(route),
        start=_little(array("d", [each.start for each in parts])),
        end=_little(array("d", [each.end for each in parts])),
        scheduled=_told([each.scheduled for each in parts]),
        first_token=_told([each.first_token for each in parts]),
        input_tokens=_told([each.input_tokens for each in parts]),
        cached_input_tokens=_told([each.cached_input_tokens for each in parts]),
        output_tokens=_told([each.output_tokens for each in parts]),
        weight=b"" if weights.count(1.0) == len(weights) else _little(array("d", weights)),
        work_amount=_told([None if work is None else work.amount for work in works]) if worked else b"",
    )


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
