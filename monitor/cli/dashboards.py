"""`wattribute dashboards`: boards for other programs."""

import json
import os
from pathlib import Path

import click


@click.group()
def dashboards() -> None:
    """Print boards for other programs' dashboards."""


@dashboards.command()
@click.argument("kind", type=click.Choice(["grafana"]))
@click.option(
    "--config",
    "path",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The configuration, for [influxdb] bucket and the window. [default: /etc/wattribute/config.toml]",
)
def export(*, kind: str, path: Path | None) -> None:
    """Print a board as JSON, to be imported there: `wattribute dashboards export grafana > board.json`.

    Grafana 11 or later, with an InfluxDB data source whose query language is InfluxQL.

    Exit codes: 0 done, 2 the configuration is wrong.
    """
    from monitor.config.load import load_config
    from monitor.dashboards.board import grafana_board

    config = load_config(path, environ=os.environ)
    board = grafana_board(bucket=config.influxdb.bucket, window_seconds=config.accounting.window_seconds)
    click.echo(json.dumps(board, indent=2, ensure_ascii=False))
