"""What a meter sees of a board's true energy."""

from dataclasses import replace

import numpy as np
import pytest

from collectors.simulate.scenario import Burst, Sensor
from collectors.simulate.sensors import COUNTER_START_JOULES, EnergyCurve, StepEnergies, sample


def curve() -> EnergyCurve:
    """100 W idle; a step of 2 s with 60 J above it from 10 s on; a burst of 50 W from 20 to 24 s."""
    steps = StepEnergies()
    steps.add(10.0, np.array([2.0]), np.array([60.0]))
    return EnergyCurve(100.0, steps, [Burst(device="gpu0", start=20.0, end=24.0, power_watts=50.0)])


def test_a_curve_adds_idle_steps_and_bursts() -> None:
    """At 11 s half of the step is done; at 30 s all is."""
    np.testing.assert_allclose(curve().joules(np.array([5.0, 11.0, 22.0, 30.0])), [500.0, 1130.0, 2360.0, 3260.0])


def test_a_power_sample_is_the_mean_of_its_window() -> None:
    """A window of 4 s that holds the step of 60 J reads 115 W, one with gain 1.02 reads 102 W at idle."""
    sensor = Sensor(device="gpu0", kind="power", period_seconds=6.0, averaging_seconds=4.0)
    seen = sample(sensor, curve(), 12.0, np.random.default_rng(0))
    np.testing.assert_allclose(seen.times, [0.0, 6.0, 12.0])
    np.testing.assert_allclose(seen.values, [100.0, 100.0, 115.0])
    scaled = sample(replace(sensor, gain=1.02), curve(), 0.0, np.random.default_rng(0))
    np.testing.assert_allclose(scaled.values, [102.0])


def test_a_true_counter_counts_the_true_energy_and_stands_still_between_refreshes() -> None:
    """With gain 1 and no noise last minus first is 3 260 J; at 11 s it still shows what it had at 10 s."""
    sensor = Sensor(device="gpu0", kind="counter", period_seconds=1.0, averaging_seconds=2.0)
    seen = sample(sensor, curve(), 30.0, np.random.default_rng(0))
    assert seen.values[-1] - seen.values[0] == pytest.approx(3260.0, rel=1e-9)
    assert seen.values[11] - COUNTER_START_JOULES == pytest.approx(1000.0)


def test_a_noisy_counter_never_falls() -> None:
    """However large the noise, a running total runs on."""
    sensor = Sensor(device="gpu0", kind="counter", period_seconds=0.5, noise_ratio=3.0)
    values = sample(sensor, curve(), 30.0, np.random.default_rng(0)).values
    assert (np.diff(values) >= 0.0).all()


@pytest.mark.parametrize(
    ("averaging_seconds", "expected"),
    [
        (0.01, [100.0, 130.0, 130.0, 100.0]),
        (0.1, [100.0, 115.0, 130.0, 115.0]),
        (1.0, [100.0, 101.5, 130.0, 128.5]),
    ],
)
def test_a_power_sensor_smears_a_step_over_its_window(averaging_seconds: float, expected: list[float]) -> None:
    """A step of 130 W from 10 to 12 s, seen at 10.00, 10.05, 11.00 and 12.05 s by windows of 10, 100 and 1 000 ms.

    Of the 100 ms before 10.05 and before 12.05 s half are the step's; of the second before 10.05 s a twentieth is, of
    the second before 12.05 s all but a twentieth.
    """
    sensor = Sensor(device="gpu0", kind="power", period_seconds=0.05, averaging_seconds=averaging_seconds)
    seen = sample(sensor, curve(), 13.0, np.random.default_rng(0))
    np.testing.assert_allclose(seen.values[[200, 201, 220, 241]], expected, rtol=1e-9)


@pytest.mark.parametrize("gain", [0.95, 1.05])
@pytest.mark.parametrize("kind", ["power", "counter"])
def test_a_gain_moves_all_that_is_read_by_its_factor(kind: str, gain: float) -> None:
    """5 % more or less of each watt, and of each joule counted since the start."""
    true = Sensor(device="gpu0", kind="power" if kind == "power" else "counter", period_seconds=1.0)
    one, other = (sample(each, curve(), 30.0, np.random.default_rng(0)) for each in (true, replace(true, gain=gain)))
    start = 0.0 if kind == "power" else COUNTER_START_JOULES
    np.testing.assert_allclose(other.values - start, gain * (one.values - start), rtol=1e-9)


def test_windows_that_touch_lose_nothing() -> None:
    """A mean of the last second read each second: 30 samples add up to the 3 260 J of 30 s."""
    sensor = Sensor(device="gpu0", kind="power", period_seconds=1.0, averaging_seconds=1.0)
    seen = sample(sensor, curve(), 30.0, np.random.default_rng(0))
    assert seen.values[1:].sum() == pytest.approx(3260.0, rel=1e-9)
