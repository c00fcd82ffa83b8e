"""`wattribute store`: makes the buckets of the books in InfluxDB, and compares them with the configuration."""

import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from monitor.config.sections import Config
    from monitor.store.influx_setup import Setup

EXIT_DIFFERS: Final = 1

config_option = click.option(
    "--config",
    "path",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The configuration of the daemon. [default: /etc/wattribute/config.toml, or the built-in defaults]",
)


@click.group()
def store() -> None:
    """Make the buckets of the books in InfluxDB, or compare them with the configuration.

    One bucket (a database on 1.x) for each retention of [store]: the configured bucket, and with _hours, _days,
    _provisional and _requests behind its name. The embedded store needs neither.
    """


@store.command()
@config_option
def setup(*, path: Path | None) -> None:
    """Make the buckets that are missing, and change retentions that differ. What is right stays as it is.

    A shorter retention deletes what is older. The token needs the right to make buckets.

    Exit codes: 0 done, 2 the configuration is wrong, 3 the server does not answer or refuses.
    """
    from monitor.store.retention import retention_of

    with _setup(path) as (config, buckets):
        count = 0
        for done in buckets.mend(retention_of(config)):
            click.echo(done)
            count += 1
        if not count:
            click.echo("everything is as configured")


@store.command()
@config_option
def check(*, path: Path | None) -> None:
    """Compare the buckets with the configuration, and name each difference. Changes nothing.

    Exit codes: 0 all as configured, 1 something differs, 2 the configuration is wrong, 3 the server does not answer or
    refuses.
    """
    from monitor.store.retention import retention_of

    with _setup(path) as (config, buckets):
        differences = buckets.differences(retention_of(config))
    for difference in differences:
        click.echo(str(difference), err=True)
    if differences:
        click.echo("`wattribute store setup` mends it", err=True)
        sys.exit(EXIT_DIFFERS)
    click.echo("everything is as configured")


@contextmanager
def _setup(path: Path | None) -> "Iterator[tuple[Config, Setup]]":
    from monitor.cli.main import WrongUse
    from monitor.config.load import load_config
    from monitor.store.influx_setup import Setup

    config = load_config(path, environ=os.environ)
    if config.store.kind != "influxdb":
        raise WrongUse('store: nothing to do: [store] kind = "sqlite" makes its file by itself')
    with closing(Setup(config.influxdb)) as buckets:
        yield config, buckets
