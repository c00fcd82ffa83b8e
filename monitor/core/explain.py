"""How one request's joules came about: each window and device in figures that a person can add up. Pure.

Of each device: measured = this request + all others + idle + unattributed. Of the request: energy = own tokens + equal
part. Own tokens are what they are priced at, as far as the meter held as much. Others are one sum: who may see a
request need not see theirs.
"""

from collections.abc import Callable, Iterable
from math import fsum, isnan, nan

import msgspec
import numpy as np

from collectors.units import UnixSeconds
from monitor.core.account_work import Watch, Watched
from monitor.core.attribution.hardware import UNKNOWN_GPU, hardware_of
from monitor.core.attribution.pieces import Column
from monitor.core.attribution.priors import Scalars, held_factor
from monitor.core.band import Band, Doubt, Gains, Tier, ToldBy, tier


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One request's part of one device's window. `held_watts` is the power limit that its work was priced by, if any.

    energy = own + equal. `priced_joules` is what its tokens of this window are priced at, before they were fitted to
    what was measured. measured = energy + others + idle + unattributed; `requests` were active in the window. With
    `by_instance` the device's MIG instances were told apart by their activity, and the equal part is its instance's.
    `estimated_start` is when an engine is taken to have begun, where no event says so and its server had a queue.

    `tier` is what the energy rests on; `flop_moves_joules` and `byte_moves_joules` move it by a standard error of the
    scalars, `split_variance` is of the rest of the split's error, None where it is not known (doubt.py).
    """

    start: UnixSeconds
    device: str
    hardware: str
    measured_joules: float
    energy_joules: float
    own_joules: float
    priced_joules: float
    exact_joules: float
    requests: int
    others_joules: float
    idle_joules: float
    unattributed_joules: float
    idle_watts: float | None
    scalars: Scalars
    tier: Tier
    metered_joules: float
    flop_moves_joules: float
    byte_moves_joules: float
    split_variance: float | None
    held_watts: float | None
    by_instance: bool = False
    estimated_start: UnixSeconds | None = None
    unit: str | None = None
    """What its work is counted in, where it is priced by that and not by tokens, `joules_per_unit` each."""
    joules_per_unit: float | None = None

    @property
    def equal_joules(self) -> float:
        """Its equal part of what own tokens left, of a GPU with several engines: left to its engine."""
        return self.energy_joules - self.own_joules


Identity = tuple[str, str, int, UnixSeconds]
"""Namespace, id, attempt and start of a request."""


def watching(identity: Identity, start: UnixSeconds, length_seconds: float, take: Callable[[Part], None]) -> Watch:
    """Shows the parts of that request in the window that begins at `start`, device by device."""

    def watch(watched: Watched) -> None:
        usages = watched.usages.take(watched.chosen)
        for place in np.flatnonzero(usages.request_id == identity[1]).tolist():
            usage = usages.usage(place)
            if (usage.namespace, usage.request_id, usage.attempt, usage.start) == identity:
                take(_part(watched, place, start, length_seconds))

    return watch


def _part(watched: Watched, place: int, start: UnixSeconds, length_seconds: float) -> Part:
    shared, asked = watched.shared, watched.requests
    reasons = (shared.gap, shared.unknown_device, shared.other_process, shared.unreported)
    doubts = watched.doubts
    energy, metered, exact = (float(each[place]) for each in (shared.energy, shared.metered, shared.exact))
    route = watched.usages.routes[watched.usages.route[watched.chosen[place]]]
    prices = (each for each in watched.scalars.units if (each.model, each.unit) == (route.model, route.work_unit))
    price = next(prices, None)
    watts = UNKNOWN_GPU.idle_watts if watched.idle_watts is None else watched.idle_watts
    prefill, decode = (asked.start, asked.first), (asked.first, asked.end)
    priced = asked.prefill_joules * _within(*prefill, length_seconds)
    priced += asked.decode_joules * _within(*decode, length_seconds)
    priced += asked.growing_joules * _within(*decode, length_seconds, power=2)
    return Part(
        start=start,
        device=watched.device.id,
        hardware=watched.device.hardware,
        measured_joules=fsum(piece.energy_joules for piece in watched.pieces),
        energy_joules=energy,
        own_joules=float(shared.marginal[place]),
        priced_joules=float((asked.weight * priced)[place]),
        exact_joules=exact,
        requests=len(asked),
        others_joules=float(shared.energy.sum()) - energy,
        idle_joules=shared.idle.energy,
        unattributed_joules=fsum(reason.energy for reason in reasons),
        idle_watts=watched.idle_watts,
        scalars=watched.scalars,
        held_watts=_held_watts(watched),
        by_instance=watched.by_instance,
        estimated_start=start + float(asked.start[place]) if watched.estimated_start[place] else None,
        tier=tier(energy, metered, exact, float(doubts.learned[place]), float(doubts.steps[place])),
        metered_joules=metered,
        flop_moves_joules=float(doubts.flop[place]),
        byte_moves_joules=float(doubts.byte[place]),
        split_variance=None if isnan(doubts.variance[place]) else float(doubts.variance[place]),
        unit=None if price is None else price.unit,
        joules_per_unit=None if price is None else price.joules(watts, _held_factor(watched)),
    )


def _held_watts(watched: Watched) -> float | None:
    """The level, where work is priced by it."""
    return None if _held_factor(watched) is None else watched.held_watts


def _held_factor(watched: Watched) -> float | None:
    hardware = hardware_of(watched.device.hardware) or UNKNOWN_GPU
    idle = hardware.idle_watts if watched.idle_watts is None else watched.idle_watts
    return held_factor(hardware, idle, watched.scalars, watched.held_watts)


def band_of(parts: Iterable[Part], host: str, gains: Gains, told_by: ToldBy) -> Band:
    """Between what figures the sum of these parts truly lies; `told_by` knows the host's meters in their windows.

    Of 1 000 J of a node's meter with a GPU's 700 J in it the rest, 300 J, is 240 to 362 J at +-5 % (nested.py).
    """
    doubt = Doubt()
    for part in parts:
        moves, variance = (part.flop_moves_joules, part.byte_moves_joules), part.split_variance
        doubt.add(
            (host, part.device), part.energy_joules, part.metered_joules, moves, nan if variance is None else variance
        )
    return doubt.band(gains, told_by=told_by)


def _within(begin: Column, end: Column, length_seconds: float, power: int = 1) -> Column:
    """Which part of what grows from begin to end with that power of time lies in [0, length)."""
    lasts = np.maximum(end - begin, 1e-300)
    done, before = (np.clip((at - begin) / lasts, 0.0, 1.0) ** power for at in (length_seconds, 0.0))
    return np.where(end > begin, done - before, 0.0)
