"""Which windows a mark restated, as one field of its notice, and back. In: indices of windows. Out: "0-3,7".

Counted from the first one: of windows 450, 451, 452, 453 and 457 it is "0-3,7", beside the start of window 450. A day
of late requests is some hundred characters; a host that was cut off is one run.
"""

from collections.abc import Sequence

from monitor.core.points import RESTATEMENT, Row
from monitor.core.window import runs_of, window_at

_FIRST = RESTATEMENT.fields.index("first_window")
_RESTATED = RESTATEMENT.fields.index("restated_windows")


def runs_text(windows: Sequence[int]) -> str:
    """`windows` in ascending order, at least one."""
    first = windows[0]
    ends = ((run[0] - first, run[-1] - first) for run in runs_of(windows))
    return ",".join(f"{begin}-{end}" if end > begin else f"{begin}" for begin, end in ends)


def restated_windows(notice: Row, length_seconds: float) -> set[int]:
    """The windows that a restatement's row speaks of."""
    first = window_at(float(notice.fields[_FIRST] or 0.0), length_seconds)
    found: set[int] = set()
    for run in str(notice.fields[_RESTATED] or "").split(","):
        begin, _, end = run.partition("-")
        if begin:
            found.update(range(first + int(begin), first + int(end or begin) + 1))
    return found
