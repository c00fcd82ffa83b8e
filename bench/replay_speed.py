"""How fast an hour of recording goes through log, ledger, core and store, beside a bare loop over the same files."""

import csv
import json
import tempfile
import time
from pathlib import Path
from statistics import median

from bench._house import replay_folder, requests_in
from collectors.simulate.presets import PRESETS
from collectors.simulate.simulate import simulate
from collectors.simulate.write import READINGS_FILE, REQUESTS_FILE

_ROUNDS = 3
_MINUTES = {"demo": 60.0, "heavy": 20.0}
_FEW_PERMUTATIONS = 2  # nobody reads the oracle here


def run() -> list[str]:
    """Two lines for each recording: the demo's hour (two GPUs, few requests) and a saturated engine's 20 minutes."""
    return [line for scenario in _MINUTES for line in _measure(scenario)]


def _measure(scenario: str) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder) / "recording"
        summary = simulate(PRESETS[scenario](_MINUTES[scenario]), 1, recording, permutations=_FEW_PERMUTATIONS)
        ours, bare = [], []
        for number in range(_ROUNDS):
            ours.append(replay_folder(recording, Path(folder) / str(number)))
            begun = time.perf_counter()
            readings, requests, _ = bare_loop(recording)
            bare.append(time.perf_counter() - begun)
        booked = len(requests_in(Path(folder) / "0"))
    seconds = median(ours)
    ratio = median(one / other for one, other in zip(ours, bare, strict=True))
    return [
        f"replay: {scenario}: {summary.duration_seconds / seconds:,.0f} s of recording per second"
        f" ({summary.duration_seconds:,.0f} s in {seconds:.2f} s), {requests / seconds:,.0f} requests/s,"
        f" {readings / seconds:,.0f} readings/s ({readings} readings, {requests} requests, {booked} in the books)",
        f"replay: {scenario}: {ratio:.0f} x a bare loop that only parses and sums ({median(bare):.3f} s)",
    ]


def bare_loop(recording: Path) -> tuple[int, int, float]:
    """What any program must do: parse each line and add. (readings, requests, the sum that keeps it honest)"""
    total, readings, requests = 0.0, 0, 0
    with (recording / READINGS_FILE).open(newline="") as file:
        for row in csv.DictReader(file):
            total += float(row["time"]) + float(row["power_watts"] or row["energy_joules_total"])
            readings += 1
    with (recording / REQUESTS_FILE).open(encoding="utf-8") as file:
        for line in file:
            event = json.loads(line)
            total += event["end"] - event["start"] + event["output_tokens"]
            requests += 1
    return readings, requests, total


if __name__ == "__main__":
    print("\n".join(run()))
