"""The oracle: the Shapley value of a step's real cost."""

from itertools import permutations as all_orders

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.simulate.cost import PIECES, StepCosts
from collectors.simulate.ground import Ground
from collectors.simulate.loads import heavy
from collectors.simulate.oracle import DEFAULT_PERMUTATIONS, Oracle, shapley_joules
from collectors.simulate.rates import Floats
from collectors.simulate.turns import device_groups, run_in_turns


def random_game(seed: int, participants: int, steps: int = 1) -> StepCosts:
    """A game in which memory, compute and the power limit each are the longest for some sets."""
    rng = np.random.default_rng(seed)
    return StepCosts(
        participants=np.arange(participants),
        idle_watts=100.0,
        overhead_seconds=0.01,
        fixed_joules=rng.uniform(0.0, 5.0),
        own_joules=rng.uniform(0.0, 2.0, (steps, participants)),
        fixed_seconds=rng.uniform(0.0, 0.05, PIECES),
        own_seconds=rng.exponential(0.02, (PIECES, steps, participants)),
        tokens=np.ones((steps, participants)),
    )


def cost_joules(game: StepCosts, members: list[int]) -> float:
    """v(S), written out from the definition, for a game of one step."""
    if not members:
        return 0.0
    seconds = max(game.fixed_seconds[k] + sum(game.own_seconds[k, 0, i] for i in members) for k in range(PIECES))
    return float(game.fixed_joules + sum(game.own_joules[0, i] for i in members) + game.idle_watts * seconds)


def enumerated(game: StepCosts) -> Floats:
    """The Shapley value from every order of the participants."""
    count = len(game.participants)
    orders = list(all_orders(range(count)))
    joules = np.zeros(count)
    for order in orders:
        for place, participant in enumerate(order):
            joules[participant] += cost_joules(game, list(order[: place + 1])) - cost_joules(game, list(order[:place]))
    return joules / len(orders)


@given(seed=st.integers(0, 10_000), participants=st.integers(1, 2))
@settings(max_examples=60, deadline=None)
def test_one_or_two_participants_are_exact(seed: int, participants: int) -> None:
    """With at most two participants the oracle is the Shapley value itself, without sampling."""
    game = random_game(seed, participants)
    found = shapley_joules(game, 2, np.random.default_rng(0))
    np.testing.assert_allclose(found, enumerated(game), rtol=1e-12)


@pytest.mark.parametrize("participants", [3, 4, 5, 6])
def test_sampling_agrees_with_every_order_enumerated(participants: int) -> None:
    """Sampled permutations find what all permutations give, within the sampling error."""
    game = random_game(7, participants)
    found = shapley_joules(game, 40_000, np.random.default_rng(1))
    np.testing.assert_allclose(found, enumerated(game), rtol=3e-3)


@given(seed=st.integers(0, 10_000), participants=st.integers(1, 60), orders=st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_the_shares_of_a_step_add_up_to_its_cost(seed: int, participants: int, orders: int) -> None:
    """Whatever is sampled, nothing is lost and nothing is invented."""
    game = random_game(seed, participants, steps=2)
    shares = shapley_joules(game, orders, np.random.default_rng(seed))
    assert shares.sum() == pytest.approx(game.step_joules.sum(), rel=1e-9)


def test_an_affine_cost_gives_equal_parts_and_ones_own() -> None:
    """Where memory takes longest for every set, request i pays a/n + m_i: 10 + 100 x 0.2 = 30 J among three."""
    game = StepCosts(
        participants=np.arange(3),
        idle_watts=100.0,
        overhead_seconds=0.0,
        fixed_joules=10.0,
        own_joules=np.array([[1.0, 2.0, 3.0]]),
        fixed_seconds=np.array([0.2, 0.0, 0.0]),
        own_seconds=np.array([[[0.01, 0.02, 0.03]], [[0.05, 0.01, 0.01]], [[0.0, 0.0, 0.0]]]),
        tokens=np.ones((1, 3)),
    )
    shares = shapley_joules(game, 2, np.random.default_rng(0))
    np.testing.assert_allclose(shares, [10 + 1 + 1, 10 + 2 + 2, 10 + 3 + 3], rtol=1e-12)


def test_the_worked_number_of_a_compute_bound_pair() -> None:
    """Alone 0.2 s (memory) and 0.5 s (compute), together 0.6 s: of 0.6 s they pay 0.15 s and 0.45 s."""
    game = StepCosts(
        participants=np.arange(2),
        idle_watts=100.0,
        overhead_seconds=0.0,
        fixed_joules=0.0,
        own_joules=np.zeros((1, 2)),
        fixed_seconds=np.array([0.2, 0.0, 0.0]),
        own_seconds=np.array([[[0.0, 0.0]], [[0.1, 0.5]], [[0.0, 0.0]]]),
        tokens=np.ones((1, 2)),
    )
    np.testing.assert_allclose(shapley_joules(game, 2, np.random.default_rng(0)), [15.0, 45.0], rtol=1e-12)


def plain_shares(costs: StepCosts, orders: int, rng: np.random.Generator) -> Floats:
    """The textbook estimate, on the whole cost: antithetic orders, the differences of the cost along each."""
    steps, count = costs.own_joules.shape
    shares = np.zeros(count)
    for step in range(steps):
        half = np.array([rng.permutation(count) for _ in range(orders // 2)])
        drawn = np.concatenate([half, half[:, ::-1]])
        seconds = np.cumsum(costs.own_seconds[:, step][:, drawn], axis=2) + costs.fixed_seconds[:, None, None]
        energy = costs.fixed_joules + np.cumsum(costs.own_joules[step][drawn], axis=1)
        steps_up = np.diff(energy + costs.idle_watts * seconds.max(axis=0), axis=1, prepend=0.0)
        shares += np.bincount(drawn.ravel(), weights=steps_up.ravel(), minlength=count) / orders
    return shares


def median_difference(one: Floats, other: Floats) -> float:
    return float(np.median(np.abs(one - other) / ((one + other) / 2.0)))


def test_two_oracles_agree_within_one_percent_for_the_median_request() -> None:
    """Two seeds agree far better than 1 %; fewer orders are worse; the textbook estimate agrees with both."""
    ground = Ground(heavy(1.0), 1, 2)
    requests = len(ground.requests)
    many = [Oracle(requests, DEFAULT_PERMUTATIONS, np.random.default_rng([5, k])) for k in range(2)]
    few = [Oracle(requests, 12, np.random.default_rng([6, k])) for k in range(2)]
    plain, rng = np.zeros(requests), np.random.default_rng(7)
    for servers in device_groups(ground.scenario).values():
        for block in run_in_turns(ground.engines(servers)):
            for oracle in (*many, *few):
                oracle.add(block.costs)
            plain[block.costs.participants] += plain_shares(block.costs, 24, rng)
    agreement = median_difference(many[0].joules, many[1].joules)
    assert agreement < 0.001
    assert agreement < median_difference(few[0].joules, few[1].joules) < 0.01
    assert 0.002 < median_difference(plain, many[0].joules) < 0.03  # its own sampling error, and no more
    assert plain.sum() == pytest.approx(many[0].joules.sum(), rel=1e-9)
