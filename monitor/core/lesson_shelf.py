"""Lessons of any kind by what they are of: those of open periods in the making, those in force at a moment. Pure."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

from collectors.units import UnixSeconds

_Sums = TypeVar("_Sums", bound="_Additive")
_Key = TypeVar("_Key", bound=Hashable)
_Fit = TypeVar("_Fit")


class _Additive(Protocol):
    def plus(self: _Sums, other: _Sums) -> _Sums: ...


class OpenPeriods(Generic[_Key, _Sums]):
    """Sums of the periods that are not over yet, by what they are of; of more than `most` in a period the first."""

    def __init__(self, most: int, known: Mapping[UnixSeconds, Mapping[_Key, _Sums]]) -> None:
        self._most = most
        self._sums = {start: dict(sums) for start, sums in known.items() if sums}

    def add(self, period: UnixSeconds, lessons: Mapping[_Key, _Sums]) -> None:
        """What a window of that period taught."""
        for key in sorted(lessons):  # type: ignore[type-var]  # names and tuples of names
            sums = self._sums.setdefault(period, {})
            if key in sums:
                sums[key] = sums[key].plus(lessons[key])
            elif len(sums) < self._most:
                sums[key] = lessons[key]

    def over(self, is_over: Callable[[UnixSeconds], bool]) -> list[tuple[UnixSeconds, _Key, _Sums]]:
        """Those of periods that are over, once, in order."""
        ended = sorted(filter(is_over, self._sums))
        return [(start, key, sums) for start in ended for key, sums in sorted(self._sums.pop(start).items())]

    @property
    def newest(self) -> dict[_Key, _Sums]:
        """The newest period's so far; behind `over`, the only one there is."""
        return dict(self._sums[max(self._sums)]) if self._sums else {}


class Shelf(Generic[_Key, _Sums, _Fit]):
    """The sums of lessons, each with the moment from which on it is in force, and fits of those in force together.

    `fit` makes a fit of the sums in their order: sums of floats, always added up in one order.
    """

    def __init__(self, fit: Callable[[_Key, Sequence[_Sums]], _Fit]) -> None:
        self._fit = fit
        self._lessons: dict[_Key, dict[tuple[UnixSeconds, str], tuple[UnixSeconds, _Sums]]] = {}
        self._fits: dict[tuple[_Key, UnixSeconds], _Fit] = {}

    def add(self, key: _Key, start: UnixSeconds, partition: str, since: UnixSeconds, sums: _Sums) -> None:
        """The first of (key, start, partition) counts."""
        mine = self._lessons.setdefault(key, {})
        if (start, partition) in mine:
            return
        mine[start, partition] = since, sums
        self._fits = {of: fit for of, fit in self._fits.items() if of[0] != key or of[1] < since}

    def forget(self, oldest: UnixSeconds) -> None:
        """Those that begin before it; they come nearly in order, so what stands behind a later one may stay."""
        for key in list(self._lessons):
            mine = self._lessons[key]
            while mine and (first := next(iter(mine)))[0] < oldest:
                del mine[first]
            if not mine:
                del self._lessons[key]
        self._fits = {of: fit for of, fit in self._fits.items() if of[1] >= oldest}

    def subjects(self) -> list[_Key]:
        """All of which there are any."""
        return list(self._lessons)

    def at(self, key: _Key, moment: UnixSeconds, memory_seconds: float) -> _Fit:
        """The fit of those in force at that moment that begin no longer ago than that."""
        found = self._fits.get((key, moment))
        if found is None:
            held = self.held(key, moment, memory_seconds)
            found = self._fits[key, moment] = self._fit(key, list(held.values()))
        return found

    def held(self, key: _Key, moment: UnixSeconds, memory_seconds: float) -> dict[tuple[UnixSeconds, str], _Sums]:
        """The sums that `at` makes a fit of, by start and partition, in order."""
        mine = self._lessons.get(key, {})
        places = [
            place for place, (since, _) in mine.items() if since <= moment and place[0] >= moment - memory_seconds
        ]
        return {place: mine[place][1] for place in sorted(places)}
