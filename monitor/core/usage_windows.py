"""The windows that requests touch, and when those are final. In: columns. Out: columns, or lists of windows."""

import numpy as np

from collectors.units import UnixSeconds
from monitor.core.attribution.pieces import Column
from monitor.core.membership import Accounting
from monitor.core.usage_columns import Index, UsageColumns

FAR_WINDOW = 2**53
"""No clock that anybody believes tells a window beyond it; times further away are put there."""

_NEAR_WINDOWS = 10_000
"""So far from each other requests are that come together; a clock that is wrong may put one anywhere."""


def windows_at(moments: Column, length_seconds: float) -> Index:
    """The index of the window that holds each moment, as `window_at` tells of one."""
    return np.clip(np.floor(moments / length_seconds), -FAR_WINDOW, FAR_WINDOW).astype(np.intp)


def final_lines(terms: Accounting, windows: Index) -> Column:
    """`terms.final_line` of each."""
    return np.asarray((windows + 1) * terms.window_seconds + terms.horizon_seconds, dtype=np.float64)


def windows_touched(first: Index, last: Index) -> list[int]:
    """All windows of requests that touch these: 3 to 4 and 3 to 3 and 7 to 7 are 3, 4, 7."""
    if not len(first):
        return []
    begin = int(first.min())
    reach = int(last.max()) - begin
    if reach < _NEAR_WINDOWS:
        begun = np.bincount(first - begin, minlength=reach + 2)
        over = np.bincount(last + 1 - begin, minlength=reach + 2)
        return list((begin + np.flatnonzero(np.cumsum(begun - over))).tolist())
    spans = set(zip(first.tolist(), last.tolist(), strict=True))
    return sorted({window for begin, end in spans for window in range(begin, end + 1)})


def windows_of_each(usages: UsageColumns, length_seconds: UnixSeconds) -> tuple[Index, Index]:
    """The first and the last window that each touches, the one that it ends in included."""
    return windows_at(usages.start, length_seconds), windows_at(usages.end, length_seconds)
