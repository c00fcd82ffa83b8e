"""`wattribute demo`: the whole way through the house on a simulated host, in front of one's eyes."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Self

import click

from collectors.clock import monotonic, sleep
from monitor.cli.main import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

MARK = ".wattribute-demo"
REFRESH_SECONDS = 1.0
LINE_SECONDS = 10.0


@click.command()
@click.option(
    "--folder",
    default="demo-data",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where recording, log and store go; what an earlier demo left there is replaced.",
)
@click.option("--minutes", default=60, show_default=True, type=click.IntRange(1, 240), help="Length of the recording.")
@click.option("--speed", default=60.0, show_default=True, type=click.FloatRange(1, 3600), help="Times real time.")
@click.option("--seed", default=1, show_default=True, type=int, help="Another seed, another day.")
@click.option("--keep", is_flag=True, help="Stay up at the end, so that top and report can be tried; Ctrl-C ends it.")
def demo(*, folder: Path, minutes: int, speed: float, seed: int, keep: bool) -> None:
    """Simulates a host of two GPUs, three models and four teams, runs the daemon on it, and prints its statement."""
    from rich.console import Console

    from collectors.recording import load_recording
    from collectors.simulate.presets import PRESETS
    from collectors.simulate.simulate import simulate
    from monitor.cli.logging import configure
    from monitor.config.load import load_config
    from monitor.reports.live import live_view, render_live
    from monitor.reports.statement import statement
    from monitor.reports.statement_text import render_text
    from monitor.roles.embedded import LOCAL_ADMIN, Embedded
    from monitor.service import replay_into
    from monitor.signals import stop_on_signals

    stop = stop_on_signals()
    recording, data = folder / "recording", folder / "data"
    _make_room(folder, recording, data)
    click.echo(f"simulating {minutes} minutes of a host of two GPUs, three models, four teams ...")
    simulate(PRESETS["demo"](minutes), seed, recording)
    config = load_config(None, environ=os.environ)
    configure("warning", "text")  # the picture on the screen is not to be broken by lines
    loaded = load_recording(recording, allowed_labels=config.accounting.label_keys)
    console = Console()
    with Embedded(data, config) as house:
        query = house.query()
        with _Screen(console, lambda: render_live(live_view(query, LOCAL_ADMIN))) as screen:
            run = replay_into(house, [loaded], speed=speed, on_progress=screen.show, should_stop=stop.is_set)
        if not run.finished:
            click.echo("stopped before its end", err=True)
            raise click.exceptions.Exit(EXIT_INTERRUPTED)
        click.echo(render_text(statement(query, LOCAL_ADMIN, *run.span(config.accounting.window_seconds))))
        click.echo(
            f"\nNow try: wattribute report --data {data} --from 2026-01-05 --to 2026-01-06 --by team --include-idle"
        )
        if keep:
            click.echo("staying up; Ctrl-C ends it")
            while not stop.is_set():
                sleep(0.2)


def _make_room(folder: Path, *places: Path) -> None:
    """Deletes what an earlier demo left in the folder, and nothing else: a demo's folder carries a mark."""
    from monitor.log.sqlite import SqliteLog
    from monitor.roles.embedded import LOG_FILE

    mark = folder / MARK
    if folder.exists() and any(folder.iterdir()) and not mark.exists():
        raise click.UsageError(f"{folder} holds files that are not a demo's; name an empty or a new --folder")
    for log in (place / LOG_FILE for place in places if (place / LOG_FILE).exists()):
        SqliteLog(log).close()  # refused while another demo runs there
    folder.mkdir(parents=True, exist_ok=True)
    mark.touch()
    for place in places:
        if place.exists():
            shutil.rmtree(place)


class _Screen:
    """The live table: redrawn on a terminal, a line of progress now and then elsewhere."""

    def __init__(self, console: "Console", draw: "Callable[[], RenderableType]") -> None:
        from rich.live import Live

        self._draw = draw
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=False) if console.is_terminal else None
        self._next = 0.0

    def __enter__(self) -> Self:
        if self._live:
            self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._live.update(self._draw(), refresh=True)
            self._live.__exit__(None, None, None)
        else:
            self._console.print(self._draw())

    def show(self, done: float) -> None:
        if monotonic() < self._next:
            return
        if self._live:
            self._live.update(self._draw(), refresh=True)
            self._next = monotonic() + REFRESH_SECONDS
        else:
            click.echo(f"{done:4.0%} replayed")
            self._next = monotonic() + LINE_SECONDS
