"""How well J/FLOP and J/byte of a GPU type are known: of the priors, and of a fit. Pure.

A fit's scalars are off by three things: what its windows do not tell (the normal equations' inverse times the residual
variance), what the ridge still pulls towards priors that are themselves off, and what no fit sees because its form is
not quite the board's: as much as tested against simulated boards (docs/accuracy.md), and at least as much as it leaves
unexplained of a window, from requests alone twice that.
"""

from collections.abc import Sequence
from math import hypot, sqrt
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from monitor.core.attribution.pieces import Column  # numpy, which a host that only collects does without

_Matrix = tuple[float, float, float]
"""A symmetric 2 x 2 matrix: flop-flop, flop-byte, byte-byte."""


class Certainty(msgspec.Struct, frozen=True, kw_only=True):
    """Relative standard errors of J/FLOP and J/byte, 0.1 is 10 %, and how they go together (-1 to 1).

    `learned` tells whether windows taught them.
    """

    flop_error_ratio: float
    byte_error_ratio: float
    correlation: float = 0.0
    learned: bool = False

    def widened(self, flop: float, byte: float = 0.0) -> "Certainty":
        """With another error of either, of causes of their own: 3 % and 4 % are 5 %, and hang together less."""
        flops, bytes_ = hypot(self.flop_error_ratio, flop), hypot(self.byte_error_ratio, byte)
        both = self.correlation * self.flop_error_ratio * self.byte_error_ratio
        correlation = both / (flops * bytes_) if both else 0.0
        return msgspec.structs.replace(self, flop_error_ratio=flops, byte_error_ratio=bytes_, correlation=correlation)

    def columns(self, flop_joules: "Column", byte_joules: "Column") -> "tuple[Column, Column]":
        """What moves by these joules if J/FLOP and J/byte double, as joules for a standard error of two causes that
        know nothing of each other: 100 J and 50 J at 10 % and 20 %, uncorrelated, are 10 J and 10 J.
        """
        flop, byte = self.flop_error_ratio, self.byte_error_ratio
        apart = sqrt(max(1.0 - self.correlation * self.correlation, 0.0))
        return flop * flop_joules + self.correlation * byte * byte_joules, apart * byte * byte_joules


PRIOR_CERTAINTY: Final = Certainty(flop_error_ratio=0.10, byte_error_ratio=0.085)
"""The published bands of the priors (priors.py), 1.0-1.4e-12 and 0.15-0.2e-9, taken as nine tenths of all boards."""
TESTED_ERROR_RATIO: Final = 0.012
"""Of either scalar, as learned: how far those of simulated boards are off that their windows tell well."""

ROUTING_ERROR_RATIO: Final = 0.10
"""Of J/byte where a mixture of experts runs: it makes up for what lies between the few ways in which experts may be
read (core/routing.py)."""
UNTOLD_DRAFTS_ERROR_RATIO: Final = 0.055
"""Of J/FLOP where an engine makes several tokens of a request in a step: it computes drafts that nobody tells, and the
fit makes up for these by dearer FLOPs."""
UNTOLD_STEPS_ERROR_RATIO: Final = 0.25
"""Of J/byte, as learned from requests, where such an engine does not tell its steps: what a fit that counts its reads
several times makes up for at the mean batch, and not at each (the simulator's `speculative`)."""
MISFIT_FROM_REQUESTS: Final = 2.0
"""How many times what a fit from requests leaves unexplained its scalars may be off: where the clock or a power limit
bends the board, the windows that teach most are also those whose steps requests tell worst (`capped`)."""


def certainty_of_fit(
    normal: _Matrix,
    ridge: float,
    residual_variance: float,
    found: Sequence[float],
    *,
    prior: Certainty = PRIOR_CERTAINTY,
    misfit_ratio: float = 0.0,
) -> Certainty:
    """That of scalars `found` (relative to the priors), by normal equations in units of the priors.

    `misfit_ratio` is the residuals' standard deviation relative to a window's joules: no scalar is known better. A
    prior that was found to be off by more than its error is taken to be off by that.

    Worked: normal 300, 0, 3; ridge 1; residual variance 0.03; found (1, 1). Of J/FLOP (0.03 x 300 / 301^2)^0.5 = 1.0 %
    are noise, 10 % / 301 = 0.03 % the prior's, 1.2 % tested: 1.6 %. Of J/byte 7.5, 8.5 / 4 = 2.1 and 1.2 %: 7.9 %.
    """
    aa, ab, bb = normal
    determinant = (aa + ridge) * (bb + ridge) - ab * ab
    if determinant <= 0.0 or min(found) <= 0.0:
        return prior
    inverse = ((bb + ridge) / determinant, -ab / determinant, (aa + ridge) / determinant)
    noise = _around(inverse, (residual_variance * aa, residual_variance * ab, residual_variance * bb))
    flop, byte = found
    off = max(prior.flop_error_ratio, abs(flop - 1.0)), max(prior.byte_error_ratio, abs(byte - 1.0))
    pulled = _around(inverse, ((ridge * off[0]) ** 2, 0.0, (ridge * off[1]) ** 2))
    unseen = max(TESTED_ERROR_RATIO, misfit_ratio) ** 2
    flops = (noise[0] + pulled[0]) / (flop * flop) + unseen
    both = (noise[1] + pulled[1]) / (flop * byte)
    reads = (noise[2] + pulled[2]) / (byte * byte) + unseen
    return Certainty(
        flop_error_ratio=sqrt(flops),
        byte_error_ratio=sqrt(reads),
        correlation=max(-1.0, min(both / sqrt(flops * reads), 1.0)),
        learned=True,
    )


def _around(outer: _Matrix, inner: _Matrix) -> _Matrix:
    """outer x inner x outer, of symmetric matrices."""
    (p, q, r), (a, b, c) = outer, inner
    return (
        p * p * a + 2.0 * p * q * b + q * q * c,
        p * q * a + (p * r + q * q) * b + q * r * c,
        q * q * a + 2.0 * q * r * b + r * r * c,
    )
