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

from dataclasses import dataclass

import numpy as np

from monitor.core.attribution.engines import shared_out
from monitor.core.attribution.pieces import Column, Flags, Pieces, Places
from monitor.core.attribution.requests import Requests, rates_of
from monitor.core.attribution.shape import Placed, Readings, gathered, loose, settled, spans_of, stretches

LEAST_OF_THE_GREATEST = 1e-7
"""Of the greatest rate of own joules in a window: below it a sum that went up and down again is its rounding."""


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


def split(
    meter: Meter,
    requests: Requests,
    *,
    length_seconds: float,
    idle_watts: float | None,
    shares_idle: bool,
    elsewhere: tuple[Column, Column],
    foreign: Foreign = NOBODY_ELSE,
    limit_watts: float | None = None,
    rest_equally: bool = True,
) -> Split:
    """Splits one device's energy in the window [0, length_seconds).

    `idle_watts` None: nobody knows, nothing counts as above idle. `shares_idle`: a busy GPU is its requests', idle
    part included; of CPU, DRAM and node (False) only what exceeds idle power is shared. `elsewhere`: starts and ends of
    requests on this host of which nobody knows the device. `foreign` has its part of what exceeds idle power: on a GPU
    (`shares_idle`) while no request is active, elsewhere beside requests too. `limit_watts` is what the device can draw
    at most, None if unknown. `rest_equally`: who pays what own tokens leave (methods.py).

    Worked, one reading of 10 s: 300 W, idle 50 W, one request over [0, 4), another over [2, 6), no marginals: 0-2 s
    600 J to the first, 2-4 s 300 J each, 4-6 s 600 J to the second, 6-10 s 200 J idle and 1 000 J above it.

    Marginals are settled and scaled down within 2 s, or within a longer reading (shape.py). Without idle power, or with
    a limit below what was measured, nothing moves within a reading; without a limit everything above quiet does.
    """
    timeline = _Timeline(
        meter,
        requests,
        elsewhere,
        foreign,
        length_seconds=length_seconds,
        idle_watts=idle_watts,
        shares_idle=shares_idle,
        limit_watts=limit_watts,
        rest_equally=rest_equally,
    )
    everything = np.ones(len(timeline.joules), dtype=np.bool_)
    energy, marginal = timeline.charge(everything)
    hole, somewhere = timeline.recovered, timeline.somewhere
    return Split(
        energy=energy,
        marginal=marginal,
        exact=timeline.exact(),
        metered=timeline.charge(~timeline.modelled)[0] if meter.modelled.any() else energy,
        recovered=timeline.charge(hole)[0] if meter.recovered.any() else np.zeros_like(energy),
        idle=timeline.quiet(timeline.idle, everything),
        gap=timeline.quiet(timeline.above, hole),
        unknown_device=timeline.quiet(timeline.above, ~hole & somewhere),
        other_process=timeline.quiet(timeline.other, everything),
        unreported=timeline.quiet(timeline.above, ~hole & ~somewhere),
    )


class _Timeline:
    """One device's window in pieces: what each holds (joules = idle + above + shared), and what is paid of it."""

    def __init__(
        self,
        meter: Meter,
        requests: Requests,
        elsewhere: tuple[Column, Column],
        foreign: Foreign,
        *,
        length_seconds: float,
        idle_watts: float | None,
        shares_idle: bool,
        limit_watts: float | None,
        rest_equally: bool,
    ) -> None:
        self._requests = requests
        self._pieces = Pieces(
            length_seconds,
            meter.start,
            meter.end,
            requests.start,
            requests.first,
            requests.end,
            *elsewhere,
            foreign.start,
            foreign.end,
            *(() if requests.steps is None else (requests.steps.edges,)),
        )
        _, _, self._start, self._first, self._end, begun, ended, *_ = self._pieces.places
        self._count = self._pieces.running(np.ones(len(requests)), self._start, self._end)
        self.somewhere: Flags = np.zeros(len(self._count), dtype=np.bool_)
        if len(begun):
            self.somewhere = self._pieces.running(np.ones(len(begun)), begun, ended) > 0
        self._measure(meter)
        others = self._ratio(foreign, shares_idle)
        if shares_idle and idle_watts is not None and len(meter.start):
            self._gather(meter, others, idle_watts, limit_watts)
        self._divide(idle_watts, shares_idle, others)
        self._price(spans_of(meter.start, meter.recovered, meter.modelled), rest_equally)

    def _measure(self, meter: Meter) -> None:
        """Joules of each piece, and the method they were come by."""
        at = self._pieces.starts
        self._taken: Flags = (self._count > 0) | self.somewhere
        self.joules: Column = np.zeros_like(at)
        self._reading: Places = np.zeros(len(at), dtype=np.intp)
        self.recovered = self.modelled = self._covered = np.zeros(len(at), dtype=np.bool_)
        if len(meter.start) == 0:
            return
        reading = np.searchsorted(meter.start, at, side="right") - 1
        self._covered = covered = (reading >= 0) & (at < meter.end[reading])
        self._reading = np.maximum(reading, 0)
        self.joules = np.where(covered, meter.watts[reading] * self._pieces.seconds, 0.0)
        self.recovered = covered & meter.recovered[reading]
        self.modelled = covered & meter.modelled[reading]

    def _ratio(self, foreign: Foreign, shares_idle: bool) -> Column:
        """Which part of each piece's work was other processes'; of what came out of a hole nobody knows it."""
        at = self._pieces.starts
        if not len(foreign.start):
            return np.zeros_like(at)
        place = np.searchsorted(foreign.start, at, side="right") - 1
        known = (place >= 0) & (at < foreign.end[place]) & ~self.recovered
        return np.where(known & ~self._taken if shares_idle else known, foreign.ratio[place], 0.0)

    def _gather(self, meter: Meter, others: Column, idle_watts: float, limit_watts: float | None) -> None:
        """What readings of about a second hold above quiet, to where somebody was active in them."""
        placed = Placed(self.joules, self._pieces.seconds, self._reading, self._covered, self._taken, others)
        readings = Readings(meter.watts, loose(meter.lasts_seconds, meter.recovered))
        self.joules = gathered(placed, readings, idle_watts, limit_watts)

    def _divide(self, idle_watts: float | None, shares_idle: bool, others: Column) -> None:
        """What is idle, what is other processes', what active requests share, what exceeds idle while none is."""
        busy = self._count > 0
        seconds = self._pieces.seconds
        floor = self.joules if idle_watts is None else np.minimum(self.joules, idle_watts * seconds)
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
        self._half_squares = np.diff(self._pieces.edges**2) / 2.0
        self._pays = self._owns = self._covered & (self._count > 0)
        if not rest_equally and len(base):  # what is scaled up must not be the rounding of greater rates that are over
            has_price = running((rates.prefill > 0.0).astype(np.float64), self._start, self._first)
            has_price += running(((rates.base != 0.0) | (rates.slope > 0.0)).astype(np.float64), self._first, self._end)
            self._owns = self._pays & (has_price > 0.0) & (base > LEAST_OF_THE_GREATEST * base.max())
        priced = np.where(self._owns, np.maximum(base * self._pieces.seconds + slope * self._half_squares, 0.0), 0.0)
        span = spans[self._reading] if len(spans) else self._reading
        stretch = stretches(span, self._pieces.edges, self._start, self._end)
        self._scale, left = settled(self._shared, priced, stretch, rest_equally=rest_equally)
        self._paid = self._scale * priced + left
        self._left = shared_out(left, self._pays & (left > 0.0), self._requests, self._pieces)

    def charge(self, pieces: Flags) -> tuple[Column, Column]:
        """What each request pays for those pieces: (all of it, its own marginal part)."""
        over, rates, weight = self._pieces.over, self._rates, self._requests.weight
        scale = np.where(pieces & self._owns, self._scale, 0.0)
        seconds, half_squares = scale * self._pieces.seconds, scale * self._half_squares
        paid = self._pieces.totals(seconds)
        until_first = paid[self._first]
        own = rates.prefill * (until_first - paid[self._start])
        own += rates.base * (paid[self._end] - until_first)
        own += rates.slope * over(half_squares, self._first, self._end)
        equal = np.zeros_like(own)
        for members, per_weight in self._left:
            equal[members] = over(np.where(pieces, per_weight, 0.0), self._start[members], self._end[members])
        return weight * (own + equal), weight * own

    def exact(self) -> Column:
        """What was measured while a request was alone, as far as it paid it: no coefficient decides that it was its.

        One that a balancer may have sent elsewhere never knows.
        """
        alone = np.where((self._count == 1) & ~self.somewhere, np.minimum(self._paid, self._shared), 0.0)
        return np.where(self._requests.weight == 1.0, self._pieces.over(alone, self._start, self._end), 0.0)

    def quiet(self, joules: Column, pieces: Flags) -> Quiet:
        """The sum of those pieces' joules."""
        if not pieces.any():
            return Quiet(0.0, 0.0, 0.0)
        chosen = np.where(pieces, joules, 0.0)
        total = float(chosen.sum())
        return Quiet(
            total,
            float(np.where(self.modelled, 0.0, chosen).sum()) if self.modelled.any() else total,
            float(np.where(self.recovered, chosen, 0.0).sum()) if self.recovered.any() else 0.0,
        )
