"""What is known of a GPU type, and since when. Pure.

Each period of 10 minutes makes one lesson for each partition and GPU type: sums over its windows (learning.py). It is a
fact, in force from the next full 10 minutes after it stood in the log on, and for a day; the period from 0:00 to 0:10,
final at 0:25, serves from 0:30 on. So whoever computes a window, whenever, finds the same coefficients.
"""

from collections.abc import Callable, Mapping
from math import ceil, floor
from typing import Final

import msgspec

from collectors.units import SECONDS_PER_DAY, UnixSeconds
from monitor.core.attribution.learning import Fit, FitSums, fitted, fitted_from_requests, total
from monitor.core.membership import Accounting

PERIOD_SECONDS: Final = 600.0
MEMORY_SECONDS: Final = SECONDS_PER_DAY
IN_FORCE_AFTER_SECONDS: Final = 60.0
"""Any fact's: from so long after its own log time on (facts.py)."""
MOST_TYPES: Final = 8
"""GPU types that a partition learns of at a time: its sums of an open period stand in its commits, which are small."""
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

    def known_at(self, log_time: UnixSeconds) -> UnixSeconds:
        """When it was known to whoever computes windows; `log_time` is where it stands among the facts.

        Of a log's only partition that is when it was taught: its one reader goes through it in order, whatever stood
        behind already. Readers of other partitions know it when it stands in the log.
        """
        return self.taught_at if self.partition.endswith("/1") else max(self.taught_at, log_time)


def period_of(moment: UnixSeconds) -> UnixSeconds:
    """The start of the period that holds it."""
    return floor(moment / PERIOD_SECONDS) * PERIOD_SECONDS


class Learning:
    """The lessons of one partition in the making: windows in, in their order; out what periods that are over taught."""

    def __init__(self, watermark: UnixSeconds, known: Mapping[str, FitSums]) -> None:
        """`known` is what the windows before the watermark taught in the period that it lies in."""
        self._sums: dict[UnixSeconds, dict[str, FitSums]] = {period_of(watermark): dict(known)} if known else {}

    def add(self, window_begin: UnixSeconds, lessons: Mapping[str, FitSums]) -> None:
        """What a window taught; of more than MOST_TYPES in a period the first."""
        for gpu in sorted(lessons):
            sums = self._sums.setdefault(period_of(window_begin), {})
            if gpu in sums or len(sums) < MOST_TYPES:
                sums[gpu] = sums.get(gpu, FitSums()).plus(lessons[gpu])

    def over(self, final_end: UnixSeconds, log_time: UnixSeconds) -> list[Lesson]:
        """The lessons of periods of which every window is final at that log time, once; no partition is named yet."""
        ended = sorted(start for start in self._sums if start + PERIOD_SECONDS <= final_end)
        return [
            Lesson(gpu=gpu, partition="", start=start, taught_at=log_time, sums=sums)
            for start in ended
            for gpu, sums in sorted(self._sums.pop(start).items())
        ]

    @property
    def open(self) -> Mapping[str, FitSums]:
        """What the newest period has taught so far; behind `over`, the only one there is."""
        return dict(self._sums[max(self._sums)]) if self._sums else {}


class Learned:
    """The lessons of a log, by the moment from which on they are in force.

    Those that no window which may still be computed can need are forgotten: there are 144 a day for each partition.
    """

    def __init__(self) -> None:
        self._lessons: dict[str, dict[tuple[UnixSeconds, str], tuple[UnixSeconds, Lesson]]] = {}
        self._fits: dict[tuple[str, UnixSeconds], Fit] = {}

    def add(self, lesson: Lesson, log_time: UnixSeconds, terms: Accounting) -> None:
        """Takes the next lesson of the log, which stands there at that log time."""
        mine, key = self._lessons.setdefault(lesson.gpu, {}), (lesson.start, lesson.partition)
        if key in mine:
            return
        known = max(
            lesson.start + PERIOD_SECONDS + terms.horizon_seconds, lesson.known_at(log_time) + IN_FORCE_AFTER_SECONDS
        )
        since = ceil(known / PERIOD_SECONDS) * PERIOD_SECONDS
        mine[key] = since, lesson
        oldest = lesson.start - terms.restate_seconds - MEMORY_SECONDS - SECONDS_PER_DAY
        self._fits = {
            of: fit for of, fit in self._fits.items() if of[1] >= oldest and (of[0] != lesson.gpu or of[1] < since)
        }
        while (first := next(iter(mine)))[0] < oldest:  # they come nearly in order
            del mine[first]

    @property
    def gpus(self) -> list[str]:
        """The GPU types of which there are any."""
        return sorted({gpu.removesuffix(_FROM_REQUESTS) for gpu in self._lessons})

    def fit(self, gpu: str, at: UnixSeconds) -> Fit:
        """What was known of a GPU type at a moment: of the lessons of a day those in force then.

        What engines' counters taught; what requests did only where the counters' windows are too few to say anything.
        """
        begin = period_of(at)
        by_counters = self._fit(gpu, begin, fitted)
        if by_counters.verdict != "few":
            return by_counters
        by_requests = self._fit(from_requests(gpu), begin, fitted_from_requests)
        return by_requests if by_requests.windows > by_counters.windows else by_counters

    def _fit(self, gpu: str, begin: UnixSeconds, fit_of: Callable[[FitSums], Fit]) -> Fit:
        found = self._fits.get((gpu, begin))
        if found is None:
            held = [
                key
                for key, (since, lesson) in self._lessons.get(gpu, {}).items()
                if since <= begin and lesson.start >= begin - MEMORY_SECONDS
            ]
            mine = [self._lessons[gpu][key][1].sums for key in sorted(held)]  # sums of floats: in one order
            found = self._fits[gpu, begin] = fit_of(total(mine))
        return found
