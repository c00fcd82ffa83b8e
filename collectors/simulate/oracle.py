"""Whose joules a step's are: the Shapley value of its real cost, by sampled antithetic permutations.

A step's cost is what is linear in its requests, plus a fixed part, plus the experts that they need, plus what the other
pieces of the roofline exceed the one that is longest for a request without work of its own. The Shapley value is
additive (Shapley 1953), so the first two are shared exactly: each pays its own, the fixed part goes in equal parts.
Experts depend on the tokens of a set alone and are shared exactly too (totals.py), unless a step computes very many
prompts. Only the excess is sampled; where no set of participants can have one, or at most two take part, the result is
exact. All steps count.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from collectors.simulate.cost import Experts, StepCosts
from collectors.simulate.rates import Floats
from collectors.simulate.totals import shares_of_total

DEFAULT_PERMUTATIONS = 250
Value = Callable[[Floats], Floats]  # of sums over a set, sums[k, ...] -> [...]


class Oracle:
    """Sums up the true joules of each request, over all steps that it is shown."""

    def __init__(self, requests: int, permutations: int, rng: np.random.Generator) -> None:
        self.joules: Floats = np.zeros(requests)
        self._permutations = permutations
        self._rng = rng

    def add(self, costs: StepCosts) -> None:
        """Charges the steps to their participants."""
        self.joules[costs.participants] += shapley_joules(costs, self._permutations, self._rng)


def shapley_joules(costs: StepCosts, permutations: int, rng: np.random.Generator) -> Floats:
    """Each participant's joules, summed over the steps, (n,). They add up to the steps' cost.

    `permutations` are rounded up to whole pairs: an order and its reverse. With 10 J fixed, 100 W idle, 20 ms of memory
    and own work of 1 J and 3 J that takes no time, two participants pay 7 J and 9 J.
    """
    steps, count = costs.own_joules.shape
    base, pairs = int(np.argmax(costs.fixed_seconds)), (permutations + 1) // 2
    fixed_joules = costs.fixed_joules + costs.idle_watts * costs.fixed_seconds[base]
    own_joules = costs.own_joules.sum(axis=0) + costs.idle_watts * costs.own_seconds[base].sum(axis=0)
    joules: Floats = own_joules + steps * fixed_joules / count
    if costs.experts:
        joules += _expert_joules(costs, costs.experts, base, pairs, rng)
    for seconds in _excess_seconds(costs, base, pairs, rng):
        joules += costs.idle_watts * seconds
    return joules


def _expert_joules(costs: StepCosts, experts: Experts, base: int, pairs: int, rng: np.random.Generator) -> Floats:
    """What reading the experts takes, and idle power while they are read as far as the base piece has it."""
    count = len(costs.participants)
    joules_per_byte = experts.joules_per_byte + costs.idle_watts * experts.seconds_per_byte[base]
    alike = (costs.tokens == costs.tokens[:, :1]).all(axis=1)
    read: Floats = np.full(count, costs.expert_bytes[alike].sum() / count)
    for tokens in costs.tokens[~alike]:
        exact = shares_of_total(experts.bytes_of, tokens)
        read += _shares(lambda sums: experts.bytes_of(sums[0]), tokens[None], pairs, rng) if exact is None else exact
    joules: Floats = joules_per_byte * read
    return joules


def _excess_seconds(costs: StepCosts, base: int, pairs: int, rng: np.random.Generator) -> Iterator[Floats]:
    """What the longest piece exceeds the base piece, shared, (n,), of each step in which any set can have an excess."""
    others = [piece for piece in range(len(costs.fixed_seconds)) if piece != base]
    fixed = costs.fixed_seconds[others] - costs.fixed_seconds[base]
    own = costs.own_seconds[others] - costs.own_seconds[base]
    largest = fixed[:, None] + np.maximum(own, 0.0).sum(axis=2)
    value: Value = partial(_excess, fixed)
    if costs.experts:
        per_byte = costs.experts.seconds_per_byte[others] - costs.experts.seconds_per_byte[base]
        largest = largest + np.maximum(per_byte, 0.0)[:, None] * costs.expert_bytes
        value = partial(_excess_with_experts, fixed, per_byte, costs.experts)
        own = np.concatenate([own, costs.tokens[None]])
    for step in np.flatnonzero((largest > 0.0).any(axis=0)):
        yield _shares(value, own[:, step], pairs, rng)


def _excess(fixed: Floats, sums: Floats) -> Floats:
    """max(0, max over k of (fixed[k] + sums[k]))."""
    over: Floats = sums[0] + fixed[0]
    for piece in range(1, len(fixed)):
        np.maximum(over, sums[piece] + fixed[piece], out=over)
    return np.maximum(over, 0.0, out=over)


def _excess_with_experts(fixed: Floats, per_byte: Floats, experts: Experts, sums: Floats) -> Floats:
    """The same with the time that the set's own experts add to each piece; the last of the sums are its tokens."""
    read = experts.bytes_of(sums[-1])
    return _excess(fixed, np.stack([one + each * read for one, each in zip(sums[:-1], per_byte, strict=True)]))


def _shares(value: Value, own: Floats, pairs: int, rng: np.random.Generator) -> Floats:
    """The Shapley value of g(S) = value(sum over S of own[:, i]), g of nobody being 0."""
    count = own.shape[1]
    if count == 1:
        return value(own)
    if count == 2:
        alone, both = value(own), value(own.sum(axis=1, keepdims=True))
        shares: Floats = (both + alone - alone[::-1]) / 2.0
        return shares
    return _sampled_shares(value, own, pairs, rng)


def _sampled_shares(value: Value, own: Floats, pairs: int, rng: np.random.Generator) -> Floats:
    """Mean marginal value over random orders and their reverses.

    The sum up to a place in the reversed order is the total less the sum before that place in the order itself, so one
    cumulative sum serves both.
    """
    count = own.shape[1]
    orders = rng.permuted(np.broadcast_to(np.arange(count), (pairs, count)), axis=1)
    before = np.zeros((len(own), pairs, count + 1))
    np.cumsum(own[:, orders], axis=2, out=before[:, :, 1:])
    forward = value(before)
    backward = value(before[:, :, -1:] - before)
    forward[:, 0] = 0.0  # nobody costs nothing
    backward[:, -1] = 0.0
    marginal = np.diff(forward, axis=1) - np.diff(backward, axis=1)
    total = np.bincount(orders.ravel(), weights=marginal.ravel(), minlength=count)
    mean: Floats = total / (2.0 * pairs)
    return mean
