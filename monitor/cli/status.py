"""`wattribute status`: asks the running daemon how it does."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from monitor.selfmetrics import DaemonSnapshot

EXIT_BROKEN: Final = 1
EXIT_NOT_RUNNING: Final = 3
ANSWER_SECONDS: Final = 5.0
_LARGEST_ANSWER_BYTES: Final = 16 * 2**20


class NoAnswer(Exception):
    """Nobody, or nobody who is a daemon of this version, answers there."""


@click.command()
@click.option(
    "--config",
    "path",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The configuration of the daemon. [default: /etc/wattribute/config.toml, or the built-in defaults]",
)
@click.option("--address", metavar="HOST:PORT", help="Ask there, whatever is configured; reads no configuration.")
@click.option("--json", "as_json", is_flag=True, help="Print the daemon's own answer.")
def status(path: Path | None, address: str | None, as_json: bool) -> None:
    """Ask the running daemon how it does: roles, meters, sources, books.

    Says what is wrong and what mends it. Asks at the address in [metrics] listen.

    Exit codes: 0 it runs and all is well, 1 it runs and something is broken, 2 the configuration is wrong, 3 it does
    not run.
    """
    from monitor.config.load import load_config
    from monitor.reports.daemon_text import faults, render

    if address is None:
        address = load_config(path, environ=os.environ).metrics.listen
    try:
        body, snapshot = _ask(address)
    except NoAnswer as error:
        _say_not_running(address, str(error), as_json)
        sys.exit(EXIT_NOT_RUNNING)
    click.echo(body if as_json else render(snapshot), nl=as_json)
    sys.exit(EXIT_BROKEN if faults(snapshot) else 0)


def _ask(address: str) -> "tuple[str, DaemonSnapshot]":
    """The answer as it came, and what it says. Raises NoAnswer."""
    import http.client

    import msgspec

    from monitor.selfmetrics import DaemonSnapshot

    try:
        connection = http.client.HTTPConnection(_reachable(address), timeout=ANSWER_SECONDS)
    except http.client.InvalidURL as error:
        raise click.BadParameter(f"{error}; write host and port, as in 127.0.0.1:8097") from None
    try:
        connection.request("GET", "/status")
        answer = connection.getresponse()
        body = answer.read(_LARGEST_ANSWER_BYTES)
    except ConnectionRefusedError:
        raise NoAnswer("nothing listens there") from None
    except TimeoutError:
        raise NoAnswer(f"no answer within {ANSWER_SECONDS:.0f} s; the process hangs or is another program") from None
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswer(str(error) or type(error).__name__) from None
    finally:
        connection.close()
    try:
        return body.decode(), msgspec.json.decode(body, type=DaemonSnapshot)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise NoAnswer("what answers is not a daemon of this version; restart it, or another has the port") from None


def _reachable(address: str) -> str:
    """Where a daemon that listens on all addresses is asked."""
    host, _, port = address.rpartition(":")
    return f"{ {'0.0.0.0': '127.0.0.1', '[::]': '[::1]'}.get(host, host) }:{port}"


def _say_not_running(address: str, why: str, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"running": False, "address": address, "reason": why}))
        return
    click.echo(f"wattribute is not running: asked {address}, {why}.", err=True)
    click.echo("Start it with `systemctl start wattribute`, or `wattribute run` in a terminal.", err=True)
