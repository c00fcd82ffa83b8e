"""Moments and durations as people write them on a command line. Pure: the present moment is an argument."""

import re
from datetime import UTC, datetime
from typing import Final

from collectors.errors import Rejected
from collectors.moments import moment_from_number, moment_from_text
from collectors.units import SECONDS_PER_DAY, UnixSeconds

_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": SECONDS_PER_DAY, "w": 7 * SECONDS_PER_DAY}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhdw])")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
FORMS: Final = "RFC 3339 with its zone, a date (UTC), unix seconds, now, today, month, or -24h"


def duration(text: str) -> float:
    """Seconds: "90s", "15m", "1h", "1d", "2w". Raises ValueError."""
    found = _DURATION.fullmatch(text)
    if found is None or not float(found[1]):
        raise ValueError(f"{text!r} is not a duration such as 15m, 1h or 1d")
    return float(found[1]) * _UNITS[found[2]]


def moment(text: str, now: UnixSeconds) -> UnixSeconds:
    """Unix seconds. "today" and "month" are their beginnings in UTC, "-24h" lies before `now`. Raises ValueError."""
    today = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    words = {"now": now, "today": today.timestamp(), "month": today.replace(day=1).timestamp()}
    if text in words:
        return words[text]
    if text.startswith("-"):
        return now - duration(text[1:])
    try:
        if _DATE.fullmatch(text):
            return moment_from_text(f"{text}T00:00:00Z", "it")
        if text.replace(".", "", 1).isdigit():
            return moment_from_number(float(text), "it")
        return moment_from_text(text, "it")
    except Rejected as error:
        raise ValueError(f"{text!r} is not a moment ({error.detail}); write {FORMS}") from error
