"""A recording played through the installed command, and how far its answer is from the independent truth."""

import csv
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from real_recordings import Inference, Run, device_ids
from truth import joules_between, nvml_joules, relative_error, series_by_device


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """A recording, and what `wattribute replay` said of it: its JSON, and its CSV's lines by request."""

    runs: tuple[Run, ...]
    folder: Path
    books: dict[str, Any]
    lines: dict[str, dict[str, str]]

    def model_joules(self, run: Run) -> float:
        """What the run's model was given, over its teams."""
        return math.fsum(row["energy_joules"] for row in self.books["by"] if row["model"] == run.source.model.name)

    def request_joules(self, run: Run, row: Inference) -> float:
        """What one request was given."""
        return float(self.lines[run.request_id(row)]["energy_joules"])


def replay(folder: Path, runs: Sequence[Run]) -> Replayed:
    """Run the installed command on a recording, as a person would."""
    requests = folder.parent / f"{folder.name}.csv"
    command = Path(sys.executable).with_name("wattribute")
    arguments = ["replay", str(folder), "--json", "--requests", str(requests), "--speed", "max"]
    done = subprocess.run(
        [command, *arguments],
        cwd=folder.parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with requests.open(newline="") as file:
        lines = {line["request_id"]: line for line in csv.DictReader(file)}
    return Replayed(runs=tuple(runs), folder=folder, books=json.loads(done.stdout), lines=lines)


def nvml_by_request(run: Run) -> list[tuple[Inference, float]]:
    """The counted requests of a run, each with the joules of the table."""
    table = nvml_joules(run.source.folder / "inference_energy.csv")
    return [(row, table[row.phase]) for row in run.inferences]


def measured_in_requests(replayed: Replayed) -> float:
    """The meter's energy while a request was on its device: all of it is the requests' own, and nothing else is."""
    series = series_by_device(replayed.folder / "readings.csv")
    return math.fsum(
        joules_between(series[device], row.start, row.end)
        for run, devices in zip(replayed.runs, device_ids(replayed.runs), strict=True)
        for row in run.inferences
        for device in devices
    )


def total_error(replayed: Replayed, run: Run) -> float:
    """Of the model's energy, relative to the energy counter."""
    return relative_error(replayed.model_joules(run), math.fsum(joules for _, joules in nvml_by_request(run)))


def median_request_error(replayed: Replayed, run: Run) -> float:
    """Of the requests' absolute relative errors."""
    pairs = nvml_by_request(run)
    return median(abs(relative_error(replayed.request_joules(run, row), joules)) for row, joules in pairs)
