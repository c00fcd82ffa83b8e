"""How far the attribution is from the simulator's true joules, beside naive shares of the same measured energy.

`python -m bench accuracy` is the quick form: heavy and light for 40 minutes with one seed, of which requests from
minute 30 on count, when the first lesson (minutes 0 to 10) is in force. `python -m bench.accuracy` (`make accuracy`) is
the whole: every scenario for two hours, the first of which is not counted, learned as a daemon would.
"""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

import click

from bench._accuracy_bands import band_table
from bench._accuracy_play import EVENTS_ONLY, WITH_ENGINE, Run, play
from bench._accuracy_tables import (
    change_table,
    convergence_table,
    learned_table,
    naive_table,
    placed,
    product_table,
    run_lines,
)
from collectors.simulate.loads import heavy
from collectors.simulate.names import SCENARIOS
from collectors.simulate.parts import day
from collectors.simulate.presets import PRESETS
from collectors.simulate.scenario import Scenario
from monitor.core.attribution.priors import PRIOR

QUICK_MINUTES, QUICK_FROM, QUICK_SEED = 40.0, 30.0, 2
MINUTES, COUNTED_FROM, SEEDS = 120.0, 60.0, (2, 3)  # seed 1 is for whoever tunes
WRONG_PRIORS = {"prior-high": (1.5, 1.5), "prior-low": (1 / 1.5, 1 / 1.5), "prior-crossed": (1.5, 1 / 1.5)}
"""What the priors of J/FLOP and J/byte are, relative to the simulated board's own."""
CONVERGENCE = ("heavy", "light", *WRONG_PRIORS)
CHANGES = ("model-swap", "engine-restart", "cap-change")


def run() -> list[str]:
    """The quick form's lines."""
    with tempfile.TemporaryDirectory() as folder:
        runs = [play(PRESETS[name](QUICK_MINUTES), QUICK_SEED, Path(folder)) for name in ("heavy", "light")]
    return [f"accuracy: {line}" for each in runs for line in run_lines(each, QUICK_FROM)]


def scenario_of(name: str, minutes: float) -> Scenario:
    """A scenario of the simulator, or heavy on a board of which the priors are wrong by WRONG_PRIORS.

    The product's priors stay; the board costs something else. It is one that may draw 1 000 W, because work that costs
    1.5 times the priors keeps an H100 at its limit, which bends another thing.
    """
    if name not in WRONG_PRIORS:
        return PRESETS[name](minutes)
    scenario, (flop, byte) = heavy(minutes), WRONG_PRIORS[name]
    (gpu,) = scenario.gpus
    board = replace(
        gpu.hardware,
        name="NVIDIA GH200 480GB",
        peak_bytes_per_second=4.0e12,
        joules_per_flop=PRIOR.joules_per_flop / flop,
        joules_per_byte=PRIOR.joules_per_byte / byte,
        power_limit_watts=1_000.0,
    )
    return replace(scenario, name=name, gpus=(replace(gpu, hardware=board),))


def around_change(scenario: Scenario) -> tuple[float, float]:
    """(until when, from when) requests count as before and behind the scenario's change, in minutes."""
    for throttle in scenario.throttles:
        return throttle.start / 60.0, throttle.start / 60.0
    (_, before), (after, _) = day(scenario.duration_seconds / 60.0)
    return before / 60.0, after / 60.0


def figures(runs: Sequence[Run], minutes: float, first_minute: float) -> Iterator[str]:
    """The tables, with their headings, as Markdown."""
    seeds = sorted({each.seed for each in runs})
    named = {name: [each for each in runs if each.scenario.name == name] for name in (*SCENARIOS, *WRONG_PRIORS)}
    counted = {
        name: [each.books.between(first_minute, float("inf")) for each in named[name]]
        for name in SCENARIOS
        if named[name]
    }
    said = f"Seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    yield f"{said}; {minutes:g} minutes, requests from minute {first_minute:g} on; {datetime.now(UTC).date()}."
    if counted:
        for method in (WITH_ENGINE, EVENTS_ONLY):
            yield from ("", f"### The product, {method}", *product_table(counted, method))
        yield from ("", "### Shares in use elsewhere: worst team / median request / 9 of 10 requests / worst, absolute")
        yield from naive_table(counted)
        yield from ("", "### Within the 90 % band", *band_table(counted, (WITH_ENGINE, EVENTS_ONLY)))
        scored = [each for name in counted for each in named[name]]
        yield from ("", "### Learned, relative to the simulated board", *learned_table(scored))
    if cold := [each for name in CONVERGENCE for each in named[name]]:
        yield from ("", "### From a cold start", *convergence_table(cold))
    if changed := [(each, *around_change(each.scenario)) for name in CHANGES for each in named[name]]:
        yield from ("", "### Around a change", *change_table(changed))


@click.command()
@click.option(
    "--scenario", "names", multiple=True, type=click.Choice([*SCENARIOS, *WRONG_PRIORS]), help="Default: all."
)
@click.option("--seed", "seeds", multiple=True, type=int, default=SEEDS, show_default=True)
@click.option("--minutes", default=MINUTES, show_default=True, help="How long a run lasts.")
@click.option("--from-minute", default=COUNTED_FROM, show_default=True, help="Requests that began before do not count.")
@click.option(
    "--recordings", type=click.Path(path_type=Path, file_okay=False), help="Keep recordings, take those there."
)
@click.option("--jobs", default=os.cpu_count() or 1, help="How many runs at a time.  [default: one a core]")
@click.option(
    "--write", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Put the tables into a page."
)
def main(
    *,
    names: tuple[str, ...],
    seeds: tuple[int, ...],
    minutes: float,
    from_minute: float,
    recordings: Path | None,
    jobs: int,
    write: Path | None,
) -> None:
    """Plays scenarios and prints their tables. Kept recordings are not made again when the simulator changes."""
    chosen = [(name, seed) for name in (names or (*SCENARIOS, *WRONG_PRIORS)) for seed in seeds]
    with ExitStack() as stack:
        folder = recordings or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="accuracy-")))
        workers = stack.enter_context(ProcessPoolExecutor(jobs, mp_context=get_context("spawn")))
        playing = [workers.submit(play, scenario_of(name, minutes), seed, folder) for name, seed in chosen]
        for number, done in enumerate(as_completed(playing), 1):
            print(f"[{number}/{len(chosen)}]", *run_lines(done.result(), from_minute), sep="\n", file=sys.stderr)
        runs = [each.result() for each in playing]
    tables = list(figures(runs, minutes, from_minute))
    print("\n".join(tables))
    if write is not None:
        write.write_text(placed(write.read_text(encoding="utf-8"), tables), encoding="utf-8")


if __name__ == "__main__":
    main()
