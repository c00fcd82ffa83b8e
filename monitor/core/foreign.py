"""Whose work a device did: that of model servers, or of others. In: ActivityReadings. Out: `Foreign`. Pure."""

from collections.abc import Iterable

import numpy as np

from collectors.readings import OTHER_PROCESSES, ActivityReading, Device
from collectors.units import UnixSeconds
from monitor.core.attribution.virtual_energy import NOBODY_ELSE, Foreign

_Interval = tuple[UnixSeconds, UnixSeconds]


def foreign_of(
    activities: Iterable[ActivityReading], device: Device, cpus: frozenset[str], start: UnixSeconds, end: UnixSeconds
) -> Foreign:
    """Other processes' part of the busy seconds, interval by interval, in seconds from the window's start.

    A GPU has its own activity; CPU, DRAM and node go by that of the host's CPUs, the devices `cpus`. Others busy for
    30 s and servers for 10 s of the same interval: 0.75. Of intervals that overlap the earliest counts.
    """
    places = {device.id} if device.kind == "gpu" else cpus
    busy: dict[_Interval, list[float]] = {}
    for activity in activities:
        if activity.device in places and activity.consumer and activity.start < end and activity.end > start:
            sums = busy.setdefault((activity.start, activity.end), [0.0, 0.0])
            sums[activity.consumer != OTHER_PROCESSES] += activity.busy_seconds
    kept: list[tuple[float, float, float]] = []
    for (begin, stop), (others, servers) in sorted(busy.items()):
        if others > 0.0 and not (kept and begin - start < kept[-1][1]):
            kept.append((begin - start, stop - start, others / (others + servers)))
    if not kept:
        return NOBODY_ELSE
    columns = np.array(kept, dtype=np.float64)
    return Foreign(start=columns[:, 0], end=columns[:, 1], ratio=columns[:, 2])
