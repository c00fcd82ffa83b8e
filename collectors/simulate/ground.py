"""What really happens: a scenario and a seed -> each request's fate and true joules, and each board's energy."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from collectors.simulate.engine import Engine, Progress
from collectors.simulate.engine_log import EngineLog
from collectors.simulate.handover import asked_of
from collectors.simulate.oracle import Oracle
from collectors.simulate.rates import rates_over_time
from collectors.simulate.scenario import Burst, Gpu, Scenario, Server
from collectors.simulate.sensors import EnergyCurve, StepEnergies
from collectors.simulate.traffic import draw_requests
from collectors.simulate.turns import Block, device_groups, run_in_turns

QUIET_TAIL_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceTruth:
    """Where the true joules of one board went; they add up to `total_joules`."""

    device: str
    idle_joules: float
    busy_joules: float
    unreported_joules: float
    total_joules: float


class Ground:
    """The ground truth, gathered step by step; complete once `run` has returned. Times are seconds from the start."""

    def __init__(self, scenario: Scenario, seed: int, permutations: int) -> None:
        self.scenario = scenario
        self.seed = seed
        self.requests = draw_requests(scenario, seed)
        self.progress = Progress(len(self.requests))
        self.oracle = Oracle(len(self.requests), permutations, np.random.default_rng([seed, 2]))
        self.duration_seconds = scenario.duration_seconds
        self.logs: list[tuple[Server, EngineLog]] = []
        self.steps = 0
        self.step_seconds = 0.0
        self.batch_seconds = 0.0
        self._energies = {gpu.id: StepEnergies() for gpu in scenario.gpus}
        self._busy_seconds = {gpu.id: 0.0 for gpu in scenario.gpus}
        self._busy_joules = {gpu.id: 0.0 for gpu in scenario.gpus}

    def run(self, progress: Callable[[float], None]) -> None:
        """Runs every group of boards to the end of its last request; `progress` is told how much is done, 0-1."""
        groups = device_groups(self.scenario)
        for number, (devices, servers) in enumerate(groups.items()):
            engines = self.engines(servers)
            self.logs += [(engine.server, engine.log) for engine in engines]
            for block in run_in_turns(engines):
                self._add(devices, block)
                progress((number + min(block.end / self.scenario.duration_seconds, 1.0)) / len(groups))
        last = max([self.scenario.duration_seconds, *self.progress.end.tolist()])
        self.duration_seconds = float(np.ceil(last + QUIET_TAIL_SECONDS))

    def engines(self, servers: tuple[Server, ...]) -> list[Engine]:
        """An engine for each server, with what is asked of it queued; a decode server's come out of prefill servers."""
        return [
            Engine(
                server,
                rates_over_time(server, self.scenario),
                asked_of(server, self.requests, self.progress.first_token),
                self.progress,
                np.random.default_rng([self.seed, 5, self.scenario.servers.index(server)]),
            )
            for server in servers
        ]

    def _add(self, devices: tuple[str, ...], block: Block) -> None:
        self.oracle.add(block.costs)
        seconds, joules = block.costs.step_seconds, block.costs.step_joules
        above_idle = joules - block.costs.idle_watts * seconds
        block_seconds, block_joules = float(seconds.sum()), float(joules.sum())
        for device in devices:
            self._energies[device].add(block.start, seconds, above_idle / len(devices))
            self._busy_seconds[device] += block_seconds
            self._busy_joules[device] += block_joules / len(devices)
        self.steps += len(seconds)
        self.step_seconds += block_seconds
        self.batch_seconds += block_seconds * len(block.costs.participants)

    def curve(self, gpu: Gpu) -> EnergyCurve:
        """The true energy of a board over time."""
        return EnergyCurve(gpu.hardware.idle_watts, self._energies[gpu.id], self._bursts(gpu))

    def truth(self, gpu: Gpu) -> DeviceTruth:
        """The true account of a board over the whole recording."""
        idle = gpu.hardware.idle_watts * (self.duration_seconds - self._busy_seconds[gpu.id])
        busy = self._busy_joules[gpu.id]
        unreported = sum((burst.power_watts * (burst.end - burst.start) for burst in self._bursts(gpu)), 0.0)
        return DeviceTruth(
            device=gpu.id,
            idle_joules=idle,
            busy_joules=busy,
            unreported_joules=unreported,
            total_joules=idle + busy + unreported,
        )

    def _bursts(self, gpu: Gpu) -> list[Burst]:
        return [burst for burst in self.scenario.bursts if burst.device == gpu.id]
