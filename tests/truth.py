"""What the books must say, worked out from the files alone: nothing here comes from the product or from its helpers."""

import csv
import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

Series = Sequence[tuple[float, float]]

# "GPU Energy (mJ)" with one GPU, "GPU-0 Energy (mJ)" .. with more; their sum "GPU Energy (J)" and "CPU Energy (J)" not.
GPU_MILLIJOULES = re.compile(r"GPU(-\d+)? Energy \(mJ\)")


def series_by_device(readings_csv: Path) -> dict[str, Series]:
    """(time, value) of each device of a recording, in order of time; the value is the file's third column."""
    series: dict[str, list[tuple[float, float]]] = {}
    with readings_csv.open(newline="") as file:
        rows = csv.reader(file)
        next(rows)
        for time, device, value in rows:
            series.setdefault(device, []).append((float(time), float(value)))
    return {device: sorted(samples) for device, samples in series.items()}


def trapezoid_joules(readings_csv: Path) -> dict[str, float]:
    """Per device one trapezoid over its whole power series: 100 W at 0 s and 200 W at 2 s are 300 J."""
    return {device: joules_between(series, series[0][0], series[-1][0]) for device, series in _series(readings_csv)}


def counter_joules(readings_csv: Path) -> dict[str, float]:
    """Per device the last value of its counter minus the first."""
    return {device: series[-1][1] - series[0][1] for device, series in _series(readings_csv)}


def joules_between(series: Series, start: float, end: float) -> float:
    """Energy of [start, end), each interval between two samples at their mean power; nothing outside the series."""
    first = max(bisect_right(series, (start, math.inf)) - 1, 0)
    parts = []
    for (time, watts), (next_time, next_watts) in zip(series[first:], series[first + 1 :], strict=False):
        if time >= end:
            break
        parts.append((watts + next_watts) / 2 * max(min(next_time, end) - max(time, start), 0.0))
    return math.fsum(parts)


def excess_joules(readings_csv: Path, idle_watts: dict[str, float]) -> float:
    """Energy above each device's idle power, interval by interval: (60 W - 50 W) x 2 s + 0 at 40 W = 20 J."""
    parts = []
    for device, series in _series(readings_csv):
        for (time, watts), (next_time, next_watts) in pairwise(series):
            parts.append(max((watts + next_watts) / 2 - idle_watts[device], 0.0) * (next_time - time))
    return math.fsum(parts)


def nvml_joules(inference_csv: Path) -> dict[str, float]:
    """Per phase of a run's table what NVML's total energy counters rose by, in sum over its GPUs."""
    with inference_csv.open(newline="") as file:
        return {row["Phase"]: math.fsum(_gpu_joules(row)) for row in csv.DictReader(file)}


def relative_error(actual: float, expected: float) -> float:
    """1.02 for 1 is 0.02."""
    return actual / expected - 1.0


def _series(readings_csv: Path) -> Iterable[tuple[str, Series]]:
    return series_by_device(readings_csv).items()


def _gpu_joules(row: dict[str, str]) -> Iterable[float]:
    return (float(value) / 1_000 for name, value in row.items() if GPU_MILLIJOULES.fullmatch(name))
