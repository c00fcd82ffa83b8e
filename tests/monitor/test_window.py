"""The grid of windows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.window import grid_starts, part_within, window_at, window_start, windows_of

LENGTHS = st.sampled_from([1.0, 7.0, 10.0, 15.0, 60.0])
MOMENTS = st.one_of(
    st.floats(0.0, 4e9),
    st.integers(0, 400_000_000).map(lambda n: n * 10.0),
    st.integers(1, 570_000_000).map(lambda n: n * 7.0 * (1 - 2**-53)),
)


@pytest.mark.parametrize(
    ("start", "end", "windows"),
    [
        (5.0, 20.0, range(2)),
        (5.0, 20.5, range(3)),
        (20.0, 20.0, range(2, 3)),
        (20.0, 30.0, range(2, 3)),
        (25.0, 25.0, range(2, 3)),
    ],
)
def test_windows_that_an_interval_touches(start: float, end: float, windows: range) -> None:
    """Half-open: what ends on an edge does not touch the window behind it; a moment touches the one it is in."""
    assert windows_of(start, end, 10.0) == windows


def test_edges_belong_to_the_window_that_begins() -> None:
    """20 s is in window 2, which begins at 20 s, the float before it in window 1."""
    assert window_at(20.0, 10.0) == 2
    assert window_at(19.999999999999996, 10.0) == 1
    assert window_start(2, 10.0) == 20.0


@given(MOMENTS, LENGTHS)
def test_a_moment_is_inside_its_window(moment: float, length: float) -> None:
    """Also a float away from an edge, where the division rounds."""
    index = window_at(moment, length)
    assert window_start(index, length) <= moment < window_start(index + 1, length)


@given(MOMENTS, st.floats(0.0, 100.0), LENGTHS)
def test_the_parts_of_an_interval_fill_it(start: float, lasts: float, length: float) -> None:
    """No part lies outside the windows that it touches, and none of these is touched in vain."""
    end = start + lasts
    windows = windows_of(start, end, length)
    assert window_start(windows[0], length) <= start
    assert end <= window_start(windows[-1] + 1, length)
    assert len(windows) == 1 or window_start(windows[-1], length) < end
    if end > start:
        parts = [part_within(start, end, window_start(n, length), window_start(n + 1, length)) for n in windows]
        assert sum(parts) == pytest.approx(1.0, rel=1e-12)


def test_the_part_of_an_interval_in_a_window() -> None:
    """5 of 15 s, all, none."""
    assert part_within(5.0, 20.0, 0.0, 10.0) == pytest.approx(1 / 3)
    assert part_within(5.0, 6.0, 0.0, 10.0) == 1.0
    assert part_within(5.0, 20.0, 20.0, 30.0) == 0.0


def test_the_hours_that_hold_windows() -> None:
    """10 s windows 0, 359 (the last of the first hour) and 360 are in the hours from 0 s and 3 600 s."""
    assert grid_starts([0, 359, 360], 10.0, 3_600.0) == {0.0, 3_600.0}
