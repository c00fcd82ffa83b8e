"""What each request used in one window, over all devices of its host. In: columns. Out: columns."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.core.attribution.pieces import Column, Flags
from monitor.core.usage_columns import Index, Objects, UsageColumns, places_in

ENERGY, MARGINAL, METERED, RECOVERED, EXACT, STEPS, LEARNED, FLOP, BYTE, VARIANCE = range(10)
"""The rows of `joules`; those from STEPS on are doubt.py's, the last one in J^2 and NaN where it is not known."""
COLUMNS = 10


@dataclass(frozen=True, eq=False, slots=True)
class Shares:
    """A share for each of n requests: `joules` has COLUMNS rows of length n, all else length n.

    Where no meter of its devices told anything a request is not `measured`: the joules are not known, and stand at 0.
    `grams` are NaN where they are not known; `factor` names what made them.
    """

    usages: UsageColumns
    joules: NDArray[np.float64]
    grams: Column
    factor: Objects
    measured: Flags

    def __len__(self) -> int:
        return len(self.usages)

    def take(self, chosen: Index | Flags) -> "Shares":
        """Those of these places, in that order."""
        places = places_in(chosen)
        return Shares(
            self.usages.take(places),
            self.joules.take(places, axis=1),
            self.grams[places],
            self.factor[places],
            self.measured[places],
        )

    def by_number(self, chosen: Flags) -> "Shares":
        """The chosen ones in the order of their requests' numbers, for `places_of`."""
        places = np.flatnonzero(chosen)
        return self.take(places[np.argsort(self.usages.number[places])])

    def places_of(self, numbers: Index) -> Index:
        """Where the requests of these numbers stand; -1 for those that have no share. Only `by_number`."""
        mine = self.usages.number
        if not len(mine):
            return np.full(len(numbers), -1, dtype=np.intp)
        places = np.minimum(np.searchsorted(mine, numbers), len(mine) - 1)
        return np.where(mine[places] == numbers, places, -1)

    def equals(self, other: "Shares") -> bool:
        """Whether both say the same of the same requests."""
        return (
            len(self) == len(other)
            and np.array_equal(self.joules, other.joules, equal_nan=True)
            and np.array_equal(self.grams, other.grams, equal_nan=True)
            and np.array_equal(self.measured, other.measured)
            and np.array_equal(self.factor, other.factor)
            and self.usages.equals(other.usages)
        )
