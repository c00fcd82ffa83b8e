"""A store's rows as lines of text, to be compared with another store's. In: a store. Out: equal lines of equal rows."""

from collections.abc import Iterable, Iterator
from typing import Final

from monitor.core.points import BOOKS, Measurement
from monitor.store.line_protocol import line
from monitor.store.protocol import Resolution, Store

_RESOLUTIONS: Final[tuple[Resolution, ...]] = ("window", "hour", "day")


def dump(store: Store, measurements: Iterable[Measurement]) -> Iterator[str]:
    """Every stored row of these as a line of InfluxDB line protocol, by identity: equal stores give equal lines.

    Roll-ups follow their windows, under names of their own (`energy_hour`).
    """
    for measurement in sorted(measurements, key=lambda each: each.name):
        for resolution in _RESOLUTIONS if measurement in BOOKS else _RESOLUTIONS[:1]:
            name = measurement.name if resolution == "window" else f"{measurement.name}_{resolution}"
            for row in store.stream(measurement, float("-inf"), float("inf"), resolution=resolution):
                yield line(measurement, row, name)
