"""`wattribute coefficients`: what the work of each GPU type is taken to cost, and why it is believed."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from collectors.clock import SystemClock
from monitor.cli.moments import FORMS, moment
from monitor.reports.layout import columns

if TYPE_CHECKING:
    from monitor.config.sections import Config
    from monitor.core.attribution.learning import Fit
    from monitor.core.attribution.units import UnitFit
    from monitor.core.facts import Facts

COLUMNS = ("gpu", "in force", "pJ/FLOP", "nJ/byte", "found pJ/FLOP", "found nJ/byte", "R2", "condition", "windows")
WHY: Mapping[str, str] = {
    "learned": "learned",
    "few": "prior (too few windows)",
    "unidentifiable": "prior (work never changed its mix)",
    "implausible": "prior (found is over twice off)",
}
UNIT_COLUMNS = ("gpu", "model", "unit", "in force", "J/unit", "s/unit", "R2", "windows")
WHY_UNIT: Mapping[str, str] = {
    "learned": "learned",
    "few": "active time (too few windows)",
    "unexplained": "active time (amounts do not tell the energy)",
}


@click.command()
@click.option("--at", "when", default="now", show_default=True, metavar="WHEN", help=f"In force when: {FORMS}.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON, in J/FLOP and J/byte.")
@click.option("--config", "config_file", type=click.Path(path_type=Path, dir_okay=False), help="The configuration.")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="The data directory.")
def coefficients(*, when: str, as_json: bool, config_file: Path | None, data: Path | None) -> None:
    """Show what the work of each GPU type costs, as learned from what model servers count, or the priors.

    A request's own tokens are priced by these two: joules above idle power for a FLOP, and for a byte read. They are
    learned from windows of 10 s of the last 24 h in which every server of a board told its steps and tokens and nothing
    else was at work; of a type whose servers tell none, from windows in which the requests told theirs. GPU types that
    are not listed go by the priors. Found is what the windows say, also where that is not believed. Below stands what
    work that makes no tokens costs, by the unit of its events: joules above idle power and seconds; without it such
    requests pay by active time. Reads beside a running daemon; with [kafka] from the fleet's facts.

    Exit codes: 0 done, 2 wrong use or configuration, 3 the log cannot be read.
    """
    from monitor.cli.logging import configure
    from monitor.config.load import load_config
    from monitor.core.attribution.methods import DEFAULT_METHOD, METHODS

    now = SystemClock().now()
    try:
        at = moment(when, now)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--at") from error
    config = load_config(config_file, environ=os.environ)
    configure(config.logging.level, config.logging.format)
    facts = _facts_of(config, config.data.directory if data is None else data, at, in_fleet=data is None)
    at = facts.learned_as_of(at)
    fits = {gpu: facts.learned.fit(gpu, at) for gpu in facts.learned.gpus}
    units = {gpu: found for gpu in facts.learned.gpus if (found := facts.learned.unit_fits(gpu, at))}
    if as_json:
        click.echo(json.dumps(_as_json(fits, units), indent=2))
    else:
        click.echo("\n".join([*_lines(fits), *_unit_lines(units)]))
    terms = facts.accounting()
    if terms is not None and not METHODS[terms.method].fits_whole and terms.method != DEFAULT_METHOD:
        click.echo(f"coefficients: the books are kept by {terms.method}, which does not go by these", err=True)


def _facts_of(config: "Config", folder: Path, at: float, *, in_fleet: bool) -> "Facts":
    from monitor.roles.control import FactsReader

    if in_fleet and config.kafka.bootstrap_servers:
        from monitor.log.kafka_facts import KafkaFacts

        topic = KafkaFacts(config.kafka)
        try:
            return FactsReader(topic, lambda: topic.snapshot(at))()
        finally:
            topic.close()
    from monitor.log.sqlite import SqliteLog
    from monitor.roles.embedded import LOG_FILE

    log = SqliteLog(folder / LOG_FILE, read_only=True)
    try:
        return FactsReader(log)()
    finally:
        log.close()


def _lines(fits: "Mapping[str, Fit]") -> list[str]:
    from monitor.core.attribution.priors import PRIOR

    prior = f"priors: {PRIOR.joules_per_flop * 1e12:.3f} pJ/FLOP, {PRIOR.joules_per_byte * 1e9:.4f} nJ/byte"
    if not fits:
        return [f"nothing has been learned; every GPU type goes by the {prior}"]
    rows = [
        (
            gpu,
            _why(fit),
            f"{fit.scalars.joules_per_flop * 1e12:.3f}",
            f"{fit.scalars.joules_per_byte * 1e9:.4f}",
            *_found(fit),
            f"{fit.windows}",
        )
        for gpu, fit in fits.items()
    ]
    return [*columns(COLUMNS, rows, left=2), "", prior]


def _found(fit: "Fit") -> tuple[str, str, str, str]:
    """What windows say, where there were any."""
    if not fit.windows:
        return "-", "-", "-", "-"
    found = fit.found
    scalars = f"{found.joules_per_flop * 1e12:.3f}", f"{found.joules_per_byte * 1e9:.4f}"
    return *scalars, f"{fit.r_squared:.4f}", f"{fit.condition:.0f}"


def _why(fit: "Fit") -> str:
    learned_otherwise = fit.verdict == "learned" and fit.from_requests
    why = "learned from requests" if learned_otherwise else WHY[fit.verdict]
    exponent = fit.scalars.routing_exponent
    return why if exponent == 1.0 else f"{why}, experts n^{exponent:g}"


def _unit_lines(units: "Mapping[str, Sequence[UnitFit]]") -> list[str]:
    rows = [
        (
            gpu,
            fit.found.model,
            fit.found.unit,
            WHY_UNIT[fit.verdict],
            f"{fit.found.joules_per_unit:.6g}",
            f"{fit.found.seconds_per_unit:.4g}",
            f"{fit.r_squared:.4f}",
            f"{fit.windows}",
        )
        for gpu, fits in units.items()
        for fit in fits
    ]
    return ["", *columns(UNIT_COLUMNS, rows, left=4)] if rows else []


def _as_json(fits: "Mapping[str, Fit]", units: "Mapping[str, Sequence[UnitFit]]") -> dict[str, object]:
    return {
        gpu: {
            "verdict": fit.verdict,
            "from_requests": fit.from_requests,
            "joules_per_flop": fit.scalars.joules_per_flop,
            "joules_per_byte": fit.scalars.joules_per_byte,
            "routing_exponent": fit.scalars.routing_exponent,
            "found_joules_per_flop": fit.found.joules_per_flop if fit.windows else None,
            "found_joules_per_byte": fit.found.joules_per_byte if fit.windows else None,
            "r_squared": fit.r_squared if fit.windows else None,
            "condition": fit.condition if fit.windows and fit.condition != float("inf") else None,
            "windows": fit.windows,
            "units": [_unit_as_json(each) for each in units.get(gpu, ())],
        }
        for gpu, fit in fits.items()
    }


def _unit_as_json(fit: "UnitFit") -> dict[str, object]:
    return {
        "model": fit.found.model,
        "unit": fit.found.unit,
        "verdict": fit.verdict,
        "joules_per_unit": fit.found.joules_per_unit,
        "seconds_per_unit": fit.found.seconds_per_unit,
        "r_squared": fit.r_squared,
        "windows": fit.windows,
    }
