"""One device's samples -> interval energy, live: each joule once, holes recovered, and what cannot be told is named.

A counter has the first word. Power, where it is sampled beside it, is integrated too: to check the counter, to take its
place where it stands still, and for devices that have none. Pure: time comes with the samples.

    value        Energy, Wrap -> "counter"      Hole -> "recovered"      none -> the integral of power: "integrated"
    no value     Reset, Lost, Implausible, Sentinel: named in `events`, their interval is missing, never 0
"""

import math
from collections import Counter
from typing import Final

import msgspec

from collectors.counter import (
    HOLE_SECONDS,
    LIMIT_HEADROOM,
    CounterStep,
    Energy,
    Hole,
    Implausible,
    Lost,
    Reset,
    Sentinel,
    Wrap,
    counter_step,
)
from collectors.readings import CounterMark, EnergyReading, Method
from collectors.units import UnixSeconds

STUCK_SECONDS: Final = 10.0
"""A counter that stands still so long while power is drawn does not count."""
STUCK_JOULES: Final = 1.0
"""What power must have told meanwhile: an idle board at 10 W passes it in 0.1 s, no board's counter is coarser."""
STEP_SECONDS: Final = 0.5
"""So far may the wall clock and the machine's own time part between two samples before it was set."""
CHECKED_SECONDS: Final = 60.0
"""Counter and integral are compared over no less than this."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What a device said at one moment: wall time `at`, `tick` by the machine's own steady time (clock.boot_seconds).

    `energy_joules` is the raw counter, `power_watts` the power; None where it did not tell.
    """

    at: UnixSeconds
    tick: float
    energy_joules: float | None = None
    power_watts: float | None = None


class _Moment(msgspec.Struct, frozen=True, kw_only=True):
    """Wall time and steady time; `tick` None: in an earlier life of this process."""

    at: UnixSeconds
    tick: float | None


class _Point(_Moment, frozen=True, kw_only=True):
    """A raw counter value and when it was read."""

    raw: float
    same_life: bool = True


class DeviceTrack:
    """Follows one device from sample to sample. Not thread-safe; the meter that reads it keeps it.

    `boot_id` tells one life of the counter from another, `power_limit_watts` is what the device may draw at most,
    `range_joules` where its counter wraps, `mark` where the last run left off. `hole_seconds` is longer
    for a device that is refreshed or read more rarely than each few seconds.
    """

    def __init__(
        self,
        device: str,
        *,
        boot_id: str,
        power_limit_watts: float,
        range_joules: float | None = None,
        mark: CounterMark | None = None,
        hole_seconds: float = HOLE_SECONDS,
    ) -> None:
        self.device = device
        self._hole_seconds = hole_seconds
        self.power_limit_watts = power_limit_watts
        self.events: Counter[str] = Counter()
        self._boot_id, self._range = boot_id, range_joules
        self._last: _Point | None = None
        if mark is not None:
            same_life = mark.boot_id == boot_id
            self._last = _Point(at=mark.at, tick=None, raw=mark.raw_joules, same_life=same_life)
        self._doubted: _Point | None = None
        self._power: tuple[float, float] | None = None  # tick, watts
        self._since: _Moment | None = None  # what is integrated begins there
        self._integral: float | None = None
        self._distrusted = False  # it has stood still while power was drawn: were it to catch up, joules counted twice
        self._checked = [0.0, 0.0, 0.0]  # seconds, counter's joules, integral's joules

    @property
    def mark(self) -> CounterMark | None:
        """The counter at the end of the last reading; None without one, or before the first value."""
        last = self._last
        if last is None or not last.same_life:
            return None
        return CounterMark(
            device=self.device, at=last.at, raw_joules=last.raw, range_joules=self._range, boot_id=self._boot_id
        )

    @property
    def counter_disagreement(self) -> float | None:
        """(counter - integral) / integral since the start; None before a minute of both."""
        seconds, counted, integral = self._checked
        return (counted - integral) / integral if seconds >= CHECKED_SECONDS and integral > 0.0 else None

    def take(self, sample: Sample) -> list[EnergyReading]:
        """The readings that end with this sample, possibly none. Samples come in the order of their ticks.

        200 W on a counter: 1 000 J at 10 s and 1 200 J at 11 s are 200 J in [10, 11).
        """
        self._integrate(sample)
        raw = None if self._distrusted else sample.energy_joules
        if raw is not None and not _is_count(raw, self._range):
            self.events["sentinel"] += 1
            raw = None
        if raw is None:
            return self._without_counter(sample)
        point = _Point(at=sample.at, tick=sample.tick, raw=raw)
        if self._last is None:
            self._settle(point)
            return []
        if self._doubted is not None:
            return self._after_doubt(self._last, self._doubted, point)
        return self._named(self._last, point)

    def _integrate(self, sample: Sample) -> None:
        """Adds the trapezoid since the last sample to the integral; a hole or a missing value spoils it."""
        watts = sample.power_watts
        if watts is not None and not 0.0 <= watts <= LIMIT_HEADROOM * self.power_limit_watts:
            self.events["implausible_power"] += 1
            watts = None
        before, self._power = self._power, None if watts is None else (sample.tick, watts)
        if watts is None or before is None or sample.tick - before[0] > self._hole_seconds:
            if before is not None and watts is not None:
                self.events["power_gap"] += 1
            self._integral = None
        elif self._integral is not None:
            self._integral += (before[1] + watts) / 2.0 * (sample.tick - before[0])
        if self._integral is None and watts is not None and self._last is None:
            self._begin_integral(sample)

    def _begin_integral(self, sample: Sample) -> None:
        self._since = _Moment(at=sample.at, tick=sample.tick)
        self._integral = None if self._power is None else 0.0

    def _without_counter(self, sample: Sample) -> list[EnergyReading]:
        """Power alone: at once where there never was a counter, after a hole's time where it has fallen silent."""
        since, joules = self._since, self._integral
        if joules is None or since is None or since.tick is None or sample.tick <= since.tick:
            return []
        if self._last is not None:
            if sample.tick - since.tick < self._hole_seconds:
                return []
            self.events["counter_silent"] += 1
        self._last = self._doubted = None
        self._begin_integral(sample)
        return self._reading(since, _Moment(at=sample.at, tick=sample.tick), joules, "integrated")

    def _named(self, last: _Point, point: _Point) -> list[EnergyReading]:
        """What the step from the last value to this one is, and the reading it gives."""
        match self._step(last, point):
            case Energy(joules) | Wrap(joules) as step:
                return self._counted(last, point, joules, wrapped=isinstance(step, Wrap))
            case Hole(joules):
                self.events["recovered"] += 1
                self._settle(point)
                return self._reading(last, point, joules, "recovered")
            case Reset() if not last.same_life:
                self.events["reset"] += 1
                self._settle(point)
            case Reset() | Implausible():
                self._doubted = point  # the next value tells whether this one was a slip
            case Lost() | Sentinel() as step:
                self.events["lost" if isinstance(step, Lost) else "sentinel"] += 1
                self._settle(point)
        return []

    def _counted(self, last: _Point, point: _Point, joules: float, *, wrapped: bool) -> list[EnergyReading]:
        if joules == 0.0 and (self._integral or 0.0) >= STUCK_JOULES and last.tick is not None:
            return self._stood_still(last, point)
        if wrapped:
            self.events["wrap"] += 1
        if self._integral is not None and last.tick is not None and point.tick is not None:
            for place, value in enumerate((point.tick - last.tick, joules, self._integral)):
                self._checked[place] += value
        self._settle(point)
        return self._reading(last, point, joules, "counter")

    def _stood_still(self, last: _Point, point: _Point) -> list[EnergyReading]:
        """A counter that does not move while power is drawn: it may be slow, so wait; then power has the word."""
        elapsed = (point.tick or 0.0) - (last.tick or 0.0)
        if elapsed < STUCK_SECONDS:
            return []
        self.events["counter_stuck"] += 1
        self._distrusted = True
        joules = self._integral or 0.0
        self._settle(point)
        self._last = None
        return self._reading(last, point, joules, "integrated")

    def _after_doubt(self, last: _Point, doubted: _Point, point: _Point) -> list[EnergyReading]:
        """The value before this one was odd. It was a slip if this one goes on from before it and not from it."""
        self._doubted = None
        onward, anew = self._step(last, point), self._step(doubted, point)
        if isinstance(onward, Energy | Wrap | Hole) and not isinstance(anew, Energy | Wrap | Hole):
            self.events["glitch"] += 1
            return self._named(last, point)
        self.events["implausible" if doubted.raw > last.raw else "reset"] += 1
        self._settle(doubted, joules_since=None)
        return self._named(doubted, point)

    def _step(self, before: _Point, after: _Point) -> CounterStep:
        """The step between two values; Lost where no time has passed between them by any clock."""
        elapsed = after.at - before.at
        if before.tick is not None and after.tick is not None:
            elapsed = after.tick - before.tick
        if not elapsed > 0.0:
            return Lost()
        return counter_step(
            before.raw,
            after.raw,
            elapsed_seconds=elapsed,
            range_joules=self._range,
            power_limit_watts=self.power_limit_watts,
            hole_seconds=self._hole_seconds,
            same_life=before.same_life,
        )

    def _settle(self, point: _Point, joules_since: float | None = 0.0) -> None:
        """Everything up to this value is told."""
        self._last = point
        self._since = point
        self._integral = None if self._power is None else joules_since

    def _reading(self, before: _Moment, after: _Moment, joules: float, method: Method) -> list[EnergyReading]:
        """Where the wall clock was set in between, the interval keeps its true length and ends where the sample is."""
        start = before.at
        if before.tick is not None and after.tick is not None:
            elapsed = after.tick - before.tick
            if abs((after.at - start) - elapsed) > STEP_SECONDS:
                self.events["clock_step"] += 1
                start = after.at - elapsed
        if not after.at > start:
            return []
        return [EnergyReading(device=self.device, start=start, end=after.at, energy_joules=joules, method=method)]


def _is_count(raw: float, range_joules: float | None) -> bool:
    return math.isfinite(raw) and 0.0 <= raw <= (math.inf if range_joules is None else range_joules)
