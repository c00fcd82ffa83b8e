"""Where the program's own log goes: to standard error, so that standard output holds answers alone."""

import logging
import sys
import threading
from collections.abc import Callable
from typing import Any, Literal

import structlog

from collectors.clock import monotonic

MOST_MESSAGES = 1_000
CHATTY_LIBRARIES = ("kafka", "urllib3")
"""They tell each retry as it happens; what it comes to, our own lines say."""

Level = Literal["debug", "info", "warning", "error"]
Form = Literal["text", "json"]


def configure(level: Level, form: Form) -> None:
    """Every line from `level` on, as text for people or as one JSON object each.

    In both a value's line ends stand escaped: what a stranger named his model never makes a line of its own.
    """
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            RateLimit(monotonic),
            *_rendered(form),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=_to_standard_error,
        cache_logger_on_first_use=False,
    )
    for name in CHATTY_LIBRARIES:
        library = logging.getLogger(name)
        library.handlers, library.propagate = [_ToDebug()], False
        library.setLevel(logging.WARNING)


class _ToDebug(logging.Handler):
    """What a library logs, as lines of ours at level debug."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().debug("library", source=record.name, said=record.getMessage())


class RateLimit:
    """Of one message `most` lines in each period; the first line after that says how many were left out.

    A message is its text and whom it is about, not its figures: a source that fails once a second must not fill a disk.
    `seconds` is a clock that never steps.
    """

    def __init__(self, seconds: Callable[[], float], *, most: int = 5, period_seconds: float = 60.0) -> None:
        self._seconds, self._most, self._period = seconds, most, period_seconds
        self._told: dict[tuple[str, ...], tuple[float, int]] = {}
        self._lock = threading.Lock()

    def __call__(self, _logger: Any, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
        """The line, or DropEvent."""
        key = tuple(str(event.get(name, "")) for name in ("event", "level", "meter", "device", "source", "role"))
        with self._lock:
            now = self._seconds()
            since, count = self._told.get(key, (now, 0))
            if now - since >= self._period:
                left_out = max(0, count - self._most)
                since, count = now, 0
                if left_out:
                    event["left_out"] = left_out
            self._told[key] = since, count + 1
            if len(self._told) > MOST_MESSAGES:
                self._told = {each: told for each, told in self._told.items() if now - told[0] < self._period}
        if count >= self._most:
            raise structlog.DropEvent
        return event


def _rendered(form: Form) -> list[structlog.types.Processor]:
    if form == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), repr_native_str=True)]


def _to_standard_error(*_names: Any) -> structlog.PrintLogger:
    """To what is standard error when the line is written, which a test or a daemon may have changed since."""
    return structlog.PrintLogger(sys.stderr)
