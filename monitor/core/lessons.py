"""What a window teaches of a GPU type, and what is known of it when. Pure.

Each period of 10 minutes makes one lesson for each partition and GPU type: sums over its windows (learning.py). It is a
fact, in force from the next full 10 minutes after it stood in the log on, and for a day; the period from 0:00 to 0:10,
final at 0:25, serves from 0:30 on. So whoever computes a window, whenever, finds the same coefficients.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import ceil, floor, fsum
from typing import Final

import msgspec

from collectors.readings import OTHER_PROCESSES, ActivityReading, Device, EngineReading, HostProfile
from collectors.units import SECONDS_PER_DAY, UnixSeconds
from monitor.core.attribution.learning import Fit, FitSums, fitted, sums_of, total
from monitor.core.attribution.models import token_cost
from monitor.core.attribution.priors import Scalars
from monitor.core.attribution.work import LEAST_COVERED, work_told
from monitor.core.membership import Accounting
from monitor.core.readings import Piece

PERIOD_SECONDS: Final = 600.0
MEMORY_SECONDS: Final = SECONDS_PER_DAY
IN_FORCE_AFTER_SECONDS: Final = 60.0
_HELD_BACK: Final = frozenset({"power_capped", "hardware_slowdown", "thermal_throttled", "power_brake"})
_FORGET_AT_EACH: Final = 100
MOST_TYPES: Final = 8
"""GPU types that a partition learns of at a time: its sums of an open period stand in its commits, which are small."""


class Lesson(msgspec.Struct, frozen=True, kw_only=True):
    """What the windows of [start, start + PERIOD_SECONDS) teach of the boards named `gpu`, in one partition.

    (gpu, partition, start) is its key; of several the first in the log counts. `partition` is number/count.
    """

    gpu: str
    partition: str
    start: UnixSeconds
    sums: FitSums


def period_of(moment: UnixSeconds) -> UnixSeconds:
    """The start of the period that holds it."""
    return floor(moment / PERIOD_SECONDS) * PERIOD_SECONDS


def lesson_in(
    device: Device,
    pieces: Sequence[Piece],
    engines: Iterable[EngineReading],
    activities: Iterable[ActivityReading],
    *,
    profile: HostProfile,
    interval: tuple[UnixSeconds, UnixSeconds],
) -> FitSums | None:
    """What the window says of a board, None where it says nothing or something is doubtful.

    Doubtful: a board whose idle power was neither observed nor configured, that was not metered all the time, or was
    held back (power cap, heat) or used by other processes; servers that do not tell their work, or none.
    """
    start, end = interval
    if device.idle_watts is None or device.idle_source == "table" or not device.hardware:
        return None
    covered = fsum(piece.end - piece.start for piece in pieces)
    if covered < LEAST_COVERED * (end - start) or any(each.method in {"recovered", "modelled"} for each in pieces):
        return None
    if any(each.device == device.id and _doubtful(each) for each in activities):
        return None
    facts = {model.name: model for model in profile.models}
    work = work_told(engines, lambda model: token_cost(model, facts.get(model)), start, end)
    joules = fsum(piece.energy_joules for piece in pieces) - device.idle_watts * covered
    if work is None or work.bytes <= 0.0 or joules <= 0.0:
        return None
    return sums_of(work, joules)


def _doubtful(activity: ActivityReading) -> bool:
    foreign = activity.consumer == OTHER_PROCESSES and activity.busy_seconds > 0.0
    return foreign or not _HELD_BACK.isdisjoint(activity.state)


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

    def over(self, final_end: UnixSeconds) -> list[Lesson]:
        """The lessons of periods of which every window is final, once; their partition is still to be named."""
        ended = sorted(start for start in self._sums if start + PERIOD_SECONDS <= final_end)
        return [
            Lesson(gpu=gpu, partition="", start=start, sums=sums)
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
        known = max(lesson.start + PERIOD_SECONDS + terms.horizon_seconds, log_time + IN_FORCE_AFTER_SECONDS)
        since = ceil(known / PERIOD_SECONDS) * PERIOD_SECONDS
        mine[key] = since, lesson
        self._fits = {of: fit for of, fit in self._fits.items() if of[0] != lesson.gpu or of[1] < since}
        oldest = log_time - terms.restate_seconds - MEMORY_SECONDS - SECONDS_PER_DAY
        for old in [each for each in mine if each[0] < oldest] if len(mine) % _FORGET_AT_EACH == 0 else ():
            del mine[old]

    @property
    def gpus(self) -> list[str]:
        """The GPU types of which there are any."""
        return sorted(self._lessons)

    def fit(self, gpu: str, at: UnixSeconds) -> Fit:
        """What was known of a GPU type at a moment: of the lessons of a day those in force then."""
        begin = period_of(at)
        found = self._fits.get((gpu, begin))
        if found is None:
            held = [
                key
                for key, (since, lesson) in self._lessons.get(gpu, {}).items()
                if since <= begin and lesson.start >= begin - MEMORY_SECONDS
            ]
            mine = [self._lessons[gpu][key][1].sums for key in sorted(held)]  # sums of floats: in one order
            found = self._fits[gpu, begin] = fitted(total(mine))
        return found

    def scalars(self, gpu: str, at: UnixSeconds) -> Scalars:
        """The coefficients in force."""
        return self.fit(gpu, at).scalars
