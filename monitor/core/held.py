"""Whether a power limit held a board back in a window, and at what power. In: readings, requests' times. Out: watts.

A board at its limit does the same work with the same joules above idle, but slower, at a power that no longer depends
on what it does. Idle power goes on for longer, and by the joules of the work instead of its time on the roofline: see
`marginals` (priors.py), which takes the level that is found here. Drivers tell that a board is at its limit; recordings
and dcgm-exporters do not, there a power that stays the same through the window shows it. A request that decodes alone
for 10 s makes a power as steady; so `marginals` goes by a level only where work costs a good deal more by it.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np

from collectors.readings import ActivityReading, Device
from collectors.units import UnixSeconds
from monitor.core.attribution.pieces import Column, Flags
from monitor.core.attribution.virtual_energy import Meter

CAPPED: Final = "power_capped"
STEADY_RATIO: Final = 0.03
"""Standard deviation of the busy readings' power, relative to its mean. From second to second it is 0.02 to 0.08 on the
simulator's saturated board, 0.004 to 0.013 at a limit; a sensor's noise of 2 % comes on top."""
LEAST_READINGS: Final = 5
"""Fewer show nothing: two that are alike may be chance, and one is always like itself."""
LEAST_LIMIT: Final = 0.25
"""Makers let a limit be set down to about 2/7 of the data sheet's (H100: 200 of 700 W): a level below is none."""
BUSY_RATIO: Final = 0.95


def held_watts(
    meter: Meter, begin: Column, end: Column, limit_watts: float | None, *, told: bool = False
) -> float | None:
    """The power at which a limit held the board while it was busy, None where none did.

    `begin` and `end` of the requests on it, in seconds as in `meter`. Readings count in which some request is active
    nearly throughout, and that were measured as they went. `told`: the driver says that the board was at its limit.

    Six readings of 1 s at 318, 322, 320, 319, 321 and 320 W with a request throughout: 320 W. With one at 250 W among
    them: None, unless told, then 308.3 W.
    """
    mine = _busy(meter, begin, end) & ~meter.recovered & ~meter.modelled
    if not mine.any():
        return None
    watts, seconds = meter.watts[mine], (meter.end - meter.start)[mine]
    level = float((watts * seconds).sum() / seconds.sum())
    if told:
        return level
    apart = float(np.sqrt(((watts - level) ** 2 * seconds).sum() / seconds.sum()))
    if len(watts) < LEAST_READINGS or apart > STEADY_RATIO * level:
        return None
    return level if limit_watts is None or level >= LEAST_LIMIT * limit_watts else None


def told_capped(activities: Iterable[ActivityReading], device: Device, start: UnixSeconds, end: UnixSeconds) -> bool:
    """Whether its driver says that the board was at its power limit for at least half of [start, end)."""
    seconds, until = 0.0, start
    for each in sorted(activities, key=lambda each: (each.start, each.end)):
        if each.device == device.id and CAPPED in each.state:
            seconds += max(min(each.end, end) - max(each.start, until), 0.0)
            until = max(until, each.end)
    return seconds >= (end - start) / 2.0


def _busy(meter: Meter, begin: Column, end: Column) -> Flags:
    """Which readings have some request active in BUSY_RATIO of them."""
    if not len(begin) or not len(meter.start):
        return np.zeros(len(meter.start), dtype=np.bool_)
    if (begin[1:] < begin[:-1]).any():  # they mostly come in order
        order = np.argsort(begin, kind="stable")
        begin, end = begin[order], end[order]
    starts, ends = begin, np.maximum.accumulate(end)
    news = np.flatnonzero(np.concatenate(([True], starts[1:] > ends[:-1])))
    starts, ends = starts[news], ends[np.concatenate((news[1:] - 1, [len(ends) - 1]))]
    done = np.cumsum(ends - starts)
    moments = np.stack((starts, ends), axis=1).ravel()
    active = np.stack((done - (ends - starts), done), axis=1).ravel()  # seconds with a request up to each moment
    busy = np.interp(meter.end, moments, active) - np.interp(meter.start, moments, active)
    return np.asarray(busy >= BUSY_RATIO * (meter.end - meter.start), dtype=np.bool_)
