"""Writes hourly and daily roll-ups of the books, by the same hand that made the windows final."""

from collections.abc import Collection

from collectors.units import UnixSeconds
from monitor.core.points import BOOKS, METER, Row
from monitor.core.rollup import parent_changes, roll_up
from monitor.store.protocol import RESOLUTION_SECONDS, Resolution, Store


def write_rollups(store: Store, hours: Collection[UnixSeconds], days: Collection[UnixSeconds]) -> None:
    """Rolls up these hours from their windows, then these days from their hours. Raises StoreUnavailable.

    Done again it gives the same. The caller names hours (and days) whose last window is final, or of which a window
    was restated. A stretch in which a meter came under another one, or out of it, stays as it is, finer rows and all:
    its sum would count twice or not at all. So does a day of which an hour is left so.
    """
    for hour in sorted(hours):
        _write(store, hour, source="window", target="hour")
    for day in sorted(days):
        if not _has_loose_hours(store, day):
            _write(store, day, source="hour", target="day")


def _write(store: Store, start: UnixSeconds, *, source: Resolution, target: Resolution) -> None:
    end = start + RESOLUTION_SECONDS[target]
    rolled: list[Row] = []
    for measurement in BOOKS:
        rows = store.read(measurement, start, end, resolution=source)
        if measurement is METER and (not rows or parent_changes(rows)):
            return
        rolled += roll_up(measurement, rows, start)
    store.write(rolled, resolution=target)
    store.mark_rolled_up((start,), target)


def _has_loose_hours(store: Store, day: UnixSeconds) -> bool:
    end = day + RESOLUTION_SECONDS["day"]
    rolled_up = store.rolled_up(day, end, "hour")
    hour_seconds = RESOLUTION_SECONDS["hour"]
    hours = (day + number * hour_seconds for number in range(24))
    return any(hour not in rolled_up and bool(store.read(METER, hour, hour + hour_seconds, limit=1)) for hour in hours)
