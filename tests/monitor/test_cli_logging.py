"""The program's own log: on standard error, in text or JSON, from the configured level on."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from monitor.cli.logging import CHATTY_LIBRARIES, Level, RateLimit, configure


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Other tests find the logging as it was."""
    yield
    structlog.reset_defaults()
    for name in CHATTY_LIBRARIES:
        logging.getLogger(name).handlers, logging.getLogger(name).propagate = [], True


def test_json_lines_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Each line is one object, whatever its values hold; what is below the level is left out."""
    configure("info", "json")
    structlog.get_logger().debug("unseen")
    structlog.get_logger().info("seen", model="a\nb", reread_seconds=900.0)
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    told = json.loads(line)
    assert told.pop("timestamp").endswith("Z")
    assert told == {"event": "seen", "level": "info", "model": "a\nb", "reread_seconds": 900.0}


def test_text_keeps_a_strangers_line_end_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A value with a line end or an escape sequence cannot pass for a line of its own."""
    configure("warning", "text")
    structlog.get_logger().info("unseen")
    structlog.get_logger().warning("seen", model="a\n2026-01-01 forged \x1b[2J")
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "\x1b" not in err


def test_a_library_that_tells_each_retry_is_heard_at_debug_only(capsys: pytest.CaptureFixture[str]) -> None:
    """kafka-python's own errors do not stand on standard error beside our lines, unless debug is asked for."""
    levels: tuple[Level, ...] = ("info", "debug")
    for level in levels:
        configure(level, "json")
        logging.getLogger("kafka.net.manager").error("Connection failed: %s", "refused")
        _, err = capsys.readouterr()
        told = [json.loads(line) for line in err.splitlines()]
        assert [(line["source"], line["said"]) for line in told] == (
            [] if level == "info" else [("kafka.net.manager", "Connection failed: refused")]
        )


def test_a_message_that_repeats_is_told_a_few_times_a_minute_and_counted() -> None:
    """Two in each minute; the next minute's first line says that three were left out, and others are not held up."""
    now = 0.0
    limit = RateLimit(lambda: now, most=2)

    def told(source: str) -> list[dict[str, Any]]:
        try:
            return [dict(limit(None, "warning", {"event": "no answer", "level": "warning", "source": source}))]
        except structlog.DropEvent:
            return []

    assert [len(told("a")) for _ in range(5)] == [1, 1, 0, 0, 0]
    assert len(told("b")) == 1
    now = 60.0
    assert told("a")[0]["left_out"] == 3
    assert "left_out" not in told("b")[0]
