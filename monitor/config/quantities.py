"""Values that are written as text: "10s", "10GiB", "127.0.0.1:8095". Each function raises Faulty with the mending."""

import math
import re
from typing import Final
from urllib.parse import urlsplit

from monitor.config.problems import Faulty, shown

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_BYTES: Final = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)")
_LONGEST_SECONDS: Final = 100 * 366 * 86_400.0
_LARGEST_BYTES: Final = 2**60
_LONGEST_NAME: Final = 256


def duration_seconds(text: str) -> float:
    """Seconds, more than 0 and at most a hundred years: "15m" is 900.0."""
    seconds = delay_seconds(text)
    if seconds == 0:
        raise Faulty(f"{shown(text)} must be longer than nothing")
    return seconds


def delay_seconds(text: str) -> float:
    """Seconds, 0 allowed: "0s" is 0.0."""
    number, unit = _split(text, 'a duration such as "10s", "15m", "24h" or "7d"', _SECONDS)
    seconds = number * _SECONDS[unit]
    if not seconds <= _LONGEST_SECONDS:
        raise Faulty(f"{shown(text)} is longer than a hundred years")
    return seconds


def size_bytes(text: str) -> int:
    """Bytes, at least 1: "10GiB" is 10 737 418 240, "500MB" is 500 000 000."""
    number, unit = _split(text, 'a size such as "10GiB" or "500MB"', _BYTES)
    size = number * _BYTES[unit]
    if not 1 <= size <= _LARGEST_BYTES:
        raise Faulty(f"{shown(text)} is not between 1 byte and 1 EiB")
    return round(size)


def speed_factor(text: str) -> float:
    """How fast a recording is played: "max" is infinity; a number is given without quotes."""
    if text != "max":
        raise Faulty(f'{shown(text)} is not a speed; write a number such as 60 without quotes, or "max"')
    return math.inf


def host_and_port(text: str) -> str:
    """An address as it came, "127.0.0.1:8095" or "[::1]:8095", once it has a host and a port."""
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not host or not text.isprintable() or any(c in host for c in "/@ ") or (":" in host and not bracketed):
        raise Faulty(f'{shown(text)} is not an address; write host and port, as in "127.0.0.1:8095"')
    if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise Faulty(f"{shown(text)} has no port between 1 and 65535 behind its last colon")
    return text


def http_url(text: str) -> str:
    """An http or https URL without a password in it; "" is none."""
    if not text:
        return text
    try:
        parts = urlsplit(text)
        port_is_right = parts.port is None or parts.port > 0
    except ValueError:
        raise Faulty(f'{shown(text)} is not a URL; write one as in "https://influx.example:8086"') from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_right or not text.isprintable():
        raise Faulty(f'{shown(text)} is not an http URL; write one as in "https://influx.example:8086"')
    if "@" in parts.netloc:
        raise Faulty("a URL here may not carry a user or password; put the secret into a file and name the file")
    return text


def plain_name(text: str) -> str:
    """A name for people and tags: 1 to 256 printable characters, no space at either end."""
    if not text or len(text) > _LONGEST_NAME or not text.isprintable() or text != text.strip():
        raise Faulty(f"{shown(text)} is not a name; write 1 to {_LONGEST_NAME} printable characters")
    return text


def label_key(text: str) -> str:
    """The key of a label: small letters, digits and underscores, so that it is the same word in every reader."""
    if not re.fullmatch("[a-z][a-z0-9_]{0,62}", text):
        raise Faulty(f'{shown(text)} is not a label key; write small letters, digits and "_", as in "use_case"')
    return text


def _split(text: str, wanted: str, units: dict[str, float] | dict[str, int]) -> tuple[float, str]:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise Faulty(f"{shown(text)} is not {wanted}")
    number, unit = match.groups()
    known = ", ".join(units)
    if not unit:
        raise Faulty(f"{shown(text)} has no unit; write {wanted} (units: {known})")
    if unit not in units:
        raise Faulty(f"{shown(text)} has a unit that is not known; units are {known}")
    return float(number), unit
