"""The virtual-energy integral: one device's measured joules, split among the requests that were active on it.

Power P(t) is what the readings tell, laid out in time by shape.py; N(t) is the weight of the active requests. Each has
marginal energy of its own; what is left of the measured power is shared equally by those active at that moment, because
one engine step serves them all. With V(t) = integral of (P - marginal) / N, a request pays its marginals plus V(end) -
V(start): one sort and one cumulative sum for all requests, like virtual time in fair queueing. Where the marginals
exceed what was measured within 2 s they are scaled down. So the shares add up to the meter, whatever the
coefficients; those only decide who pays. For an affine step cost this is the Shapley value: a/n for the step's fixed
cost plus one's own part.

In: columns of numbers (seconds relative to the window's start, joules). Out: columns of joules. No Python loop per
request.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np

from monitor.core.attribution.engines import shared_out
from monitor.core.attribution.pieces import Column, Flags, Pieces, Places
from monitor.core.attribution.requests import Requests, rates_of, stacked
from monitor.core.attribution.shape import Placed, Readings, gathered, loose, settled, spans_of, stretches

LEAST_OF_THE_GREATEST = 1e-7
"""Of the greatest rate of own joules in a window: below it a sum that went up and down again is its rounding."""
LEAST_RATE = 1e-100
"""Watts, or tokens a second: of less, scaled up to what was measured, a float knows no factor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """Readings of one device inside one window: disjoint, sorted by start. Length r each.

    `watts` is a reading's energy over its own duration, `lasts_seconds`, which may reach beyond the window; `recovered`
    and `modelled` tell its method.
    """

    start: Column
    end: Column
    watts: Column
    lasts_seconds: Column
    recovered: Flags
    modelled: Flags


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """Which part of a device's work was that of processes that serve no requests. Length f each.

    Disjoint intervals, sorted by start; `ratio` in 0-1. Outside of them none is known.
    """

    start: Column
    end: Column
    ratio: Column


NOBODY_ELSE = Foreign(start=np.empty(0), end=np.empty(0), ratio=np.empty(0))
NOWHERE: tuple[Column, Column] = (np.empty(0), np.empty(0))


@dataclass(frozen=True, slots=True)
class Quiet:
    """Joules that no request pays; how many were not modelled (metered), how many come from a hole (recovered)."""

    energy: float
    metered: float
    recovered: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Joules of each request (length n) and of the quiet time. sum(energy) + idle + the reasons above it = the meter.

    Of `energy`: `marginal` was placed by the request's own tokens, `exact` was used while it, whole, was the only one
    that could have been there, `metered` was not modelled, `recovered` comes from a hole in the readings. Above idle:
    `gap` was recovered, `unknown_device` met a request of unknown device, `other_process` is the part of processes that
    serve none, `unreported` is the rest.
    """

    energy: Column
    marginal: Column
    exact: Column
    metered: Column
    recovered: Column
    idle: Quiet
    gap: Quiet
    unknown_device: Quiet
    other_process: Quiet
    unreported: Quiet


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What one device's energy in a window is split from; see `split`."""

    meter: Meter
    requests: Requests
    idle_watts: float | None
    elsewhere: tuple[Column, Column]
    perhaps: tuple[Column, Column] = NOWHERE
    foreign: Foreign = NOBODY_ELSE
    limit_watts: float | None = None


def split(
    meter: Meter,
    requests: Requests,
    *,
    length_seconds: float,
    idle_watts: float | None,
    shares_idle: bool,
    elsewhere: tuple[Column, Column],
    perhaps: tuple[Column, Column] = NOWHERE,
    foreign: Foreign = NOBODY_ELSE,
    limit_watts: float | None = None,
    rest_equally: bool = True,
) -> Split:
    """Splits one device's energy in the window [0, length_seconds).

    `idle_watts` None: nobody knows, nothing counts as above idle. `shares_idle`: a busy GPU is its requests', idle
    part included; of CPU, DRAM and node (False) only what exceeds idle power is shared. `elsewhere`: starts and ends of
    requests on this host of which nobody knows the device. `perhaps`: from when to when one may have been active whose
    start is estimated; nobody was alone then for certain. `foreign` has its part of what exceeds idle power: on a GPU
    (`shares_idle`) while no request is active, elsewhere beside requests too. `limit_watts` is what the device can draw
    at most, None if unknown. `rest_equally`: who pays what own tokens leave (methods.py).

    Worked, one reading of 10 s: 300 W, idle 50 W, one request over [0, 4), another over [2, 6), no marginals: 0-2 s
    600 J to the first, 2-4 s 300 J each, 4-6 s 600 J to the second, 6-10 s 200 J idle and 1 000 J above it.

    Marginals are settled and scaled down within 2 s, or within a longer reading (shape.py). Without idle power, or with
    a limit below what was measured, nothing moves within a reading; without a limit everything above quiet does.
    """
    window = Window(
        meter=meter,
        requests=requests,
        idle_watts=idle_watts,
        elsewhere=elsewhere,
        perhaps=perhaps,
        foreign=foreign,
        limit_watts=limit_watts,
    )
    return split_each([window], length_seconds=length_seconds, shares_idle=shares_idle, rest_equally=rest_equally)[0]


def split_each(
    windows: Sequence[Window], *, length_seconds: float, shares_idle: bool, rest_equally: bool = True
) -> list[Split]:
    """`split` of several devices' same window, to the same bits: many short columns would cost more than a long one.

    Devices whose requests tell engines' steps are split one by one.
    """
    found: dict[int, Split] = {}
    together = [place for place, each in enumerate(windows) if each.requests.steps is None]
    alone = [[place] for place, each in enumerate(windows) if each.requests.steps is not None]
    for places in ([together] if together else []) + alone:
        chosen = [windows[place] for place in places]
        timeline = _Timeline(chosen, length_seconds, shares_idle=shares_idle, rest_equally=rest_equally)
        found.update(zip(places, timeline.splits(), strict=True))
    return [found[place] for place in range(len(windows))]


class _Timeline:
    """Devices' windows in pieces: what each holds (joules = idle + above + shared), and what is paid of it."""

    def __init__(
        self, windows: Sequence[Window], length_seconds: float, *, shares_idle: bool, rest_equally: bool
    ) -> None:
        self._requests = stacked([each.requests for each in windows])
        self._pieces = Pieces(length_seconds, [_edges(each) for each in windows])
        _, _, self._start, self._first, self._end, *intervals = self._pieces.places
        self._count = self._pieces.running(1.0, self._start, self._end)
        self.somewhere = self._within(*intervals[:2])
        self._perhaps = self._within(*intervals[2:4])
        self._readings = list(pairwise(accumulate((len(each.meter.start) for each in windows), initial=0)))
        self._windows = windows
        self._meter = _meters([each.meter for each in windows])
        self._measure()
        others = self._ratio(shares_idle)
        if shares_idle:
            self._gather(others)
        self._divide(shares_idle, others)
        meter = self._meter
        self._price(spans_of(meter.start, meter.recovered, meter.modelled), rest_equally)

    def _within(self, begun: Places, ended: Places) -> Flags:
        """Which pieces lie in some of these intervals."""
        within: Flags = np.zeros(len(self._count), dtype=np.bool_)
        return self._pieces.running(1.0, begun, ended) > 0 if len(begun) else within

    def _measure(self) -> None:
        """Joules of each piece, and the method they were come by."""
        at, meter = self._pieces.starts, self._meter
        self._taken: Flags = (self._count > 0) | self.somewhere
        self.joules: Column = np.zeros_like(at)
        self._reading: Places = np.zeros(len(at), dtype=np.intp)
        self.recovered = self.modelled = self._covered = np.zeros(len(at), dtype=np.bool_)
        if len(meter.start) == 0:
            return
        self._covered = np.zeros(len(at), dtype=np.bool_)
        for (begin, end), (first, last) in zip(self._pieces.bounds, self._readings, strict=True):
            self._reading[begin:end] = min(first, len(meter.start) - 1)
            if first < last:
                reading = np.searchsorted(meter.start[first:last], at[begin:end], side="right") - 1
                self._covered[begin:end] = (reading >= 0) & (at[begin:end] < meter.end[first:last][reading])
                self._reading[begin:end] += np.maximum(reading, 0)
        self.joules = np.where(self._covered, meter.watts[self._reading] * self._pieces.seconds, 0.0)
        if meter.recovered.any():
            self.recovered = self._covered & meter.recovered[self._reading]
        if meter.modelled.any():
            self.modelled = self._covered & meter.modelled[self._reading]

    def _ratio(self, shares_idle: bool) -> Column:
        """Which part of each piece's work was other processes'; of what came out of a hole nobody knows it."""
        at = self._pieces.starts
        ratio = np.zeros_like(at)
        for (begin, end), window in zip(self._pieces.bounds, self._windows, strict=True):
            foreign = window.foreign
            if len(foreign.start):
                place = np.searchsorted(foreign.start, at[begin:end], side="right") - 1
                known = (place >= 0) & (at[begin:end] < foreign.end[place]) & ~self.recovered[begin:end]
                known = known & ~self._taken[begin:end] if shares_idle else known
                ratio[begin:end] = np.where(known, foreign.ratio[place], 0.0)
        return ratio

    def _gather(self, others: Column) -> None:
        """What readings of about a second hold above quiet, to where somebody was active in them."""
        meter = self._meter
        may_move = loose(meter.lasts_seconds, meter.recovered)
        idle, limit, device = (np.zeros(len(meter.start)) for _ in range(3))
        for number, ((first, last), window) in enumerate(zip(self._readings, self._windows, strict=True)):
            if window.idle_watts is None:
                may_move[first:last] = False
            else:
                idle[first:last] = window.idle_watts
            limit[first:last] = np.inf if window.limit_watts is None else window.limit_watts
            device[first:last] = number
        if may_move.any():
            placed = Placed(self.joules, self._pieces.seconds, self._reading, self._covered, self._taken, others)
            self.joules = gathered(placed, Readings(meter.watts, may_move, device, idle, limit))

    def _divide(self, shares_idle: bool, others: Column) -> None:
        """What is idle, what is other processes', what active requests share, what exceeds idle while none is."""
        busy = self._count > 0
        floor = self.joules.copy()
        for (begin, end), window in zip(self._pieces.bounds, self._windows, strict=True):
            if window.idle_watts is not None:
                most = window.idle_watts * self._pieces.seconds[begin:end]
                np.minimum(floor[begin:end], most, out=floor[begin:end])
        self.idle = np.where(busy, 0.0, floor) if shares_idle else floor
        more = self.joules - self.idle
        self.other = more * others
        self._shared = np.where(busy, more - self.other, 0.0)
        self.above = np.where(busy, 0.0, more - self.other)

    def _price(self, spans: Places, rest_equally: bool) -> None:
        """How far the requests' own rates must be scaled down not to exceed what was measured, and what is left."""
        self._rates = rates = rates_of(self._requests)
        weight, running = self._requests.weight, self._pieces.running
        base = running(weight * rates.prefill, self._start, self._first)
        base += running(weight * rates.base, self._first, self._end)
        slope = running(weight * rates.slope, self._first, self._end)
        self._half_squares = self._pieces.differences(self._pieces.edges**2) / 2.0
        self._pays = self._owns = self._covered & (self._count > 0)
        if not rest_equally:  # what is scaled up must not be the rounding of greater rates that are over
            has_price = running((rates.prefill > 0.0).astype(np.float64), self._start, self._first)
            has_price += running(((rates.base != 0.0) | (rates.slope > 0.0)).astype(np.float64), self._first, self._end)
            least = np.repeat(
                [max(LEAST_OF_THE_GREATEST * base[begin:end].max(), LEAST_RATE) for begin, end in self._pieces.bounds],
                [end - begin for begin, end in self._pieces.bounds],
            )
            self._owns = self._pays & (has_price > 0.0) & (base > least)
        priced = np.where(self._owns, np.maximum(base * self._pieces.seconds + slope * self._half_squares, 0.0), 0.0)
        span = spans[self._reading] if len(spans) else self._reading
        stretch = stretches(span, self._pieces.edges, self._start, self._end)
        self._scale, left = settled(self._shared, priced, stretch, rest_equally=rest_equally)
        self._paid = self._scale * priced + left
        self._left = shared_out(left, self._pays & (left > 0.0), self._requests, self._pieces)

    def splits(self) -> list[Split]:
        """Of each device, in order."""
        hole, somewhere = self.recovered, self.somewhere
        energy, marginal = self._charge(None)
        exact = self._exact()
        metered = self._charge(~self.modelled)[0] if self._meter.modelled.any() else energy
        recovered = self._charge(hole)[0] if self._meter.recovered.any() else np.zeros_like(energy)
        quiet = zip(
            self._quiet(self.idle, None),
            self._quiet(self.above, hole),
            self._quiet(self.above, ~hole & somewhere),
            self._quiet(self.other, None),
            self._quiet(self.above, ~hole & ~somewhere),
            strict=True,
        )
        places = pairwise(accumulate((len(each.requests) for each in self._windows), initial=0))
        return [
            Split(
                energy=energy[begin:end],
                marginal=marginal[begin:end],
                exact=exact[begin:end],
                metered=metered[begin:end],
                recovered=recovered[begin:end],
                idle=idle,
                gap=gap,
                unknown_device=unknown_device,
                other_process=other_process,
                unreported=unreported,
            )
            for (begin, end), (idle, gap, unknown_device, other_process, unreported) in zip(places, quiet, strict=True)
        ]

    def _charge(self, pieces: Flags | None) -> tuple[Column, Column]:
        """What each request pays for those pieces, None: for all: (all of it, its own marginal part)."""
        over, rates, weight = self._pieces.over, self._rates, self._requests.weight
        scale = np.where(self._owns if pieces is None else pieces & self._owns, self._scale, 0.0)
        paid = self._pieces.totals(scale * self._pieces.seconds)
        until_first = paid[self._first]
        own = rates.prefill * (until_first - paid[self._start])
        own += rates.base * (paid[self._end] - until_first)
        own += rates.slope * over(scale * self._half_squares, self._first, self._end)
        equal = np.zeros_like(own)
        for members, per_weight in self._left:
            values = per_weight if pieces is None else np.where(pieces, per_weight, 0.0)
            equal[members] = over(values, self._start[members], self._end[members])
        return weight * (own + equal), weight * own

    def _exact(self) -> Column:
        """What was measured while a request was alone, as far as it paid it: no coefficient decides that it was its.

        One that a balancer may have sent elsewhere never knows, and nobody does while one may have begun already.
        """
        alone = (self._count == 1) & ~self.somewhere & ~self._perhaps
        if not alone.any():
            return np.zeros(len(self._requests))
        paid = np.where(alone, np.minimum(self._paid, self._shared), 0.0)
        return np.where(self._requests.weight == 1.0, self._pieces.over(paid, self._start, self._end), 0.0)

    def _quiet(self, joules: Column, pieces: Flags | None) -> list[Quiet]:
        """The sum of those pieces' joules, None: of all, for each device."""
        if (pieces is not None and not pieces.any()) or not joules.any():
            return [Quiet(0.0, 0.0, 0.0)] * len(self._windows)
        chosen = joules if pieces is None else np.where(pieces, joules, 0.0)
        total = self._sums(chosen)
        metered = self._sums(np.where(self.modelled, 0.0, chosen)) if self.modelled.any() else total
        holes = self._sums(np.where(self.recovered, chosen, 0.0)) if self.recovered.any() else [0.0] * len(total)
        return list(map(Quiet, total, metered, holes))

    def _sums(self, joules: Column) -> list[float]:
        return [float(each.sum()) for each in self._pieces.of_each(joules)]


def _edges(window: Window) -> tuple[Column, ...]:
    meter, requests, foreign = window.meter, window.requests, window.foreign
    return (
        meter.start,
        meter.end,
        requests.start,
        requests.first,
        requests.end,
        *window.elsewhere,
        *window.perhaps,
        foreign.start,
        foreign.end,
        *(() if requests.steps is None else (requests.steps.edges,)),
    )


def _meters(parts: Sequence[Meter]) -> Meter:
    """All of their readings, one meter's after the other's."""
    if len(parts) == 1:
        return parts[0]
    return Meter(
        start=np.concatenate([each.start for each in parts]),
        end=np.concatenate([each.end for each in parts]),
        watts=np.concatenate([each.watts for each in parts]),
        lasts_seconds=np.concatenate([each.lasts_seconds for each in parts]),
        recovered=np.concatenate([each.recovered for each in parts]),
        modelled=np.concatenate([each.modelled for each in parts]),
    )
