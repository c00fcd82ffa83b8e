"""`wattribute restate`: orders a time of a host to be accounted again from what the log holds."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from collectors.clock import SystemClock, rfc3339
from monitor.cli.moments import FORMS, moment

if TYPE_CHECKING:
    from monitor.config.sections import Config
    from monitor.log.codec import Restate


@click.command()
@click.option("--host", required=True, help="The host whose windows are accounted again.")
@click.option("--from", "start", required=True, metavar="WHEN", help=f"{FORMS}.")
@click.option("--to", "end", required=True, metavar="WHEN", help="Where it ends; likewise.")
@click.option("--reason", required=True, help="Why; it stands in the restatement record.")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False, exists=True), help="The data directory.")
@click.option("--config", "config_file", type=click.Path(path_type=Path, dir_okay=False), help="The configuration.")
def restate(*, host: str, start: str, end: str, reason: str, data: Path | None, config_file: Path | None) -> None:
    """Accounts the windows of HOST from --from to --to again, from what stands in the log.

    In a fleet the order goes to the partition of the host, and its aggregator carries it out at the next mark. Else a
    running daemon takes the order within a second and carries it out at its next mark. Where none runs, it is done
    here and now if the log's own next mark is not in the future, else by the next daemon. Nothing is lost or counted
    twice by it; the statement lists each restatement.

    Exit codes: 0 ordered or done, 2 wrong use or nothing there to restate, 3 log or store unavailable.
    """
    from monitor.cli.logging import configure
    from monitor.config.load import load_config
    from monitor.log.codec import Restate
    from monitor.log.protocol import LogUnavailable
    from monitor.roles.embedded import Embedded
    from monitor.roles.orders import leave_order, mistake_in
    from monitor.service import restate_now

    now = SystemClock().now()
    try:
        order = Restate(host=host, start=moment(start, now), end=moment(end, now), reason=reason)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    if order.end <= order.start:
        raise click.BadParameter("--to must be later than --from")
    config = load_config(config_file, environ=os.environ)
    configure(config.logging.level, config.logging.format)
    folder = data or config.data.directory
    if config.kafka.bootstrap_servers:
        _order_of_fleet(order, folder, config, now)
        return
    if mistake := mistake_in(order, folder, config):
        raise click.UsageError(mistake)
    leave_order(folder, order)
    try:
        house = Embedded(folder, config)
    except LogUnavailable:
        click.echo("the order is left for the daemon that runs on this data folder; it is carried out at its next mark")
        return
    with house:
        done_at = restate_now(house, now)
    if done_at is None:
        click.echo("the order stands in the log; the next daemon on this data folder carries it out")
    else:
        click.echo(f"restated at the mark of {rfc3339(done_at)}")


def _order_of_fleet(order: "Restate", folder: Path, config: "Config", now: float) -> None:
    from monitor.log.codec import restate_record
    from monitor.log.kafka_writer import KafkaWriter
    from monitor.roles.embedded import STORE_FILE
    from monitor.roles.orders import mistake_in_books
    from monitor.store.open import open_store

    store = open_store(config, folder / STORE_FILE, read_only=True)
    try:
        mistake = mistake_in_books(order, store, now, config)
    finally:
        store.close()
    if mistake:
        raise click.UsageError(mistake)
    writer = KafkaWriter(config.kafka)
    try:
        writer.append([restate_record(order)], now)
    finally:
        writer.close()
    click.echo(f"ordered: the aggregator of {order.host} carries it out at its next mark")
