"""`wattribute report`: who used how much, by what one asks for."""

import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from collectors.clock import SystemClock
from collectors.units import UnixSeconds
from monitor.cli.moments import FORMS, moment
from monitor.cli.options import duration_option

if TYPE_CHECKING:
    from monitor.config.sections import Config
    from monitor.core.questions import AllocationPage, AllocationQuery

EXIT_USAGE = 2
EXIT_STORE = 3


def _moment(ctx: click.Context, param: click.Parameter, value: str) -> UnixSeconds:
    try:
        return moment(value, SystemClock().now())
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error


@click.command()
@click.option("--from", "start", callback=_moment, default="-24h", show_default=True, metavar="WHEN", help=f"{FORMS}.")
@click.option(
    "--to", "end", callback=_moment, default="now", show_default=True, metavar="WHEN", help="Where it ends; likewise."
)
@click.option(
    "--by",
    default="model,team",
    show_default=True,
    help="Any of model, team, deployment, host, device, kind, label:KEY; with commas.",
)
@click.option("--include-idle", is_flag=True, help="Show idle as lines of its own.")
@click.option(
    "--share-idle",
    type=click.Choice(["false", "host", "fleet", "owner"]),
    default="false",
    show_default=True,
    help="Charge idle to those who used the host, to all, or to the owner of the device.",
)
@click.option(
    "--step", callback=duration_option, metavar="DURATION", help="Lines for each 15m, 1h, 1d ... of the interval."
)
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="The configuration of the daemon.")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="The data directory.")
def report(
    *,
    start: UnixSeconds,
    end: UnixSeconds,
    by: str,
    include_idle: bool,
    share_idle: str,
    step: float | None,
    form: str,
    config: Path | None,
    data: Path | None,
) -> None:
    """Report joules, CO2e, requests and tokens by model, team, label and more.

    Reads beside a running daemon. The windows that start in [from, to) are counted, each of them whole. Table, CSV and
    JSON hold the same digits; CSV and JSON have more columns.

    Exit codes: 0 done, 2 the question or the configuration is wrong, 3 the store cannot be read.
    """
    import msgspec

    from monitor.core.questions import AllocationQuery, BadQuery
    from monitor.store.protocol import StoreUnavailable

    dimensions = tuple(name for each in by.split(",") if (name := each.strip()))
    try:
        asked = msgspec.convert(
            {
                "start": start,
                "end": end,
                "by": dimensions,
                "include_idle": include_idle,
                "share_idle": share_idle,
                "step": step,
            },
            AllocationQuery,
        )
        page, told = _ask(asked, config, data)
    except BadQuery as error:
        click.echo(f"report: {_option(error.field)}: {error.reason}", err=True)
        sys.exit(EXIT_USAGE)
    except StoreUnavailable as error:
        click.echo(f"report: {error}", err=True)
        sys.exit(EXIT_STORE)
    click.echo(_render(page, form), nl=False)
    for hint in told:
        click.echo(f"report: {hint}", err=True)


def _ask(asked: "AllocationQuery", config: Path | None, data: Path | None) -> tuple["AllocationPage", list[str]]:
    """The page, and what to tell of it beside its figures."""
    from monitor.query import Query, whole_allocation
    from monitor.reports.hints import hints
    from monitor.roles.embedded import LOCAL_ADMIN, STORE_FILE, gains_of, owners_of
    from monitor.store.open import open_store

    loaded, directory = _place(config, data)
    store = open_store(loaded, directory / STORE_FILE, read_only=True)
    try:
        query = Query(store, rejected=dict, owners=owners_of(loaded), gains=gains_of(loaded))
        page = whole_allocation(query, LOCAL_ADMIN, asked)
        return page, hints(page, query.status(LOCAL_ADMIN, since=math.inf))
    finally:
        store.close()


def _place(config: Path | None, data: Path | None) -> tuple["Config", Path]:
    """The configuration and the data directory."""
    from monitor.config.load import load_config
    from monitor.config.problems import ConfigError
    from monitor.config.sections import Config

    if data is not None and config is None:
        return Config(), data
    try:
        loaded = load_config(config, environ=os.environ)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(EXIT_USAGE)
    return loaded, data or loaded.data.directory


def _option(field: str) -> str:
    """The option that a field of the question came from."""
    return {"start": "--from", "end": "--to"}.get(field, f"--{field.replace('_', '-')}")


def _render(page: "AllocationPage", form: str) -> str:
    from monitor.reports import table, text_csv, text_json

    return {"table": table.render, "csv": text_csv.render, "json": text_json.render}[form](page)
