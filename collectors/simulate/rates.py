"""How fast a server's boards work and what work costs on them: constants, and when they change.

At a clock of ratio r a board computes r times as fast, for ((1 + r) / 2)^2 of the joules: voltage falls half as far as
the clock, and switching takes its square. Memory keeps its clock, the host's overhead of a step and idle power stay.
"""

from bisect import bisect_right
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from collectors.simulate.scenario import Hardware, Scenario, Server

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """A server's constants, summed over its group of boards.

    A step of one token reads `weight_bytes`; one of more reads up to `expert_bytes` beyond them, all at
    `tokens_of_all_experts`. A dense model has none of these.
    """

    flops_per_token: float
    weight_bytes: float
    expert_bytes: float
    tokens_of_all_experts: float
    flops_per_second: float
    bytes_per_second: float
    joules_per_flop: float
    joules_per_byte: float
    idle_watts: float
    headroom_watts: float  # power limit less idle
    step_seconds: float
    step_joules: float

    @property
    def shortest_step_seconds(self) -> float:
        """No step can be shorter: the weights of one token are read."""
        return self.step_seconds + self.weight_bytes / self.bytes_per_second


def server_rates(server: Server, hardware: Hardware) -> Rates:
    """Llama-3.1-8B in bf16 on one H100: 16.06 GFLOP per token, 16.06 GB of weights per step."""
    boards, model = len(server.devices), server.model
    sparse = model.tokens_of_all_experts is not None
    return Rates(
        flops_per_token=2.0 * model.active_parameters,
        weight_bytes=model.active_parameters * model.bytes_per_parameter,
        expert_bytes=(model.parameters - model.active_parameters) * model.bytes_per_parameter if sparse else 0.0,
        tokens_of_all_experts=model.tokens_of_all_experts or 1.0,
        flops_per_second=boards * hardware.peak_flops_per_second * hardware.flops_efficiency,
        bytes_per_second=boards * hardware.peak_bytes_per_second * hardware.bytes_efficiency,
        joules_per_flop=hardware.joules_per_flop,
        joules_per_byte=hardware.joules_per_byte,
        idle_watts=boards * hardware.idle_watts,
        headroom_watts=boards * (hardware.power_limit_watts - hardware.idle_watts),
        step_seconds=server.step_seconds,
        step_joules=server.step_joules,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class RatesOverTime:
    """Rates from `starts` on, each until the next; the first start is 0."""

    starts: tuple[float, ...]
    rates: tuple[Rates, ...]

    def at(self, now: float) -> tuple[Rates, float]:
        """What holds now, and until when; infinite if it does not change any more."""
        place = bisect_right(self.starts, now)
        return self.rates[place - 1], self.starts[place] if place < len(self.starts) else np.inf


def rates_over_time(server: Server, scenario: Scenario) -> RatesOverTime:
    """The server's rates as its boards' throttles come and go; raises ValueError if these differ within its group."""
    throttles = [throttle for throttle in scenario.throttles if throttle.device in server.devices]
    moments = {0.0, *(moment for each in throttles for moment in (each.start, each.end) if 0.0 < moment < np.inf)}
    starts = tuple(sorted(moments))
    return RatesOverTime(starts=starts, rates=tuple(_rates_at(start, server, scenario) for start in starts))


def _rates_at(moment: float, server: Server, scenario: Scenario) -> Rates:
    boards = {throttled(scenario, device, moment) for device in server.devices}
    if len(boards) > 1:
        raise ValueError(f"the boards of {server.model.name} must run at the same clock and limit: {server.devices}")
    return server_rates(server, boards.pop())


def throttled(scenario: Scenario, device: str, moment: float) -> Hardware:
    """The board as it is at this moment: of several throttles the lowest clock and the lowest limit hold.

    At a ratio of 0.7: 0.7 of the FLOP/s, 0.7225 of the joules per FLOP.
    """
    hardware = scenario.hardware(device)
    now = [each for each in scenario.throttles if each.device == device and each.start <= moment < each.end]
    ratio = min((each.clock_ratio for each in now), default=1.0)
    limits = [each.power_limit_watts for each in now if each.power_limit_watts is not None]
    return replace(
        hardware,
        peak_flops_per_second=hardware.peak_flops_per_second * ratio,
        joules_per_flop=hardware.joules_per_flop * ((1.0 + ratio) / 2.0) ** 2,
        power_limit_watts=min([hardware.power_limit_watts, *limits]),
    )
