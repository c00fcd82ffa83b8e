"""What a step costs: work of its requests -> seconds by the roofline, joules, and the cost game of the oracle.

Time is the longest of three: moving bytes, computing, and staying below the board's power limit; then the step's
overhead. Energy is idle power for that time, plus what the work itself takes. Because of the maximum, and of experts
that one token more may or may not add, the cost of a step is not a sum over its requests: the truth does not have the
form that the attribution assumes.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from collectors.simulate.rates import Floats, Integers, Rates

PIECES = 3  # memory, compute, power limit


@dataclass(frozen=True, kw_only=True, slots=True)
class Experts:
    """Weights that a step reads beyond those of a single token, and what reading them costs.

    Of t tokens: most_bytes x (sqrt(t) - 1) / (sqrt(most_tokens) - 1), and never more than `most_bytes`.
    """

    most_bytes: float
    most_tokens: float
    joules_per_byte: float
    seconds_per_byte: Floats  # (PIECES,)

    def bytes_of(self, tokens: Floats) -> Floats:
        """64 GB at 256 tokens: 12.8 GB at 16, none at 1, and none without a token."""
        part = (np.sqrt(np.maximum(tokens, 1.0)) - 1.0) / (np.sqrt(self.most_tokens) - 1.0)
        read: Floats = self.most_bytes * np.minimum(part, 1.0)
        return read


@dataclass(frozen=True, kw_only=True)  # no slots: what is asked for more than once is kept
class StepCosts:
    """The cost game of m successive steps that have the same n participants.

    For a set S of them, not empty, which computes t tokens in step j and so reads x = experts.bytes_of(t), step j costs
        fixed_joules + sum over S of own_joules[j] + joules_per_byte x
        + idle_watts max over k of (fixed_seconds[k] + sum over S of own_seconds[k, j] + seconds_per_byte[k] x)
    and the empty set costs nothing; a dense model has no x. Piece 0 is memory. `fixed_joules` holds the idle power of
    the step's overhead time.
    """

    participants: Integers  # (n,) indices of requests
    idle_watts: float
    overhead_seconds: float
    fixed_joules: float
    own_joules: Floats  # (m, n)
    fixed_seconds: Floats  # (PIECES,)
    own_seconds: Floats  # (PIECES, m, n)
    tokens: Floats  # (m, n)
    experts: Experts | None = None

    @cached_property
    def step_seconds(self) -> Floats:
        """How long each step takes with all its participants, (m,)."""
        pieces = self.fixed_seconds[:, None] + self.own_seconds.sum(axis=2)
        if self.experts:
            pieces = pieces + self.experts.seconds_per_byte[:, None] * self.expert_bytes
        longest: Floats = pieces.max(axis=0)
        return self.overhead_seconds + longest

    @cached_property
    def step_joules(self) -> Floats:
        """What each step takes with all its participants, idle power included, (m,)."""
        kernels = self.step_seconds - self.overhead_seconds
        joules: Floats = self.fixed_joules + self.own_joules.sum(axis=1) + self.idle_watts * kernels
        return joules + self.experts.joules_per_byte * self.expert_bytes if self.experts else joules

    @cached_property
    def expert_bytes(self) -> Floats:
        """What each step reads beyond the weights of a single token, (m,)."""
        return self.experts.bytes_of(self.tokens.sum(axis=1)) if self.experts else np.zeros(len(self.tokens))

    def first(self, steps: int) -> "StepCosts":
        """The same game, cut to its first steps."""
        if steps >= len(self.own_joules):
            return self
        return StepCosts(
            participants=self.participants,
            idle_watts=self.idle_watts,
            overhead_seconds=self.overhead_seconds,
            fixed_joules=self.fixed_joules,
            own_joules=self.own_joules[:steps],
            fixed_seconds=self.fixed_seconds,
            own_seconds=self.own_seconds[:, :steps],
            tokens=self.tokens[:steps],
            experts=self.experts,
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
        tokens=tokens,
        experts=_experts(rates),
    )


def _experts(rates: Rates) -> Experts | None:
    if not rates.expert_bytes:
        return None
    seconds_per_byte = np.array([1.0 / rates.bytes_per_second, 0.0, rates.joules_per_byte / rates.headroom_watts])
    return Experts(
        most_bytes=rates.expert_bytes,
        most_tokens=rates.tokens_of_all_experts,
        joules_per_byte=rates.joules_per_byte,
        seconds_per_byte=seconds_per_byte,
    )
