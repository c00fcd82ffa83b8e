"""The command `wattribute`: finds a command, loads it when it is called, and turns what went wrong into a message."""

import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import click

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNAVAILABLE: Final = 3
# What a shell says of a process that a signal ended: 128 + SIGINT, 128 + SIGPIPE.
EXIT_INTERRUPTED: Final = 130
EXIT_BROKEN_PIPE: Final = 141

EPILOG: Final = """\b
Exit codes:
  0  done
  1  failed
  2  wrong use or configuration
  3  data unavailable: a store, a log, a recording or a file cannot be used
  130  stopped by Ctrl-C before its end, 141 nobody reads the output any more
"""


class Entry(NamedTuple):
    """Where a command is, "module:attribute", and its line in the list of commands."""

    target: str
    summary: str


COMMANDS: Final[Mapping[str, Entry]] = {
    "alerts": Entry("monitor.cli.alerts:alerts", "List the alert rules and how they stand; send a test message."),
    "check": Entry("monitor.cli.check:check", "Check the configuration and its drop-ins."),
    "coefficients": Entry("monitor.cli.coefficients:coefficients", "Show what a GPU type's work costs, and why."),
    "decode": Entry("monitor.cli.decode:decode", "Show how the newest messages of a Kafka topic would be read."),
    "dashboards": Entry("monitor.cli.dashboards:dashboards", "Print a board for Grafana on InfluxDB."),
    "demo": Entry("monitor.cli.demo:demo", "Show the whole at work on a simulated host; needs no hardware."),
    "doctor": Entry("monitor.cli.doctor:doctor", "Say what of this host can be metered, and what mends the rest."),
    "explain": Entry("monitor.cli.explain:explain", "Show how one request's joules came about."),
    "rejected": Entry("monitor.cli.rejected:rejected", "List input that was not used, why, and where it stands."),
    "replay": Entry("monitor.cli.replay:replay", "Account for a recorded run as if it happened now."),
    "report": Entry("monitor.cli.report:report", "Report joules, CO2e, requests and tokens by model, team and more."),
    "restate": Entry("monitor.cli.restate:restate", "Compute a time again from what the log holds now."),
    "run": Entry("monitor.cli.run:run", "Meter this host and keep its books until told to stop."),
    "simulate": Entry("monitor.cli.simulate:simulate", "Write a simulated recording whose true joules are known."),
    "status": Entry("monitor.cli.status:status", "Ask the running daemon how it does."),
    "store": Entry("monitor.cli.store:store", "Make or check the buckets of the books in InfluxDB."),
    "top": Entry("monitor.cli.top:top", "Show live who uses how much now."),
    "topics": Entry("monitor.cli.topics:topics", "Make and check the Kafka topics of a fleet."),
}


class WrongUse(click.ClickException):
    """One message on standard error."""

    exit_code = EXIT_USAGE

    def show(self, file: Any = None) -> None:
        """Prints the message as it is."""
        click.echo(self.message, file=file, err=True)


class Unavailable(WrongUse):
    """The same, when it is the data that is to blame."""

    exit_code = EXIT_UNAVAILABLE


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called; its list of them imports none."""

    def __init__(self, *, entries: Mapping[str, Entry], **attributes: Any) -> None:
        super().__init__(**attributes)
        self._entries = entries

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in alphabetical order."""
        return sorted(self._entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported; None if there is none of that name."""
        entry = self._entries.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, from the table instead of from the commands themselves."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._entries[name].summary) for name in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command. Errors that are expected become a message; the rest stay a traceback, they are ours."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise  # before the clauses below: they import what they name
        except KeyboardInterrupt:
            raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
        except BrokenPipeError:
            _abandon_output()
            raise click.exceptions.Exit(EXIT_BROKEN_PIPE) from None
        except _wrong_use() as error:
            raise WrongUse(_text(ctx, error)) from error
        except _unavailable() as error:
            raise Unavailable(_text(ctx, error)) from error
        except OSError as error:  # a path of the user's that cannot be used: permission, no space, no such folder
            raise Unavailable(f"{ctx.invoked_subcommand}: {error}") from error


def _wrong_use() -> tuple[type[Exception], ...]:
    from monitor.config.problems import ConfigError
    from monitor.core.questions import BadQuery, Denied
    from monitor.roles.control import TermsChanged

    return ConfigError, BadQuery, Denied, TermsChanged


def _unavailable() -> tuple[type[Exception], ...]:
    from collectors.recording_error import RecordingError
    from monitor.log.protocol import LogUnavailable
    from monitor.store.protocol import StoreUnavailable

    return RecordingError, LogUnavailable, StoreUnavailable


def _text(ctx: click.Context, error: Exception) -> str:
    from monitor.config.problems import ConfigError

    # A configuration's mistakes are lines FILE:LINE: KEY: MESSAGE, for editors to follow.
    return str(error) if isinstance(error, ConfigError) else f"{ctx.invoked_subcommand}: {error}"


def _abandon_output() -> None:
    """The reader has gone (`wattribute report | head`): what is still buffered goes nowhere, without a complaint."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(cls=LazyGroup, entries=COMMANDS, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="wattribute", prog_name="wattribute", message="%(prog)s %(version)s")
def cli() -> None:
    """Meter the energy of AI inference, and say for every model and team how many joules and grams of CO2e it used."""


def main() -> None:
    """Runs the command that the arguments name, and exits."""
    cli(prog_name="wattribute")
