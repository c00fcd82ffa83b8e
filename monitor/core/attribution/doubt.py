"""How far each request's share of a device may be off, as sums that add up over windows, requests and devices. Pure.

    share = own tokens + equal part of what own tokens leave

If J/FLOP is 1 % more, a request's own tokens cost more and its equal part is less; over all requests of a device that
is 0, because the meter's joules stay. Such an error is the same in each window of a fit, so it adds up with its sign.
Where tokens were within a window is another error: it is each request's own, so its variance adds up.

In: a split and what it was made from. Out: columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import inf
from typing import Final

import numpy as np

from monitor.core.attribution.certainty import Certainty
from monitor.core.attribution.pieces import Column, Flags
from monitor.core.attribution.requests import Requests, stacked
from monitor.core.attribution.shape import FINE_SECONDS
from monitor.core.attribution.virtual_energy import Meter, Split

PLACING_ERROR_RATIO: Final = 0.065
"""Standard error of what a request pays for its own tokens in a window, and of what it is spared for the others'."""
MIXTURE_PLACING_ERROR_RATIO: Final = 0.11
"""The same of a mixture of experts: which steps read more of them is known worse."""
UNIT_PLACING_ERROR_RATIO: Final = 0.09
"""And of what is paid by units of work, which are placed evenly over a request's time."""
SHARED_BY_COUNTERS_ERROR_RATIO: Final = 0.07
"""And of what is left for a request where several models share the device, and counters tell the steps of each."""
SHARED_BY_REQUESTS_ERROR_RATIO: Final = 0.12
"""And where requests alone tell them: a mean over the time that they had the device to themselves and shared it."""
LATE_RATIO: Final = 0.5
"""Standard error of when a short reading's joules were drawn, relative to how long it lasts: a power sensor tells the
mean of some time before, and the split takes such readings at their word (shape.py)."""
LEAST_ERROR_RATIO: Final = 0.004
"""And of its joules, also where it was alone: a reading is cut where it began and ended."""
_BEND: Final = 0.1
"""Own tokens dearer by a tenth are paid out of the equal parts, as far as these go; else they are scaled down."""
_NOTHING: Final = 1e-9
"""Joules that are no joules."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubts:
    """Of n requests' joules of a device. Columns of length n.

    `steps` were placed by an engine's own counters and `learned` priced by learned scalars; neither holds what a
    request used alone. `flop` and `byte` are the joules by which the share moves for a standard error of the scalars,
    with their sign. `variance` (J^2) is that of the rest of the split's error, NaN where it is not known.
    """

    steps: Column
    learned: Column
    flop: Column
    byte: Column
    variance: Column

    def columns(self) -> tuple[Column, Column, Column, Column, Column]:
        """In the order in which they stand in the books."""
        return self.steps, self.learned, self.flop, self.byte, self.variance


def doubts_of_each(
    splits: Sequence[Split],
    requests: Sequence[Requests],
    *,
    context_tokens: Column,
    output_tokens: Column,
    certainty: Certainty,
    prices: bool,
    tested: bool,
    by_steps: bool,
    mixes: Flags | None = None,
    unit_errors: Column | None = None,
    late: Sequence[float] | None = None,
    length_seconds: float = inf,
) -> list[Doubts]:
    """The doubts about one window of several devices, each as if alone; columns are of one's requests, then the next's.

    `prices`: own tokens have a price there (GPUs); elsewhere equal parts are the rule, and nothing is off. `tested`: by
    a method whose error is known. `mixes`: whose model is a mixture of experts, None for nobody's. `unit_errors`: of
    those that pay by a unit of their work the price's relative standard error, else 0; None where nobody does.
    `context_tokens` and `output_tokens` tell which part of a request's own joules are reads of its context: growing
    joules g were placed for m^2 / 2 tokens read, so c m + m^2 / 2 reads are g (1 + 2 c / m).

    `late`: of each device by how much its readings may be late (`late_seconds`), None for no device. A request that
    begins or ends in [0, length_seconds), the window, is off there by its power for that time.

    Where requests without a price shared with others (a model of which nothing is known), nobody knows what is off.
    """
    asked = stacked(requests)
    counts = [len(each) for each in requests]
    bounds = list(pairwise(accumulate(counts, initial=0)))
    energy, marginal, exact = (
        np.concatenate([getattr(each, name) for each in splits]) for name in ("energy", "marginal", "exact")
    )
    alone = np.clip(np.divide(exact, energy, out=np.ones(len(asked)), where=energy > 0.0), 0, 1)
    together = (1.0 - alone) * energy
    nothing = np.zeros(len(asked))
    least = (LEAST_ERROR_RATIO * energy) ** 2
    if late is not None and any(late):
        least = least + _at_edges(asked, energy, np.repeat(late, counts), length_seconds)
    if not prices:
        return [
            Doubts(steps=none, learned=none, flop=none, byte=none, variance=least[begin:end])
            for begin, end in bounds
            for none in [nothing[begin:end]]
        ]
    priced = asked.prefill_joules + asked.decode_joules + asked.growing_joules
    reads = asked.growing_joules * (1.0 + 2.0 * context_tokens / np.maximum(output_tokens, 1.0))
    of_reads = np.clip(np.divide(reads, priced, out=np.zeros_like(reads), where=priced > 0.0), 0.0, 1.0)
    own = (1.0 - alone) * marginal
    equal = together - own
    by_units = nothing if unit_errors is None else own * (unit_errors > 0.0)
    flops, bytes_ = (own - by_units) * (1.0 - of_reads), (own - by_units) * of_reads
    spared_flops, spared_bytes = _spared(flops, own, equal, bounds), _spared(bytes_, own, equal, bounds)
    flop, byte = certainty.columns(flops - spared_flops, bytes_ - spared_bytes)
    placing: Column | float = PLACING_ERROR_RATIO
    if mixes is not None:
        placing = np.where(mixes, MIXTURE_PLACING_ERROR_RATIO, PLACING_ERROR_RATIO)
    placed = placing**2 * (flops**2 + spared_flops**2 + bytes_**2 + spared_bytes**2)
    if unit_errors is not None:
        moved = unit_errors * by_units
        flop = flop + moved - _spared(moved, own, equal, bounds)
        placed += UNIT_PLACING_ERROR_RATIO**2 * (by_units**2 + _spared(by_units, own, equal, bounds) ** 2)
    if any(each.steps is not None for each in requests):
        several = np.repeat([each.steps is not None for each in requests], counts)
        divided = SHARED_BY_COUNTERS_ERROR_RATIO if by_steps else SHARED_BY_REQUESTS_ERROR_RATIO
        placed += np.where(several, divided * equal, 0.0) ** 2
    doubtful = (priced <= 0.0) & (together > _NOTHING)
    known = [tested and not doubtful[begin:end].any() for begin, end in bounds]
    variance = least + placed
    for (begin, end), its_known in zip(bounds, known, strict=True):
        if not its_known:
            unknown = np.where(together[begin:end] > _NOTHING, np.nan, 0.0)
            variance[begin:end] = least[begin:end] + unknown
    learned = together if certainty.learned else np.where(by_units > 0.0, together, nothing)
    return [
        Doubts(
            steps=(together if by_steps else nothing)[begin:end],
            learned=learned[begin:end],
            flop=(flop if its_known else nothing)[begin:end],
            byte=(byte if its_known else nothing)[begin:end],
            variance=variance[begin:end],
        )
        for (begin, end), its_known in zip(bounds, known, strict=True)
    ]


def late_seconds(meter: Meter) -> float:
    """By how much a device's readings may be late that are taken at their word; of 0.2 s each 0.1 s, of 1 s nothing."""
    fine = (meter.lasts_seconds <= FINE_SECONDS) & ~meter.recovered
    return LATE_RATIO * float(meter.lasts_seconds[fine].mean()) if fine.any() else 0.0


def _at_edges(asked: Requests, energy: Column, late: Column, length_seconds: float) -> Column:
    """J^2 of what is off where requests begin and end within the window: at most all that they have there.

    600 J over [2, 5), 0.1 s late: 20 J at either edge, 800 J^2.
    """
    lasts = np.minimum(asked.end, length_seconds) - np.maximum(asked.start, 0.0)
    part = np.minimum(np.divide(late, lasts, out=np.ones_like(late), where=lasts > 0.0), 1.0)
    edges = (asked.start >= 0.0).astype(np.float64) + (asked.end < length_seconds)
    variance: Column = edges * np.where(late > 0.0, part * energy, 0.0) ** 2
    return variance


def _spared(part: Column, own: Column, equal: Column, bounds: Sequence[tuple[int, int]]) -> Column:
    """Who pays less if that part of everybody's own joules doubles, and how much: in sum the same as the part.

    Own 30 J and 10 J, equal parts 20 J and 20 J: 20 J each. Without equal parts it comes off own joules: 30 J and 10 J.
    The requests of a device stand within its bounds.
    """
    spared = np.zeros_like(part)
    for begin, end in bounds:
        its_own, its_equal = own[begin:end], equal[begin:end]
        whole, left = part[begin:end].sum(), its_equal.sum()
        if whole <= _NOTHING:
            continue
        from_equal = min(1.0, left / (_BEND * whole)) if left > _NOTHING else 0.0
        if from_equal > 0.0:
            spared[begin:end] += from_equal * whole * its_equal / left
        if from_equal < 1.0:
            spared[begin:end] += (1.0 - from_equal) * whole * its_own / its_own.sum()
    return spared
