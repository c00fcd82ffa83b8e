"""The virtual-energy integral: one device's measured joules, split among the requests that were active on it.

Power P(t) is piecewise constant between readings, N(t) is the weight of the active requests. Each has marginal energy
of its own; what is left of the measured power is shared equally by those active at that moment, because one engine step
serves them all. With V(t) = integral of (P - marginal) / N, a request pays its marginals plus V(end) - V(start): one
sort and one cumulative sum for all requests, like virtual time in fair queueing. Where the marginals exceed what was
measured they are scaled down. So the shares add up to the meter, whatever the coefficients; those only decide who pays.
For an affine step cost this is the Shapley value: a/n for the step's fixed cost plus one's own part.

In: columns of numbers (seconds relative to the window's start, joules). Out: columns of joules. No Python loop per
request.
"""

from dataclasses import dataclass

import numpy as np

from monitor.core.attribution.pieces import Column, Flags, Pieces

TOP_WATTS = 1e4
"""No GPU draws it. A request's own rate above it comes of times told too coarsely (all tokens within a microsecond);
it is cut off there, because cumulative sums of such rates would lose the last digits of everyone else's."""
GROWTH_SECONDS = 1.0
"""Within a decode shorter than this the context's growth is spread evenly, for the same reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """Readings of one device inside one window: disjoint, sorted by start. Length r each.

    `watts` is a reading's energy over its own duration, `recovered` and `modelled` tell its method.
    """

    start: Column
    end: Column
    watts: Column
    recovered: Flags
    modelled: Flags


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Requests active on the device, in an order that is the same for whoever computes. Length n each.

    Active over [start, end), its prefill over [start, first), decoding over [first, end); start <= first <= end, also
    outside the window. `prefill_joules` are spread evenly over the prefill, `decode_joules` evenly over decoding,
    `growing_joules` over decoding in proportion to the tokens already made (the reads of a context that grows); a part
    that lasts 0 s has none. `weight` > 0; all are of one whole request, before its weight.
    """

    start: Column
    first: Column
    end: Column
    weight: Column
    prefill_joules: Column
    decode_joules: Column
    growing_joules: Column

    def __len__(self) -> int:
        return len(self.start)


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
) -> Split:
    """Splits one device's energy in the window [0, length_seconds).

    `idle_watts` None: nobody knows, nothing counts as above idle. `shares_idle`: a busy GPU is its requests', idle
    part included; of CPU, DRAM and node (False) only what exceeds idle power is shared. `elsewhere`: starts and ends of
    requests on this host of which nobody knows the device. `foreign` has its part of what exceeds idle power: on a GPU
    (`shares_idle`) while no request is active, elsewhere beside requests too.

    Worked: 300 W for 10 s, idle 50 W, one request over [0, 4), another over [2, 6), no marginals: 0-2 s 600 J to the
    first, 2-4 s 300 J each, 4-6 s 600 J to the second, 6-10 s 200 J idle and 1 000 J above it.

    Marginals are scaled down piece by piece, edge to edge. A further edge (of a reading split in two, of a shorter
    window) changes no sum, and a share only where a growing context passes the measured power inside a piece.
    """
    timeline = _Timeline(
        meter,
        requests,
        elsewhere,
        foreign,
        length_seconds=length_seconds,
        idle_watts=idle_watts,
        shares_idle=shares_idle,
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
        )
        _, _, self._start, self._first, self._end, begun, ended, _, _ = self._pieces.places
        self._count = self._pieces.running(np.ones(len(requests)), self._start, self._end)
        self.somewhere: Flags = self._pieces.running(np.ones(len(begun)), begun, ended) > 0
        self._measure(meter)
        self._divide(idle_watts, shares_idle)
        if len(foreign.start):
            self._set_aside(foreign, shares_idle)
        self._price()

    def _measure(self, meter: Meter) -> None:
        """Joules of each piece, and the method they were come by."""
        at = self._pieces.starts
        if len(meter.start) == 0:
            self.joules = np.zeros_like(at)
            self.recovered = self.modelled = np.zeros(len(at), dtype=np.bool_)
            return
        reading = np.searchsorted(meter.start, at, side="right") - 1
        covered = (reading >= 0) & (at < meter.end[reading])
        self.joules = np.where(covered, meter.watts[reading] * self._pieces.seconds, 0.0)
        self.recovered = covered & meter.recovered[reading]
        self.modelled = covered & meter.modelled[reading]

    def _divide(self, idle_watts: float | None, shares_idle: bool) -> None:
        """What is idle, what active requests share, and what exceeds idle while none is active."""
        busy = self._count > 0
        seconds = self._pieces.seconds
        floor = self.joules if idle_watts is None else np.minimum(self.joules, idle_watts * seconds)
        self.idle = np.where(busy, 0.0, floor) if shares_idle else floor
        self._shared = np.where(busy, self.joules - self.idle, 0.0)
        self.above = np.where(busy, 0.0, self.joules - self.idle)
        self.other = np.zeros_like(self.joules)

    def _set_aside(self, foreign: Foreign, shares_idle: bool) -> None:
        """The part of other processes, taken off what exceeds idle; of what came out of a hole nobody knows it."""
        at = self._pieces.starts
        place = np.searchsorted(foreign.start, at, side="right") - 1
        known = (place >= 0) & (at < foreign.end[place]) & ~self.recovered
        ratio = np.where(known, foreign.ratio[place], 0.0)
        if shares_idle:
            ratio = np.where((self._count > 0) | self.somewhere, 0.0, ratio)
        of_above, of_shared = self.above * ratio, self._shared * ratio
        self.other = of_above + of_shared
        self.above, self._shared = self.above - of_above, self._shared - of_shared

    def _price(self) -> None:
        """How far the requests' own rates must be scaled down not to exceed what was measured, and what is left."""
        self._rates = rates = _rates(self._requests)
        weight, running = self._requests.weight, self._pieces.running
        base = running(weight * rates.prefill, self._start, self._first)
        base += running(weight * rates.base, self._first, self._end)
        slope = running(weight * rates.slope, self._first, self._end)
        self._half_squares = np.diff(self._pieces.edges**2) / 2.0
        priced = np.maximum(base * self._pieces.seconds + slope * self._half_squares, 0.0)
        self._scale = np.divide(self._shared, priced, out=np.ones_like(priced), where=priced > self._shared)
        left = self._shared - self._scale * priced
        weights = running(weight, self._start, self._end)
        self._per_weight = np.divide(left, weights, out=np.zeros_like(left), where=self._shared > 0)

    def charge(self, pieces: Flags) -> tuple[Column, Column]:
        """What each request pays for those pieces: (all of it, its own marginal part)."""
        over, rates, weight = self._pieces.over, self._rates, self._requests.weight
        scale = np.where(pieces & (self._shared > 0), self._scale, 0.0)
        seconds, half_squares = scale * self._pieces.seconds, scale * self._half_squares
        own = rates.prefill * over(seconds, self._start, self._first)
        own += rates.base * over(seconds, self._first, self._end)
        own += rates.slope * over(half_squares, self._first, self._end)
        equal = over(np.where(pieces, self._per_weight, 0.0), self._start, self._end)
        return weight * (own + equal), weight * own

    def exact(self) -> Column:
        """What was shared while a request was alone. One that a balancer may have sent elsewhere never knows."""
        alone = np.where((self._count == 1) & ~self.somewhere, self._shared, 0.0)
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


@dataclass(frozen=True, slots=True)
class _Rates:
    """Watts of each request's own tokens: `prefill` until its first, then base + slope * t at t s of the window."""

    prefill: Column
    base: Column
    slope: Column


def _rates(requests: Requests) -> _Rates:
    """Worked: growing 8 J over [1, 5) is 0 W at 1 s and 4 W at 5 s: slope 1 W/s, base -1 W."""
    decoding = requests.end - requests.first
    grows = decoding >= GROWTH_SECONDS
    growth = _watts(requests.growing_joules, decoding)
    slope = np.divide(2.0 * growth, decoding, out=np.zeros_like(growth), where=grows)
    return _Rates(
        prefill=_watts(requests.prefill_joules, requests.first - requests.start),
        base=_watts(requests.decode_joules, decoding) + np.where(grows, -slope * requests.first, growth),
        slope=slope,
    )


def _watts(joules: Column, seconds: Column) -> Column:
    most = np.minimum(joules, TOP_WATTS * seconds)
    return np.divide(most, seconds, out=np.zeros_like(most), where=seconds > 0)
