"""Where the program's own log goes: to standard error, so that standard output holds answers alone."""

import logging
import sys
from typing import Any, Literal

import structlog

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
            *_rendered(form),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=_to_standard_error,
        cache_logger_on_first_use=False,
    )


def _rendered(form: Form) -> list[structlog.types.Processor]:
    if form == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), repr_native_str=True)]


def _to_standard_error(*_names: Any) -> structlog.PrintLogger:
    """To what is standard error when the line is written, which a test or a daemon may have changed since."""
    return structlog.PrintLogger(sys.stderr)
