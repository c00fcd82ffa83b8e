"""`wattribute simulate OUT`: makes a recording whose truth is known."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collectors.simulate.simulate import SimulationSummary


@click.command()
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--scenario",
    type=click.Choice(["heavy", "light", "demo"]),
    default="demo",
    show_default=True,
    help="heavy: one saturated GPU; light: the same tenants, seldom; demo: two GPUs, three models, four teams.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=1.0),
    help="Length of the recording; the last requests may take it a little further.  [default: 20, demo: 60]",
)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="The same seed, the same bytes.")
@click.option(
    "--permutations",
    type=click.IntRange(min=2),
    default=250,
    show_default=True,
    help="Orders in which the oracle adds the requests of a step.",
)
@click.option("--engine/--no-engine", default=True, help="Whether to write engine.csv.  [default: engine]")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def simulate(  # the command's options are its parameters
    out: Path,
    *,
    scenario: str,
    minutes: float | None,
    seed: int,
    permutations: int,
    engine: bool,
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
    with click.progressbar(length=1000, label=f"simulating {scenario}", file=sys.stderr) as bar:
        summary = write_recording(
            chosen,
            seed,
            out,
            permutations=permutations,
            engine=engine,
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
