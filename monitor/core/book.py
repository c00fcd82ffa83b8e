"""What stands in the log for windows that are not closed yet, sorted by host and window, and the accounts made of it.

An account is defined by a line: it holds exactly the records whose log time is below it. Of records with equal content
one counts; a conflict is not in the book at all.
"""

from collections.abc import Callable, Hashable, Iterator
from typing import NamedTuple

import msgspec
import numpy as np

from collectors.readings import ActivityReading, EnergyReading, EngineReading, HostProfile
from collectors.units import SECONDS_PER_DAY, UnixSeconds
from monitor.core.account import Account, IntensityAt, RequestsAs, account, prior_everywhere
from monitor.core.account_work import ScalarsAt, Watch
from monitor.core.membership import Accounting
from monitor.core.points import (
    ENERGY,
    METER,
    PROVISIONAL_ENERGY,
    PROVISIONAL_METER,
    PROVISIONAL_USAGE,
    REQUEST_ENERGY,
    USAGE,
    Row,
)
from monitor.core.readings import Told
from monitor.core.usage_columns import Index, UsageColumns, joined
from monitor.core.usage_windows import final_lines, windows_at, windows_of_each, windows_touched
from monitor.core.window import window_start, windows_of

_PROVISIONAL = {"energy": PROVISIONAL_ENERGY.name, "meter": PROVISIONAL_METER.name, "usage": PROVISIONAL_USAGE.name}

_ZEROED = {each.name: each for each in (ENERGY, METER, USAGE, REQUEST_ENERGY)}


class _Page(msgspec.Struct):
    """One host's window: each record with the log time at which its content first stood in the log."""

    readings: dict[Hashable, tuple[UnixSeconds, Told]]
    usages: list["_Part"]
    activities: dict[ActivityReading, UnixSeconds]
    engines: dict[EngineReading, UnixSeconds]
    first_log_time: UnixSeconds


class _Part(NamedTuple):
    """Requests that came together, those of one host that touch one window; the log times of the first and the last."""

    columns: UsageColumns
    places: Index
    since: UnixSeconds
    until: UnixSeconds

    def before(self, line: UnixSeconds) -> UsageColumns:
        """Those that stand before the line."""
        if self.until < line:
            return self.columns.take(self.places)
        return self.columns.take(self.places[self.columns.log_time[self.places] < line])


class Book:
    """The open windows of one partition. Not thread-safe; one reader keeps it."""

    def __init__(
        self,
        terms: Accounting,
        intensity_at: IntensityAt,
        *,
        scalars_at: ScalarsAt = prior_everywhere,
        keep: Callable[[int], bool] | None = None,
        requests: RequestsAs = "rows",
    ) -> None:
        """`keep` tells which windows to hold; None: all from `forget_before` on."""
        self._terms = terms
        self._requests: RequestsAs = requests
        self._keep = keep
        self._oldest: float = float("-inf")
        self._intensity_at, self._scalars_at = intensity_at, scalars_at
        self._pages: dict[int, dict[str, _Page]] = {}
        self._since: dict[int, UnixSeconds] = {}
        self.has_families = False
        """Whether a meter that contains others was met: its readings need theirs, as far back as they reach."""

    def add_reading(self, reading: EnergyReading, profile: HostProfile, log_time: UnixSeconds) -> range:
        """Enters a reading in every window it touches, and returns those."""
        touched = windows_of(reading.start, reading.end, self._terms.window_seconds)
        content = (reading.device, reading.start, reading.end, reading.energy_joules, reading.method)
        for window in self._held(touched):
            self._page(window, profile.host, log_time).readings.setdefault(content, (log_time, Told(reading, profile)))
        return touched

    def add_usages(self, usages: UsageColumns) -> None:
        """Enters requests in every window that each touches, the one that it ends in included.

        One that came before may come again, but under a number of its own.
        """
        first, last = windows_of_each(usages, self._terms.window_seconds)
        for host, mine in usages.by_host():
            own = usages.of_their_own(mine)  # accounts of this host never see the routes of others
            begins, ends = first[mine], last[mine]
            for window in windows_touched(begins, ends):
                if window >= self._oldest and (self._keep is None or self._keep(window)):
                    places = np.flatnonzero((begins <= window) & (window <= ends))
                    since, until = own.log_time[places[[0, -1]]].tolist()
                    self._page(window, host, since).usages.append(_Part(own, places, since, until))

    def add_activity(self, host: str, activity: ActivityReading, log_time: UnixSeconds) -> None:
        """Enters who used a device in every window it touches. Alone it makes no window worth restating."""
        for window in self._held(windows_of(activity.start, activity.end, self._terms.window_seconds)):
            self._page(window, host, log_time).activities.setdefault(activity, log_time)

    def add_engine(self, host: str, engine: EngineReading, log_time: UnixSeconds) -> None:
        """Enters what a model server did in every window it touches. Alone it makes no window worth restating."""
        for window in self._held(windows_of(engine.start, engine.end, self._terms.window_seconds)):
            self._page(window, host, log_time).engines.setdefault(engine, log_time)

    def pages(self, first: int, last: int) -> Iterator[tuple[int, str]]:
        """(window, host) of what has records in windows first..last, in order."""
        for window in sorted(window for window in self._pages if first <= window <= last):
            for host in sorted(self._pages[window]):
                yield window, host

    def account(
        self,
        host: str,
        window: int,
        *,
        line: UnixSeconds,
        revision: int = 0,
        watch: Watch | None = None,
        teach: bool = False,
    ) -> Account:
        """The account of what stands before the line; `watch` is shown how each device was split, `teach` asks for
        what it teaches.
        """
        length = self._terms.window_seconds
        page = self._pages.get(window, {}).get(host)

        def nearby(device: str, start: UnixSeconds, end: UnixSeconds) -> list[Told]:
            return self._readings_of(host, device, start, end, line)

        return account(
            host,
            window_start(window, length),
            window_start(window + 1, length),
            readings=[told for at, told in page.readings.values() if at < line] if page else (),
            usages=joined([part.before(line) for part in page.usages if part.since < line] if page else ()),
            activities=[each for each, at in page.activities.items() if at < line] if page else (),
            engines=self.engines(host, window, line=line),
            nearby=nearby,
            intensity_at=self._intensity_at,
            scalars_at=self._scalars_at,
            method=self._terms.method,
            revision=revision,
            requests=self._requests,
            watch=watch,
            teach=teach,
        )

    def engines(self, host: str, window: int, *, line: UnixSeconds) -> list[EngineReading]:
        """What model servers did in a window, as it stands before the line, in the order in which it came."""
        page = self._pages.get(window, {}).get(host)
        return [each for each, at in page.engines.items() if at < line] if page else []

    def usages(self, host: str, window: int) -> UsageColumns:
        """The requests that touch a window, in the order in which they came."""
        page = self._pages.get(window, {}).get(host)
        return joined([part.columns.take(part.places) for part in page.usages] if page else ())

    def in_flight_since(self, window: int) -> int:
        """The first window of any request that goes on in `window` and was known before its first one was final."""
        begin, length = window_start(window, self._terms.window_seconds), self._terms.window_seconds
        since = window
        for page in self._pages.get(window, {}).values():
            for part in page.usages:
                going_on = part.places[part.columns.start[part.places] < begin]
                first = windows_at(part.columns.start[going_on], length)
                known = first[final_lines(self._terms, first) > part.columns.log_time[going_on]]
                since = min(since, int(known.min(initial=since)))
        return since

    def needed_since(self, first: int) -> UnixSeconds:
        """The earliest log time of what windows from `first` on hold; infinity for nothing."""
        return min(
            (
                page.first_log_time
                for window, pages in self._pages.items()
                if window >= first
                for page in pages.values()
            ),
            default=float("inf"),
        )

    def stands_since(self, window: int) -> UnixSeconds:
        """A log time before which no record of the window stood, if this book was given all of them.

        Mostly its start: a clock that is ahead puts records before it. Known of forgotten windows too.
        """
        begin = window_start(window, self._terms.window_seconds)
        return min(begin, self._since.get(window, begin))

    def forget_before(self, first: int) -> None:
        """Drops windows before `first`, and takes no more of them."""
        self._oldest = max(self._oldest, first)
        length = self._terms.window_seconds
        for window in [window for window in self._pages if window < first]:
            del self._pages[window]
            if self._since[window] >= window_start(window, length):
                del self._since[window]  # `stands_since` says so of every window that it does not know
        never_again = first - (self._terms.restate_seconds + SECONDS_PER_DAY) // length
        for window in [window for window in self._since if window < never_again]:
            del self._since[window]

    def _held(self, windows: range) -> Iterator[int]:
        first = max(windows.start, self._oldest)
        return (window for window in range(int(first), windows.stop) if self._keep is None or self._keep(window))

    def _page(self, window: int, host: str, log_time: UnixSeconds) -> _Page:
        pages = self._pages.get(window)
        if pages is None:
            pages = self._pages[window] = {}
        page = pages.get(host)
        if page is None:
            page = pages[host] = _Page({}, [], {}, {}, log_time)
        page.first_log_time = min(page.first_log_time, log_time)  # requests are entered some records later
        self._since[window] = min(self._since.get(window, log_time), log_time)
        return page

    def _readings_of(
        self, host: str, device: str, start: UnixSeconds, end: UnixSeconds, line: UnixSeconds
    ) -> list[Told]:
        found: dict[Hashable, Told] = {}
        for window in windows_of(start, end, self._terms.window_seconds):
            page = self._pages.get(window, {}).get(host)
            if page:
                found.update(
                    (content, told)
                    for content, (at, told) in page.readings.items()
                    if at < line and told.reading.device == device
                )
        return list(found.values())


def provisional_rows(rows: list[Row]) -> list[Row]:
    """The same rows in the provisional measurements; requests are shown once they are final."""
    return [
        Row(_PROVISIONAL[row.measurement], row.time, row.tags, row.fields)
        for row in rows
        if row.measurement in _PROVISIONAL
    ]


def restated_rows(before: list[Row], after: list[Row], revision: int) -> list[Row]:
    """`after`, and zeros for each row that only `before` had: none may vanish, also where a device changed its kind."""
    there = {(row.measurement, row.tags) for row in after}
    return after + [
        _zeroed(row, revision)
        for row in before
        if (row.measurement, row.tags) not in there and row.measurement in _ZEROED
    ]


def _zeroed(row: Row, revision: int) -> Row:
    measurement = _ZEROED[row.measurement]
    sums = tuple(None if value is None else 0.0 for value in row.fields[: len(measurement.sums)])
    return Row(row.measurement, row.time, row.tags, (*sums, *row.fields[len(measurement.sums) : -1], revision))
