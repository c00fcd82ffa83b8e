"""Moments of the books as the API tells them. Pure."""

from typing import Any

from collectors.clock import rfc3339
from collectors.units import UnixSeconds
from monitor.web.answers import Span


def told(moment: UnixSeconds | None) -> str | None:
    """RFC 3339, or None for what is not known."""
    return None if moment is None else rfc3339(moment)


def span(start: UnixSeconds, end: UnixSeconds) -> Span:
    """[start, end) as text."""
    return Span(start=rfc3339(start), end=rfc3339(end))


def with_told(record: dict[str, Any], *names: str) -> dict[str, Any]:
    """The record with these fields as text."""
    return record | {name: told(record[name]) for name in names}
