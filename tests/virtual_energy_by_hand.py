"""The split of a device's joules as a plain loop in exact fractions: slow, and sharing nothing with the real one."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

TOP_WATTS = 10_000


@dataclass(frozen=True)
class Reading:
    """Seconds from the window's start."""

    start: float
    end: float
    watts: float
    method: str = "counter"


@dataclass(frozen=True)
class Job:
    """A request on the device, and the joules of its own tokens."""

    start: float
    first: float
    end: float
    weight: float = 1.0
    prefill: float = 0.0
    decode: float = 0.0
    growing: float = 0.0


@dataclass
class Paid:
    """Joules of each request, and of idle, gap, unknown device and unreported."""

    energy: list[Fraction]
    marginal: list[Fraction]
    exact: list[Fraction]
    quiet: list[Fraction]


def paid_by_hand(
    readings: Sequence[Reading],
    jobs: Sequence[Job],
    *,
    length: float,
    idle: float | None,
    shares_idle: bool,
    elsewhere: Sequence[tuple[float, float]],
) -> Paid:
    """Goes from edge to edge; what happens between two of them is worked out for each request alone."""
    paid = Paid(*([Fraction(0)] * len(jobs) for _ in range(3)), [Fraction(0)] * 4)
    for begin, end in _pieces(readings, jobs, length, elsewhere):
        reading = next((each for each in readings if each.start <= begin and end <= each.end), None)
        if reading is None:
            continue
        joules = Fraction(reading.watts) * (end - begin)
        floor = joules if idle is None else min(joules, Fraction(idle) * (end - begin))
        active = [i for i, job in enumerate(jobs) if job.start <= begin and end <= job.end]
        unknown = any(start <= begin and end <= stop for start, stop in elsewhere)
        if not active or not shares_idle:
            paid.quiet[0] += floor
            joules -= floor
        if not active:
            paid.quiet[1 if reading.method == "recovered" else 2 if unknown else 3] += joules
            continue
        _share(paid, jobs, active, joules, (begin, end))
        if len(active) == 1 and not unknown and jobs[active[0]].weight == 1.0:
            paid.exact[active[0]] += joules
    return paid


def _share(
    paid: Paid, jobs: Sequence[Job], active: list[int], joules: Fraction, piece: tuple[Fraction, Fraction]
) -> None:
    own = {i: Fraction(jobs[i].weight) * _own(jobs[i], *piece) for i in active}
    asked = sum(own.values(), Fraction(0))
    scale = joules / asked if asked > joules else Fraction(1)
    weights = sum(Fraction(jobs[i].weight) for i in active)
    for i in active:
        paid.marginal[i] += scale * own[i]
        paid.energy[i] += scale * own[i] + (joules - scale * asked) * Fraction(jobs[i].weight) / weights


def _own(job: Job, begin: Fraction, end: Fraction) -> Fraction:
    """Joules of a request's own tokens in a piece that its prefill or its decode contains."""
    if end <= job.first:
        lasts = Fraction(job.first) - Fraction(job.start)
        return _at_most(job.prefill, lasts) * (end - begin) / lasts
    first = Fraction(job.first)
    lasts = Fraction(job.end) - first
    even, growing = _at_most(job.decode, lasts), _at_most(job.growing, lasts)
    if lasts < 1:
        return (even + growing) * (end - begin) / lasts
    return even * (end - begin) / lasts + growing * ((end - first) ** 2 - (begin - first) ** 2) / lasts**2


def _at_most(joules: float, lasts: Fraction) -> Fraction:
    return min(Fraction(joules), TOP_WATTS * lasts)


def _pieces(
    readings: Sequence[Reading], jobs: Sequence[Job], length: float, elsewhere: Sequence[tuple[float, float]]
) -> list[tuple[Fraction, Fraction]]:
    edges = {0.0, length}
    edges.update(edge for each in readings for edge in (each.start, each.end))
    edges.update(edge for job in jobs for edge in (job.start, job.first, job.end))
    edges.update(edge for span in elsewhere for edge in span)
    return list(pairwise(Fraction(edge) for edge in sorted(edges) if 0.0 <= edge <= length))
