"""Two values of a cumulative energy counter -> joules, or the name of what happened between them.

Nothing here guesses: a step that cannot be told from another one has a name instead of joules, and no step is ever
made positive with abs() or silently taken as 0.
"""

import math
from dataclasses import dataclass
from typing import Final

HOLE_SECONDS: Final = 30.0
"""Longer than this between two values is a hole: what was used in it is recovered, not measured at its time."""
LIMIT_HEADROOM: Final = 1.5
"""Boards exceed their configured power limit for moments; by half is more than any is known to."""
SLOWEST_UPDATE_SECONDS: Final = 1.0
"""A counter may be refreshed only this often, so a shorter interval can hold the energy of this much time."""


@dataclass(frozen=True, slots=True)
class Energy:
    """What was used between the two values."""

    joules: float


@dataclass(frozen=True, slots=True)
class Wrap:
    """What was used, the counter having started again at 0 at the end of its range."""

    joules: float


@dataclass(frozen=True, slots=True)
class Hole:
    """What was used over a hole: the sum is measured, when within the hole it was used is not known."""

    joules: float


@dataclass(frozen=True, slots=True)
class Reset:
    """The counter began anew (driver reload, reboot): what it had not yet shown is unknown."""


@dataclass(frozen=True, slots=True)
class Lost:
    """So long between the values that the counter may have wrapped unseen: the energy is unknown."""


@dataclass(frozen=True, slots=True)
class Implausible:
    """More than the device can use in that time. `joules` is what the counter claims; nobody may add it up."""

    joules: float


@dataclass(frozen=True, slots=True)
class Sentinel:
    """A value that is no count: not finite, negative, or beyond the counter's range."""


CounterStep = Energy | Wrap | Hole | Reset | Lost | Implausible | Sentinel


def counter_step(
    before_joules: float,
    after_joules: float,
    *,
    elapsed_seconds: float,
    range_joules: float | None = None,
    power_limit_watts: float | None = None,
    hole_seconds: float = HOLE_SECONDS,
    same_life: bool = True,
) -> CounterStep:
    """What happened between two values of one counter, `elapsed_seconds` > 0 apart (else ValueError).

    `range_joules` is where the counter wraps (None: it does not), `same_life` whether both values have one boot id.
    With a range, a step is believed up to 1.5 x power limit x time; where no limit is known, up to half the range.
    Where 1.5 x limit x time reaches half the range (no limit known: over any hole) a wrap and a large step look alike,
    and the step is Lost. Example, RAPL: 262 143 J before 5 000 J, range 262 143.3, limit 270 W, 60 s apart: 5 000.3 J
    came with the wrap, below 1.5 x 270 x 60 = 24 300 J, and 60 s is a hole: Hole(5 000.3).
    """
    if not elapsed_seconds > 0:
        raise ValueError(f"the second counter value must be later than the first, not {elapsed_seconds} s")
    if not (_is_count(before_joules, range_joules) and _is_count(after_joules, range_joules)):
        return Sentinel()
    if not same_life or (after_joules < before_joules and range_joules is None):
        return Reset()
    ceiling = _ceiling_joules(elapsed_seconds, power_limit_watts)
    is_hole = elapsed_seconds > hole_seconds
    if range_joules is not None and (is_hole if ceiling is None else ceiling >= range_joules / 2):
        return Lost()
    wrapped = after_joules < before_joules
    joules = after_joules - before_joules
    if wrapped and range_joules is not None:
        joules = (range_joules - before_joules) + after_joules
    return _named(joules, _believed_joules(ceiling, range_joules), wrapped=wrapped, is_hole=is_hole)


def _named(joules: float, believed_joules: float, *, wrapped: bool, is_hole: bool) -> CounterStep:
    if joules > believed_joules:
        return Reset() if wrapped else Implausible(joules)
    if is_hole:
        return Hole(joules)
    return Wrap(joules) if wrapped else Energy(joules)


def _is_count(joules: float, range_joules: float | None) -> bool:
    return math.isfinite(joules) and joules >= 0 and (range_joules is None or joules <= range_joules)


def _ceiling_joules(elapsed_seconds: float, power_limit_watts: float | None) -> float | None:
    if power_limit_watts is None:
        return None
    return LIMIT_HEADROOM * power_limit_watts * max(elapsed_seconds, SLOWEST_UPDATE_SECONDS)


def _believed_joules(ceiling_joules: float | None, range_joules: float | None) -> float:
    if ceiling_joules is not None:
        return ceiling_joules
    return math.inf if range_joules is None else range_joules / 2
