"""`wattribute top`: who uses how much now, as the store has it."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from collectors.clock import sleep
from monitor.cli.options import duration_option

if TYPE_CHECKING:
    from monitor.config.sections import Config
    from monitor.reports.live import LiveView


@click.command()
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="The data directory.")
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="The configuration of the daemon.")
@click.option("--once", is_flag=True, help="Show it once. So it is, too, where standard output is no terminal.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on a line for each look, with all digits.")
@click.option(
    "--interval", callback=duration_option, default="2s", show_default=True, help="Between two looks: 2s, 1m."
)
def top(*, data: Path | None, config: Path | None, once: bool, as_json: bool, interval: float) -> None:
    """Show live who uses how much: watts by device, joules and CO2e by model and team over the last hour.

    Reads beside a running daemon. The newest window in the store is now, so a replay is shown in its own time. Leave
    with Ctrl-C.

    Exit codes: 0 done, 2 the configuration is wrong, 3 the store or the log cannot be read.
    """
    from monitor.query import Query
    from monitor.reports.live import live_view
    from monitor.roles.embedded import LOCAL_ADMIN, STORE_FILE
    from monitor.store.open import open_store

    loaded, directory = _place(config, data)
    with closing(open_store(loaded, directory / STORE_FILE, read_only=True)) as store, _rejected(directory) as rejected:
        query = Query(store, rejected=rejected)
        _show(lambda: live_view(query, LOCAL_ADMIN), once=once, as_json=as_json, interval=interval)


@contextmanager
def _rejected(directory: Path) -> Iterator[Callable[[], Mapping[str, int]]]:
    """Counts the log's dead letters by reason; none where there is no log, as beside a store that was copied."""
    from monitor.log.sqlite import SqliteLog
    from monitor.roles.embedded import LOG_FILE

    if not (directory / LOG_FILE).exists():
        yield dict
        return
    with closing(SqliteLog(directory / LOG_FILE, read_only=True)) as log:
        yield log.rejected


def _place(config: Path | None, data: Path | None) -> tuple["Config", Path]:
    from monitor.config.load import load_config
    from monitor.config.sections import Config

    if data is not None and config is None:
        return Config(), data
    loaded = load_config(config, environ=os.environ)
    return loaded, data or loaded.data.directory


def _show(look: "Callable[[], LiveView]", *, once: bool, as_json: bool, interval: float) -> None:
    try:
        if as_json:
            _show_json(look, once=once, interval=interval)
        elif once or not sys.stdout.isatty():
            click.echo(_text(look()), nl=False)
        else:
            _show_live(look, interval=interval)
    except KeyboardInterrupt:
        return  # the way to leave


def _show_json(look: "Callable[[], LiveView]", *, once: bool, interval: float) -> None:
    import msgspec

    while True:
        click.echo(msgspec.json.encode(look()).decode())
        if once:
            return
        sleep(interval)


def _text(view: "LiveView") -> str:
    """As wide as it needs to be where there is no terminal: a name that is cut is no use to a script."""
    from rich.console import Console

    from monitor.reports.live import render_live

    console = Console(width=None if sys.stdout.isatty() else 200)
    with console.capture() as captured:
        console.print(render_live(view, most_lines=len(view.lines)))
    return captured.get()


def _show_live(look: "Callable[[], LiveView]", *, interval: float) -> None:
    from rich.live import Live

    from monitor.reports.live import render_live

    with Live(render_live(look()), screen=True, auto_refresh=False) as live:
        while True:
            sleep(interval)
            live.update(render_live(look()), refresh=True)
