"""Rows that a store will never take. In: a line and the reason. Out: a count, and a warning now and then."""

import threading
from collections import Counter
from collections.abc import Mapping

import structlog

_SHOWN_CHARACTERS = 300
_BEYOND_RETENTION, _REFUSED = "beyond retention", "refused"


class Quarantine:
    """Counts them, and shows the first, the tenth, the hundredth .. in the daemon's own log. For any thread.

    A bad value in a row is the usual reason, and a time that the store no longer keeps: an old recording played into
    buckets that keep days.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._total = 0
        self._lock = threading.Lock()

    def __call__(self, line: str, reason: str) -> None:
        with self._lock:
            self._total += 1
            total = self._total
            self._counts[_BEYOND_RETENTION if "retention" in reason else _REFUSED] += 1
        if str(total).strip("0") == "1":
            structlog.get_logger().warning(
                "the store will never take a row; it is left out",
                reason=reason[:_SHOWN_CHARACTERS],
                line=line[:_SHOWN_CHARACTERS],
                left_out_so_far=total,
            )

    @property
    def counts(self) -> Mapping[str, int]:
        """How many lines, by the kind of reason."""
        with self._lock:
            return dict(self._counts)

    @property
    def all_counts(self) -> Mapping[str, int]:
        """The same with the kinds of which there was none."""
        return {_BEYOND_RETENTION: 0, _REFUSED: 0} | dict(self.counts)
