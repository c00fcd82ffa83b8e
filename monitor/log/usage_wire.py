"""Requests of one host as they stand in a record, schema usage.v2: columns of bytes. In: Usage. Out: UsageBatch.

They are read into the columns of the accounting by usage_reading.py; numpy stays there, for hosts that only collect
have this module in memory, too.
"""

from array import array
from collections.abc import Iterable, Sequence
from math import isnan
from sys import byteorder
from typing import Any, Final, Literal

import msgspec

from collectors.requests.event import Work
from monitor.core.phases import NOT_PHASED, PHASE_FIGURES, PhaseDevices, Phases, phases_from
from monitor.core.usage import Placed, Usage

FIGURES: Final = (
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
UNTOLD: Final = {"weight": 1.0}
"""What a figure is that no request of a record told; others are NaN."""


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

    Where several servers worked on some of them together, `phase_devices` tells for each route on which devices this
    host did each phase, None of a route of requests that one server did alone, and the figures from `prefill_start` on
    what (phases.py). A reader that does not know these takes such a request for one that was done whole on each of its
    hosts, with its `weight` there.
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
    phase_devices: tuple[PhaseDevices | None, ...] = ()
    prefill_start: bytes = b""
    prefill_end: bytes = b""
    prefill_weight: bytes = b""
    decode_start: bytes = b""
    decode_end: bytes = b""
    decode_weight: bytes = b""

    def __len__(self) -> int:
        return len(self.request_ids)

    def names(self) -> list[tuple[str, str, int]]:
        """(namespace, request_id, attempt) of each, in order."""
        routes = [self.routes[place] for place in _numbers("I", self.route)]
        told = zip(routes, self.request_ids, strict=True)
        return [(route.namespace, request_id, route.attempt) for route, request_id in told]

    def usages(self) -> tuple[Usage, ...]:
        """Each request as a record of its own, in order."""
        figures = (self._figure(name) for name in FIGURES)
        phases = zip(*map(self._figure, PHASE_FIGURES), strict=True)
        return tuple(map(self._usage, self.request_ids, _numbers("I", self.route), phases, *figures))

    def _figure(self, name: str) -> Sequence[float]:
        told: bytes = getattr(self, name)
        return _numbers("d", told) if told else [UNTOLD.get(name, _NAN)] * len(self)

    def _usage(self, request_id: str, place: int, phases: Sequence[float], *figures: float) -> Usage:
        start, end, scheduled, first, told, cached, made, weight, amount = figures
        route = self.routes[place]
        return Usage(
            request_id=request_id,
            model=route.model,
            start=start,
            end=end,
            namespace=route.namespace,
            team=route.team,
            host=self.host,
            devices=route.devices,
            deployment=route.deployment,
            attempt=route.attempt,
            scheduled=None if isnan(scheduled) else scheduled,
            first_token=None if isnan(first) else first,
            input_tokens=None if isnan(told) else int(told),
            cached_input_tokens=None if isnan(cached) else int(cached),
            output_tokens=None if isnan(made) else int(made),
            work=None if route.work_unit is None else Work(unit=route.work_unit, amount=amount),
            labels=dict(sorted(route.labels.items())),
            status=route.status,
            weight=weight,
            phases=phases_from(self.phase_devices[place], phases) if self.phase_devices else None,
        )


def check_whole(batch: UsageBatch) -> None:
    """Every column is as long as the requests are many. Raises msgspec.ValidationError: then nothing in it is told."""
    count = len(batch.request_ids)
    for name in FIGURES + PHASE_FIGURES:
        size = len(getattr(batch, name))
        if size != 8 * count and (size or name in ("start", "end")):
            raise msgspec.ValidationError(f"{name} has {size} bytes, {count} requests have {8 * count}")
    if len(batch.route) != 4 * count:
        raise msgspec.ValidationError(f"route has {len(batch.route)} bytes, {count} requests have {4 * count}")
    if len(batch.phase_devices) not in (0, len(batch.routes)):
        raise msgspec.ValidationError(f"phase_devices has {len(batch.phase_devices)} of {len(batch.routes)} routes")
    if count and (most := max(_numbers("I", batch.route))) >= len(batch.routes):
        raise msgspec.ValidationError(f"a request is of route {most}, there are {len(batch.routes)}")


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
        self._phases: dict[int, Phases] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, part: Placed) -> None:
        """A Usage or an event that is of this host."""
        # Attribute by attribute: that is a third of the price of an attrgetter, and this is done for every request.
        labels, work = part.labels, part.work
        if (phases := part.phases) is not None:
            self._phases[len(self._rows)] = phases
        key = (
            part.namespace,
            part.model,
            part.team,
            part.deployment,
            part.devices,
            tuple(labels.items()) if labels else (),
            part.status,
            part.attempt,
            None if work is None else work.unit,
            None if phases is None else phases.devices,
        )
        self._route.append(self._routes.setdefault(key, len(self._routes)))
        self._rows.append(
            (
                part.request_id,
                part.start,
                part.end,
                part.scheduled,
                part.first_token,
                part.input_tokens,
                part.cached_input_tokens,
                part.output_tokens,
                part.weight,
                work,
            )
        )

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
            routes=tuple([_wire_route(known[place]) for place in used]),
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
            **self._phased(begin, end, [known[place] for place in used]),
        )

    def _phased(self, begin: int, end: int, routes: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
        """What the batch tells of phases: nothing where one server did each of its requests alone."""
        if not any(begin <= place < end for place in self._phases):
            return {}
        told = [self._phases[place].figures if place in self._phases else NOT_PHASED for place in range(begin, end)]
        columns = (_little(array("d", column)) for column in zip(*told, strict=True))
        devices = tuple(route[-1] for route in routes)
        return {"phase_devices": devices, **dict(zip(PHASE_FIGURES, columns, strict=True))}


def batch_of(host: str, parts: Iterable[Placed]) -> UsageBatch:
    """These parts of requests, all of them on that host, in their order."""
    gathered = HostParts(host)
    for part in parts:
        gathered.add(part)
    return gathered.batch(0, len(gathered))


def _wire_route(key: tuple[Any, ...]) -> WireRoute:
    namespace, model, team, deployment, devices, labels, status, attempt, unit, _ = key
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


def _numbers(kind: Literal["I", "d"], told: bytes) -> Any:
    """Little-endian uint32 or float64 as numbers."""
    values = array(kind, told)
    if byteorder == "big":
        values.byteswap()
    return values
