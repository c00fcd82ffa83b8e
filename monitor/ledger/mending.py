"""Reads restated rows back for a day, and names those that an older account has overwritten.

Final rows are the same whoever writes them. Restated rows are not: a member that lost its partition, or a store that
finishes a timed-out write late, can put an older account over a newer one, and no field of the store protects against
it. So who restated looks again at the marks of the next day.
"""

from collections.abc import Collection, Iterator

from collectors.units import SECONDS_PER_DAY, UnixSeconds
from monitor.core.membership import Accounting
from monitor.core.points import BOOKS
from monitor.core.window import window_at, window_start
from monitor.store.protocol import Store

_GAP_WINDOWS = 60


class Restatements:
    """What this reader has restated within the last day, by host and window."""

    def __init__(self, store: Store, terms: Accounting) -> None:
        self._store, self._terms = store, terms
        self._marks: dict[str, dict[int, UnixSeconds]] = {}

    def noted(self, mark: UnixSeconds, pages: Collection[tuple[int, str]]) -> None:
        """These (window, host) were restated at that mark; it is the revision that their rows must have from now on."""
        for window, host in pages:
            self._marks.setdefault(host, {})[window] = mark

    def stale(self, mark: UnixSeconds) -> list[tuple[UnixSeconds, str, list[int]]]:
        """(mark, host, windows) whose stored rows are older than they should be. Raises StoreUnavailable."""
        found = []
        for host in sorted(self._marks):
            kept = {each: at for each, at in self._marks[host].items() if at > mark - SECONDS_PER_DAY}
            self._marks[host] = kept
            stale = sorted(window for run in _runs(sorted(kept)) for window in self._stale_in(host, run, kept))
            if stale:
                found.append((mark, host, stale))
            if not kept:
                del self._marks[host]
        return found

    def _stale_in(self, host: str, run: list[int], kept: dict[int, UnixSeconds]) -> set[int]:
        length = self._terms.window_seconds
        start, end = window_start(run[0], length), window_start(run[-1] + 1, length)
        return {
            window
            for measurement in BOOKS
            for row in self._store.read(measurement, start, end, where={"host": (host,)})
            if (window := window_at(row.time, length)) in kept and int(row.fields[-1] or 0) < int(kept[window])
        }


def _runs(windows: list[int]) -> Iterator[list[int]]:
    """Windows that lie near each other, to be read at once."""
    run: list[int] = []
    for window in windows:
        if run and window - run[-1] > _GAP_WINDOWS:
            yield run
            run = []
        run.append(window)
    if run:
        yield run
