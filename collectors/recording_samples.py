"""One device's samples -> interval energy: in order, each moment once, holes and resets named."""

import itertools
import statistics
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from collectors.clock import rfc3339
from collectors.counter import HOLE_SECONDS, Energy, Hole, Reset, counter_step
from collectors.errors import Rejected
from collectors.readings import EnergyReading
from collectors.units import UnixSeconds

SampleKind = Literal["power_watts", "energy_joules_total"]
HOLE_INTERVALS: Final = 5.0
"""A hole is longer than this many of the device's median intervals, and longer than HOLE_SECONDS."""


@dataclass(frozen=True, slots=True)
class Flaw:
    """A verdict on the row that stands at this index in the order of the file."""

    row: int
    at: UnixSeconds
    verdict: Rejected


@dataclass(slots=True)
class Samples:
    """What a file says of one device, in the file's order; columns, because a recording may have millions of rows."""

    device: str
    kind: SampleKind
    times: "array[float]" = field(default_factory=lambda: array("d"))
    values: "array[float]" = field(default_factory=lambda: array("d"))
    rows: "array[int]" = field(default_factory=lambda: array("q"))

    def add(self, time: UnixSeconds, value: float, row: int) -> None:
        """Takes one row of the file; `row` is what it is called in a Flaw."""
        self.times.append(time)
        self.values.append(value)
        self.rows.append(row)


@dataclass(slots=True)
class Intervals:
    """What became of a device's samples: its readings by start, and what was not used."""

    readings: list[EnergyReading] = field(default_factory=list)
    flaws: list[Flaw] = field(default_factory=list)
    duplicates: int = 0


def intervals_of(samples: Samples) -> Intervals:
    """The energy between each two neighbouring samples.

    Power is integrated by the trapezoid: 100 W at 0 s and 140 W at 0.5 s are (100 + 140) / 2 x 0.5 = 60 J, so the sum
    is one trapezoid over the whole file. A counter gives the difference, so the sum is its last value less its first.
    """
    result = Intervals()
    order = _kept(samples, result)
    times = [samples.times[index] for index in order]
    limit_seconds = hole_seconds(times)
    for before, after in itertools.pairwise(order):
        try:
            result.readings.append(_reading(samples, before, after, limit_seconds))
        except Rejected as verdict:
            result.flaws.append(Flaw(samples.rows[after], samples.times[after], verdict))
    return result


def _kept(samples: Samples, result: Intervals) -> list[int]:
    """Indices in the order of time, one for each moment: the first in the file; what differs from it is a conflict."""
    kept: list[int] = []
    for index in sorted(range(len(samples.times)), key=samples.times.__getitem__):
        if not kept or samples.times[index] != samples.times[kept[-1]]:
            kept.append(index)
        elif samples.values[index] == samples.values[kept[-1]]:
            result.duplicates += 1
        else:
            detail = f"{samples.device!r} has another {samples.kind} at this time further up in the file"
            result.flaws.append(Flaw(samples.rows[index], samples.times[index], Rejected("conflict", detail)))
    return kept


def hole_seconds(times: Sequence[UnixSeconds]) -> float:
    """What is longer between two samples at these times, in order, is a hole: 30 s, or five times their median."""
    if len(times) < 2:
        return HOLE_SECONDS
    steps = (after - before for before, after in itertools.pairwise(times))
    return max(HOLE_SECONDS, HOLE_INTERVALS * statistics.median(steps))


def _reading(samples: Samples, before: int, after: int, limit_seconds: float) -> EnergyReading:
    start, end = samples.times[before], samples.times[after]
    first, last = samples.values[before], samples.values[after]
    if samples.kind == "power_watts":
        if end - start > limit_seconds:
            raise Rejected("power_gap", f"no power samples of {_interval(samples.device, start, end)}")
        joules = (first + last) / 2 * (end - start)
        return EnergyReading(device=samples.device, start=start, end=end, energy_joules=joules, method="integrated")
    step = counter_step(first, last, elapsed_seconds=end - start, hole_seconds=limit_seconds)
    match step:
        case Energy(joules):
            return EnergyReading(device=samples.device, start=start, end=end, energy_joules=joules, method="counter")
        case Hole(joules):
            return EnergyReading(device=samples.device, start=start, end=end, energy_joules=joules, method="recovered")
        case Reset():
            raise Rejected("counter_reset", f"the counter went back: {_interval(samples.device, start, end)}")
        case _:
            raise Rejected("counter_unclear", f"{type(step).__name__}: {_interval(samples.device, start, end)}")


def _interval(device: str, start: UnixSeconds, end: UnixSeconds) -> str:
    return f"{device!r} from {rfc3339(start)} to {rfc3339(end)} ({end - start:.3f} s), its energy is unknown"
