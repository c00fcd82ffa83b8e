"""`wattribute rejected`: what was not used, how often, why, and where it stands."""

import json
import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from collectors.clock import rfc3339
from monitor.reports.layout import columns

if TYPE_CHECKING:
    from monitor.log.protocol import DeadLetter, Log

PAGE_LETTERS = 1_000
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

    Exit codes: 0 done, 2 wrong configuration, 3 the log cannot be read.
    """
    from monitor.config.load import load_config
    from monitor.log.sqlite import SqliteLog
    from monitor.roles.embedded import LOG_FILE

    folder = data or load_config(config_file, environ=os.environ).data.directory
    log = SqliteLog(folder / LOG_FILE, read_only=True)
    try:
        counts, letters = log.rejected(), newest(log, limit, reason)
    finally:
        log.close()
    if as_json:
        click.echo(json.dumps({"rejected": counts, "entries": [_entry(letter) for letter in letters]}, indent=2))
    else:
        click.echo("\n".join(_lines(counts, letters)))


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


def _lines(counts: dict[str, int], letters: "Sequence[DeadLetter]") -> list[str]:
    if not counts:
        return ["nothing was rejected"]
    lines = columns(("reason", "count"), [(reason, str(count)) for reason, count in counts.items()], left=1)
    if letters:
        rows = [[str(_entry(letter)[name]) for name in COLUMNS] for letter in letters]
        lines += ["", *columns(COLUMNS, rows, left=len(COLUMNS))]
    return lines
