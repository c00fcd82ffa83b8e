"""What the receivers and followers of one process have taken since its start, for self-metrics."""

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from collectors.units import UnixSeconds
from monitor.log.protocol import DeadLetter

REFUSED: Final = "refused"
"""The reason of events in a record that the log will never take."""


class IngestCounts:
    """Rising counts: events taken by source, rejected ones and refused posts by (source, reason).

    `unplaced_tokens` by (source, "input" or "output"). Any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.accepted: Counter[str] = Counter()
        self.rejected: Counter[tuple[str, str]] = Counter()
        self.refused: Counter[tuple[str, str]] = Counter()
        self.unplaced_tokens: Counter[tuple[str, str]] = Counter()
        self.last_at: dict[str, UnixSeconds] = {}

    def took(
        self, source: str, accepted: int, letters: Sequence[DeadLetter], now: UnixSeconds, *, refused: int = 0
    ) -> None:
        """So many events of the source are stored, these are not, and so many the log refused."""
        with self._lock:
            self.accepted[source] += accepted
            if accepted:
                self.last_at[source] = now
            for letter in letters:
                self.rejected[source, letter.reason] += 1
            if refused:
                self.rejected[source, REFUSED] += refused

    def passed_by(self, source: str, tokens: Mapping[str, int]) -> None:
        """These tokens, by kind, are of events of the source that nothing places."""
        with self._lock:
            for kind, count in tokens.items():
                self.unplaced_tokens[source, kind] += count
