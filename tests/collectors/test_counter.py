"""Two counter values give joules, or the name of what happened; expected values are worked by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.counter import CounterStep, Energy, Hole, Implausible, Lost, Reset, Sentinel, Wrap, counter_step

RANGE_JOULES = 262_143.328850
"""A RAPL package's max_energy_range_uj, in joules."""


@pytest.mark.parametrize(
    ("before", "after", "facts", "step"),
    [
        (1_000.0, 1_250.0, {"elapsed_seconds": 1.0}, Energy(250.0)),
        (1_000.0, 1_000.0, {"elapsed_seconds": 1.0}, Energy(0.0)),
        (1_000.0, 1_250.0, {"elapsed_seconds": 30.0}, Energy(250.0)),
        (1_000.0, 1_250.0, {"elapsed_seconds": 30.5}, Hole(250.0)),
        (1_000.0, 1_250.0, {"elapsed_seconds": 40.0, "hole_seconds": 50.0}, Energy(250.0)),
        (1_000.0, 40.0, {"elapsed_seconds": 1.0}, Reset()),
        (1_000.0, 1_250.0, {"elapsed_seconds": 1.0, "same_life": False}, Reset()),
        # 100 J to the end of the range, then 50 more.
        (900.0, 50.0, {"elapsed_seconds": 1.0, "range_joules": 1_000.0}, Wrap(150.0)),
        (900.0, 50.0, {"elapsed_seconds": 1.0, "range_joules": 1_000.0, "power_limit_watts": 100.0}, Wrap(150.0)),
        # 1.5 x 99 W x 1 s = 148.5 J < 150 J: no wrap explains it.
        (900.0, 50.0, {"elapsed_seconds": 1.0, "range_joules": 1_000.0, "power_limit_watts": 99.0}, Reset()),
        # 900 J of 1 000 is over half the range.
        (100.0, 0.0, {"elapsed_seconds": 1.0, "range_joules": 1_000.0}, Reset()),
        (100.0, 650.0, {"elapsed_seconds": 1.0, "range_joules": 1_000.0}, Implausible(550.0)),
        # 1.5 x 100 W x 1 s = 150 J is the most that is believed.
        (100.0, 250.0, {"elapsed_seconds": 1.0, "power_limit_watts": 100.0}, Energy(150.0)),
        (100.0, 251.0, {"elapsed_seconds": 1.0, "power_limit_watts": 100.0}, Implausible(151.0)),
        # A counter refreshed once a second may show a second's energy after 50 ms.
        (100.0, 240.0, {"elapsed_seconds": 0.05, "power_limit_watts": 100.0}, Energy(140.0)),
        # A hole of 60 s: 60 x 1.5 x 10 W = 900 J, below half of 2 000 J; with 12 W, 1 080 J, it is not.
        (100.0, 500.0, {"elapsed_seconds": 60.0, "range_joules": 2_000.0, "power_limit_watts": 10.0}, Hole(400.0)),
        (1_900.0, 300.0, {"elapsed_seconds": 60.0, "range_joules": 2_000.0, "power_limit_watts": 10.0}, Hole(400.0)),
        (100.0, 500.0, {"elapsed_seconds": 60.0, "range_joules": 2_000.0, "power_limit_watts": 12.0}, Lost()),
        (100.0, 500.0, {"elapsed_seconds": 60.0, "range_joules": 2_000.0}, Lost()),
        (math.nan, 5.0, {"elapsed_seconds": 1.0}, Sentinel()),
        (5.0, math.inf, {"elapsed_seconds": 1.0}, Sentinel()),
        (5.0, -1.0, {"elapsed_seconds": 1.0}, Sentinel()),
        (5.0, 1_001.0, {"elapsed_seconds": 1.0, "range_joules": 1_000.0}, Sentinel()),
    ],
)
def test_step(before: float, after: float, facts: dict[str, float], step: CounterStep) -> None:
    """Each kind of step has its name."""
    assert counter_step(before, after, **facts) == step  # type: ignore[arg-type]


def test_rapl_wraps_after_21_7_kilojoules() -> None:
    """A RAPL package 21.7 kJ before its wrap, read 60 s later at 1 000 J, has used 22 721 J."""
    step = counter_step(
        240_422.366267, 1_000.0, elapsed_seconds=60.0, range_joules=RANGE_JOULES, power_limit_watts=270.0
    )
    assert isinstance(step, Hole)
    assert step.joules == pytest.approx(22_720.962583, rel=1e-12)


@pytest.mark.parametrize("elapsed_seconds", [0.0, -1.0, math.nan])
def test_values_in_the_wrong_order_are_a_mistake_of_the_caller(elapsed_seconds: float) -> None:
    """No time between two values is a ValueError, not a step."""
    with pytest.raises(ValueError, match="later"):
        counter_step(1.0, 2.0, elapsed_seconds=elapsed_seconds)


@given(range_joules=st.integers(10, 10**9), data=st.data())
def test_a_wrap_anywhere_gives_the_same_joules(range_joules: int, data: st.DataObject) -> None:
    """Wherever in its range a counter stands, the same use of energy gives the same joules."""
    used = data.draw(st.integers(0, range_joules // 2))
    before = data.draw(st.integers(0, range_joules - 1))
    after = (before + used) % range_joules
    step = counter_step(float(before), float(after), elapsed_seconds=1.0, range_joules=float(range_joules))
    assert isinstance(step, Energy | Wrap)
    assert step.joules == used


@given(
    before=st.floats(),
    after=st.floats(),
    elapsed_seconds=st.floats(min_value=1e-6, max_value=1e9),
    range_joules=st.none() | st.floats(min_value=1.0, max_value=1e18),
    power_limit_watts=st.none() | st.floats(min_value=1.0, max_value=1e6),
)
def test_joules_are_never_negative_nor_more_than_the_range(
    before: float, after: float, elapsed_seconds: float, range_joules: float | None, power_limit_watts: float | None
) -> None:
    """Whatever the values, a step that gives joules gives a count of them."""
    step = counter_step(
        before,
        after,
        elapsed_seconds=elapsed_seconds,
        range_joules=range_joules,
        power_limit_watts=power_limit_watts,
    )
    if isinstance(step, Energy | Wrap | Hole):
        assert 0 <= step.joules < math.inf
        assert range_joules is None or step.joules <= range_joules / 2
