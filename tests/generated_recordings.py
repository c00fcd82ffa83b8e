"""Logs of made-up runs in the shape of the measured ones, where every joule is known. Out: nvidia-smi.csv and
inference_energy.csv with all the traps of the originals, so that the tests run where the originals are absent.

The traps: local time (UTC-5) beside unix seconds; several GPUs as unlabelled lines per tick; ' W' and ' %' suffixes;
the last line cut off; quoted line ends in prompts; the energy column under both its names, beside other energy columns;
a request whose time lost its leading digit; a last request that outruns the power log.
"""

import csv
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from real_recordings import FALCON_7B, LLAMA2_13B, LLAMA2_70B, LOCAL_ZONE, Model, Source

SAMPLE_SECONDS = 0.104
QUIET_SECONDS = 25.0
LOAD_SECONDS = 30.0
REQUESTS = 30
IDLE_WATTS = 52.5
LOAD_WATTS = 57.5
PROMPTS = ("What is the largest city?", 'Say "hello",\nthen stop.', "#include <stdio.h>\nint main(void)\n{\n}\n")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What to make: `traps` adds the broken timestamp and the request that outruns the log."""

    name: str
    model: Model
    gpus: int
    traps: bool
    begins: datetime


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of the run at one true power, on the first GPU; the others draw a little less each."""

    name: str
    start: float
    end: float
    watts: float

    def joules(self, gpu: int) -> float:
        """The true energy of one GPU over the phase."""
        return gpu_watts(self.watts, gpu) * (self.end - self.start)


SHAPES = (
    Shape(name="one-gpu", model=FALCON_7B, gpus=1, traps=False, begins=datetime(2024, 4, 2, 12, 36, 21, tzinfo=UTC)),
    Shape(
        name="broken-rows", model=LLAMA2_13B, gpus=1, traps=True, begins=datetime(2024, 4, 18, 15, 8, 41, tzinfo=UTC)
    ),
    # Crosses local midnight.
    Shape(name="four-gpus", model=LLAMA2_70B, gpus=4, traps=False, begins=datetime(2024, 4, 6, 4, 59, 20, tzinfo=UTC)),
)


def generated_source(shape: Shape, folder: Path) -> Source:
    """The logs of such a run, written into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    phases = list(true_phases(shape))
    (folder / "nvidia-smi.csv").write_text("\n".join(power_lines(shape, phases)))
    write_steps(folder / "inference_energy.csv", shape, phases)
    excess = sum((gpu_watts(LOAD_WATTS, gpu) - gpu_watts(IDLE_WATTS, gpu)) * LOAD_SECONDS for gpu in range(shape.gpus))
    return Source(name=shape.name, model=shape.model, gpus=shape.gpus, load_excess_joules=excess, folder=folder)


def gpu_watts(watts: float, gpu: int) -> float:
    """GPUs differ: 100 W on the first are 98 W on the second and 96 W on the third."""
    return watts * (1.0 - 0.02 * gpu)


def true_phases(shape: Shape) -> Iterator[Phase]:
    """Quiet, load, then requests one after another with a little time between them, and a quiet end."""
    chance = random.Random(shape.name)
    time = shape.begins.timestamp() + QUIET_SECONDS
    yield Phase(name="quiet", start=shape.begins.timestamp(), end=time, watts=IDLE_WATTS)
    yield Phase(name="model load", start=time, end=time + LOAD_SECONDS, watts=LOAD_WATTS)
    time += LOAD_SECONDS
    lingering_watts = LOAD_WATTS
    for number in range(REQUESTS):
        gap_seconds, seconds, watts = chance.uniform(0.01, 0.08), chance.uniform(1.0, 4.0), chance.uniform(150.0, 330.0)
        yield Phase(name="gap", start=time, end=time + gap_seconds, watts=lingering_watts)
        time += gap_seconds
        name = f"start-inference-{chr(ord('A') + number // 4)}-{number % 4}"
        yield Phase(name=name, start=time, end=time + seconds, watts=watts)
        time += seconds
        lingering_watts = watts
    yield Phase(name="quiet", start=time, end=time + 5.0, watts=IDLE_WATTS)


def power_lines(shape: Shape, phases: Sequence[Phase]) -> Iterator[str]:
    """The lines of nvidia-smi.csv, without an end of line after the last."""
    yield "timestamp, power.draw [W], utilization.gpu [%], utilization.memory [%]"
    begin, end = phases[0].start, phases[-1].end
    if shape.traps:
        end = phases[-2].end - 0.6
    for tick in range(math.floor((end - begin) / SAMPLE_SECONDS)):
        for gpu in range(shape.gpus):
            # To the millisecond, as it is printed: the sample belongs to the time that the log tells.
            time = round(begin + tick * SAMPLE_SECONDS + 0.003 * gpu, 3)
            watts = next(phase.watts for phase in reversed(phases) if phase.start <= time)
            busy = 100 if watts > LOAD_WATTS else 0
            yield f"{local_text(time)}, {gpu_watts(watts, gpu):.2f} W, {busy} %, {busy // 4} %"
    yield local_text(end)[:20]


def local_text(time: float) -> str:
    """2024/04/02 07:36:21.246, of the zone where the machine stood."""
    return datetime.fromtimestamp(time, LOCAL_ZONE).strftime("%Y/%m/%d %H:%M:%S.%f")[:-3]


def write_steps(path: Path, shape: Shape, phases: Sequence[Phase]) -> None:
    """The table of steps, with the true energy to the millijoule."""
    rows = [step_of(shape, number, phase) for number, phase in enumerate(phases) if phase.name not in ("quiet", "gap")]
    if shape.traps:
        rows[9]["Timestamp"] = rows[9]["Timestamp"][1:]
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def step_of(shape: Shape, number: int, phase: Phase) -> dict[str, str]:
    """A row of the table; with one GPU and no traps the energy column has no number in its name."""
    joules = [phase.joules(gpu) for gpu in range(shape.gpus)]
    named = ["GPU"] if shape.gpus == 1 and not shape.traps else [f"GPU-{gpu}" for gpu in range(shape.gpus)]
    inputs = 0 if phase.name == "model load" else 8 << (number // 8)
    return {
        "Timestamp": repr(phase.start),
        "Phase": phase.name,
        "Runtime (s)": repr(phase.end - phase.start),
        **{f"{name} Energy (mJ)": f"{1_000 * energy:.0f}" for name, energy in zip(named, joules, strict=True)},
        "Number of Input Tokens": str(inputs),
        "Prompt": PROMPTS[number % len(PROMPTS)],
        # One row in eleven tells no more than its input: the output is then unknown, not 0.
        "Total Number of Tokens": str(inputs if number % 11 == 0 else inputs + 32),
        "CPU Energy (J)": "7.5",
        **({"GPU Energy (J)": repr(sum(joules))} if shape.gpus > 1 else {}),
    }
