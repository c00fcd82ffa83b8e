"""What is known of a GPU type, and since when. Pure.

Each period of 10 minutes makes one lesson for each partition and GPU type: sums over its windows (learning.py), and one
for each unit of work that is no token (attribution/units.py). It is a fact, in force from the next full 10 minutes
after it stood in the log on, and for a day; the period from 0:00 to 0:10, final at 0:25, serves from 0:30 on. So
whoever computes a window, whenever, finds the same coefficients.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import ceil, floor, inf
from sys import float_info
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from collectors.units import SECONDS_PER_DAY, UnixSeconds
from monitor.core.attribution.learning import Fit, FitSums, fitted, fitted_from_requests, total
from monitor.core.attribution.methods import WHOLE_FIT
from monitor.core.attribution.priors import Scalars
from monitor.core.attribution.units import UnitFit, UnitKind, UnitSums, unit_fitted
from monitor.core.lesson_shelf import OpenPeriods, Shelf
from monitor.core.membership import Accounting
from monitor.core.routing import EXPONENTS, proven, routed, type_of

PERIOD_SECONDS: Final = 600.0
MEMORY_SECONDS: Final = SECONDS_PER_DAY
IN_FORCE_AFTER_SECONDS: Final = 60.0
"""Any fact's: from so long after its own log time on (facts.py)."""
MOST_TYPES: Final = 6
"""GPU types that a partition learns of at a time: its sums of an open period stand in its commits, which are small."""
EVER: Final = float_info.max
"""A moment at which every lesson is in force, however old: what a whole recording taught."""
MOST_ROUTINGS: Final = len(EXPONENTS)
"""Ways in which mixtures of experts may read them, of one GPU type at a time."""
MOST_UNIT_KINDS: Final = 4
"""GPU types, models and units that it learns the work of at a time, for the same reason."""
_FROM_REQUESTS: Final = " (from requests)"


def from_requests(gpu: str) -> str:
    """The name under which is kept what requests alone teach of a GPU type: apart from what its engines' counters do.

    So nothing that adds up lessons of one name mixes the two, this version or an older one.
    """
    return gpu + _FROM_REQUESTS


class Lesson(msgspec.Struct, frozen=True, kw_only=True):
    """What the windows of [start, start + PERIOD_SECONDS) teach of the boards named `gpu`, in one partition.

    `gpu` is the maker's name, or `from_requests` of it. (gpu, partition, start) is its key; of several the first in the
    log counts. `partition` is number/count, `taught_at` the partition's log time at which the last of these windows
    became final.
    """

    gpu: str
    partition: str
    start: UnixSeconds
    taught_at: UnixSeconds
    sums: FitSums


class UnitLesson(msgspec.Struct, frozen=True, kw_only=True):
    """The same of the work that a model does on these boards, in a unit that is no token.

    (gpu, model, unit, partition, start) is its key.
    """

    gpu: str
    model: str
    unit: str
    partition: str
    start: UnixSeconds
    taught_at: UnixSeconds
    sums: UnitSums


class GpuUnit(NamedTuple):
    """Work of a model in a unit, on a GPU type."""

    gpu: str
    model: str
    unit: str


class TaughtUnit(msgspec.Struct, frozen=True, array_like=True):
    """What an open period taught of a unit of work so far, as it stands in a commit."""

    gpu: str
    model: str
    unit: str
    sums: UnitSums


def known_at(lesson: Lesson | UnitLesson, log_time: UnixSeconds) -> UnixSeconds:
    """When it was known to whoever computes windows; `log_time` is where it stands among the facts.

    Of a log's only partition that is when it was taught: its one reader goes through it in order, whatever stood
    behind already. Readers of other partitions know it when it stands in the log.
    """
    return lesson.taught_at if lesson.partition.endswith("/1") else max(lesson.taught_at, log_time)


def period_of(moment: UnixSeconds) -> UnixSeconds:
    """The start of the period that holds it."""
    return floor(moment / PERIOD_SECONDS) * PERIOD_SECONDS


class Learning:
    """The lessons of one partition in the making: windows in, in their order; out what periods that are over taught."""

    def __init__(
        self, watermark: UnixSeconds, known: Mapping[str, FitSums], known_units: Iterable[TaughtUnit] = ()
    ) -> None:
        """`known` and `known_units` are what the windows before the watermark taught in the period that it lies in."""
        units = {GpuUnit(each.gpu, each.model, each.unit): each.sums for each in known_units}
        types = {name: sums for name, sums in known.items() if name == type_of(name)}
        ways = {name: sums for name, sums in known.items() if name not in types}
        self._gpus = OpenPeriods(MOST_TYPES, {period_of(watermark): types} if types else {})
        self._routings = OpenPeriods(MOST_ROUTINGS, {period_of(watermark): ways} if ways else {})
        self._units = OpenPeriods(MOST_UNIT_KINDS, {period_of(watermark): units} if units else {})

    def add(
        self,
        window_begin: UnixSeconds,
        lessons: Mapping[str, FitSums],
        units: Mapping[GpuUnit, UnitSums] = MappingProxyType({}),
    ) -> None:
        """What a window taught; of more than MOST_TYPES, MOST_ROUTINGS and MOST_UNIT_KINDS in a period the first."""
        types = {name: sums for name, sums in lessons.items() if name == type_of(name)}
        if types:
            self._gpus.add(period_of(window_begin), types)
        if ways := {name: sums for name, sums in lessons.items() if name not in types}:
            self._routings.add(period_of(window_begin), ways)
        if units:
            self._units.add(period_of(window_begin), units)

    def over(self, final_end: UnixSeconds, log_time: UnixSeconds) -> list[Lesson | UnitLesson]:
        """The lessons of periods of which every window is final at that log time, once; no partition is named yet."""

        def is_over(start: UnixSeconds) -> bool:
            return start + PERIOD_SECONDS <= final_end

        return [
            *(
                Lesson(gpu=gpu, partition="", start=start, taught_at=log_time, sums=sums)
                for periods in (self._gpus, self._routings)
                for start, gpu, sums in periods.over(is_over)
            ),
            *(
                UnitLesson(**of._asdict(), partition="", start=start, taught_at=log_time, sums=sums)
                for start, of, sums in self._units.over(is_over)
            ),
        ]

    @property
    def open(self) -> Mapping[str, FitSums]:
        """What the newest period has taught so far of GPU types."""
        return self._gpus.newest | self._routings.newest

    @property
    def open_units(self) -> tuple[TaughtUnit, ...]:
        """The same of units of work."""
        return tuple(TaughtUnit(*of, sums) for of, sums in sorted(self._units.newest.items()))


class Learned:
    """The lessons of a log, by the moment from which on they are in force.

    Those that no window which may still be computed can need are forgotten: there are 144 a day for each partition.
    """

    def __init__(self) -> None:
        self._gpus: Shelf[str, FitSums, Fit] = Shelf(_fit)
        self._units: Shelf[GpuUnit, UnitSums, UnitFit] = Shelf(_unit_fit)
        self._scalars: dict[tuple[str, UnixSeconds], Scalars] = {}

    def add(self, lesson: Lesson | UnitLesson, log_time: UnixSeconds, terms: Accounting) -> None:
        """Takes the next lesson of the log, which stands there at that log time."""
        known = max(
            lesson.start + PERIOD_SECONDS + terms.horizon_seconds, known_at(lesson, log_time) + IN_FORCE_AFTER_SECONDS
        )
        since = ceil(known / PERIOD_SECONDS) * PERIOD_SECONDS
        oldest = lesson.start - terms.restate_seconds - MEMORY_SECONDS - SECONDS_PER_DAY
        if terms.method == WHOLE_FIT:
            oldest = -inf
        if isinstance(lesson, Lesson):
            self._gpus.add(lesson.gpu, lesson.start, lesson.partition, since, lesson.sums)
            self._gpus.forget(oldest)
        else:
            of = GpuUnit(lesson.gpu, lesson.model, lesson.unit)
            self._units.add(of, lesson.start, lesson.partition, since, lesson.sums)
            self._units.forget(oldest)
        self._scalars = {of: each for of, each in self._scalars.items() if oldest <= of[1] < since}

    @property
    def gpus(self) -> list[str]:
        """The GPU types of which there are any."""
        known = {type_of(gpu).removesuffix(_FROM_REQUESTS) for gpu in self._gpus.subjects()}
        return sorted(known | {of.gpu for of in self._units.subjects()})

    def fit(self, gpu: str, at: UnixSeconds) -> Fit:
        """What was known of a GPU type at a moment: of the lessons of a day those in force then.

        What engines' counters taught; what requests did only where the counters' windows are too few to say anything.
        """
        by_counters = self._routed(gpu, at)
        if by_counters.verdict != "few":
            return by_counters
        by_requests = self._routed(from_requests(gpu), at)
        return by_requests if by_requests.windows > by_counters.windows else by_counters

    def _routed(self, gpu: str, at: UnixSeconds) -> Fit:
        """What lessons of that name taught, with the routing of experts that proves itself on them."""
        fit = self._gpus.at(gpu, *_reach(at))
        saved = {each: held for each in EXPONENTS if (held := self._gpus.held(routed(gpu, each), *_reach(at)))}
        if not saved or fit.verdict == "few":
            return fit
        return proven(fit, self._gpus.held(gpu, *_reach(at)), saved, lambda sums: _fit(gpu, [sums]))

    def unit_fits(self, gpu: str, at: UnixSeconds) -> list[UnitFit]:
        """The same of the units of work that were done on it, by model and unit."""
        found = [self._units.at(of, *_reach(at)) for of in sorted(self._units.subjects()) if of.gpu == gpu]
        return [fit for fit in found if fit.windows]

    def scalars(self, gpu: str, at: UnixSeconds) -> Scalars:
        """What the work of a GPU type cost as far as it was known then: the priors, and no price, where it was not."""
        key = gpu, _reach(at)[0]
        found = self._scalars.get(key)
        if found is None:
            prices = tuple(fit.found for fit in self.unit_fits(gpu, at) if fit.verdict == "learned")
            scalars = self.fit(gpu, at).scalars
            found = self._scalars[key] = msgspec.structs.replace(scalars, units=prices) if prices else scalars
        return found


def _reach(at: UnixSeconds) -> tuple[UnixSeconds, float]:
    """The period of a moment, and how far back its lessons go."""
    return (EVER, inf) if at == EVER else (period_of(at), MEMORY_SECONDS)


def _fit(gpu: str, sums: Sequence[FitSums]) -> Fit:
    return (fitted_from_requests if gpu.endswith(_FROM_REQUESTS) else fitted)(total(sums))


def _unit_fit(of: GpuUnit, sums: Sequence[UnitSums]) -> UnitFit:
    added = UnitSums()
    for each in sums:
        added = added.plus(each)
    return unit_fitted(UnitKind(of.model, of.unit), added)
