"""How fast requests that are decoded together get their tokens: worked by hand, found back, and by laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.attribution.pieces import Column
from monitor.core.attribution.progress import Progress, progress_of


def progress(requests: list[tuple[float, float, float]], length: float = 10.0, shift: float = 0.0) -> Progress:
    """Of requests (first token, end, tokens made behind it), in a window that begins at `shift`."""
    first, end, made = np.array(requests, dtype=np.float64).reshape(-1, 3).T
    return progress_of(first - shift, end - shift, made, length)


def test_the_docstrings_two_requests() -> None:
    """20 steps in the first second, 10 in the next: the one that was there in both has 30 tokens, the other 10."""
    requests = [(0.0, 2.0, 30.0), (1.0, 2.0, 10.0)]
    first, second = progress(requests, 1.0), progress(requests, 1.0, shift=1.0)
    assert (first.steps, second.steps) == (pytest.approx(20.0, rel=1e-3), pytest.approx(10.0, rel=1e-3))
    assert first.before.tolist() == [0.0, 0.0]
    assert first.until.tolist() == pytest.approx([20.0, 0.0], rel=1e-3)
    assert second.before.tolist() == pytest.approx([20.0, 0.0], rel=1e-3)
    assert second.until.tolist() == pytest.approx([30.0, 10.0])


def steps_until(moment: Column) -> Column:
    """An engine's steps: 50/s, but 5/s in [3, 5), while it computes a long prompt."""
    steps: Column = 50.0 * moment - 45.0 * (np.clip(moment, 3.0, 5.0) - 3.0)
    return steps


def test_that_everyone_stood_still_is_found_out() -> None:
    """80 requests of 1 to 6 s around a stall: 110 steps in [2, 6), where the mean of their own rates says 136.

    In the stall itself 10; the mean says 62, and of what that is too much two thirds go.
    """
    first = np.arange(80) * 0.25 - 8.0
    end = first + 1.0 + np.arange(80) * 7 % 11 * 0.5
    made = steps_until(end) - steps_until(first)
    found = progress_of(first - 2.0, end - 2.0, made, 4.0)
    assert found.steps == pytest.approx(110.0, rel=0.05)
    stall = progress_of(first - 3.0, end - 3.0, made, 2.0)
    assert stall.steps < 10.0 + (62.0 - 10.0) / 3.0 + 1.0
    truly = steps_until(np.clip(end, 2.0, 6.0)) - steps_until(np.clip(first, 2.0, 6.0))
    assert float((found.until - found.before).sum()) == pytest.approx(float(truly.sum()), rel=0.04)


def test_where_all_are_equally_fast_nothing_is_to_be_found() -> None:
    """40 tokens/s each: 40 steps/s while anybody decodes, 160 in [0, 3) and [9, 10)."""
    found = progress([(-5.0, 3.0, 320.0), (1.0, 2.0, 40.0), (9.0, 11.0, 80.0)])
    assert found.steps == pytest.approx(160.0)
    assert found.before.tolist() == pytest.approx([200.0, 0.0, 0.0])
    assert found.until.tolist() == pytest.approx([320.0, 40.0, 40.0])


def test_who_makes_nothing_tells_nothing() -> None:
    """No token behind the first, no time, or no first token told: steps are of the others alone."""
    found = progress([(0.0, 4.0, 0.0), (2.0, 2.0, 7.0), (float("nan"), 3.0, 9.0), (1.0, 3.0, 20.0)])
    assert found.steps == pytest.approx(20.0)
    assert found.until.tolist() == pytest.approx([0.0, 0.0, 0.0, 20.0])
    assert progress([(0.0, 4.0, 0.0)]).steps == 0.0
    assert progress([]).steps == 0.0


MOMENTS = st.integers(-300, 300).map(lambda tenths: tenths / 10.0)
REQUESTS = st.lists(
    st.tuples(MOMENTS, st.integers(1, 400), st.integers(0, 3_000)).map(
        lambda drawn: (drawn[0], drawn[0] + drawn[1] / 10.0, float(drawn[2]))
    ),
    min_size=1,
    max_size=12,
)


@given(REQUESTS, st.integers(1, 99))
def test_cutting_a_window_changes_nothing(requests: list[tuple[float, float, float]], tenths: int) -> None:
    """Two parts of a window, of the same requests, add up to it, and one goes on where the other stopped."""
    cut = tenths / 10.0
    whole = progress(requests)
    left, right = progress(requests, cut), progress(requests, 10.0 - cut, shift=cut)
    close = {"rel": 1e-6, "abs": 1e-6}
    assert left.steps + right.steps == pytest.approx(whole.steps, **close)
    assert left.before.tolist() == pytest.approx(whole.before.tolist(), **close)
    assert right.until.tolist() == pytest.approx(whole.until.tolist(), **close)
    assert left.until.tolist() == pytest.approx(right.before.tolist(), **close)


@given(REQUESTS)
def test_nobody_makes_more_than_told(requests: list[tuple[float, float, float]]) -> None:
    """0 <= before <= until <= made; all of it where the window holds the request, and steps are never negative."""
    found = progress(requests)
    made = np.array([tokens for _, _, tokens in requests])
    close = 1e-6 * (1.0 + made)
    assert found.steps >= 0.0
    assert (found.before >= -close).all()
    assert (found.before <= found.until + close).all()
    assert (found.until <= made + close).all()
    for (first, end, tokens), before, until in zip(requests, found.before, found.until, strict=True):
        if first >= 0.0 and end <= 10.0:
            assert (before, until) == (pytest.approx(0.0, abs=1e-6), pytest.approx(tokens, rel=1e-6, abs=1e-6))
