"""`wattribute rejected`: what was not used, how often, why, and where it stands."""

import json
import os
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from collectors.clock import rfc3339
from monitor.reports.layout import columns

if TYPE_CHECKING:
    from monitor.config.output_sections import Kafka
    from monitor.log.protocol import DeadLetter, Log

PAGE_LETTERS = 1_000
MOST_OF_A_TOPIC = 100_000
COLUMNS = ("time", "reason", "source", "position", "detail")


@click.command()
@click.option("--reason", help="Show those of this reason only.")
@click.option("--limit", type=click.IntRange(min=0), default=20, show_default=True, help="Show so many, newest first.")
@click.option("--json", "as_json", is_flag=True, help="Counts and entries as JSON.")
@click.option("--config", "config_file", type=click.Path(path_type=Path, dir_okay=False), help="The configuration.")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="The data directory.")
def rejected(*, reason: str | None, limit: int, as_json: bool, config_file: Path | None, data: Path | None) -> None:
    """List input that was not used: how much for each reason, and the newest with file, place and detail.

    The bytes themselves are not kept, they may hold a prompt; their SHA-256 is (--json). Reads beside a running daemon.
    With [kafka] the newest 100 000 of the dead-letter topic are counted and listed too.

    Exit codes: 0 done, 2 wrong configuration, 3 the log cannot be read.
    """
    from monitor.cli.logging import configure
    from monitor.config.load import load_config
    from monitor.roles.embedded import LOG_FILE

    config = None if data is not None and config_file is None else load_config(config_file, environ=os.environ)
    if config is not None:
        configure(config.logging.level, config.logging.format)
    if data is None:
        assert config is not None
        data = config.data.directory
    in_kafka = config is not None and bool(config.kafka.bootstrap_servers)
    file = data / LOG_FILE
    counts: Counter[str] = Counter()
    letters: list[DeadLetter] = []
    if file.exists() or not in_kafka:
        counts, letters = _of_file(file, limit, reason)
    if config is not None and in_kafka:
        more_counts, more_letters = _of_topic(config.kafka, reason)
        counts += more_counts
        letters = sorted([*letters, *more_letters], key=lambda letter: -letter.at)[:limit]
    if as_json:
        click.echo(json.dumps({"rejected": counts, "entries": [_entry(letter) for letter in letters]}, indent=2))
    else:
        click.echo("\n".join(_lines(counts, letters)))


def _of_file(file: Path, limit: int, reason: str | None) -> "tuple[Counter[str], list[DeadLetter]]":
    from monitor.log.sqlite import SqliteLog

    log = SqliteLog(file, read_only=True)
    try:
        return Counter(log.rejected()), newest(log, limit, reason)
    finally:
        log.close()


def _of_topic(kafka: "Kafka", reason: str | None) -> "tuple[Counter[str], list[DeadLetter]]":
    """Those of the dead-letter topic, each once however often it was sent; at most the newest of them."""
    from monitor.log.kafka_letters import newest_letters

    letters = newest_letters(kafka, MOST_OF_A_TOPIC)
    return Counter(letter.reason for letter in letters), [each for each in letters if reason in (None, each.reason)]


def newest(log: "Log", limit: int, reason: str | None = None) -> "list[DeadLetter]":
    """The newest dead letters, the newest first; no more than these and one page are ever in memory."""
    kept: deque[DeadLetter] = deque(maxlen=limit)
    after = 0
    while page := log.rejections(PAGE_LETTERS, after):
        kept.extend(letter for _, letter in page if reason is None or letter.reason == reason)
        after = page[-1][0]
    return list(reversed(kept))


def _entry(letter: "DeadLetter") -> dict[str, object]:
    return {
        "time": rfc3339(letter.at),
        "reason": letter.reason,
        "source": letter.source,
        "position": letter.position,
        "detail": letter.detail,
        "sha256": letter.sha256,
    }


def _lines(counts: "Counter[str]", letters: "Sequence[DeadLetter]") -> list[str]:
    if not counts:
        return ["nothing was rejected"]
    lines = columns(("reason", "count"), [(reason, str(count)) for reason, count in sorted(counts.items())], left=1)
    if letters:
        rows = [[str(_entry(letter)[name]) for name in COLUMNS] for letter in letters]
        lines += ["", *columns(COLUMNS, rows, left=len(COLUMNS))]
    return lines
