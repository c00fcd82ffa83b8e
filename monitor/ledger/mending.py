"""Reads restated rows back for a day, and names those that an older account has overwritten.

Final rows are the same whoever writes them. Restated rows are not: a member that lost its partition, or a store that
finishes a timed-out write late, can put an older account over a newer one, and no field of the store protects against
it. So at the marks of the next day whoever has the partition looks again, roll-ups included.
"""

from collections.abc import Callable, Collection, Mapping

import msgspec

from collectors.units import SECONDS_PER_DAY, UnixSeconds
from monitor.core.membership import Accounting
from monitor.core.points import BOOKS, REQUEST_ENERGY, RESTATEMENT, Row
from monitor.core.window import runs_of, window_at, window_start
from monitor.ledger.notice import restated_windows
from monitor.store.protocol import RESOLUTION_SECONDS, Resolution, Store

_GAP_WINDOWS = 60
_ROLLUPS: tuple[Resolution, ...] = ("hour", "day")

_Series = tuple[str, tuple[str, ...]]


class Stale(msgspec.Struct, frozen=True, kw_only=True):
    """Stored rows that a newer account should have replaced.

    `windows`: for each mark the rows of the (host, window) that are older than it; `rolled`: where hours and days
    begin whose roll-up is older than a window of it.
    """

    windows: dict[UnixSeconds, dict[tuple[str, int], list[Row]]]
    rolled: set[UnixSeconds]


class Restatements:
    """What was restated within the last day, by host and window."""

    def __init__(self, store: Store, terms: Accounting, *, request_rows: bool = True) -> None:
        """`request_rows`: whether the store has a row of each request for each of its windows."""
        self._store, self._terms = store, terms
        self._kinds = (*BOOKS, REQUEST_ENERGY) if request_rows else BOOKS
        self._marks: dict[str, dict[int, UnixSeconds]] = {}

    def recall(self, mark: UnixSeconds, owns: Callable[[str], bool]) -> None:
        """What readers before this one restated at that mark and the day before it, as their notices say."""
        notices = self._store.read(RESTATEMENT, mark - SECONDS_PER_DAY, mark + 1.0)
        for row in sorted(notices, key=lambda each: each.time):
            host = row.tags[0]
            if owns(host):
                windows = restated_windows(row, self._terms.window_seconds)
                self.noted(row.time, {(window, host) for window in windows})

    def noted(self, mark: UnixSeconds, pages: Collection[tuple[int, str]]) -> None:
        """These (window, host) were restated at that mark; it is the revision that their rows must have from now on."""
        for window, host in pages:
            self._marks.setdefault(host, {})[window] = mark

    def any_within_day(self, mark: UnixSeconds) -> bool:
        """Whether any is left at that mark; older ones are forgotten here."""
        within = {
            host: {window: at for window, at in marks.items() if at > mark - SECONDS_PER_DAY}
            for host, marks in self._marks.items()
        }
        self._marks = {host: marks for host, marks in within.items() if marks}
        return bool(self._marks)

    def look_back(self) -> Stale:
        """What the store holds of an older account than the newest one made. Raises StoreUnavailable."""
        windows: dict[UnixSeconds, dict[tuple[str, int], list[Row]]] = {}
        rolled: set[UnixSeconds] = set()
        for host, marks in sorted(self._marks.items()):
            stored = self._stored(host, marks)
            for window, rows in stored.items():
                if any(_revision(row) < marks[window] for row in rows):
                    windows.setdefault(marks[window], {})[host, window] = rows
            rolled |= self._stale_rollups(host, [row for rows in stored.values() for row in rows])
        return Stale(windows=windows, rolled=rolled)

    def _stored(self, host: str, marks: Mapping[int, UnixSeconds]) -> dict[int, list[Row]]:
        """The rows of these windows, read run by run."""
        length = self._terms.window_seconds
        found: dict[int, list[Row]] = {}
        for run in runs_of(sorted(marks), _GAP_WINDOWS):
            for row in self._read(host, window_start(run[0], length), window_start(run[-1] + 1, length), "window"):
                if (window := window_at(row.time, length)) in marks:
                    found.setdefault(window, []).append(row)
        return found

    def _stale_rollups(self, host: str, rows: list[Row]) -> set[UnixSeconds]:
        """The starts of rolled-up hours and days in which a series is older than one of its windows."""
        newest: dict[tuple[Resolution, UnixSeconds], dict[_Series, int]] = {}
        for row in rows:
            for resolution in _ROLLUPS if row.measurement != REQUEST_ENERGY.name else ():
                start = row.time // RESOLUTION_SECONDS[resolution] * RESOLUTION_SECONDS[resolution]
                series = newest.setdefault((resolution, start), {})
                key = row.measurement, row.tags
                series[key] = max(_revision(row), series.get(key, 0))
        stale = set()
        for (resolution, start), series in newest.items():
            rolled = {
                (row.measurement, row.tags): _revision(row) for row in self._read(host, start, start + 1.0, resolution)
            }
            if rolled and any(rolled.get(key, -1) < revision for key, revision in series.items()):
                stale.add(start)
        return stale

    def _read(self, host: str, start: UnixSeconds, end: UnixSeconds, resolution: Resolution) -> list[Row]:
        where = {"host": (host,)}
        kinds = BOOKS if resolution in _ROLLUPS else self._kinds
        return [row for each in kinds for row in self._store.read(each, start, end, where=where, resolution=resolution)]


def _revision(row: Row) -> int:
    return int(row.fields[-1] or 0)
