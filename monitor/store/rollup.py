"""Writes hourly and daily roll-ups of the books, by the same hand that made the windows final."""

from collections.abc import Callable, Collection, Iterable

from collectors.units import UnixSeconds
from monitor.core.points import BOOKS, METER, USAGE
from monitor.core.rollup import parent_changes, roll_up
from monitor.store.protocol import RESOLUTION_SECONDS, Resolution, Store


def write_rollups(
    store: Store,
    hours: Collection[UnixSeconds],
    days: Collection[UnixSeconds],
    *,
    owns: Callable[[str], bool] = lambda host: True,
) -> None:
    """Rolls up these hours from their windows, then these days from their hours, of the hosts that the caller `owns`.

    Done again it gives the same. The caller names hours (and days) whose last window is final, or of which a window
    was restated. A host's stretch in which a meter came under another one, or out of it, stays as it is, finer rows
    and all: its sum would count twice or not at all. So does a day of which an hour is left so.
    """
    for hour in sorted(hours):
        end = hour + RESOLUTION_SECONDS["hour"]
        hosts = store.hosts(METER, hour, end) | store.hosts(USAGE, hour, end)
        _write(store, hour, filter(owns, sorted(hosts)), source="window", target="hour")
    for day in sorted(days):
        _write(store, day, filter(owns, sorted(_whole_hosts(store, day))), source="hour", target="day")


def _write(store: Store, start: UnixSeconds, hosts: Iterable[str], *, source: Resolution, target: Resolution) -> None:
    """One host after the other, so that memory does not grow with them."""
    end = start + RESOLUTION_SECONDS[target]
    for host in hosts:
        rows = {each: store.read(each, start, end, where={"host": (host,)}, resolution=source) for each in BOOKS}
        if not parent_changes(rows[METER]):
            rolled = [row for each in BOOKS for row in roll_up(each, rows[each], start)]
            store.write(rolled, resolution=target)
            store.mark_rolled_up((start,), target, (host,))


def _whole_hosts(store: Store, day: UnixSeconds) -> set[str]:
    """The hosts of that day with no hour that is left in windows."""
    end, hour_seconds = day + RESOLUTION_SECONDS["day"], RESOLUTION_SECONDS["hour"]
    marks = store.rolled_up(day, end, "hour")
    hosts = {host for marked in marks.values() for host in marked}
    whole = set(hosts)
    for number in range(24):
        hour = day + number * hour_seconds
        if open_hosts := whole - marks.get(hour, frozenset()):
            for measurement in (METER, USAGE):
                whole -= open_hosts & store.hosts(measurement, hour, hour + hour_seconds)
    return whole
