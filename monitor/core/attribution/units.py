"""What a unit of work costs that is no token (an image, a document embedded): learned from windows. Sums in, price out.

    joules above idle ~ joules_per_unit x units        busy seconds ~ seconds_per_unit x units

by least squares through the origin over windows in which a board served one model in one unit, and nothing else. A
unit's price is what it takes above idle power, and idle power for its time, as with tokens (priors.py). There is no
prior: until it is learned such requests pay for their active time. Sums are kept, as in learning.py.
"""

from math import sqrt
from typing import Final, Literal, NamedTuple

import msgspec

from monitor.core.attribution.certainty import TESTED_ERROR_RATIO

LEAST_UNIT_WINDOWS: Final = 30
"""Fewer windows than this teach nothing, as with tokens."""
LEAST_EXPLAINED: Final = 0.8
"""Of the windows' squared joules the units must explain so much; less, and the amounts say little of the energy: events
that count every image as 1 whatever its size, or one with a thousand times too much."""

UnitVerdict = Literal["learned", "few", "unexplained"]


class UnitKind(NamedTuple):
    """Which work: of this model, counted in this unit."""

    model: str
    unit: str


class UnitPrice(msgspec.Struct, frozen=True, kw_only=True):
    """What a unit of a model's work costs on a GPU type: joules above idle power, and the seconds that it takes.

    `error_ratio` is the relative standard error of both together, as learned.
    """

    model: str
    unit: str
    joules_per_unit: float
    seconds_per_unit: float
    error_ratio: float = 0.0

    def joules(self, idle_watts: float, held_factor: float | None = None) -> float:
        """Idle power for its time included: 300 J and 1.5 s at 70 W idle are 405 J.

        On a board that a power limit holds it takes `held_factor` times its own joules: 300 J by 1.524 are 457 J.
        """
        if held_factor is not None:
            return self.joules_per_unit * held_factor
        return self.joules_per_unit + idle_watts * self.seconds_per_unit


class UnitSums(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The sums over windows from which a unit's price follows; additive. Joules are those above idle power."""

    windows: int = 0
    units_units: float = 0.0
    units_joules: float = 0.0
    units_seconds: float = 0.0
    joules_joules: float = 0.0

    def plus(self, other: "UnitSums") -> "UnitSums":
        """The sums over the windows of both."""
        return UnitSums(
            windows=self.windows + other.windows,
            units_units=self.units_units + other.units_units,
            units_joules=self.units_joules + other.units_joules,
            units_seconds=self.units_seconds + other.units_seconds,
            joules_joules=self.joules_joules + other.joules_joules,
        )


def unit_sums_of(units: float, busy_seconds: float, joules: float) -> UnitSums:
    """The sums of one window: 4 images in 8 s at 1 200 J add 4 800 to units_joules and 32 to units_seconds."""
    return UnitSums(
        windows=1,
        units_units=units * units,
        units_joules=units * joules,
        units_seconds=units * busy_seconds,
        joules_joules=joules * joules,
    )


class UnitFit(msgspec.Struct, frozen=True, kw_only=True):
    """What the windows taught of a unit: believed where `verdict` is "learned".

    few: fewer than LEAST_UNIT_WINDOWS; unexplained: `r_squared`, the part of the squared joules that the units explain,
    is below LEAST_EXPLAINED.
    """

    found: UnitPrice
    verdict: UnitVerdict
    windows: int
    r_squared: float


def unit_fitted(kind: UnitKind, sums: UnitSums) -> UnitFit:
    """The price that the windows teach.

    Of windows of (2 images, 600 J) and (4 images, 1 200 J) it is (2 x 600 + 4 x 1 200) / (4 + 16) = 300 J an image.
    """
    squares = max(sums.units_units, 5e-324)
    per_unit, seconds = sums.units_joules / squares, sums.units_seconds / squares
    explained = per_unit * sums.units_joules / sums.joules_joules if sums.joules_joules > 0.0 else 0.0
    verdict: UnitVerdict = "learned"
    if sums.windows < LEAST_UNIT_WINDOWS:
        verdict = "few"
    elif not explained >= LEAST_EXPLAINED:
        verdict = "unexplained"
    return UnitFit(
        found=UnitPrice(
            model=kind.model,
            unit=kind.unit,
            joules_per_unit=per_unit,
            seconds_per_unit=seconds,
            error_ratio=_error_ratio(sums, explained),
        ),
        verdict=verdict,
        windows=sums.windows,
        r_squared=explained,
    )


def _error_ratio(sums: UnitSums, explained: float) -> float:
    """Noise of the price, and what the units leave unexplained of a window: no price is known better than that.

    100 equal windows of which 0.9975 is explained leave 5 %, and a tenth of it is noise: 5.05 %.
    """
    if sums.windows < 2 or explained <= 0.0:
        return 0.0
    left = max(1.0 - explained, 0.0) * sums.windows / (sums.windows - 1)
    noise = left * sums.joules_joules / sums.windows * sums.units_units / sums.units_joules**2
    return sqrt(noise + max(left, TESTED_ERROR_RATIO**2))
