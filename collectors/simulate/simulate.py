"""A scenario and a seed -> a recording folder, and beside it the truth: oracle.csv and truth.csv.

    traffic -> engines in turns on their boards -> steps with costs -> oracle   -> oracle.csv
                                                        `-> energy curves       -> truth.csv
                         |                                      `-> sensors     -> readings.csv
                         `-> counters at each second            -> engine.csv
The same scenario, seed, number of permutations and start give the same bytes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from collectors.simulate import write
from collectors.simulate.events import request_events
from collectors.simulate.ground import DeviceTruth, Ground
from collectors.simulate.oracle import DEFAULT_PERMUTATIONS
from collectors.simulate.scenario import Scenario
from collectors.simulate.sensors import Samples, sample
from collectors.units import UnixSeconds

DEFAULT_START: UnixSeconds = 1_767_600_000.0  # 2026-01-05T08:00:00Z, fixed so that a recording can be made again


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulationSummary:
    """What was simulated. `mean_batch` is the mean number of requests in a step, by time."""

    scenario: str
    seed: int
    requests: int
    steps: int
    duration_seconds: float
    mean_batch: float
    total_joules: float
    attributed_joules: float
    idle_joules: float
    unreported_joules: float
    files: tuple[str, ...]


def simulate(
    scenario: Scenario,
    seed: int,
    out: Path,
    *,
    permutations: int = DEFAULT_PERMUTATIONS,
    start: UnixSeconds = DEFAULT_START,
    progress: Callable[[float], None] | None = None,
    engine: bool = True,
) -> SimulationSummary:
    """Writes the recording into `out`, which is made if need be; `progress` is told how much is done, 0-1.

    Without `engine` there is no engine.csv, as of a host whose servers nobody looks at.

    Raises ValueError for a scenario in which servers share some of their devices, OSError if `out` cannot be written.
    """
    ground = Ground(scenario, seed, permutations)
    ground.run(progress or (lambda done: None))
    truths = [ground.truth(gpu) for gpu in scenario.gpus]
    ids = [f"{scenario.name}-{seed}-{number:06d}" for number in range(len(ground.requests))]
    out.mkdir(parents=True, exist_ok=True)
    write.write_host(out, scenario)
    write.write_table(out / write.READINGS_FILE, write.READINGS_HEADER, _reading_rows(_samples(ground, seed), start))
    write.write_requests(out, request_events(ground, ids, start))
    if engine:
        write.write_table(out / write.ENGINE_FILE, write.ENGINE_HEADER, _engine_rows(ground, start))
    write.write_table(out / write.ORACLE_FILE, write.ORACLE_HEADER, _oracle_rows(ground, ids))
    write.write_table(out / write.TRUTH_FILE, write.TRUTH_HEADER, _truth_rows(truths))
    return _summary(ground, seed, truths, _files(engine=engine))


def _files(*, engine: bool) -> tuple[str, ...]:
    recorded = (write.HOST_FILE, write.READINGS_FILE, write.REQUESTS_FILE, *((write.ENGINE_FILE,) if engine else ()))
    return (*recorded, write.ORACLE_FILE, write.TRUTH_FILE)


def _samples(ground: Ground, seed: int) -> list[Samples]:
    """What each sensor read, each with a random stream of its own."""
    gpus = {gpu.id: gpu for gpu in ground.scenario.gpus}
    return [
        sample(sensor, ground.curve(gpus[sensor.device]), ground.duration_seconds, np.random.default_rng([seed, 3, k]))
        for k, sensor in enumerate(ground.scenario.sensors)
    ]


def _reading_rows(samples: list[Samples], start: UnixSeconds) -> list[tuple[float, str, float | None, float | None]]:
    """All sensors' readings by time, then device."""
    rows: list[tuple[float, str, float | None, float | None]] = []
    for one in samples:
        power = one.sensor.kind == "power"
        for time, value in one.rows():
            rows.append((start + time, one.sensor.device, value if power else None, None if power else value))
    return sorted(rows, key=lambda row: row[:2])


def _engine_rows(ground: Ground, start: UnixSeconds) -> list[tuple[float | str, ...]]:
    """A row per server and second, by time, then in the servers' order."""
    rows: list[tuple[float | str, ...]] = []
    for server, log in ground.logs:
        named = (server.address, server.model.name, ";".join(server.devices))
        rows += [
            (
                start + row.second,
                *named,
                row.running,
                row.waiting,
                row.steps_total,
                row.prefill_tokens_total,
                row.cached_tokens_total,
                row.decode_tokens_total,
                row.kv_tokens,
            )
            for row in log.rows(int(ground.duration_seconds))
        ]
    return sorted(rows, key=lambda row: row[0])


def _oracle_rows(ground: Ground, ids: list[str]) -> Iterator[tuple[str, str, str, float]]:
    joules = ground.oracle.joules.tolist()
    for request_id, request, energy_joules in zip(ids, ground.requests, joules, strict=True):
        yield request_id, request.tenant.model, request.tenant.team, energy_joules


def _truth_rows(truths: list[DeviceTruth]) -> Iterator[tuple[str, float, float, float, float]]:
    for truth in truths:
        yield truth.device, truth.idle_joules, truth.busy_joules, truth.unreported_joules, truth.total_joules


def _summary(ground: Ground, seed: int, truths: list[DeviceTruth], files: tuple[str, ...]) -> SimulationSummary:
    return SimulationSummary(
        scenario=ground.scenario.name,
        seed=seed,
        requests=len(ground.requests),
        steps=ground.steps,
        duration_seconds=ground.duration_seconds,
        mean_batch=ground.batch_seconds / ground.step_seconds if ground.step_seconds else 0.0,
        total_joules=sum(truth.total_joules for truth in truths),
        attributed_joules=float(ground.oracle.joules.sum()),
        idle_joules=sum(truth.idle_joules for truth in truths),
        unreported_joules=sum(truth.unreported_joules for truth in truths),
        files=files,
    )
