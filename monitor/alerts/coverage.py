"""Which devices should be measured, and how much of a time they were. Pure.

A host that is cut off writes no rows at all, so what is missing can only be told by what was there before.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from collectors.units import SECONDS_PER_DAY, UnixSeconds
from monitor.core.questions import MeterWindow

FORGET_SECONDS: Final = SECONDS_PER_DAY
"""A device that gave nothing for so long is taken for removed."""

DeviceKey = tuple[str, str, str]
"""Host, device, kind."""


class Seen(msgspec.Struct, frozen=True):
    """The starts of the first and the newest window in which a device was measured."""

    first: UnixSeconds
    last: UnixSeconds


def seen(before: dict[DeviceKey, Seen], meters: Iterable[MeterWindow]) -> dict[DeviceKey, Seen]:
    """With what these windows tell: devices that gave readings, less those that another's meter contains by now."""
    found = dict(before)
    for meter in meters:
        key = (meter.host, meter.device, meter.kind)
        if meter.parent:
            found.pop(key, None)
        elif meter.covered_seconds:
            known = found.get(key, Seen(meter.time, meter.time))
            found[key] = Seen(min(known.first, meter.time), max(known.last, meter.time))
    newest = max((each.last for each in found.values()), default=0.0)
    return {key: each for key, each in found.items() if newest - each.last < FORGET_SECONDS}


def expected_seconds(known: Seen, start: UnixSeconds, end: UnixSeconds) -> float:
    """How long a device should have been measured in [start, end): from its first window on."""
    return max(0.0, end - max(start, known.first))
