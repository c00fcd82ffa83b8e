"""Requests as columns: what the accounting does for every request it does without a loop over them.

In: Usage records. Out: columns of numbers, and for each request the place of its `Route`, which many have in common.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from collectors.requests.event import Work
from collectors.units import UnixSeconds
from monitor.core.attribution.pieces import Column, Flags
from monitor.core.phases import NOT_PHASED, PHASE_FIGURES, PhaseDevices, phases_from
from monitor.core.usage import Identity, Usage, canonical_labels

Index = NDArray[np.intp]
Objects = NDArray[np.object_]
Key = tuple[str, str, str, str]
"""model, team, deployment, labels"""


class Route(NamedTuple):
    """Everything about a request but who it is, when it ran and how much it did."""

    host: str
    namespace: str
    attempt: int
    model: str
    team: str
    deployment: str
    devices: tuple[str, ...] | None
    labels: tuple[tuple[str, str], ...]
    """Sorted by name."""
    status: str
    work_unit: str | None
    phases: PhaseDevices | None = None
    """None where one server did all of it."""

    @property
    def key(self) -> Key:
        """Whose it is: its rows' tags."""
        return self.model, self.team, self.deployment, canonical_labels(dict(self.labels))


@dataclass(frozen=True, eq=False, slots=True)
class UsageColumns:
    """n requests. `number` tells them apart within a book, in the order in which they came; `log_time` is where each
    stands in the log, in the same order.

    `figures` has a row of length n for each of `FIGURES`; NaN where an event did not tell. A token count is at most
    2^53, so it is exact. Behind those it has PHASE_FIGURES where other than whole requests may be among them, NaN of
    whole ones. `routes` may hold more than are used.
    """

    number: Index
    log_time: Column
    request_id: Objects
    route: Index
    routes: Sequence[Route]
    figures: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.number)

    @property
    def start(self) -> Column:
        """Unix seconds."""
        return self._figure(_START)

    @property
    def end(self) -> Column:
        """Unix seconds; may equal `start`."""
        return self._figure(_END)

    @property
    def active_start(self) -> Column:
        """When an engine began to work on it."""
        scheduled = self._figure(_SCHEDULED)
        return np.where(np.isnan(scheduled), self.start, scheduled)

    @property
    def scheduled_told(self) -> Flags:
        """Whether an event told when that was: itself, or by a prefill that began after the request came."""
        told: Flags = ~np.isnan(self._figure(_SCHEDULED))
        return told if self.phases is None else told | (self.phases[0] > self.start)

    @property
    def first_token(self) -> Column:
        """Unix seconds, NaN where it was not told."""
        return self._figure(_FIRST_TOKEN)

    @property
    def weight(self) -> Column:
        """In (0, 1]."""
        return self._figure(_WEIGHT)

    @property
    def input_tokens(self) -> Column:
        """NaN where they were not told, as with the other counts."""
        return self._figure(_INPUT)

    @property
    def cached_input_tokens(self) -> Column:
        """Among the input tokens."""
        return self._figure(_CACHED)

    @property
    def output_tokens(self) -> Column:
        """Those that were made."""
        return self._figure(_OUTPUT)

    @property
    def work_amount(self) -> Column:
        """In the unit of its route; NaN where there is none."""
        return self._figure(_WORK)

    @property
    def phases(self) -> NDArray[np.float64] | None:
        """A row for each of PHASE_FIGURES; None where all are whole requests."""
        return self.figures[FIGURES:] if len(self.figures) > FIGURES else None

    def take(self, chosen: Index | Flags) -> "UsageColumns":
        """Those of these places, in that order."""
        places = places_in(chosen)
        return UsageColumns(
            self.number[places],
            self.log_time[places],
            self.request_id[places],
            self.route[places],
            self.routes,
            self.figures.take(places, axis=1),
        )

    def of_their_own(self, chosen: Index) -> "UsageColumns":
        """Those of these places, in that order, with no other routes than theirs: work on routes is theirs alone."""
        taken = self if len(chosen) == len(self) else self.take(chosen)
        is_used = np.bincount(taken.route, minlength=len(taken.routes)) > 0
        if is_used.all():
            return taken
        routes = [taken.routes[place] for place in np.flatnonzero(is_used).tolist()]
        route = (np.cumsum(is_used) - 1)[taken.route]
        return UsageColumns(taken.number, taken.log_time, taken.request_id, route, routes, taken.figures)

    def by_host(self) -> Iterator[tuple[str, Index]]:
        """Each host, and the places of its requests in order."""
        hosts = list(dict.fromkeys(route.host for route in self.routes))
        if len(hosts) == 1:
            yield hosts[0], np.arange(len(self))
            return
        places = {host: place for place, host in enumerate(hosts)}
        whose = np.array([places[route.host] for route in self.routes], dtype=np.intp)[self.route]
        order = np.argsort(whose, kind="stable")
        begins = np.searchsorted(whose[order], np.arange(len(hosts) + 1)).tolist()
        for host, begin, end in zip(hosts, begins, begins[1:], strict=False):
            if begin < end:
                yield host, order[begin:end]

    def of_routes(self, said: Callable[[Route], object]) -> list[Any]:
        """What this says of the route of each; asked once for each route."""
        told = np.empty(len(self.routes), dtype=np.object_)
        for place, route in enumerate(self.routes):
            told[place] = said(route)
        return list(told[self.route].tolist())

    def where(self, holds: Callable[[Route], bool]) -> Flags:
        """Which have a route for which this holds; asked once for each route."""
        return np.array([holds(route) for route in self.routes], dtype=np.bool_)[self.route]

    def usages(self) -> Iterator[Usage]:
        """They as records again, in order."""
        return map(self.usage, range(len(self)))

    def usage(self, place: int) -> Usage:
        """One of them as a record again."""
        route = self.routes[self.route[place]]
        start, end, scheduled, first, told, cached, made, weight, amount, *phases = self.figures[:, place].tolist()
        return Usage(
            request_id=self.request_id[place],
            model=route.model,
            start=start,
            end=end,
            namespace=route.namespace,
            team=route.team,
            host=route.host,
            devices=route.devices,
            deployment=route.deployment,
            attempt=route.attempt,
            scheduled=known(scheduled),
            first_token=known(first),
            input_tokens=known_count(told),
            cached_input_tokens=known_count(cached),
            output_tokens=known_count(made),
            work=None if route.work_unit is None else Work(unit=route.work_unit, amount=amount),
            labels=dict(route.labels),
            status=route.status,
            weight=weight,
            phases=phases_from(route.phases, phases),
        )

    def identity(self, place: int) -> Identity:
        """Who one of them is."""
        route = self.routes[self.route[place]]
        return Identity(route.host, route.namespace, self.request_id[place], route.attempt)

    def equals(self, other: "UsageColumns") -> bool:
        """Whether both say the same of the same requests, in the same order, wherever they stand."""
        return (
            np.array_equal(self.figures[:FIGURES], other.figures[:FIGURES], equal_nan=True)
            and np.array_equal(_phases_in(self), _phases_in(other), equal_nan=True)
            and np.array_equal(self.request_id, other.request_id)
            and all(
                self.routes[mine] == other.routes[theirs]
                for mine, theirs in set(zip(self.route.tolist(), other.route.tolist(), strict=True))
            )
        )

    def _figure(self, row: int) -> Column:
        figure: Column = self.figures[row]
        return figure


FIGURES = 9
_START, _END, _SCHEDULED, _FIRST_TOKEN, _INPUT, _CACHED, _OUTPUT, _WEIGHT, _WORK = range(FIGURES)
NO_USAGES = UsageColumns(
    np.empty(0, np.intp), np.empty(0), np.empty(0, np.object_), np.empty(0, np.intp), (), np.empty((FIGURES, 0))
)


def columns_of(
    usages: Sequence[Usage], first_number: int = 0, log_times: Sequence[UnixSeconds] | None = None
) -> UsageColumns:
    """These usages, whose figures are sane (`check_usage`), numbered from there on; at log time 0 if nothing is told.

    Labels in another order are the same labels.
    """
    if not usages:
        return NO_USAGES
    (ids, models, starts, ends, namespaces, teams, hosts, devices, deployments, attempts, *rest) = zip(
        *map(msgspec.structs.astuple, usages), strict=True
    )
    scheduled, first_tokens, inputs, cached, outputs, works, labels, statuses, weights, phases = rest
    phased = phases.count(None) < len(phases)
    on = [each and each.devices for each in phases] if phased else phases
    worked = works.count(None) < len(works)
    units = [work and work.unit for work in works] if worked else works
    amounts = [work and work.amount for work in works] if worked else works
    said = [tuple(each.items()) if each else () for each in labels]
    places: dict[tuple[object, ...], int] = {}
    place_of = places.setdefault
    keys = zip(hosts, namespaces, attempts, models, teams, deployments, devices, said, statuses, units, on, strict=True)
    route = np.array([place_of(key, len(places)) for key in keys], dtype=np.intp)
    figures = [starts, ends, scheduled, first_tokens, inputs, cached, outputs, weights, amounts]
    if phased:
        figures += zip(*(NOT_PHASED if each is None else each.figures for each in phases), strict=True)
    return UsageColumns(
        np.arange(first_number, first_number + len(ids), dtype=np.intp),
        np.zeros(len(ids)) if log_times is None else np.array(log_times, dtype=np.float64),
        np.array(ids, dtype=np.object_),
        route,
        [_route(key) for key in places],
        np.array(figures, dtype=np.float64),
    )


def _route(said: tuple[object, ...]) -> Route:
    route = Route(*said)  # type: ignore[arg-type]  # the order is that of the zip above
    return route._replace(labels=tuple(sorted(route.labels))) if len(route.labels) > 1 else route


def joined(parts: Sequence[UsageColumns]) -> UsageColumns:
    """All of these, one after the other."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return NO_USAGES
    places: dict[Route, int] = {}
    codes = [
        np.array([places.setdefault(route, len(places)) for route in part.routes], dtype=np.intp)[part.route]
        for part in parts
    ]
    return UsageColumns(
        np.concatenate([part.number for part in parts]),
        np.concatenate([part.log_time for part in parts]),
        np.concatenate([part.request_id for part in parts]),
        np.concatenate(codes),
        list(places),
        np.concatenate(_alike([part.figures for part in parts]), axis=1),
    )


def _alike(figures: list[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """All of them with as many rows as the one that has the most."""
    rows = max(map(len, figures))
    return [
        each if len(each) == rows else np.concatenate((each, np.full((rows - len(each), each.shape[1]), np.nan)))
        for each in figures
    ]


def _phases_in(usages: UsageColumns) -> NDArray[np.float64]:
    return np.full((len(PHASE_FIGURES), len(usages)), np.nan) if usages.phases is None else usages.phases


def known(value: float) -> float | None:
    """None for NaN."""
    return None if value != value else value  # noqa: PLR0124 - NaN alone differs from itself


def known_count(value: float) -> int | None:
    """None for NaN, else a whole number."""
    return None if value != value else int(value)  # noqa: PLR0124


def told_or_nothing(column: Column) -> Column:
    """The values, 0 for NaN."""
    return np.where(np.isnan(column), 0.0, column)


def all_known(column: Column) -> list[float | None]:
    """The values, None for NaN."""
    return _with_none(column, column)


def all_known_counts(column: Column) -> list[int | None]:
    """Whole numbers, None for NaN."""
    return _with_none(np.nan_to_num(column, nan=0.0).astype(np.int64), column)


def _with_none(values: NDArray[Any], told: Column) -> list[Any]:
    """The values, None where NaN was told."""
    untold = np.isnan(told)
    if not untold.any():
        return list(values.tolist())
    if untold.all():
        return [None] * len(values)
    objects = values.astype(np.object_)
    objects[untold] = None
    return list(objects.tolist())


def places_in(chosen: Index | Flags) -> Index:
    """The places that these flags choose; places are themselves. Taking by places is the faster of the two."""
    return np.flatnonzero(chosen) if chosen.dtype == np.bool_ else np.asarray(chosen, dtype=np.intp)
