"""J/FLOP and J/byte of a GPU type, learned from windows whose energy and work are known. Sums in, coefficients out.

    joules above idle ~ joules_per_flop x FLOPs + joules_per_byte x bytes        (idle fixed, both >= 0)

by least squares over windows, pulled towards the priors by a ridge. Two scalars pooled over all models and hosts of a
type, because a saturated engine draws nearly constant power: its windows say little about the split, and free
coefficients for each model go wrong by far more than they explain (reference methodology of this project, 1.5, 1.7).
What is kept of the windows are sums, so that they may be added up in any grouping and the fit is the same.
"""

from collections.abc import Iterable
from math import inf, sqrt
from typing import Final, Literal

import msgspec

from monitor.core.attribution.certainty import (
    MISFIT_FROM_REQUESTS,
    UNTOLD_DRAFTS_ERROR_RATIO,
    UNTOLD_STEPS_ERROR_RATIO,
    certainty_of_fit,
)
from monitor.core.attribution.priors import PRIOR, Scalars
from monitor.core.attribution.work import Work

PRIOR_WINDOWS: Final = 0.25
"""The priors weigh as much as a quarter of a window of mean energy: enough to decide what the windows leave open."""
LEAST_WINDOWS: Final = 30
"""Fewer windows than this teach nothing: 5 minutes of 10 s."""
FARTHEST: Final = 2.0
"""A scalar that comes out farther from its prior than by this factor is not believed."""
FARTHEST_BELOW: Final = 4.0
"""The same for a J/byte that comes out lower, from requests. They tell tokens; with speculative decoding a step makes
several at one reading of the weights, and a J/byte so many times less makes up for the bytes counted too often."""
WORST_CONDITION: Final = 1e4

Verdict = Literal["learned", "few", "unidentifiable", "implausible"]


class FitSums(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The sums over windows from which a fit follows; additive. Joules are those above idle power."""

    windows: int = 0
    flops_flops: float = 0.0
    flops_bytes: float = 0.0
    bytes_bytes: float = 0.0
    flops_joules: float = 0.0
    bytes_joules: float = 0.0
    joules_joules: float = 0.0

    def plus(self, other: "FitSums") -> "FitSums":
        """The sums over the windows of both."""
        return FitSums(
            windows=self.windows + other.windows,
            flops_flops=self.flops_flops + other.flops_flops,
            flops_bytes=self.flops_bytes + other.flops_bytes,
            bytes_bytes=self.bytes_bytes + other.bytes_bytes,
            flops_joules=self.flops_joules + other.flops_joules,
            bytes_joules=self.bytes_joules + other.bytes_joules,
            joules_joules=self.joules_joules + other.joules_joules,
        )

    def minus(self, other: "FitSums") -> "FitSums":
        """The sums where less was read: `other` is what that takes off, windows not among it."""
        return msgspec.structs.replace(
            self,
            flops_bytes=self.flops_bytes - other.flops_bytes,
            bytes_bytes=self.bytes_bytes - other.bytes_bytes,
            bytes_joules=self.bytes_joules - other.bytes_joules,
        )


def sums_of(work: Work, joules: float) -> FitSums:
    """The sums of one window: 2e15 FLOPs and 1e12 bytes at 300 J add 6e17 to flops_joules."""
    return FitSums(
        windows=1,
        flops_flops=work.flops * work.flops,
        flops_bytes=work.flops * work.bytes,
        bytes_bytes=work.bytes * work.bytes,
        flops_joules=work.flops * joules,
        bytes_joules=work.bytes * joules,
        joules_joules=joules * joules,
    )


def total(sums: Iterable[FitSums]) -> FitSums:
    """All of them, added up in their order."""
    added = FitSums()
    for each in sums:
        added = added.plus(each)
    return added


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """What the windows taught. `scalars` are the priors unless `verdict` is "learned".

    few: fewer than LEAST_WINDOWS; unidentifiable: FLOPs and bytes rose and fell together; implausible: a scalar more
    than twice or less than half its prior. `found` are the scalars as fitted, also where they were not believed;
    `r_squared` is theirs, `condition` that of the normal equations in units of the priors. `from_requests` tells
    that no engine told the windows' work: it was worked out from requests.
    """

    scalars: Scalars
    found: Scalars
    verdict: Verdict
    windows: int
    r_squared: float
    condition: float
    from_requests: bool = False


def fitted_from_requests(sums: FitSums) -> Fit:
    """The scalars that windows teach of which only requests are known.

    A J/byte below what is believed of engines is that of steps in which a request makes several tokens, whose bytes
    were counted for each: it makes up for them, and is doubted the more.
    """
    fit = fitted(sums, byte_at_least=1.0 / FARTHEST_BELOW, misfit_counts=MISFIT_FROM_REQUESTS)
    if fit.verdict == "learned" and fit.found.joules_per_byte * FARTHEST < PRIOR.joules_per_byte:
        doubted = fit.found.certainty.widened(flop=UNTOLD_DRAFTS_ERROR_RATIO, byte=UNTOLD_STEPS_ERROR_RATIO)
        found = msgspec.structs.replace(fit.found, certainty=doubted)
        fit = msgspec.structs.replace(fit, scalars=found, found=found)
    return msgspec.structs.replace(fit, from_requests=True)


def fitted(
    sums: FitSums, prior: Scalars = PRIOR, *, byte_at_least: float = 1.0 / FARTHEST, misfit_counts: float = 1.0
) -> Fit:
    """The scalars that the windows teach.

    In units of the priors (z = 1 is the prior itself), with the ridge r = PRIOR_WINDOWS x mean squared joules:
    minimise sum (y - a z1 - b z2)^2 + r (z1 - 1)^2 + r (z2 - 1)^2 over z >= 0. Windows that the priors explain to the
    last joule give the priors. `byte_at_least` is the least J/byte that is believed, relative to the prior;
    `misfit_counts` is how many times what the windows leave unexplained is taken to be the scalars' error.
    """
    if sums.windows == 0:
        return Fit(scalars=prior, found=prior, verdict="few", windows=0, r_squared=0.0, condition=inf)
    flop, byte = prior.joules_per_flop, prior.joules_per_byte
    ridge = PRIOR_WINDOWS * sums.joules_joules / sums.windows
    aa, ab, bb = sums.flops_flops * flop * flop, sums.flops_bytes * flop * byte, sums.bytes_bytes * byte * byte
    ay, by = sums.flops_joules * flop, sums.bytes_joules * byte
    z1, z2 = _not_negative((aa + ridge, ab, bb + ridge), (ay + ridge, by + ridge))
    squared_error = sums.joules_joules - 2.0 * (z1 * ay + z2 * by) + z1 * z1 * aa + 2.0 * z1 * z2 * ab + z2 * z2 * bb
    variance = max(squared_error, 0.0) / max(sums.windows - 2, 1)
    misfit = sqrt(variance * sums.windows / sums.joules_joules) if sums.joules_joules > 0.0 else 0.0
    certainty = certainty_of_fit(
        (aa, ab, bb), ridge, variance, (z1, z2), prior=prior.certainty, misfit_ratio=misfit_counts * misfit
    )
    found = Scalars(joules_per_flop=z1 * flop, joules_per_byte=z2 * byte, certainty=certainty)
    condition = _condition(aa, ab, bb)
    verdict: Verdict = "learned"
    if sums.windows < LEAST_WINDOWS:
        verdict = "few"
    elif condition > WORST_CONDITION:
        verdict = "unidentifiable"
    elif not (1.0 / FARTHEST <= z1 <= FARTHEST and byte_at_least <= z2 <= FARTHEST):
        verdict = "implausible"
    return Fit(
        scalars=found if verdict == "learned" else prior,
        found=found,
        verdict=verdict,
        windows=sums.windows,
        r_squared=1.0 - max(squared_error, 0.0) / sums.joules_joules if sums.joules_joules > 0.0 else 0.0,
        condition=condition,
    )


def _not_negative(matrix: tuple[float, float, float], right: tuple[float, float]) -> tuple[float, float]:
    """The least squares solution z >= 0 of two unknowns: the free one, else the better with one of them 0."""
    (aa, ab, bb), (ay, by) = matrix, right
    determinant = aa * bb - ab * ab
    if determinant > 0.0:
        z1, z2 = (ay * bb - by * ab) / determinant, (by * aa - ay * ab) / determinant
        if z1 >= 0.0 and z2 >= 0.0:
            return z1, z2
    first, second = (ay / aa if aa > 0.0 else 0.0), (by / bb if bb > 0.0 else 0.0)
    return (first, 0.0) if first * ay >= second * by else (0.0, second)


def _condition(aa: float, ab: float, bb: float) -> float:
    """Largest over smallest eigenvalue of the symmetric matrix; infinite where one direction is not known at all."""
    middle, apart = (aa + bb) / 2.0, sqrt(((aa - bb) / 2.0) ** 2 + ab * ab)
    return (middle + apart) / (middle - apart) if middle - apart > 1e-12 * middle else inf  # below it is rounding
