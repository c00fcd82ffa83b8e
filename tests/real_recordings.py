"""Measured runs turned into recording folders. In: nvidia-smi.csv and inference_energy.csv as they were logged. Out: a
folder with host.toml, readings.csv and requests.jsonl.

The logs are the public set of Wilkins et al., E2DC'24 (doi 10.1145/3632775.3662830), which lies beside the repository
and never in it; `generated_recordings` makes logs of the same shape, with the same traps. No energy is read here: what
the energy counter said of each request is for `truth` alone.
"""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

ENERGY_INFERENCE = Path(__file__).parents[2] / "shared" / "data" / "energy-inference"
ABSENT = "the energy-inference set is not at ../shared/data of the repository: only the generated runs are tested"
HOST = "measured-host"

# The machine logged local time: US Central daylight time.
LOCAL_ZONE = timezone(timedelta(hours=-5))
# Anchored at both ends, so that the last line, cut off by the kill, never passes as a shorter number.
POWER_LINE = re.compile(r"(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d{3}), (\d+\.\d\d) W, \d+ %, \d+ %")
INFERENCE = re.compile(r"start-inference-([A-Z])-\d+")
TEAMS = ("chat", "search", "code")


@dataclass(frozen=True, kw_only=True)
class Model:
    """What host.toml says of the model; weights in fp16."""

    name: str
    parameters: float
    kv_bytes_per_token: float


@dataclass(frozen=True, kw_only=True)
class Source:
    """One logged run. `load_excess_joules`: what it used above its quiet level before the first request."""

    name: str
    model: Model
    gpus: int
    load_excess_joules: float
    folder: Path


class Sample(NamedTuple):
    """An instantaneous power, at unix seconds."""

    time: float
    watts: float


@dataclass(frozen=True, kw_only=True)
class Inference:
    """A request; `phase` is its name in the log. `output_tokens` None: the log does not say."""

    phase: str
    team: str
    start: float
    end: float
    input_tokens: int
    output_tokens: int | None


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run as read: a power series and an idle power per GPU, and the requests that the power log covers whole."""

    source: Source
    power: tuple[tuple[Sample, ...], ...]
    idle_watts: tuple[float, ...]
    inferences: tuple[Inference, ...]

    def request_id(self, inference: Inference) -> str:
        """Unique also where two runs share a host."""
        return f"{self.source.name}/{inference.phase}"


# kv_bytes_per_token = 2 x layers x KV heads x head size x 2 bytes, from each model's config.json:
# falcon-7b 2 x 32 x 1 x 64 x 2; llama2-13b 2 x 40 x 40 x 128 x 2; llama2-70b 2 x 80 x 8 x 128 x 2.
FALCON_7B = Model(name="falcon-7b", parameters=7.217e9, kv_bytes_per_token=8_192.0)
LLAMA2_13B = Model(name="llama2-13b", parameters=13.016e9, kv_bytes_per_token=819_200.0)
LLAMA2_70B = Model(name="llama2-70b", parameters=68.977e9, kv_bytes_per_token=327_680.0)


def measured_sources(root: Path = ENERGY_INFERENCE) -> tuple[Source, ...]:
    """The three runs of the public set; their folders need not be there."""
    return tuple(
        Source(name=name, model=model, gpus=gpus, load_excess_joules=load_excess_joules, folder=root / name)
        for name, model, gpus, load_excess_joules in (
            ("falcon-7b_1xA100", FALCON_7B, 1, 258.0),
            ("llama2-13b_1xA100", LLAMA2_13B, 1, 300.0),
            ("llama2-70b_4xA100", LLAMA2_70B, 4, 4_781.0),
        )
    )


def read_run(source: Source) -> Run:
    """The run of a folder. Idle is the median power before anything was loaded: load is work, no quiet level."""
    power = read_power(source.folder / "nvidia-smi.csv", source.gpus)
    steps = read_steps(source.folder / "inference_energy.csv")
    load_start = min(float(step["Timestamp"]) for step in steps if not INFERENCE.fullmatch(step["Phase"]))
    log_start, log_end = max(series[0].time for series in power), min(series[-1].time for series in power)
    inferences = [inference_of(step) for step in steps if INFERENCE.fullmatch(step["Phase"])]
    return Run(
        source=source,
        power=power,
        idle_watts=tuple(median(sample.watts for sample in series if sample.time < load_start) for series in power),
        # Drops a row that lost the leading digit of its time (year 1992), and a last one that outruns the power log.
        inferences=tuple(row for row in inferences if log_start <= row.start and row.end <= log_end),
    )


def read_power(path: Path, gpus: int) -> tuple[tuple[Sample, ...], ...]:
    """A series per GPU. The log names no GPU: with n of them each tick is n lines in fixed order."""
    series: tuple[list[Sample], ...] = tuple([] for _ in range(gpus))
    for number, line in enumerate(path.read_text().splitlines()[1:]):
        if match := POWER_LINE.fullmatch(line):
            at = datetime.strptime(match[1], "%Y/%m/%d %H:%M:%S.%f").replace(tzinfo=LOCAL_ZONE)
            series[number % gpus].append(Sample(at.timestamp(), float(match[2])))
    return tuple(tuple(samples) for samples in series)


def read_steps(path: Path) -> list[dict[str, str]]:
    """The rows of the table; prompts hold quoted line ends."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def inference_of(step: dict[str, str]) -> Inference:
    """A row of the table as a request; the timestamp is its start, and the team is made up from the prompt's letter."""
    start = float(step["Timestamp"])
    input_tokens, total_tokens = int(step["Number of Input Tokens"]), int(step["Total Number of Tokens"])
    letter = ord(step["Phase"].removeprefix("start-inference-")[0]) - ord("A")
    return Inference(
        phase=step["Phase"],
        team=TEAMS[letter // 3 % len(TEAMS)],
        start=start,
        end=start + float(step["Runtime (s)"]),
        input_tokens=input_tokens,
        output_tokens=total_tokens - input_tokens if total_tokens > input_tokens else None,
    )


def sampled_each_second(run: Run) -> Run:
    """The same run as a 1 Hz meter sees it: of each series the samples nearest to whole seconds."""
    return replace(run, power=tuple(tuple(nearest_to_seconds(series)) for series in run.power))


def nearest_to_seconds(series: Sequence[Sample]) -> Iterator[Sample]:
    """The sample nearest to each whole second that the series spans; one sample is given once."""
    nearest: dict[int, Sample] = {}
    for sample in series:
        second = round(sample.time)
        if second not in nearest or abs(sample.time - second) < abs(nearest[second].time - second):
            nearest[second] = sample
    yield from nearest.values()


def before_first_request(run: Run) -> Run:
    """The run cut off just before its first request."""
    first = min(inference.start for inference in run.inferences)
    cut = tuple(tuple(sample for sample in series if sample.time < first) for series in run.power)
    return replace(run, power=cut, inferences=())


def shifted(run: Run, seconds: float) -> Run:
    """The same run, that much later."""
    power = tuple(tuple(Sample(time + seconds, watts) for time, watts in series) for series in run.power)
    moved = (replace(row, start=row.start + seconds, end=row.end + seconds) for row in run.inferences)
    return replace(run, power=power, inferences=tuple(moved))


def aligned(run: Run, other: Run, *, after_seconds: float) -> Run:
    """`run` moved in time, so that its log begins so long after that of `other`."""
    return shifted(run, other.power[0][0].time + after_seconds - run.power[0][0].time)


def write_recording(folder: Path, runs: Sequence[Run], *, meter: Literal["power", "counter"] = "power") -> Path:
    """A recording folder of one host that serves each run's model on GPUs of its own, numbered in order of the runs.

    `counter` writes what an energy counter would have shown, in joules to the millijoule, instead of the power.
    """
    folder.mkdir(parents=True)
    devices = device_ids(runs)
    (folder / "host.toml").write_text("\n".join(host_lines(runs, devices)) + "\n")
    (folder / "readings.csv").write_text("\n".join(reading_lines(runs, devices, meter)) + "\n")
    (folder / "requests.jsonl").write_text("".join(line + "\n" for line in request_lines(runs, devices)))
    return folder


def device_ids(runs: Sequence[Run]) -> list[list[str]]:
    """Per run the ids of its GPUs: [["gpu0"], ["gpu1", "gpu2"]]."""
    ids = iter(f"gpu{number}" for number in range(sum(len(run.power) for run in runs)))
    return [[next(ids) for _ in run.power] for run in runs]


def host_lines(runs: Sequence[Run], devices: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of host.toml."""
    yield from (f'host = "{HOST}"', 'zone = "US-MIDW-MISO"', "pue = 1.0")
    for run, run_devices in zip(runs, devices, strict=True):
        for device, idle_watts in zip(run_devices, run.idle_watts, strict=True):
            yield from ("", "[[devices]]", f'id = "{device}"', 'kind = "gpu"')
            yield from ('hardware = "NVIDIA A100-SXM4-40GB"', f"idle_watts = {idle_watts!r}")
    for model in (run.source.model for run in runs):
        yield from ("", "[[models]]", f'name = "{model.name}"', f"parameters = {model.parameters!r}")
        yield from (f"active_parameters = {model.parameters!r}", "bytes_per_parameter = 2.0")
        yield f"kv_bytes_per_token = {model.kv_bytes_per_token!r}"


def reading_lines(runs: Sequence[Run], devices: Sequence[Sequence[str]], meter: str) -> Iterator[str]:
    """The lines of readings.csv in order of time; repr of a float reads back as the same float."""
    yield "time,device," + {"power": "power_watts", "counter": "energy_joules_total"}[meter]
    rows: list[tuple[float, str, float]] = []
    for run, run_devices in zip(runs, devices, strict=True):
        for device, series in zip(run_devices, run.power, strict=True):
            values = series if meter == "power" else counted(series)
            rows.extend((time, device, value) for time, value in values)
    yield from (f"{time!r},{device},{value!r}" for time, device, value in sorted(rows))


def counted(series: Sequence[Sample]) -> Iterator[tuple[float, float]]:
    """(time, joules since some start), as NVML counts: whole millijoules, and not from zero."""
    total = 1_234_567.0
    yield series[0].time, total
    for before, after in pairwise(series):
        total += (before.watts + after.watts) / 2 * (after.time - before.time)
        yield after.time, round(total, 3)


def request_lines(runs: Sequence[Run], devices: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of requests.jsonl, in the order in which the requests ended."""
    ended = [
        (row.end, event_of(run, row, run_devices))
        for run, run_devices in zip(runs, devices, strict=True)
        for row in run.inferences
    ]
    yield from (json.dumps(event) for _, event in sorted(ended, key=lambda pair: pair[0]))


def event_of(run: Run, row: Inference, devices: Sequence[str]) -> dict[str, object]:
    """A request as the product reads it; tokens that the log does not tell are absent."""
    event: dict[str, object] = {
        "schema": "wattribute.request.v1",
        "request_id": run.request_id(row),
        "model": run.source.model.name,
        "team": row.team,
        "devices": list(devices),
        "start": row.start,
        "end": row.end,
        "input_tokens": row.input_tokens,
    }
    return event if row.output_tokens is None else event | {"output_tokens": row.output_tokens}
