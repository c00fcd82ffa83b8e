"""From samples to readings, live: each joule once, whatever the counter does."""

import itertools
from collections.abc import Sequence
from math import fsum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.device_track import DeviceTrack, Sample
from collectors.readings import CounterMark, EnergyReading

LIMIT_WATTS = 400.0
T0 = 1_700_000_000.0


def track(*, range_joules: float | None = None, mark: CounterMark | None = None, boot_id: str = "boot") -> DeviceTrack:
    return DeviceTrack("gpu", boot_id=boot_id, power_limit_watts=LIMIT_WATTS, range_joules=range_joules, mark=mark)


def fed(
    meter: DeviceTrack, values: Sequence[tuple[float, float | None]], watts: float | None = None
) -> list[EnergyReading]:
    """The readings of counter values, each with its second since T0."""
    found = []
    for second, joules in values:
        found += meter.take(Sample(at=T0 + second, tick=second, energy_joules=joules, power_watts=watts))
    return found


def shown(readings: Sequence[EnergyReading]) -> list[tuple[float, float, float, str]]:
    return [(each.start - T0, each.end - T0, each.energy_joules, each.method) for each in readings]


def test_a_counter_gives_the_difference_and_the_first_value_gives_nothing() -> None:
    """200 W read each second are 200 J a second."""
    assert shown(fed(track(), [(0, 1_000.0), (1, 1_200.0), (2, 1_400.0)])) == [
        (0, 1, 200.0, "counter"),
        (1, 2, 200.0, "counter"),
    ]


def test_power_alone_is_integrated_by_the_trapezoid() -> None:
    """100 W and 140 W half a second apart are 60 J."""
    meter = track()
    assert meter.take(Sample(at=T0, tick=0.0, power_watts=100.0)) == []
    assert shown(meter.take(Sample(at=T0 + 0.5, tick=0.5, power_watts=140.0))) == [(0, 0.5, 60.0, "integrated")]
    assert meter.mark is None


def test_a_hole_in_power_alone_is_missing_and_named() -> None:
    """Nobody integrates over 40 s between two samples."""
    meter = track()
    meter.take(Sample(at=T0, tick=0.0, power_watts=100.0))
    assert meter.take(Sample(at=T0 + 40, tick=40.0, power_watts=100.0)) == []
    assert shown(meter.take(Sample(at=T0 + 41, tick=41.0, power_watts=100.0))) == [(40, 41, 100.0, "integrated")]
    assert meter.events == {"power_gap": 1}


def test_a_wrap_gives_what_is_left_of_the_range_and_what_came_after() -> None:
    """262 143 J before 50 J, range 262 143.5: 50.5 J."""
    meter = track(range_joules=262_143.5)
    assert shown(fed(meter, [(0, 262_143.0), (1, 50.0)])) == [(0, 1, 50.5, "counter")]
    assert meter.events == {"wrap": 1}


def test_a_reset_loses_the_interval_it_falls_in_and_no_other() -> None:
    """A driver reload between 2 s and 3 s: 100 J a second on both sides of it, nothing in between."""
    meter = track()
    readings = fed(meter, [(0, 9_000.0), (1, 9_100.0), (2, 9_200.0), (3, 40.0), (4, 140.0), (5, 240.0)])
    assert shown(readings) == [
        (0, 1, 100.0, "counter"),
        (1, 2, 100.0, "counter"),
        (3, 4, 100.0, "counter"),
        (4, 5, 100.0, "counter"),
    ]
    assert meter.events == {"reset": 1}


@pytest.mark.parametrize("slip", [0.0, 1e9, 5.0, 2.0**32])
def test_one_odd_value_among_good_ones_costs_nothing(slip: float) -> None:
    """The value after it goes on where the one before it was: the joules of both intervals are there."""
    meter = track()
    readings = fed(meter, [(0, 9_000.0), (1, 9_100.0), (2, slip), (3, 9_300.0), (4, 9_400.0)])
    assert shown(readings) == [(0, 1, 100.0, "counter"), (1, 3, 200.0, "counter"), (3, 4, 100.0, "counter")]
    assert meter.events == {"glitch": 1}


def test_a_counter_that_jumped_goes_on_from_there() -> None:
    """A jump of a megajoule in a second is named and added up by nobody."""
    meter = track()
    assert shown(fed(meter, [(0, 100.0), (1, 1e6), (2, 1e6 + 100)])) == [(1, 2, 100.0, "counter")]
    assert meter.events == {"implausible": 1}


@pytest.mark.parametrize("value", [float("nan"), -1.0, float("inf")])
def test_a_sentinel_is_no_count_and_the_interval_is_closed_by_the_next_value(value: float) -> None:
    """The counter goes on counting while it cannot be read."""
    meter = track()
    assert shown(fed(meter, [(0, 100.0), (1, value), (2, 300.0)])) == [(0, 2, 200.0, "counter")]
    assert meter.events == {"sentinel": 1}


def test_a_hole_comes_back_as_one_recovered_reading() -> None:
    """The driver hung for five minutes at 100 W."""
    meter = track()
    assert shown(fed(meter, [(0, 0.0), (1, 100.0), (301, 30_100.0), (302, 30_200.0)])) == [
        (0, 1, 100.0, "counter"),
        (1, 301, 30_000.0, "recovered"),
        (301, 302, 100.0, "counter"),
    ]
    assert meter.events == {"recovered": 1}


def test_a_hole_that_may_hide_a_wrap_is_lost_and_named() -> None:
    """262 kJ at 1.5 x 400 W pass half their range after 218 s."""
    meter = track(range_joules=262_143.0)
    assert shown(fed(meter, [(0, 0.0), (300, 30_000.0), (301, 30_100.0)])) == [(300, 301, 100.0, "counter")]
    assert meter.events == {"lost": 1}


def test_a_restart_goes_on_from_the_mark() -> None:
    """Down for a minute at 100 W: recovered; down for 5 s: as if nothing had been."""
    first = track()
    fed(first, [(0, 1_000.0), (1, 1_100.0)])
    assert first.mark == CounterMark(device="gpu", at=T0 + 1, raw_joules=1_100.0, range_joules=None, boot_id="boot")
    assert shown(fed(track(mark=first.mark), [(61, 7_100.0)])) == [(1, 61, 6_000.0, "recovered")]
    assert shown(fed(track(mark=first.mark), [(6, 1_600.0)])) == [(1, 6, 500.0, "counter")]


def test_a_reboot_begins_anew() -> None:
    """Another boot id: the counter that is higher than before is another one all the same."""
    mark = CounterMark(device="gpu", at=T0, raw_joules=100.0, range_joules=None, boot_id="before")
    meter = track(mark=mark)
    assert meter.mark is None
    assert shown(fed(meter, [(60, 5_000.0), (61, 5_100.0)])) == [(60, 61, 100.0, "counter")]
    assert meter.events == {"reset": 1}


def test_a_counter_that_stands_still_under_power_never_reads_as_zero() -> None:
    """Power tells 100 W, the counter nothing: after 10 s power has the word, and keeps it."""
    meter = track()
    readings = fed(meter, [(second, 7_000.0) for second in range(13)], watts=100.0)
    assert shown(readings) == [
        (0, 10, 1_000.0, "integrated"),
        (10, 11, 100.0, "integrated"),
        (11, 12, 100.0, "integrated"),
    ]
    assert meter.events == {"counter_stuck": 1}
    assert meter.mark is None


def test_a_slow_counter_is_waited_for() -> None:
    """It is refreshed every 3 s: readings of 3 s, no zeros between them."""
    values = [(second, 7_000.0 + 300.0 * (second // 3)) for second in range(7)]
    assert shown(fed(track(), values, watts=100.0)) == [(0, 3, 300.0, "counter"), (3, 6, 300.0, "counter")]


def test_a_counter_that_falls_silent_leaves_the_word_to_power() -> None:
    """Half a minute without a value, power 100 W throughout: integrated, and then second by second."""
    meter = track()
    silent: list[tuple[float, float | None]] = [(second, None) for second in range(1, 33)]
    assert shown(fed(meter, [(0, 50.0), *silent], watts=100.0)) == [
        (0, 30, 3_000.0, "integrated"),
        (30, 31, 100.0, "integrated"),
        (31, 32, 100.0, "integrated"),
    ]
    assert meter.events == {"counter_silent": 1}


def test_power_beyond_the_limit_is_not_believed() -> None:
    """700 W on a board of 400 W: neither of the two intervals beside it is integrated."""
    meter = track()
    found = []
    for second, watts in enumerate([100.0, 700.0, 100.0, 100.0]):
        found += meter.take(Sample(at=T0 + second, tick=float(second), power_watts=watts))
    assert shown(found) == [(2, 3, 100.0, "integrated")]
    assert meter.events["implausible_power"] == 1


def test_counter_and_power_are_compared() -> None:
    """A counter that tells 110 J where power tells 100 J disagrees by a tenth."""
    meter = track()
    fed(meter, [(second, 110.0 * second) for second in range(60)], watts=100.0)
    assert meter.counter_disagreement is None
    fed(meter, [(second, 110.0 * second) for second in range(60, 62)], watts=100.0)
    assert meter.counter_disagreement == pytest.approx(0.1)


@pytest.mark.parametrize("step", [3_600.0, -3_600.0])
def test_a_clock_that_is_set_changes_no_energy(step: float) -> None:
    """The reading keeps its true length of 1 s and ends by the new clock."""
    meter = track()
    meter.take(Sample(at=T0, tick=0.0, energy_joules=0.0))
    (reading,) = meter.take(Sample(at=T0 + 1 + step, tick=1.0, energy_joules=100.0))
    assert (reading.end - reading.start, reading.energy_joules) == (1.0, 100.0)
    assert meter.events == {"clock_step": 1}


@given(
    joules=st.lists(st.floats(0.0, 500.0), min_size=2, max_size=40),
    begin=st.floats(0.0, 65_000.0),
    restart=st.integers(0, 60),
    down_seconds=st.floats(1.0, 50.0),
)
def test_wraps_and_a_restart_give_the_joules_of_the_continuous_counter(
    joules: list[float], begin: float, restart: int, down_seconds: float
) -> None:
    """A range of 65 713 J, wrapped anywhere, the process started anew anywhere within the recoverable hole."""
    full, meter, found = 65_713.0, track(range_joules=65_713.0), []
    second, total = 0.0, begin
    for number, used in enumerate([0.0, *joules]):
        if number == restart:
            meter = track(range_joules=full, mark=meter.mark)
            second += down_seconds
        second, total = second + 1.0, total + used
        found += fed(meter, [(second, total % full)])
    assert meter.events["lost"] == 0
    assert fsum(each.energy_joules for each in found) == pytest.approx(fsum(joules), abs=1e-6)
    assert all(before.end == after.start for before, after in itertools.pairwise(found))
