"""Who shares what own tokens leave: the requests of an engine what its steps cost, and not those of another engine.

A step reads the weights of one model for the requests of one engine. Where several engines are active on a device, what
is left is divided among them first, by the power of their steps (requests.Steps), and then equally among the requests
of each. While one of those that are active does not tell its steps, all requests have equal parts.
"""

from collections.abc import Sequence

import numpy as np

from monitor.core.attribution.pieces import Column, Flags, Pieces, Places
from monitor.core.attribution.requests import TOP_WATTS, Requests, Steps, ToldSteps

Members = slice | Places
_LEAST = 1e-6
"""Watts, or weight of requests: below it is rounding of cumulative sums."""
_LEAST_SECONDS = 1e-6
"""Who was active for less while steps were told had none of them to speak of: what its requests tell holds."""


def shared_out(left: Column, pays: Flags, requests: Requests, pieces: Pieces) -> Sequence[tuple[Members, Column]]:
    """For each engine the places of its requests, and what each unit of their weight pays of `left` in each piece.

    90 J left, two requests active of one engine and one of another. Steps of 50 W each: 22.5 J for each of the two and
    45 J for the third; steps of 200 W and of 100 W: 30 J for each of the three.
    """
    _, _, start, _, end, *_ = pieces.places
    weights = pieces.running(requests.weight, start, end)
    equally = np.where(pays, left, 0.0) / np.where(pays, weights, 1.0)
    if requests.steps is None:
        return [(slice(None), equally)]
    engines = [_engine(number, requests, requests.steps, pieces) for number in range(requests.steps.engines)]
    every = np.sum([watts for _, watts, _ in engines], axis=0)
    known = pays & np.all([(weight <= 0.0) | (watts > 0.0) for _, watts, weight in engines], axis=0)
    shared = []
    for members, watts, weight in engines:
        part = np.divide(watts, every, out=np.zeros_like(left), where=known)
        own = np.divide(left * part, weight, out=np.zeros_like(left), where=known & (weight > 0.0))
        shared.append((members, np.where(known, own, equally)))
    return shared


def _engine(number: int, requests: Requests, steps: Steps, pieces: Pieces) -> tuple[Places, Column, Column]:
    """(places of its requests, power of its steps in each piece, weight of those active): 0 and 0 while none is."""
    _, _, starts, firsts, ends, *_ = pieces.places
    members = np.flatnonzero(steps.engine == number)
    start, first, end, weight = starts[members], firsts[members], ends[members], requests.weight[members]
    active = pieces.running(np.ones(len(members)), start, end) > 0  # whole numbers: exact
    prefill, decode = (np.minimum(each[members], TOP_WATTS) for each in (steps.prefill_watts, steps.decode_watts))
    watts = pieces.running(weight * prefill, start, first) + pieces.running(weight * decode, first, end)
    telling = pieces.running(weight * (prefill > 0.0), start, first) + pieces.running(
        weight * (decode > 0.0), first, end
    )
    tells = active & (watts > _LEAST) & (telling > _LEAST)
    mean = np.divide(watts, telling, out=np.zeros_like(watts), where=tells)
    mean = _by_counters(mean, active, steps.told[number], pieces)
    return members, mean, np.where(active, pieces.running(weight, start, end), 0.0)


def _by_counters(watts: Column, active: Flags, told: Sequence[ToldSteps], pieces: Pieces) -> Column:
    """The same, by the engine's own counter while it told steps: joules of these over the time in which it was active.

    20 J of steps in a second, half of which some request of the engine was active: 40 W in that half.
    """
    if not told:
        return watts
    starts, ends, joules = np.array([(each.start, each.end, each.joules) for each in told], dtype=np.float64).T
    place = np.maximum(np.searchsorted(starts, pieces.starts, side="right") - 1, 0)
    within = active & (starts[place] <= pieces.starts) & (pieces.starts < ends[place])
    seconds = np.bincount(place[within], pieces.seconds[within], len(starts))
    counted = np.divide(joules, seconds, out=np.zeros_like(joules), where=seconds > _LEAST_SECONDS)[place]
    return np.where(within & (counted > 0.0), np.minimum(counted, TOP_WATTS), watts)
