"""`wattribute simulate OUT`: makes a recording whose truth is known."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from collectors.simulate.names import SCENARIOS

if TYPE_CHECKING:
    from collectors.simulate.simulate import SimulationSummary


@click.command(epilog="\b\n" + "\n".join(["Scenarios:", *(f"  {name:14}  {what}" for name, what in SCENARIOS.items())]))
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--scenario",
    type=click.Choice(list(SCENARIOS)),
    metavar="NAME",
    default="demo",
    show_default=True,
    help="What happens; all names are below.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=1.0),
    help="Length of the recording; the last requests may take it a little further.  [default: 20; of demo 60]",
)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="The same seed, the same bytes.")
@click.option(
    "--permutations",
    type=click.IntRange(min=2),
    default=250,
    show_default=True,
    help="Orders in which the oracle adds the requests of a step.",
)
@click.option("--no-engine", is_flag=True, help="Write no engine.csv.")
@click.option("--no-scheduled", is_flag=True, help="Events do not say when the engine began.")
@click.option("--no-first-token", is_flag=True, help="Events do not say when the first token came.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def simulate(  # the command's options are its parameters
    out: Path,
    *,
    scenario: str,
    minutes: float | None,
    seed: int,
    permutations: int,
    no_engine: bool,
    no_scheduled: bool,
    no_first_token: bool,
    as_json: bool,
) -> None:
    """Write a simulated recording into OUT, and beside it the true joules of each request.

    OUT is made if need be and must be empty. Exit code 2: it is not, or an option is wrong.
    """
    from collectors.simulate.presets import DEFAULT_MINUTES, PRESETS
    from collectors.simulate.simulate import simulate as write_recording

    if out.exists() and any(out.iterdir()):
        raise click.BadParameter(f"{out} is not empty; name a new folder, or empty this one", param_hint="OUT")
    chosen = PRESETS[scenario](DEFAULT_MINUTES[scenario] if minutes is None else minutes)
    reporting = chosen.reporting
    reporting = replace(
        reporting,
        scheduled=reporting.scheduled and not no_scheduled,
        first_token=reporting.first_token and not no_first_token,
    )
    with click.progressbar(length=1000, label=f"simulating {scenario}", file=sys.stderr) as bar:
        summary = write_recording(
            replace(chosen, reporting=reporting),
            seed,
            out,
            permutations=permutations,
            engine=not no_engine,
            progress=lambda done: bar.update(int(1000 * done) - bar.pos),
        )
        bar.update(1000 - bar.pos)
    click.echo(json.dumps({"out": str(out), **asdict(summary)}, indent=2) if as_json else _text(out, summary))


def _text(out: Path, summary: "SimulationSummary") -> str:
    return "\n".join(
        [
            f"{summary.requests} requests in {summary.steps} steps over {summary.duration_seconds:.0f} s, "
            f"{summary.mean_batch:.1f} to a step on average",
            f"{summary.total_joules:.0f} J true energy: {summary.attributed_joules:.0f} J of requests, "
            f"{summary.idle_joules:.0f} J idle, {summary.unreported_joules:.0f} J unreported",
            *(f"  wrote {out / name}" for name in summary.files),
            f"Next: wattribute replay {out}",
        ]
    )
