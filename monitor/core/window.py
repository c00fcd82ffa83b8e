"""Windows of the books: half-open intervals on a grid that starts at the unix epoch, named by their index.

A window lasts a whole number of seconds: then its edges are exact floats, and no moment falls between two windows.
"""

from collections.abc import Iterable, Iterator
from math import ceil, floor

from collectors.units import UnixSeconds


def window_at(moment: UnixSeconds, length_seconds: float) -> int:
    """The index of the window that holds the moment: 25 s is in window 2 of 10 s windows."""
    return floor(moment / length_seconds)


def windows_of(start: UnixSeconds, end: UnixSeconds, length_seconds: float) -> range:
    """The windows that [start, end) touches; an empty interval touches the window that holds its start.

    [5, 20) touches windows 0 and 1 of 10 s windows, [20, 20) window 2.
    """
    first = window_at(start, length_seconds)
    return range(first, max(first + 1, ceil(end / length_seconds)))


def window_start(index: int, length_seconds: float) -> UnixSeconds:
    """Where a window begins: window 2 of 10 s windows at 20 s."""
    return index * length_seconds


def runs_of(windows: Iterable[int], gap: int = 1) -> Iterator[list[int]]:
    """Ascending windows in runs: whoever is more than `gap` behind the one before it begins a new one.

    [3, 4, 5, 9] is [3, 4, 5] and [9]; with a gap of 4 it is one run.
    """
    run: list[int] = []
    for window in windows:
        if run and window - run[-1] > gap:
            yield run
            run = []
        run.append(window)
    if run:
        yield run


def part_within(start: UnixSeconds, end: UnixSeconds, window_begin: UnixSeconds, window_end: UnixSeconds) -> float:
    """The part of [start, end) in the window, 0 to 1; end > start. 5 of [5, 20)'s 15 s lie in [0, 10): a third."""
    return max(0.0, min(end, window_end) - max(start, window_begin)) / (end - start)


def grid_starts(windows: Iterable[int], length_seconds: float, grid_seconds: float) -> set[UnixSeconds]:
    """The starts of the hours (or days: `grid_seconds`) that hold these windows."""
    return {floor(index * length_seconds / grid_seconds) * grid_seconds for index in windows}
