"""How long a refit takes: the lessons of a day, of one partition and of a fleet's 64, beside one pass over as many."""

import time
from collections.abc import Callable

from monitor.core.attribution.learning import sums_of
from monitor.core.attribution.work import Work
from monitor.core.lessons import PERIOD_SECONDS, Learned, Lesson
from monitor.core.membership import Accounting

GOAL_SECONDS = 1.0
_DAY = 144
_ROUNDS = 5


def run() -> list[str]:
    """Lines for one partition and 64."""
    return [line for partitions in (1, 64) for line in _measure(partitions)]


def _measure(partitions: int) -> list[str]:
    lessons = [_lesson(period, number, partitions) for period in range(_DAY) for number in range(partitions)]
    entering = _best_seconds(lambda: _learned(lessons))
    learned = _learned(lessons)
    begins = iter(range(_DAY, _DAY + _ROUNDS + 1))  # each a period whose fit nobody has asked for yet
    fitting = _best_seconds(lambda: learned.fit("H100", PERIOD_SECONDS * (next(begins) + 1)))
    passing = _best_seconds(lambda: [lesson.sums.windows for lesson in lessons])
    met = "met" if fitting < GOAL_SECONDS else "NOT MET"
    return [
        f"learning: refit of 24 h, {partitions} partitions ({len(lessons):,} lessons): {1e3 * fitting:.1f} ms, goal"
        f" {GOAL_SECONDS:.0f} s: {met}; {fitting / passing:.0f} x one pass over them",
        f"learning: {partitions} partitions: {1e6 * entering / len(lessons):.1f} us to enter a lesson",
    ]


def _lesson(period: int, number: int, partitions: int) -> Lesson:
    start = PERIOD_SECONDS * period
    sums = sums_of(Work(1e14 + 1e12 * number, 2e13 + 1e11 * period), 2_000.0)
    return Lesson(gpu="H100", partition=f"{number}/{partitions}", start=start, taught_at=start + 1_500.0, sums=sums)


def _learned(lessons: list[Lesson]) -> Learned:
    learned = Learned()
    for lesson in lessons:
        learned.add(lesson, lesson.taught_at, Accounting())
    return learned


def _best_seconds(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begun)
    return best
