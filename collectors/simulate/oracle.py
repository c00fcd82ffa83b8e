"""Whose joules a step's are: the Shapley value of its real cost, by sampled antithetic permutations.

A step's cost is what is linear in its requests, plus a fixed part, plus what compute or the power limit exceed the time
of memory. The Shapley value is additive (Shapley 1953), so the first two are shared exactly: each pays its own, the
fixed part goes in equal parts. Only the excess is sampled; where no set of participants can have one, or at most two
take part, the result is exact. All steps count.
"""

import numpy as np
from numpy.typing import NDArray

from collectors.simulate.cost import Floats, StepCosts

DEFAULT_PERMUTATIONS = 250


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
    fixed_joules = costs.fixed_joules + costs.idle_watts * costs.fixed_seconds[0]
    own_joules = costs.own_joules.sum(axis=0) + costs.idle_watts * costs.own_seconds[0].sum(axis=0)
    joules: Floats = own_joules + steps * fixed_joules / count
    fixed_excess = costs.fixed_seconds[1:] - costs.fixed_seconds[0]
    own_excess = costs.own_seconds[1:] - costs.own_seconds[0]
    for step in np.flatnonzero(_may_exceed(fixed_excess, own_excess)):
        joules += costs.idle_watts * _excess_seconds(fixed_excess, own_excess[:, step], permutations, rng)
    return joules


def _may_exceed(fixed: Floats, own: Floats) -> NDArray[np.bool_]:
    """Per step, whether any set of participants takes longer than its memory does, (m,)."""
    largest = fixed[:, None] + np.maximum(own, 0.0).sum(axis=2)
    exceeds: NDArray[np.bool_] = (largest > 0.0).any(axis=0)
    return exceeds


def _excess_seconds(fixed: Floats, own: Floats, permutations: int, rng: np.random.Generator) -> Floats:
    """The Shapley value of g(S) = max(0, max over k of (fixed[k] + sum over S of own[k])), g of nobody being 0."""
    count = own.shape[1]
    if count == 1:
        return _excess(fixed, own)
    if count == 2:
        alone, both = _excess(fixed, own), _excess(fixed, own.sum(axis=1, keepdims=True))
        shares: Floats = (both + alone - alone[::-1]) / 2.0
        return shares
    return _sampled_seconds(fixed, own, (permutations + 1) // 2, rng)


def _excess(fixed: Floats, sums: Floats) -> Floats:
    """g at sums of own seconds, sums[k, ...] -> [...]."""
    over: Floats = sums[0] + fixed[0]
    for piece in range(1, len(fixed)):
        np.maximum(over, sums[piece] + fixed[piece], out=over)
    return np.maximum(over, 0.0, out=over)


def _sampled_seconds(fixed: Floats, own: Floats, pairs: int, rng: np.random.Generator) -> Floats:
    """Mean marginal excess over random orders and their reverses.

    The sum up to a place in the reversed order is the total less the sum before that place in the order itself, so one
    cumulative sum serves both.
    """
    count = own.shape[1]
    orders = rng.permuted(np.broadcast_to(np.arange(count), (pairs, count)), axis=1)
    before = np.zeros((len(fixed), pairs, count + 1))
    np.cumsum(own[:, orders], axis=2, out=before[:, :, 1:])
    forward = _excess(fixed, before)
    backward = _excess(fixed, before[:, :, -1:] - before)
    forward[:, 0] = 0.0  # nobody costs nothing
    backward[:, -1] = 0.0
    marginal = np.diff(forward, axis=1) - np.diff(backward, axis=1)
    total = np.bincount(orders.ravel(), weights=marginal.ravel(), minlength=count)
    mean: Floats = total / (2.0 * pairs)
    return mean
