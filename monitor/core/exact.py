"""Sums that are exactly rounded whatever the order and the grouping of their parts. Pure."""

import math
from array import array
from collections.abc import Iterable
from itertools import chain
from typing import Final

_COMPACT_AT: Final = 4_096


class ExactSum:
    """A growing sum whose value is math.fsum of all that was added, in bounded memory; None while nothing was.

    When many parts have come they are replaced by a few whose sum is exactly theirs: the rounded sum, the rounded rest
    of it, and so on to 0 (J. R. Shewchuk, Adaptive Precision Floating-Point Arithmetic, 1997). 1e16 + 1 - 1e16 is 1.
    """

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts = array("d")

    def add(self, value: float) -> None:
        """Adds one part."""
        self._parts.append(value)
        if len(self._parts) >= _COMPACT_AT:
            self._parts = _exact_parts(self._parts)

    def merge(self, other: "ExactSum") -> None:
        """Adds all parts of another sum."""
        self._parts.extend(other._parts)
        if len(self._parts) >= _COMPACT_AT:
            self._parts = _exact_parts(self._parts)

    def subtract(self, other: "ExactSum") -> None:
        """Adds the negatives of all parts of another sum."""
        for part in other._parts:
            self.add(-part)

    def known(self) -> float | None:
        """The sum, or None where nothing was added."""
        return math.fsum(self._parts) if self._parts else None

    def value(self) -> float:
        """The sum; 0.0 of nothing."""
        return math.fsum(self._parts)


def _exact_parts(values: Iterable[float]) -> "array[float]":
    values, parts = list(values), array("d")
    while rest := math.fsum(chain(values, (-part for part in parts))):
        parts.append(rest)
    return parts or array("d", [0.0])
