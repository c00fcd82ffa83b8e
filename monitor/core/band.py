"""The band around a sum of joules: between which figures the truth lies. Pure. In: sums of rows. Out: low and high.

Two causes, added up:

- the meter: a sensor's gain is a tolerance, not a matter of chance. It is the same in all that one device measured, so
  it never shrinks with more rows; devices are off each for itself.
- the split: nine times in ten the truth lies within. Errors of J/FLOP and J/byte add up with their sign, the rest by
  its variance; over all that a device's requests paid both are nothing, because they paid what the meter held.

Numbers are of floats added in any order, and rounded to six digits.
"""

from collections.abc import Callable, Iterable, Mapping
from math import hypot, isnan, sqrt
from typing import Final, Literal, Protocol

import msgspec

Tier = Literal["measured", "learned_with_steps", "learned_from_events", "prior", "modelled"]
NINE_IN_TEN: Final = 1.645
"""Standard errors on either side that hold nine tenths of a normal distribution."""
GAIN_RATIO: Final = 0.05
"""What a GPU's or CPU's sensor may be off unless something better is known."""
MODELLED_RATIO: Final = 0.30
"""What a modelled figure may be off. An assumption: nobody measured it here."""

Place = tuple[str, str]
"""Host and device."""


class Gains(msgspec.Struct, frozen=True, kw_only=True):
    """How far meters may be off, relative to what they tell: `ratio` unless `of` names the (host, device), or the host
    by (host, "").
    """

    ratio: float = GAIN_RATIO
    of: Mapping[Place, float] = {}

    def at(self, place: Place) -> float:
        """That of a device; of a host, with device "", the greatest that may be among its devices."""
        host, device = place
        if device:
            return self.of.get(place, self.of.get((host, ""), self.ratio))
        return max(
            [self.of.get((host, ""), self.ratio), *(gain for (name, _), gain in self.of.items() if name == host)]
        )


class ToldBy(Protocol):
    """Meters by which joules of a device were told: (meter, its part, not modelled of it) for each (nested.py)."""

    def __call__(self, place: Place, energy: float, metered: float) -> Iterable[tuple[Place, float, float]]: ...


def by_itself(place: Place, energy: float, metered: float) -> Iterable[tuple[Place, float, float]]:
    """A meter that contains no other."""
    return [(place, energy, metered)]


class Band(msgspec.Struct, frozen=True):
    """Joules. `split_joules` is the part of either half that the split alone makes, None where nobody knows."""

    low_joules: float | None
    high_joules: float | None
    split_joules: float | None


class Doubt:
    """Of one line: its joules by device, and what they may be off. Grows row by row."""

    __slots__ = ("_byte", "_devices", "_flop")

    def __init__(self) -> None:
        self._devices: dict[Place, list[float]] = {}
        self._flop = self._byte = 0.0

    def add(self, place: Place, energy: float, metered: float, moves: tuple[float, float], variance: float) -> None:
        """Takes a row: its joules, those not modelled, what J/FLOP and J/byte move, its variance; NaN is not known."""
        mine = self._devices.get(place)
        if mine is None:
            mine = self._devices[place] = [0.0, 0.0, 0.0]
        mine[0] += energy
        mine[1] += metered
        mine[2] += variance
        self._flop += moves[0]
        self._byte += moves[1]

    def merge(self, other: "Doubt") -> None:
        """Takes all that another has."""
        for place, (energy, metered, variance) in other._devices.items():
            self.add(place, energy, metered, (0.0, 0.0), variance)
        self._flop += other._flop
        self._byte += other._byte

    def variance_at(self, place: Place) -> float:
        """Its variance on one device."""
        return self._devices[place][2] if place in self._devices else 0.0

    def band(self, gains: Gains, whole_at: Callable[[Place], float] | None = None, told_by: ToldBy = by_itself) -> Band:
        """`whole_at` tells the variance of all rows of a device, these included; None where it is not known.

        Of errors v1 .. vn that add up to nothing, a part A has the variance V(A) (1 - V(A) / V): of two that are equal
        half, of all of them none.

        1 000 J metered at 5 %: 952.381 to 1 052.63. With moves of 30 J and 40 J and no variance 1.645 x 50 J more.
        """
        low = high = variance = energy = 0.0
        meters: dict[Place, tuple[float, float]] = {}
        for place, (joules, metered, own) in self._devices.items():
            for meter, told, not_modelled in told_by(place, joules, metered):
                sums = meters.get(meter, (0.0, 0.0))
                meters[meter] = sums[0] + not_modelled, sums[1] + told - not_modelled
            energy += joules
            whole = 0.0 if whole_at is None else whole_at(place)
            variance += own * max(1.0 - own / whole, 0.0) if whole > 0.0 else own
        for meter, (metered, modelled) in meters.items():
            (below, above), (less, more) = _sides(metered, gains.at(meter)), _sides(modelled, MODELLED_RATIO)
            low, high = hypot(low, below + less), hypot(high, above + more)
        split = NINE_IN_TEN * sqrt(self._flop**2 + self._byte**2 + variance)
        if isnan(energy + low + high + split):  # of a part of it nobody knows
            return Band(None, None, None)
        return Band(_rounded(max(energy - low - split, 0.0)), _rounded(energy + high + split), _rounded(split))


def tier(energy: float, metered: float, exact: float, learned: float, steps: float) -> Tier:
    """What most of the joules rest on: measured alone, learned with or without an engine's steps, priors, or a model.

    600 J of which 100 were used alone, 450 priced by learned scalars, 400 placed by steps: "learned_with_steps".
    """
    with_steps = min(learned, steps)
    parts: dict[Tier, float] = {
        "measured": exact,
        "learned_with_steps": with_steps,
        "learned_from_events": learned - with_steps,
        "prior": energy - exact - learned,
    }
    if energy - metered > energy / 2.0:
        return "modelled"
    return max(parts, key=lambda name: parts[name])


def _sides(joules: float, ratio: float) -> tuple[float, float]:
    """How far (below, above) the truth may lie: of 1 000 J at 5 % 47.6 and 52.6 J, of -1 000 J the other way."""
    sides = abs(joules) * ratio / (1.0 + ratio), abs(joules) * ratio / (1.0 - ratio)
    return sides if joules >= 0.0 else sides[::-1]


def _rounded(joules: float) -> float:
    return float(f"{joules:.6g}")
