"""What the priors make of published measurements: J per output token of served models, beside what was measured.

Data: ML.ENERGY's leaderboard (github.com/ml-energy/leaderboard), a JSON file for each model and task with one entry for
each configuration, steady state at full batch, all GPUs summed. The folder is not part of this project; name it in
WATTRIBUTE_ML_ENERGY. Static power is idle power over the measured time of a token; the prompt, whose length is not
published, is left out, as is what an engine's step costs beside its work.

    J/token = J/FLOP x FLOPs + J/byte x (weights of a step / batch + KV of the mean context) + idle power / (tokens/s)
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from collectors.readings import ModelFacts
from monitor.core.attribution.hardware import hardware_of
from monitor.core.attribution.models import token_cost
from monitor.core.attribution.priors import PRIOR

FOLDER = "WATTRIBUTE_ML_ENERGY"
_BYTES = {"bfloat16": 2.0, "fp8": 1.0, "mxfp4": 0.5, "nvfp4": 0.5}


@dataclass(frozen=True, slots=True)
class Measured:
    """One configuration: what was measured, and what the priors say."""

    kind: str
    gpu: str
    parameters: float
    batch: float
    measured_joules: float
    predicted_joules: float

    @property
    def error(self) -> float:
        """0.1 is predicted 10 % too high."""
        return self.predicted_joules / self.measured_joules - 1.0


def run() -> list[str]:
    """A line for each kind and size of model on each board."""
    folder = os.environ.get(FOLDER)
    if folder is None:
        return [f"ml_energy: skipped: {FOLDER} names no folder of ML.ENERGY's results"]
    found = [each for file in sorted(Path(folder).glob("*.json")) for each in _of_file(json.loads(file.read_text()))]
    groups: dict[tuple[str, str, str], list[Measured]] = {}
    for each in found:
        groups.setdefault((each.gpu, each.kind, _size(each.parameters)), []).append(each)
    return [_line(*group, members) for group, members in sorted(groups.items())] + [_line("all", "", "", found)]


def _line(gpu: str, kind: str, size: str, members: list[Measured]) -> str:
    errors = sorted(each.error for each in members)
    tenth = len(errors) // 10
    return (
        f"ml_energy: {' '.join(filter(None, (gpu, kind, size)))}: {len(errors)} configurations, batch"
        f" {min(each.batch for each in members):.0f}-{max(each.batch for each in members):.0f}: median"
        f" {100 * median(errors):+.0f} %, 8 of 10 within {100 * errors[tenth]:+.0f} to"
        f" {100 * errors[len(errors) - 1 - tenth]:+.0f} %, median without sign"
        f" {100 * median(map(abs, errors)):.0f} %"
    )


def _size(parameters: float) -> str:
    return next((f"up to {most}B" for most in (16, 40, 80, 250, 450) if parameters <= most * 1e9), "above 450B")


def _of_file(told: Mapping[str, Any]) -> Iterator[Measured]:
    for each in told["configurations"]:
        if "energy_per_token_joules" not in each or "avg_batch_size" not in each:
            continue  # images have no tokens
        hardware = hardware_of(each["gpu_model"])
        assert hardware is not None, each["gpu_model"]
        total, active = 1e9 * told["total_params_billions"], 1e9 * told["activated_params_billions"]
        facts = ModelFacts(
            name=told["model_id"],
            parameters=total,
            active_parameters=active,
            bytes_per_parameter=_BYTES[told["weight_precision"]],
        )
        cost = token_cost(told["model_id"], facts)
        batch = max(each["avg_batch_size"], 1.0)
        context = each["avg_output_len"] / 2.0
        read = cost.step_bytes(batch) / batch + context * cost.kv_bytes_per_token
        seconds = 1.0 / each["output_throughput_tokens_per_sec"]
        yield Measured(
            kind="dense" if "Dense" in told["architecture"] else "experts",
            gpu=each["gpu_model"],
            parameters=total,
            batch=batch,
            measured_joules=each["energy_per_token_joules"],
            predicted_joules=PRIOR.joules_per_flop * cost.flops_per_token
            + PRIOR.joules_per_byte * read
            + hardware.idle_watts * each["num_gpus"] * seconds,
        )


if __name__ == "__main__":
    print("\n".join(run()))
