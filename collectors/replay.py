"""Plays recordings as if their hosts were live: in steps of one second of their own time, in the order of the log.

In: recordings. Out: steps, each with what the collectors and request sources of all hosts hand on at that moment. The
steps are a function of the recordings alone, so a replay that was cut off goes on at the step behind the last in its
log, and the log comes out as if it had never stopped.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import ceil
from typing import NamedTuple

import msgspec

from collectors.idle_levels import at_rest
from collectors.readings import Device, EnergyReading, EngineReading, HostProfile
from collectors.recording import Recording
from collectors.requests.event import RequestEvent
from collectors.units import UnixSeconds

STEP_SECONDS = 1.0
TICK_SECONDS = 5.0
"""So long at most the log's clock stands still where nothing is recorded."""

CLOCK_SKEW_SECONDS = 7_200.0
"""So far behind its arrival may an event end at most; what claims more is refused."""


class HostStep(msgspec.Struct, frozen=True):
    """What one host's collectors and users hand on in one step."""

    profile: HostProfile
    readings: tuple[EnergyReading, ...]
    events: tuple[RequestEvent, ...]
    engines: tuple[EngineReading, ...] = ()


class _HeldStep(NamedTuple):
    """A HostStep in the making."""

    readings: list[EnergyReading]
    events: list[RequestEvent]
    engines: list[EngineReading]


class Step(msgspec.Struct, frozen=True):
    """One second of recorded time, told at its end `now`. No hosts: the clock ticks."""

    now: UnixSeconds
    hosts: tuple[HostStep, ...]


class Replay:
    """All recordings on one clock."""

    def __init__(self, recordings: Sequence[Recording]) -> None:
        self._profiles = [recording.profile for recording in recordings]
        self._steps: dict[float, dict[int, _HeldStep]] = {}
        starts: list[UnixSeconds] = []
        ends: list[UnixSeconds] = []
        for number, recording in enumerate(recordings):
            for reading in recording.readings:
                self._at(reading.end, number).readings.append(reading)
                starts.append(reading.start)
            for engine in recording.engines:
                self._at(engine.end, number).engines.append(engine)
                starts.append(engine.start)
            for arrival in recording.requests:
                self._at(arrival.arrived, number).events.append(arrival.event)
                starts.append(min(arrival.arrived, arrival.event.start))
                ends.append(min(arrival.event.end, arrival.arrived + CLOCK_SKEW_SECONDS))
        self.start: UnixSeconds = min(starts, default=0.0)
        self.end: UnixSeconds = max([*self._steps, *ends], default=self.start)

    def __len__(self) -> int:
        """How many steps hold something."""
        return len(self._steps)

    def steps(self, after: UnixSeconds = float("-inf")) -> Iterator[Step]:
        """Steps behind `after`, the oldest first, with ticks where nothing happens for long."""
        last = None
        for now in sorted(self._steps):
            while last is not None and now - last > TICK_SECONDS:
                last += TICK_SECONDS
                if last > after:
                    yield Step(last, ())
            last = now
            if now > after:
                yield Step(now, tuple(self._host_step(number, now) for number in sorted(self._steps[now])))

    def _host_step(self, number: int, now: UnixSeconds) -> HostStep:
        held = self._steps[now][number]
        return HostStep(self._profiles[number], tuple(held.readings), tuple(held.events), tuple(held.engines))

    def _at(self, moment: UnixSeconds, number: int) -> _HeldStep:
        step = ceil(moment / STEP_SECONDS) * STEP_SECONDS
        return self._steps.setdefault(step, {}).setdefault(number, _HeldStep([], [], []))


def with_quiet_level(recording: Recording) -> Recording:
    """The recording with idle watts taken from its own quiet time, for devices of which the host tells none."""
    profile = recording.profile
    if all(device.idle_watts is not None for device in profile.devices):
        return recording
    busy = _merged([(arrival.event.start, arrival.event.end) for arrival in recording.requests])
    devices = tuple(
        device if device.idle_watts is not None else _quiet_device(device, recording.readings, busy)
        for device in profile.devices
    )
    changed = msgspec.structs.replace(profile, devices=devices)
    return replace(recording, profile=changed)


def _quiet_device(
    device: Device, readings: Sequence[EnergyReading], busy: Sequence[tuple[UnixSeconds, UnixSeconds]]
) -> Device:
    watts = quiet_watts([reading for reading in readings if reading.device == device.id], busy)
    return device if watts is None else msgspec.structs.replace(device, idle_watts=watts, idle_source="quiet")


def quiet_watts(readings: Sequence[EnergyReading], busy: Sequence[tuple[UnixSeconds, UnixSeconds]]) -> float | None:
    """The power of a device at rest: the median of its quiet readings that lie within 25 % of the quietest of them.

    `busy` are disjoint intervals in order. Work that nobody reported is quiet time too, which is why the plain median
    will not do. None without a quiet reading of some power. 50, 51, 52, 300 and 310 W are at rest at 51 W.
    """
    quiet: list[float] = []
    place = 0
    for reading in sorted(readings, key=lambda reading: reading.start):
        while place < len(busy) and busy[place][1] <= reading.start:
            place += 1
        if reading.method != "recovered" and (place == len(busy) or busy[place][0] >= reading.end):
            quiet.append(reading.energy_joules / (reading.end - reading.start))
    return at_rest(quiet)


def _merged(intervals: Sequence[tuple[UnixSeconds, UnixSeconds]]) -> list[tuple[UnixSeconds, UnixSeconds]]:
    merged: list[tuple[UnixSeconds, UnixSeconds]] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged
