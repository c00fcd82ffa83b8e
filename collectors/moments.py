"""Moments as emitters write them -> unix seconds. The same rules for request events and for recorded readings.

A moment is unix seconds as a number, or RFC 3339 text with its zone. It lies in [2000, 2100): what does not is a lost
digit, a zero, or another unit, and is rejected rather than billed to the wrong century.
"""

import re
from datetime import datetime
from typing import Final

from collectors.errors import Rejected
from collectors.units import UnixSeconds

EARLIEST: Final[UnixSeconds] = 946_684_800.0
"""2000-01-01T00:00:00Z."""
LATEST: Final[UnixSeconds] = 4_102_444_800.0
"""2100-01-01T00:00:00Z, itself excluded."""

_RFC3339: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:)([0-9]{2})(?:\.([0-9]{1,18}))?([Zz]|[+-][0-9]{2}:[0-9]{2})?"
)
_OTHER_UNITS: Final = {"milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}


def moment_from_number(seconds: float, field: str) -> UnixSeconds:
    """The same number if it is a moment; raises Rejected `wrong_time_unit` or `time_out_of_range`.

    1_712_043_381_246 is rejected as milliseconds: as seconds it would be the year 56 222.
    """
    if EARLIEST <= seconds < LATEST:
        return seconds
    for unit, per_second in _OTHER_UNITS.items():
        if EARLIEST <= seconds / per_second < LATEST:
            raise Rejected("wrong_time_unit", f"{field} looks like {unit}; write unix seconds")
    raise Rejected("time_out_of_range", f"{field} is {seconds!r}, not unix seconds between the years 2000 and 2100")


def moment_from_text(text: str, field: str) -> UnixSeconds:
    """The moment that RFC 3339 text with a zone names; raises Rejected `bad_time` or `time_out_of_range`.

    Digits beyond the microsecond count: "2024-04-02T07:36:21.2460001-05:00" is 1712061381.2460001. A leap second is
    the second after it, as in unix time.
    """
    found = _RFC3339.fullmatch(text)
    if found is None:
        raise Rejected("bad_time", f"{field} is neither a number nor RFC 3339 (2024-04-02T07:36:21.246Z)")
    day, clock, second, fraction, zone = found.groups()
    if zone is None:
        raise Rejected("bad_time", f"{field} has no zone; end it with Z or an offset such as +01:00")
    leap = 1 if second == "60" else 0
    try:
        whole = datetime.fromisoformat(f"{day}T{clock}{int(second) - leap:02d}{zone.upper()}").timestamp() + leap
    except (ValueError, OverflowError):
        raise Rejected("bad_time", f"{field} names a day or an hour that does not exist") from None
    # Parsed as one decimal, so that text and number of the same moment are the same float.
    return moment_from_number(float(f"{int(whole)}.{fraction}") if fraction else whole, field)
