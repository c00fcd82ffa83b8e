"""What a step costs: work of its requests -> seconds by the roofline, joules, and the cost game of the oracle.

Time is the longest of three: moving bytes, computing, and staying below the board's power limit; then the step's
overhead. Energy is idle power for that time, plus what the work itself takes. Because of the maximum the cost of a step
is not a sum over its requests, so the truth does not have the form that the attribution assumes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collectors.simulate.scenario import Hardware, Server

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

PIECES = 3  # memory, compute, power limit


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """A server's constants, summed over its group of boards."""

    flops_per_token: float
    weight_bytes: float
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
        """No step can be shorter: the weights are read once."""
        return self.step_seconds + self.weight_bytes / self.bytes_per_second


def server_rates(server: Server, hardware: Hardware) -> Rates:
    """Llama-3.1-8B in bf16 on one H100: 16.06 GFLOP per token, 16.06 GB of weights per step."""
    boards = len(server.devices)
    return Rates(
        flops_per_token=2.0 * server.model.active_parameters,
        weight_bytes=server.model.active_parameters * server.model.bytes_per_parameter,
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
class StepCosts:
    """The cost game of m successive steps that have the same n participants.

    For a set S of them, not empty, step j costs
        fixed_joules + sum over S of own_joules[j] + idle_watts x max over k of (fixed_seconds[k] + sum over S of
        own_seconds[k, j])
    and the empty set costs nothing. Piece 0 is memory. `fixed_joules` holds the idle power of the step's overhead time.
    """

    participants: Integers  # (n,) indices of requests
    idle_watts: float
    overhead_seconds: float
    fixed_joules: float
    own_joules: Floats  # (m, n)
    fixed_seconds: Floats  # (PIECES,)
    own_seconds: Floats  # (PIECES, m, n)

    @property
    def step_seconds(self) -> Floats:
        """How long each step takes with all its participants, (m,)."""
        pieces = self.fixed_seconds[:, None] + self.own_seconds.sum(axis=2)
        longest: Floats = pieces.max(axis=0)
        return self.overhead_seconds + longest

    @property
    def step_joules(self) -> Floats:
        """What each step takes with all its participants, idle power included, (m,)."""
        kernels = self.step_seconds - self.overhead_seconds
        joules: Floats = self.fixed_joules + self.own_joules.sum(axis=1) + self.idle_watts * kernels
        return joules

    def first(self, steps: int) -> "StepCosts":
        """The same game, cut to its first steps."""
        return StepCosts(
            participants=self.participants,
            idle_watts=self.idle_watts,
            overhead_seconds=self.overhead_seconds,
            fixed_joules=self.fixed_joules,
            own_joules=self.own_joules[:steps],
            fixed_seconds=self.fixed_seconds,
            own_seconds=self.own_seconds[:, :steps],
        )


def step_costs(rates: Rates, participants: Integers, tokens: Floats, kv_bytes: Floats) -> StepCosts:
    """The game of steps in which request i computes tokens[j, i] tokens and moves kv_bytes[j, i] of KV cache.

    One request, one token, no context, 16 GB of weights at 2 TB/s: 8 ms; at 0.2 J/GB and 100 W idle: 3.2 J + 0.8 J.
    """
    flops = tokens * rates.flops_per_token
    own_joules = rates.joules_per_flop * flops + rates.joules_per_byte * kv_bytes
    shared_joules = rates.joules_per_byte * rates.weight_bytes + rates.step_joules
    return StepCosts(
        participants=participants,
        idle_watts=rates.idle_watts,
        overhead_seconds=rates.step_seconds,
        fixed_joules=shared_joules + rates.idle_watts * rates.step_seconds,
        own_joules=own_joules,
        fixed_seconds=np.array(
            [rates.weight_bytes / rates.bytes_per_second, 0.0, shared_joules / rates.headroom_watts]
        ),
        own_seconds=np.stack(
            [kv_bytes / rates.bytes_per_second, flops / rates.flops_per_second, own_joules / rates.headroom_watts]
        ),
    )
