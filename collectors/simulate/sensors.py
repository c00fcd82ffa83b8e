"""What a meter sees: the true energy of a board -> power samples or a cumulative counter."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from collectors.simulate.rates import Floats
from collectors.simulate.scenario import Burst, Sensor

COUNTER_START_JOULES = 250_000.0  # a driver's counter has run before anybody looks


class EnergyCurve:
    """A board's true energy since the start of the recording: idle power, steps, and bursts, which add up."""

    def __init__(self, idle_watts: float, steps: "StepEnergies", bursts: Sequence[Burst]) -> None:
        self._idle_watts = idle_watts
        self._edges, self._joules = steps.curve()
        self._bursts = tuple(bursts)

    def joules(self, times: Floats) -> Floats:
        """Energy from 0 to each time, in seconds."""
        joules: Floats = self._idle_watts * times + np.interp(times, self._edges, self._joules)
        for burst in self._bursts:
            joules += burst.power_watts * (np.clip(times, burst.start, burst.end) - burst.start)
        return joules


class StepEnergies:
    """Energy above idle of steps, in order of time; within a step its power is constant."""

    def __init__(self) -> None:
        self._ends: list[Floats] = [np.zeros(1)]
        self._joules: list[Floats] = [np.zeros(1)]

    def add(self, start: float, seconds: Floats, joules: Floats) -> None:
        """Steps without a pause from `start` on."""
        self._ends += [np.array([start]), start + np.cumsum(seconds)]
        self._joules += [np.zeros(1), joules]

    def curve(self) -> tuple[Floats, Floats]:
        """Times and the cumulative energy at them."""
        return np.concatenate(self._ends), np.cumsum(np.concatenate(self._joules))


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """What one sensor read: `values` are watts or joules, by its kind; times in seconds from the start."""

    sensor: Sensor
    times: Floats
    values: Floats

    def rows(self) -> Iterator[tuple[float, float]]:
        """Time and value, one by one."""
        return zip(self.times.tolist(), self.values.tolist(), strict=True)


def sample(sensor: Sensor, curve: EnergyCurve, duration_seconds: float, rng: np.random.Generator) -> Samples:
    """Reads the sensor from 0 to the end of the recording, both included if the period divides it."""
    count = int(np.floor(duration_seconds / sensor.period_seconds + 1e-9)) + 1
    times: Floats = np.arange(count, dtype=np.float64) * sensor.period_seconds
    read = _power_watts if sensor.kind == "power" else _counter_joules
    return Samples(sensor=sensor, times=times, values=read(sensor, curve, times, rng))


def _power_watts(sensor: Sensor, curve: EnergyCurve, times: Floats, rng: np.random.Generator) -> Floats:
    """Mean power of the averaging window before each time; before the start the board was idle."""
    window = max(sensor.averaging_seconds, 1e-3)
    watts = (curve.joules(times) - curve.joules(times - window)) / window
    noisy: Floats = sensor.gain * watts * (1.0 + sensor.noise_ratio * rng.standard_normal(len(times)))
    return np.maximum(noisy, 0.0)


def _counter_joules(sensor: Sensor, curve: EnergyCurve, times: Floats, rng: np.random.Generator) -> Floats:
    """The counter as last refreshed at or before each time; noise is in its increments, and it never falls."""
    refreshed = times
    if sensor.averaging_seconds > 0.0:
        refreshed = np.floor(times / sensor.averaging_seconds + 1e-9) * sensor.averaging_seconds
    increments = np.diff(curve.joules(refreshed), prepend=0.0)
    noise = 1.0 + sensor.noise_ratio * rng.standard_normal(len(times))
    return COUNTER_START_JOULES + np.cumsum(sensor.gain * increments * np.maximum(noise, 0.0))
