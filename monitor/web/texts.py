"""From the text of a parameter to its value. Pure; each raises ValueError with what to write instead."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from collectors.errors import Rejected
from collectors.moments import moment_from_number, moment_from_text
from collectors.units import UnixSeconds
from monitor.config.quantities import duration_seconds

WINDOW_FORMS: Final = (
    "a duration up to now (30m, 24h, 7d), today, yesterday, month, lastmonth (all UTC), or two moments with a comma"
    " between them, each RFC 3339 with its zone or unix seconds"
)
_DURATION: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?[a-z]+")
_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_WEEKS: Final = ("week", "lastweek")
_FILTER_KEY: Final = re.compile(
    r"(?P<key>[A-Za-z_]+)(?:\[(?P<bracketed>[^\[\]\"]+)\]|:(?P<label>[a-z][a-z0-9_]*)(?=:))?:"
)
_FILTER_FORM: Final = """team:"a"+model:"b". Of OpenCost's operators only : is taken, with + and ,"""
_FILTER_VALUE: Final = re.compile(r'"((?:[^"\\]|\\["\\])*)"')


def interval(text: str, now: UnixSeconds) -> tuple[UnixSeconds, UnixSeconds]:
    """The half-open interval that a window names: "24h" is [now - 86 400, now), "today" begins at midnight UTC."""
    if text in _WEEKS:
        raise ValueError(f"{text!r} is not taken: whether a week begins on Sunday or Monday is not agreed; write 7d")
    if (whole := _calendar(text, now)) is not None:
        return whole
    if "," in text:
        start, _, end = text.partition(",")
        return moment(start.strip()), moment(end.strip())
    if _DURATION.fullmatch(text):
        return now - duration_seconds(text), now
    raise ValueError(f"{text!r} is not a window; write {WINDOW_FORMS}")


def moment(text: str) -> UnixSeconds:
    """Unix seconds, from unix seconds or RFC 3339 with its zone."""
    try:
        # A query string decodes "+" as a space, and people forget to write %2B.
        if _NUMBER.fullmatch(text):
            return moment_from_number(float(text), "it")
        return moment_from_text(re.sub(r" (\d\d:\d\d)$", r"+\1", text), "it")
    except Rejected as error:
        raise ValueError(f"{text!r} is not a moment: {error.detail}") from error


def since(text: str, now: UnixSeconds) -> UnixSeconds:
    """A moment, or how long ago: "7d"."""
    return now - duration_seconds(text) if _DURATION.fullmatch(text) else moment(text)


def truth(text: str) -> bool:
    """ "true" or "false"."""
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text == "true"


def whole_number(text: str) -> int:
    """Digits alone."""
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ValueError(f"{text!r} is not a whole number")
    return int(text)


def names(text: str) -> tuple[str, ...]:
    """Names with commas between them; none for an empty text."""
    return tuple(name for each in text.split(",") if (name := each.strip()))


def filters(text: str) -> dict[str, frozenset[str]]:
    """OpenCost's v2 filters, the part that chooses: 'team:"a","b"+label[use_case]:"chat"' is (a or b) and chat.

    "+" joins, "," gives alternatives of one dimension. A query string decodes "+" as a space; both are taken.
    """
    found: dict[str, frozenset[str]] = {}
    rest = text.strip()
    while rest:
        key, rest = _filter_key(rest)
        if key in found:
            raise ValueError(f'filters on {key} twice; write its values with commas, as in {key}:"a","b"')
        values, rest = _filter_values(rest, key)
        found[key] = values
        if rest and rest[0] not in "+ ":
            raise ValueError(f"cannot be read from {rest[:20]!r} on; join filters with +")
        rest = rest.lstrip("+ ")
    return found


def _filter_key(rest: str) -> tuple[str, str]:
    match = _FILTER_KEY.match(rest)
    if match is None or rest[match.end() :].startswith(":"):
        raise ValueError(f"cannot be read from {rest[:20]!r} on; write {_FILTER_FORM}")
    key, label = match["key"], match["bracketed"] or match["label"]
    return (f"{key}:{label}" if label else key), rest[match.end() :]


def _filter_values(rest: str, key: str) -> tuple[frozenset[str], str]:
    values = []
    while True:
        match = _FILTER_VALUE.match(rest)
        if match is None:
            raise ValueError(f'the value of {key} must be in double quotes, as in {key}:"a"')
        values.append(re.sub(r"\\(.)", r"\1", match[1]))
        rest = rest[match.end() :]
        if not rest.startswith(","):
            return frozenset(values), rest
        rest = rest[1:]


def _calendar(word: str, now: UnixSeconds) -> tuple[UnixSeconds, UnixSeconds] | None:
    midnight = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    month = midnight.replace(day=1)
    spans = {
        "today": (midnight.timestamp(), now),
        "yesterday": ((midnight - timedelta(days=1)).timestamp(), midnight.timestamp()),
        "month": (month.timestamp(), now),
        "lastmonth": ((month - timedelta(days=1)).replace(day=1).timestamp(), month.timestamp()),
    }
    return spans.get(word)
