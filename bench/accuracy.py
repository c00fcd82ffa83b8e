"""How far the attribution is from the simulator's true joules, beside naive shares of the same measured energy.

simulate -> recording -> log, ledger, core, store -> joules of each request ----> error
        `-> oracle.csv, truth.csv --------------------------------------------'
"""

import csv
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median

import numpy as np

from bench._house import replay_folder, requests_in
from collectors.simulate.ground import Ground
from collectors.simulate.oracle import DEFAULT_PERMUTATIONS, Oracle
from collectors.simulate.presets import DEFAULT_MINUTES, PRESETS
from collectors.simulate.rates import Floats
from collectors.simulate.scenario import Scenario, Sensor
from collectors.simulate.simulate import simulate
from collectors.simulate.write import ORACLE_FILE, TRUTH_FILE
from monitor.core.request_sums import RequestLine

SEEDS = (1, 2, 3)
LOADS = ("heavy", "light")
_FEW_PERMUTATIONS = 12  # where only the energy's total matters; they move a request's truth by 0.01 %
SENSORS = {
    "counter, 10 Hz": Sensor(device="gpu0", kind="counter", period_seconds=0.1),
    "counter, 1 Hz": Sensor(device="gpu0", kind="counter", period_seconds=1.0, averaging_seconds=0.1),
    "counter, each 10 s": Sensor(device="gpu0", kind="counter", period_seconds=10.0, averaging_seconds=0.1),
    "power, 10 Hz, mean of 25 ms": Sensor(
        device="gpu0", kind="power", period_seconds=0.1, averaging_seconds=0.025, noise_ratio=0.02
    ),
    "power, 5 Hz, mean of 0.2 s": Sensor(
        device="gpu0", kind="power", period_seconds=0.2, averaging_seconds=0.2, noise_ratio=0.02
    ),
    "power, 5 Hz, mean of 1 s": Sensor(
        device="gpu0", kind="power", period_seconds=0.2, averaging_seconds=1.0, noise_ratio=0.02
    ),
    "power, 1 Hz, mean of 1 s": Sensor(
        device="gpu0", kind="power", period_seconds=1.0, averaging_seconds=1.0, noise_ratio=0.02
    ),
}

Shares = Callable[[RequestLine], float]
NAIVE: Mapping[str, Shares] = {
    "by output tokens": lambda line: line.output_tokens or 0.0,
    "by all tokens": lambda line: (line.input_tokens or 0.0) + (line.output_tokens or 0.0),
    "by active seconds": lambda line: (line.end or 0.0) - (line.start or 0.0),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Played:
    """A simulated run as the product saw it, request by request, and the joules that were true."""

    lines: Sequence[RequestLine]
    energy_joules: Sequence[float]
    true_joules: Sequence[float]
    true_busy_joules: float

    def attributed_ratio(self) -> float:
        """What requests were charged with, relative to what their steps used; the rest is named unreported or idle."""
        return sum(self.energy_joules) / self.true_busy_joules

    def naive(self, share: Shares) -> list[float]:
        """The joules that were attributed, divided over the whole run in proportion to the share."""
        shares = [share(line) for line in self.lines]
        return [sum(self.energy_joules) * one / sum(shares) for one in shares]

    def request_errors(self, joules: Sequence[float]) -> list[float]:
        """Of each request, absolute, relative to the truth."""
        return [abs(mine / true - 1.0) for mine, true in zip(joules, self.true_joules, strict=True)]

    def team_errors(self, joules: Sequence[float]) -> dict[str, float]:
        """Of each team's sum, relative to the truth: 0.05 is 5 % too much."""
        sums: dict[str, tuple[float, float]] = {}
        for line, mine, true in zip(self.lines, joules, self.true_joules, strict=True):
            before = sums.get(line.team, (0.0, 0.0))
            sums[line.team] = (before[0] + mine, before[1] + true)
        return {team: mine / true - 1.0 for team, (mine, true) in sorted(sums.items())}


def run() -> list[str]:
    """Lines for: the methods under each load, each team, each kind of sensor, and how well two oracles agree."""
    return [line for load in LOADS for line in (*_methods(load), *_sensors(load), _oracles(load))]


def _methods(load: str) -> Iterator[str]:
    runs = [_play(PRESETS[load](DEFAULT_MINUTES[load]), seed, DEFAULT_PERMUTATIONS) for seed in SEEDS]
    yield _method_line(load, "attribution with priors", [(run, run.energy_joules) for run in runs])
    for name, share in NAIVE.items():
        yield _method_line(load, name, [(run, run.naive(share)) for run in runs])
    teams = [run.team_errors(run.energy_joules) for run in runs]
    said = ", ".join(f"{team} {' '.join(f'{100 * each[team]:+.1f}' for each in teams)}" for team in teams[0])
    yield f"accuracy: {load}: attribution by team, % in each seed: {said}"


def _method_line(load: str, name: str, found: Sequence[tuple[Played, Sequence[float]]]) -> str:
    worst = [max(map(abs, run.team_errors(joules).values())) for run, joules in found]
    errors = [run.request_errors(joules) for run, joules in found]
    middle = [median(each) for each in errors]
    ninth = [float(np.quantile(each, 0.9)) for each in errors]
    return (
        f"accuracy: {load}: {name}: worst team {_percents(worst)}, median request {_percents(middle)},"
        f" 9 of 10 requests within {_percents(ninth)}"
    )


def _percents(values: Sequence[float]) -> str:
    """The mean over the seeds, and the range."""
    return f"{100 * mean(values):.1f} % ({100 * min(values):.1f}-{100 * max(values):.1f})"


def _sensors(load: str) -> Iterator[str]:
    """What each kind of sensor makes of the first seed's run."""
    scenario = PRESETS[load](DEFAULT_MINUTES[load])
    for name, sensor in SENSORS.items():
        run = _play(replace(scenario, sensors=(sensor,)), SEEDS[0], _FEW_PERMUTATIONS)
        worst = max(map(abs, run.team_errors(run.energy_joules).values()))
        middle = median(run.request_errors(run.energy_joules))
        yield (
            f"accuracy: {load}: sensor {name}: attributed {100 * run.attributed_ratio():.2f} % of what requests used,"
            f" worst team {100 * worst:.1f} %, median request {100 * middle:.1f} %"
        )


def _oracles(load: str) -> str:
    """Two oracles of one run that draw their permutations independently."""
    scenario = PRESETS[load](DEFAULT_MINUTES[load])
    first, second = (_oracle_joules(scenario, stream) for stream in (11, 12))
    apart = np.abs(first / second - 1.0)
    return (
        f"accuracy: {load}: two oracles of {DEFAULT_PERMUTATIONS} permutations differ by {100 * np.median(apart):.4f} %"
        f" (median request), {100 * np.quantile(apart, 0.99):.4f} % (99th percentile), {100 * apart.max():.4f} % (most)"
    )


def _oracle_joules(scenario: Scenario, stream: int) -> Floats:
    ground = Ground(scenario, SEEDS[0], DEFAULT_PERMUTATIONS)
    rng = np.random.default_rng([SEEDS[0], stream])
    ground.oracle = Oracle(len(ground.requests), DEFAULT_PERMUTATIONS, rng)
    ground.run(lambda _done: None)
    return ground.oracle.joules


def _play(scenario: Scenario, seed: int, permutations: int) -> Played:
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder) / "recording"
        simulate(scenario, seed, recording, permutations=permutations)
        replay_folder(recording, Path(folder) / "data")
        found = requests_in(Path(folder) / "data")
        truth = {row["request_id"]: float(row["energy_joules"]) for row in _table(recording / ORACLE_FILE)}
        busy = sum(float(row["busy_joules"]) for row in _table(recording / TRUTH_FILE))
    return Played(
        lines=found,
        energy_joules=[line.energy_joules for line in found],
        true_joules=[truth[line.request_id] for line in found],
        true_busy_joules=busy,
    )


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    print("\n".join(run()))
