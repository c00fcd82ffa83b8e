"""`wattribute topics`: makes the Kafka topics of a fleet, compares them with what the books need, gives them more
partitions.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from monitor.config.sections import Config

EXIT_DIFFERENCES = 1

config_option = click.option(
    "--config",
    "path",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The configuration. [default: /etc/wattribute/config.toml, or the built-in defaults]",
)


@click.group()
def topics() -> None:
    """Make and check the Kafka topics of a fleet.

    Their names, partitions and replicas stand in [kafka.topics].
    """


@topics.command()
@config_option
def create(path: Path | None) -> None:
    """Make the topics that are not there, with the settings that the books need.

    A topic that is there stays as it is, and is checked.

    Exit codes: 0 all are there and right, 1 one is there and wrong, 2 wrong use, 3 the brokers cannot be reached or
    refuse.
    """
    from monitor.log.kafka_topics import create_topics

    config = _configured(path)
    for line in create_topics(config):
        click.echo(line)
    _report(config)


@topics.command()
@config_option
def check(path: Path | None) -> None:
    """Compare the topics with what the books need: a line for each difference, with why and what to do.

    Exit codes: 0 no difference, 1 differences, 2 wrong use, 3 the brokers cannot be reached.
    """
    _report(_configured(path))


@topics.command()
@click.option("--partitions", required=True, type=click.IntRange(min=2), help="How many there shall be, more than now.")
@click.option("--ready", is_flag=True, help="Only tell whether it can be done now; aggregators may still run.")
@config_option
def grow(partitions: int, ready: bool, path: Path | None) -> None:
    """Make more partitions of readings and usage, and bring hosts to where they belong then.

    Part of a procedure: docs/fleet.md, "More partitions". Collectors and ingest must have stopped, then a mark must
    have passed, then aggregators must have stopped. Whatever is not so is named, and nothing is changed.

    Exit codes: 0 done (or ready), 1 not ready, 2 wrong use, 3 the brokers cannot be reached or refuse.
    """
    from monitor.roles.growing import Growing, NotReady

    growing = Growing(_configured(path))
    try:
        growth = growing.plan(partitions, aggregators_run=ready)
        if ready:
            click.echo("ready: stop the aggregators, then run it again without --ready")
            return
        growing.carry_out(growth, click.echo)
    except NotReady as why:
        click.echo(f"not ready: {why}")
        sys.exit(EXIT_DIFFERENCES)
    click.echo(f"done: set [kafka.topics] partitions = {partitions} in every configuration, then start everything")


def _configured(path: Path | None) -> "Config":
    import os

    from monitor.cli.logging import configure
    from monitor.config.load import load_config

    config = load_config(path, environ=os.environ)
    if not config.kafka.bootstrap_servers:
        raise click.UsageError("[kafka] bootstrap_servers is missing: the log is embedded, and has no topics")
    configure(config.logging.level, config.logging.format)
    return config


def _report(config: "Config") -> None:
    from monitor.log.kafka_topics import check_topics, topic_warnings

    differences = check_topics(config)
    for warning in topic_warnings(config):
        click.echo(f"warning: {warning}", err=True)
    for difference in differences:
        click.echo(difference)
    if differences:
        sys.exit(EXIT_DIFFERENCES)
    click.echo("topics: ok")
