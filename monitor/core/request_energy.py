"""What a finished request used on one host, summed over the windows it touched. Pure."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, repeat
from math import fsum
from typing import NamedTuple, overload

import msgspec
import numpy as np

from collectors.requests.event import Work
from collectors.units import UnixSeconds
from monitor.core.attribution.pieces import Column
from monitor.core.points import REQUEST_ENERGY, Row
from monitor.core.shares import COLUMNS, ENERGY, EXACT, METERED, Shares
from monitor.core.usage import canonical_labels
from monitor.core.usage_columns import Index, Objects, UsageColumns, all_known, all_known_counts


class RequestEnergy(msgspec.Struct, frozen=True, gc=False):
    """A request's entry. It is (namespace, request_id, attempt, start, host); of several the highest revision counts.

    Joules are None where no window of it was measured on its devices; `measured_windows` of its `windows` were.
    `revision` is 0 for the first entry, made when the request's last window was final, else the mark (unix seconds)
    that made or restated it. A request with `weight` below 1 may have run on other hosts as well. Made with keywords,
    but by `request_energies`.
    """

    namespace: str
    request_id: str
    attempt: int
    host: str
    model: str
    team: str
    deployment: str
    labels: dict[str, str]
    status: str
    weight: float
    start: UnixSeconds
    first_token: UnixSeconds | None
    end: UnixSeconds
    input_tokens: int | None
    cached_input_tokens: int | None
    output_tokens: int | None
    work: Work | None
    energy_joules: float | None
    marginal_joules: float | None
    metered_joules: float | None
    recovered_joules: float | None
    exact_joules: float | None
    steps_joules: float | None
    learned_joules: float | None
    flop_sensitivity_joules: float | None
    byte_sensitivity_joules: float | None
    split_variance: float | None
    location_grams: float | None
    measured_ratio: float | None
    exact_ratio: float | None
    factor: str
    windows: int
    measured_windows: int
    revision: int


_by_position: Callable[..., RequestEnergy] = RequestEnergy


class Part(NamedTuple):
    """An earlier window of n requests: its shares, and where each of them stands there; -1 where it has none."""

    shares: Shares
    places: Index


class RequestEnergies(Sequence[RequestEnergy]):
    """The entries of n requests in order, as columns: each becomes a record when somebody comes to it.

    A record is 36 objects; made some hundred at a time, written and let go of, they cost half of what they cost kept.
    """

    def __init__(self, usages: UsageColumns, summed: "_Summed", windows: Index, revision: int) -> None:
        self._usages, self._summed, self._windows, self._revision = usages, summed, windows, revision

    def __len__(self) -> int:
        return len(self._usages)

    def __iter__(self) -> Iterator[RequestEnergy]:
        of_routes = self._of_routes()
        for begin in range(0, len(self), AT_ONCE):
            yield from self._made(np.arange(begin, min(begin + AT_ONCE, len(self))), of_routes)

    @overload
    def __getitem__(self, place: int) -> RequestEnergy: ...
    @overload
    def __getitem__(self, place: slice) -> list[RequestEnergy]: ...
    def __getitem__(self, place: int | slice) -> RequestEnergy | list[RequestEnergy]:
        chosen = np.arange(len(self))[place]
        made = self._made(np.atleast_1d(chosen), self._of_routes())
        return list(made) if isinstance(place, slice) else next(made)

    def _of_routes(self) -> list[Objects]:
        """What each route says, field by field."""
        columns = []
        for name in ("namespace", "attempt", "host", "model", "team", "deployment", "labels", "status", "work_unit"):
            column = np.empty(len(self._usages.routes), dtype=np.object_)
            for place, route in enumerate(self._usages.routes):
                column[place] = dict(route.labels) if name == "labels" else getattr(route, name)
            columns.append(column)
        return columns

    def _made(self, places: Index, of_routes: Sequence[Objects]) -> Iterator[RequestEnergy]:
        usages, summed = self._usages.take(places), self._summed
        namespace, attempt, host, model, team, deployment, labels, status, units = (
            column[usages.route].tolist() for column in of_routes
        )
        joules, grams = summed.joules.take(places, axis=1), summed.grams[places]
        energy, metered, exact = (joules[each] for each in (ENERGY, METERED, EXACT))
        works: Iterable[Work | None] = repeat(None)
        if units.count(None) < len(units):
            amounts = usages.work_amount.tolist()
            works = [
                None if unit is None else Work(unit=unit, amount=amount)
                for unit, amount in zip(units, amounts, strict=True)
            ]
        return map(
            _by_position,
            namespace,
            usages.request_id.tolist(),
            attempt,
            host,
            model,
            team,
            deployment,
            labels,
            status,
            usages.weight.tolist(),
            usages.start.tolist(),
            all_known(usages.first_token),
            usages.end.tolist(),
            all_known_counts(usages.input_tokens),
            all_known_counts(usages.cached_input_tokens),
            all_known_counts(usages.output_tokens),
            works,
            *map(all_known, joules),
            all_known(grams),
            _ratios(metered, energy),
            _ratios(exact, energy),
            summed.factor[places].tolist(),
            self._windows[places].tolist(),
            summed.measured_windows[places].tolist(),
            repeat(self._revision),
        )


AT_ONCE = 500
"""Entries that are records at the same time, if who takes them lets them go."""


def request_energies(last: Shares, earlier: Sequence[Part], windows: Index, revision: int) -> Sequence[RequestEnergy]:
    """The entries of n requests, from their shares in the window that they ended in and in `earlier` ones, in order.

    `windows` tells how many each touched. 3 J in one window and 4 J in the next are 7 J.
    """
    return RequestEnergies(last.usages, _Summed(last, earlier), windows, revision) if len(last) else ()


class Entries(Sequence[RequestEnergy]):
    """Entries that came together, one after the other, without a copy of any."""

    def __init__(self) -> None:
        self._parts: list[Sequence[RequestEnergy]] = []
        self._count = 0

    def add(self, entries: Sequence[RequestEnergy]) -> None:
        """Behind those that are there."""
        if entries:
            self._parts.append(entries)
            self._count += len(entries)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[RequestEnergy]:
        return chain.from_iterable(self._parts)

    @overload
    def __getitem__(self, place: int) -> RequestEnergy: ...
    @overload
    def __getitem__(self, place: slice) -> list[RequestEnergy]: ...
    def __getitem__(self, place: int | slice) -> RequestEnergy | list[RequestEnergy]:
        if isinstance(place, slice):
            return list(self)[place]
        at = range(self._count)[place]
        for part in self._parts:
            if at < len(part):
                return part[at]
            at -= len(part)
        raise IndexError(place)


class _Summed:
    """What requests used over all of their windows: joules and grams are NaN where they are not known."""

    def __init__(self, last: Shares, earlier: Sequence[Part]) -> None:
        every = np.arange(len(last), dtype=np.intp)
        self.joules, self.grams = np.zeros((COLUMNS, len(last))), np.zeros(len(last))
        self.measured_windows = np.zeros(len(last), dtype=np.int64)
        self.factor = np.full(len(last), "", dtype=np.object_)
        measured = [_measured(*part) for part in (*earlier, Part(last, every))]
        for shares, rows, there in measured:
            self.joules[:, rows] += shares.joules[:, there]
            self.grams[rows] += shares.grams[there]
            self.factor[rows] = shares.factor[there]
            self.measured_windows[rows] += 1
        self._sum_exactly(measured)
        self.joules[:, self.measured_windows == 0] = np.nan
        self.grams[self.measured_windows == 0] = np.nan

    def _sum_exactly(self, measured: Sequence[tuple[Shares, Index, Index]]) -> None:
        """Those of more than two windows; the sum of two numbers is rounded once anyway."""
        longer = self.measured_windows > 2
        told: dict[int, list[list[float]]] = {row: [] for row in longer.nonzero()[0].tolist()}
        for shares, rows, there in measured if told else ():
            wanted = longer[rows]
            values = np.vstack((shares.joules, shares.grams))[:, there[wanted]].T.tolist()
            for row, each in zip(rows[wanted].tolist(), values, strict=True):
                told[row].append(each)
        for row, windows in told.items():
            *self.joules[:, row], self.grams[row] = map(fsum, zip(*windows, strict=True))


def _measured(shares: Shares, places: Index) -> tuple[Shares, Index, Index]:
    """A window's shares, which of the requests have a measured one there, and where it stands."""
    rows = (places >= 0).nonzero()[0]
    rows = rows[shares.measured[places[rows]]]
    return shares, rows, places[rows]


def _ratios(parts: Column, wholes: Column) -> list[float | None]:
    """None of nothing, and of what is not known."""
    ratio = np.full(len(wholes), np.nan)
    np.divide(parts, wholes, out=ratio, where=wholes != 0.0)
    return all_known(ratio)


def request_row(entry: RequestEnergy) -> Row:
    """The entry as one row, at the request's end."""
    key = (entry.model, entry.team, entry.deployment, canonical_labels(entry.labels))
    return Row(
        REQUEST_ENERGY.name,
        entry.end,
        (entry.host, entry.namespace, entry.request_id, str(entry.attempt), *key),
        (
            entry.energy_joules,
            entry.marginal_joules,
            entry.metered_joules,
            entry.recovered_joules,
            entry.exact_joules,
            entry.steps_joules,
            entry.learned_joules,
            entry.flop_sensitivity_joules,
            entry.byte_sensitivity_joules,
            entry.split_variance,
            entry.location_grams,
            entry.start,
            entry.first_token,
            entry.end,
            entry.input_tokens,
            entry.cached_input_tokens,
            entry.output_tokens,
            entry.work.unit if entry.work else None,
            entry.work.amount if entry.work else None,
            entry.weight,
            entry.status,
            entry.factor,
            entry.revision,
        ),
    )
