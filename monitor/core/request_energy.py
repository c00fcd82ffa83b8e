"""What a finished request used on one host, summed over the windows it touched. Pure."""

from collections.abc import Callable, Sequence
from math import fsum
from typing import NamedTuple

import msgspec
import numpy as np

from collectors.requests.event import Work
from collectors.units import UnixSeconds
from monitor.core.attribution.pieces import Column
from monitor.core.points import REQUEST_ENERGY, Row
from monitor.core.shares import COLUMNS, ENERGY, EXACT, METERED, Shares
from monitor.core.usage import canonical_labels
from monitor.core.usage_columns import Index, all_known, all_known_counts


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


def request_energies(last: Shares, earlier: Sequence[Part], windows: Index, revision: int) -> list[RequestEnergy]:
    """The entries of n requests, from their shares in the window that they ended in and in `earlier` ones, in order.

    `windows` tells how many each touched. 3 J in one window and 4 J in the next are 7 J.
    """
    if not len(last):
        return []
    summed = _Summed(last, earlier)
    usages = last.usages
    energy, metered, exact = (summed.joules[each] for each in (ENERGY, METERED, EXACT))
    joules = list(map(all_known, summed.joules))
    of_routes = usages.of_routes
    works: list[Work | None] = [None] * len(last)
    if any(route.work_unit is not None for route in usages.routes):
        units = of_routes(lambda route: route.work_unit)
        amounts = usages.work_amount.tolist()
        works = [
            None if unit is None else Work(unit=unit, amount=amount)
            for unit, amount in zip(units, amounts, strict=True)
        ]
    columns = (
        of_routes(lambda route: route.namespace),
        usages.request_id.tolist(),
        of_routes(lambda route: route.attempt),
        of_routes(lambda route: route.host),
        of_routes(lambda route: route.model),
        of_routes(lambda route: route.team),
        of_routes(lambda route: route.deployment),
        of_routes(lambda route: dict(route.labels)),
        of_routes(lambda route: route.status),
        usages.weight.tolist(),
        usages.start.tolist(),
        all_known(usages.first_token),
        usages.end.tolist(),
        all_known_counts(usages.input_tokens),
        all_known_counts(usages.cached_input_tokens),
        all_known_counts(usages.output_tokens),
        works,
        *joules,
        all_known(summed.grams),
        _ratios(metered, energy),
        _ratios(exact, energy),
        summed.factor.tolist(),
        windows.tolist(),
        summed.measured_windows.tolist(),
        [revision] * len(last),
    )
    return list(map(_by_position, *columns))


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
