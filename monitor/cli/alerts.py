"""`wattribute alerts`: how the rules stand, and a test message to a rule's webhook."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from monitor.config.sections import Config

config_option = click.option(
    "--config",
    "path",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The configuration of the daemon. [default: /etc/wattribute/config.toml, or the built-in defaults]",
)


@click.group()
def alerts() -> None:
    """List the alert rules and how they stand, or send a test message.

    Rules stand in [[alerts]]; role control judges them.
    """


@alerts.command("list")
@config_option
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="The data directory.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON, with all digits.")
def list_(*, path: Path | None, data: Path | None, as_json: bool) -> None:
    """List the rules: who fires since when, and the values.

    Reads what the daemon keeps in its data directory; whether it runs does not matter.

    Exit codes: 0 done, 2 the configuration is wrong, 3 what is kept cannot be read.
    """
    import msgspec

    from monitor.alerts.kept import UnreadableAlerts, load_kept
    from monitor.alerts.shown import snapshots
    from monitor.cli.main import Unavailable
    from monitor.reports.alerts_text import render
    from monitor.roles.embedded import ALERTS_FILE

    config = _configured(path)
    file = (data or config.data.directory) / ALERTS_FILE
    try:
        found = snapshots(config.alerts, load_kept(file))
    except UnreadableAlerts as error:
        raise Unavailable(f"alerts: {error}") from error
    click.echo(msgspec.json.encode(found).decode() if as_json else render(found, str(file)), nl=as_json)


@alerts.command("test")
@click.argument("rule")
@config_option
def test_(*, rule: str, path: Path | None) -> None:
    """Send one message of RULE to its webhook: a resolved alert with the label test="true".

    Exit codes: 0 the receiver took it, 1 it did not, 2 wrong use.
    """
    from collectors.clock import SystemClock
    from monitor.alerts.notices import trial_body
    from monitor.alerts.webhook import NotDelivered, post

    rules = {each.name: each for each in _configured(path).alerts}
    if rule not in rules:
        raise click.BadParameter(f"there is no rule {rule!r}; there are: {', '.join(rules) or 'none'}")
    try:
        post(rules[rule].webhook_url_file, trial_body(rules[rule], SystemClock().now()))
    except NotDelivered as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"sent: the receiver of {rule} has taken it")


def _configured(path: Path | None) -> "Config":
    from monitor.config.load import load_config

    return load_config(path, environ=os.environ)
