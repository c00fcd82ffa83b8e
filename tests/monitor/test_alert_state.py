"""Alert states: rules in series shorthand, and laws."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.alerts.state import AlertState, step
from monitor.config.output_sections import Alert

SHORT = {"inactive": "i", "pending": "p", "firing": "F", "resolved": "r"}
EVERY_SECONDS = 10.0


def _rule(for_seconds: float) -> Alert:
    return Alert(name="hot", measure="power_watts", above=5.0, for_seconds=for_seconds, webhook_url_file="url")  # type: ignore[arg-type]


def _values(series: str) -> list[float | None]:
    """`9x3 _ 1` is 9 9 9, nothing, 1; a value each 10 s."""
    found: list[float | None] = []
    for part in series.split():
        text, _, times = part.partition("x")
        found += [None if text == "_" else float(text)] * int(times or 1)
    return found


def _states(for_seconds: float, values: list[float | None]) -> list[AlertState]:
    state, found = AlertState(), []
    for number, value in enumerate(values):
        state = step(_rule(for_seconds), state, value, number * EVERY_SECONDS)
        found.append(state)
    return found


@pytest.mark.parametrize(
    ("for_seconds", "series", "phases"),
    [
        (0.0, "1 9 9 1 1", "iFFrr"),
        (20.0, "9x4 1", "ppFFr"),
        (20.0, "9x2 1 9x3", "ppippF"),  # a run is counted anew
        (20.0, "5x4", "iiii"),  # at the threshold is not above it
        (20.0, "9 _x9 9x2", "pppppppppppF"),  # what is not known neither counts nor clears
        (20.0, "9x3 _x3 9 1", "ppFFFFFr"),
        (20.0, "9x3 _x3 1 9x3", "ppFFFFrppF"),
        (0.0, "_x3 9", "iiiF"),
        (20.0, "nan", "i"),
    ],
)
def test_a_series_goes_through_these_phases(for_seconds: float, series: str, phases: str) -> None:
    """Threshold 5; each letter is the phase after a value."""
    states = _states(for_seconds, _values(series))
    assert "".join(SHORT[state.phase] for state in states) == phases


def test_times_tell_when_it_began_fired_and_was_resolved() -> None:
    """Above from 10 s, firing from 30 s, over at 50 s; the value last known stays while it is missing."""
    states = _states(20.0, _values("1 9x3 _ 2 _"))
    assert (states[3].active_since, states[3].fired_at, states[3].resolved_at) == (10.0, 30.0, None)
    assert (states[4].value, states[4].missing_since) == (9.0, 40.0)
    assert (states[5].fired_at, states[5].resolved_at, states[5].missing_since) == (30.0, 50.0, None)
    assert (states[6].phase, states[6].value, states[6].missing_since) == ("resolved", 2.0, 60.0)


def test_a_moment_judged_before_changes_nothing() -> None:
    """A window that comes twice, or an older one, is passed by."""
    state = step(_rule(0.0), AlertState(), 9.0, 10.0)
    assert step(_rule(0.0), state, 1.0, 10.0) == state
    assert step(_rule(0.0), state, 1.0, 9.0) == state


@given(st.integers(1, 6), st.lists(st.booleans(), max_size=60))
def test_flapping_below_for_never_fires(longest: int, gaps: list[bool]) -> None:
    """Runs above the threshold that are each shorter than `for`, with gaps in them or not, fire at no length."""
    values: list[float | None] = []
    for has_gap in gaps:
        values += [9.0] * longest + [None] * has_gap + [1.0]
    assert all(state.fired_at is None for state in _states(longest * EVERY_SECONDS, values))


@given(st.lists(st.sampled_from([1.0, 9.0, None]), max_size=60), st.integers(0, 5))
def test_it_fires_exactly_when_as_much_was_above_without_a_value_below(values: list[float | None], length: int) -> None:
    """What counts are the values since the last one below: firing needs `for` / 10 s of them, and one more."""
    run = 0
    for value, state in zip(values, _states(length * EVERY_SECONDS, values), strict=True):
        run = run if value is None else run + 1 if value > 5.0 else 0
        assert (state.phase == "firing") == (run > length)
