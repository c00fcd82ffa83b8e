"""How many experts the tokens of a step read, as windows tell it: lessons by name, and the proof. Pure.

Tokens that choose their experts independently of each other read nearly all of them with some tens. If they are alike,
n of them read as many as n^x independent ones. x is 1 until windows say otherwise. For each of a few smaller x a lesson
of its own holds what fewer reads take off the sums of the GPU type's lesson, so both together say what windows would
have taught. A smaller x holds only where it foretells lessons that it was not fitted to.
"""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from collectors.units import UnixSeconds
from monitor.core.attribution.learning import Fit, FitSums, total
from monitor.core.attribution.priors import Scalars

EXPONENTS: Final = (0.6, 0.35)
FOLDS: Final = 6
"""Lessons are left out in so many groups, one after the other, and foretold by the rest."""
LEAST_LESSONS: Final = 3
PROOF_RATIO: Final = 0.9
"""Squared errors on what was left out must be less than this part of those of independent choices..."""
PROOF_PART: Final = 0.75
"""... and less at all in so many of the groups."""
_WAY: Final = " (experts n^"

Fitted = Callable[[FitSums], Fit]
Place = tuple[UnixSeconds, str]
"""Start and partition of a lesson."""


def routed(gpu: str, exponent: float) -> str:
    """The name under which stands what that exponent takes off a GPU type's lessons: "H100 (experts n^0.6)"."""
    return f"{gpu}{_WAY}{exponent:g})"


def type_of(name: str) -> str:
    """The name without that: "H100"."""
    return name.split(_WAY, maxsplit=1)[0]


def saved(base: FitSums, less: FitSums) -> FitSums:
    """What fewer reads take off a window's sums; 0 FLOPs and joules, none of it negative."""
    return FitSums(
        windows=base.windows,
        flops_bytes=base.flops_bytes - less.flops_bytes,
        bytes_bytes=base.bytes_bytes - less.bytes_bytes,
        bytes_joules=base.bytes_joules - less.bytes_joules,
    )


def proven(
    fit: Fit, lessons: Mapping[Place, FitSums], ways: Mapping[float, Mapping[Place, FitSums]], fitted: Fitted
) -> Fit:
    """`fit`, or that of the exponent in `ways` that foretells best what it was not fitted to, if that is a proof."""
    folds = min(FOLDS, len(lessons))
    if folds < LEAST_LESSONS:
        return fit
    independent = _errors(_folded(lessons, {}, folds), fitted)
    best, least = fit, PROOF_RATIO * sum(independent)
    for exponent, taken in ways.items():
        groups = _folded(lessons, taken, folds)
        errors = _errors(groups, fitted)
        better = sum(mine < other for mine, other in zip(errors, independent, strict=True))
        found = fitted(total(groups))
        if sum(errors) < least and better >= PROOF_PART * folds and found.verdict == "learned":
            best, least = _with(found, exponent), sum(errors)
    return best


def _folded(lessons: Mapping[Place, FitSums], taken: Mapping[Place, FitSums], folds: int) -> list[FitSums]:
    """Neighbours in time come into different groups."""
    groups = [FitSums()] * folds
    for number, (place, sums) in enumerate(lessons.items()):
        mine = sums.minus(taken[place]) if place in taken else sums
        groups[number % folds] = groups[number % folds].plus(mine)
    return groups


def _errors(groups: list[FitSums], fitted: Fitted) -> list[float]:
    """Of each group the squared error of what the others foretell."""
    return [
        _squared_error(group, fitted(total([*groups[:place], *groups[place + 1 :]])).found)
        for place, group in enumerate(groups)
    ]


def _squared_error(sums: FitSums, scalars: Scalars) -> float:
    """In J^2: of a window of 300 J that is foretold to be 290 J 100."""
    flop, byte = scalars.joules_per_flop, scalars.joules_per_byte
    foretold = flop * flop * sums.flops_flops + 2.0 * flop * byte * sums.flops_bytes + byte * byte * sums.bytes_bytes
    return max(sums.joules_joules - 2.0 * (flop * sums.flops_joules + byte * sums.bytes_joules) + foretold, 0.0)


def _with(fit: Fit, exponent: float) -> Fit:
    scalars = msgspec.structs.replace(fit.scalars, routing_exponent=exponent)
    return msgspec.structs.replace(fit, scalars=scalars, found=scalars)
