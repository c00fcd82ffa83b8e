"""`wattribute check`: reads the configuration as the daemon would, and says what is wrong or what would run."""

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import click

from monitor.config.advice import warnings
from monitor.config.load import config_files, load_config
from monitor.config.problems import ConfigError
from monitor.config.sections import Config
from monitor.config.zones import iso3_of_zone

EXIT_CONFIGURATION = 2


@click.command()
@click.option(
    "--config",
    "path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The configuration to check. [default: /etc/wattribute/config.toml, or the built-in defaults]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")
def check(path: Path | None, as_json: bool) -> None:
    """Check the configuration and its drop-ins (config.d/*.toml beside it).

    Prints what would run. Every mistake is a line FILE:LINE: KEY: MESSAGE on standard error.

    Exit codes: 0 it can be used, 2 it cannot.
    """
    try:
        config = load_config(path, environ=os.environ)
    except ConfigError as error:
        _show_problems(error, as_json)
        sys.exit(EXIT_CONFIGURATION)
    summary = _summary(config, [str(file) for file in config_files(path)])
    if as_json:
        click.echo(json.dumps({"ok": True, **summary}, indent=2))
    else:
        _show_summary(summary)


def _show_problems(error: ConfigError, as_json: bool) -> None:
    if as_json:
        problems = [
            {"file": problem.file, "line": problem.line, "key": problem.key, "message": problem.message}
            for problem in error.problems
        ]
        click.echo(json.dumps({"ok": False, "problems": problems}, indent=2))
    else:
        click.echo(str(error), err=True)


def _summary(config: Config, files: list[str]) -> dict[str, Any]:
    return {
        "files": files,
        "roles": list(config.roles),
        "host": config.host.name or socket.gethostname(),
        "zone": config.host.zone or None,
        "iso3": iso3_of_zone(config.host.zone),
        "pue": config.host.pue,
        "data_directory": str(config.data.directory),
        "store": config.store.kind,
        "sources": [{"name": source.name, "kind": source.kind} for source in config.sources],
        "warnings": [*warnings(config), *_missing_recordings(config)],
    }


def _missing_recordings(config: Config) -> list[str]:
    return [
        f"source {source.name}: there is no folder {source.path}"
        for source in config.sources
        if source.kind == "recording" and source.path is not None and not source.path.is_dir()
    ]


def _show_summary(summary: dict[str, Any]) -> None:
    sources = ", ".join(f"{source['name']} ({source['kind']})" for source in summary["sources"])
    zone = f"{summary['zone']} (country {summary['iso3']})" if summary["zone"] else "unknown"
    for file in summary["files"] or ["built-in defaults"]:
        click.echo(f"{file}: ok")
    click.echo(f"  roles    {', '.join(summary['roles'])}")
    click.echo(f"  host     {summary['host']}, PUE {summary['pue']:g}")
    click.echo(f"  zone     {zone}")
    click.echo(f"  data     {summary['data_directory']}, store {summary['store']}")
    click.echo(f"  sources  {sources or 'none'}")
    for warning in summary["warnings"]:
        click.echo(f"warning: {warning}", err=True)
