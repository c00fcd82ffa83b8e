"""The cost of a step in each of its forms, and that the oracle shares it as Shapley does over all sets of requests."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations
from math import factorial
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.simulate.cost import Experts, step_costs
from collectors.simulate.oracle import shapley_joules
from collectors.simulate.parts import H100, LLAMA_8B, QWEN_30B_A3B, one_gpu, server
from collectors.simulate.rates import Floats, Rates, rates_over_time, server_rates, throttled
from collectors.simulate.scenario import Gpu, Hardware, Model, Scenario, Server, Throttle
from collectors.simulate.totals import shares_of_total

T = TypeVar("T")

ROUND = Hardware(
    name="round numbers",
    peak_flops_per_second=1e12,
    peak_bytes_per_second=1e9,
    flops_efficiency=1.0,
    bytes_efficiency=1.0,
    idle_watts=100.0,
    power_limit_watts=1e9,
    joules_per_flop=1e-12,
    joules_per_byte=1e-9,
)
DENSE = Model(name="dense", parameters=1e9, active_parameters=1e9, bytes_per_parameter=1.0, kv_bytes_per_token=1e6)
SPARSE = replace(DENSE, parameters=16e9, tokens_of_all_experts=256.0)  # 1 GB, and up to 15 GB more


def on_one_board(model: Model) -> Server:
    return Server(model=model, devices=("gpu0",), step_seconds=0.0, step_joules=0.0)


def cost_of(rates: Rates, tokens: list[float], contexts: list[float], kv_bytes_per_token: float) -> float:
    """What a step of exactly these requests costs; of nobody it costs nothing."""
    if not tokens:
        return 0.0
    kv_bytes = np.array([contexts]) * kv_bytes_per_token
    return float(step_costs(rates, np.arange(len(tokens)), np.array([tokens]), kv_bytes).step_joules[0])


def shapley(players: list[T], cost: Callable[[tuple[T, ...]], float]) -> Floats:
    """The value by its definition, over all sets of the others."""
    count = len(players)
    values = np.zeros(count)
    for one in range(count):
        others = players[:one] + players[one + 1 :]
        for size in range(count):
            weight = factorial(size) * factorial(count - size - 1) / factorial(count)
            values[one] += weight * sum(cost((*some, players[one])) - cost(some) for some in combinations(others, size))
    return values


def by_sets(rates: Rates, tokens: list[float], contexts: list[float], kv_bytes_per_token: float) -> Floats:
    """Each request's part of a step, where a set of requests costs what a step of them alone does."""

    def cost(members: tuple[tuple[float, float], ...]) -> float:
        return cost_of(rates, [each[0] for each in members], [each[1] for each in members], kv_bytes_per_token)

    return shapley(list(zip(tokens, contexts, strict=True)), cost)


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """A step: the model, its hardware, and the tokens and contexts of its requests; exact: nothing is sampled."""

    model: Model
    hardware: Hardware
    tokens: list[float]
    exact: bool

    @property
    def contexts(self) -> list[float]:
        return [400.0 + 700.0 * place for place in range(len(self.tokens))]


def slow(ratio: float) -> Hardware:
    """An H100 at this part of its clock."""
    scenario = replace(one_gpu("slow", 1.0, 1.0), throttles=(Throttle(device="gpu0", clock_ratio=ratio),))
    return throttled(scenario, "gpu0", 0.0)


CAPPED = replace(H100, power_limit_watts=330.0)
FORMS = {
    "dense, decoding": Form(model=LLAMA_8B, hardware=H100, tokens=[1.0] * 5, exact=True),
    "dense, with prompts": Form(model=LLAMA_8B, hardware=H100, tokens=[1.0, 1.0, 1.0, 600.0, 240.0], exact=False),
    "experts, decoding": Form(model=QWEN_30B_A3B, hardware=H100, tokens=[1.0] * 5, exact=True),
    "experts, with prompts": Form(model=QWEN_30B_A3B, hardware=H100, tokens=[1.0, 1.0, 1.0, 40.0, 7.0], exact=True),
    "experts, all of them": Form(
        model=QWEN_30B_A3B, hardware=H100, tokens=[1.0, 1.0, 300.0, 900.0, 6000.0], exact=False
    ),
    "drafts": Form(model=LLAMA_8B, hardware=H100, tokens=[4.0] * 5, exact=True),
    "drafts and experts": Form(model=QWEN_30B_A3B, hardware=H100, tokens=[4.0] * 4, exact=True),
    "drafts and a prompt": Form(model=LLAMA_8B, hardware=H100, tokens=[4.0, 4.0, 4.0, 1000.0], exact=False),
    "capped, with prompts": Form(model=LLAMA_8B, hardware=CAPPED, tokens=[1.0, 1.0, 1.0, 600.0, 240.0], exact=True),
    "capped, experts": Form(model=QWEN_30B_A3B, hardware=CAPPED, tokens=[1.0, 1.0, 1.0, 600.0, 30.0], exact=True),
    "capped a little": Form(
        model=LLAMA_8B,
        hardware=replace(H100, power_limit_watts=540.0),
        tokens=[1.0, 1.0, 1.0, 300.0, 240.0],
        exact=False,
    ),
    "at 70 % of the clock": Form(model=LLAMA_8B, hardware=slow(0.7), tokens=[1.0, 1.0, 1.0, 300.0, 240.0], exact=False),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_the_oracle_is_shapley_over_all_sets(form: Form) -> None:
    """With 40 000 orders within 0.3 % of the definition; where nothing is sampled, two orders give it exactly."""
    rates = server_rates(server(form.model, "gpu0"), form.hardware)
    per_token = form.model.kv_bytes_per_token
    kv_bytes = np.array([form.contexts]) * per_token
    game = step_costs(rates, np.arange(len(form.tokens)), np.array([form.tokens]), kv_bytes)
    orders, tolerance = (2, 1e-12) if form.exact else (40_000, 3e-3)
    found = shapley_joules(game, orders, np.random.default_rng(1))
    np.testing.assert_allclose(found, by_sets(rates, form.tokens, form.contexts, per_token), rtol=tolerance)
    assert found.sum() == pytest.approx(game.step_joules[0], rel=1e-12)


def test_experts_are_read_as_the_root_of_the_tokens() -> None:
    """64 GB at 256 tokens: none at 1, 12.8 GB at 16 (3/15), all at 256 and beyond."""
    experts = Experts(most_bytes=64e9, most_tokens=256.0, joules_per_byte=0.0, seconds_per_byte=np.zeros(3))
    np.testing.assert_allclose(experts.bytes_of(np.array([1.0, 16.0, 256.0, 5000.0])), [0.0, 12.8e9, 64e9, 64e9])


def test_four_that_decode_pay_equal_parts_of_their_experts() -> None:
    """1 GB of weights and 1 GB of experts (2 - 1 of 15 x 15 GB): 2 s, 2 J and 200 J of idle power, 50.5 J each.

    Computing 4 tokens takes 8 ms and 8 mJ beside; of these each has 2 mJ.
    """
    rates = server_rates(on_one_board(SPARSE), ROUND)
    game = step_costs(rates, np.arange(4), np.ones((1, 4)), np.zeros((1, 4)))
    assert game.step_seconds[0] == pytest.approx(2.0, rel=1e-12)
    shares = shapley_joules(game, 2, np.random.default_rng(0))
    np.testing.assert_allclose(shares, [50.502] * 4, rtol=1e-12)


def test_a_prompt_pays_for_the_experts_that_it_needs() -> None:
    """1 token beside a prompt of 3: alone 0 and 0.732 GB, together 1 GB; 0.134 and 0.866 GB at 101 J each, own tokens.

    Each has half of the 101 J of the weights, and 2 mJ for each token.
    """
    rates = server_rates(on_one_board(SPARSE), ROUND)
    game = step_costs(rates, np.arange(2), np.array([[1.0, 3.0]]), np.zeros((1, 2)))
    shares = shapley_joules(game, 2, np.random.default_rng(0))
    gigabytes = np.array([(1.0 - 0.7320508) / 2.0, (1.0 + 0.7320508) / 2.0])
    np.testing.assert_allclose(shares, 50.5 + 101.0 * gigabytes + [0.002, 0.006], rtol=1e-8)


def test_the_square_of_a_total_is_shared_as_worked() -> None:
    """1, 1 and 2: each pays its own part of the total times the total, 4, 4 and 8 of 16."""
    shares = shares_of_total(np.square, np.array([1.0, 1.0, 2.0]))
    assert shares is not None
    np.testing.assert_allclose(shares, [4.0, 4.0, 8.0], rtol=1e-12)


@given(
    alike=st.integers(1, 4),
    others=st.lists(st.integers(2, 3000).map(float), max_size=3),
    least=st.sampled_from([1.0, 4.0]),
)
@settings(max_examples=40, deadline=None)
def test_shares_of_a_total_are_shapley_s(alike: int, others: list[float], least: float) -> None:
    """Against the definition over all sets, for experts; whoever brings as much pays as much, and all is paid."""
    experts = Experts(most_bytes=64e9, most_tokens=256.0, joules_per_byte=0.0, seconds_per_byte=np.zeros(3))
    amounts = [least] * alike + [least + each for each in others]
    shares = shares_of_total(experts.bytes_of, np.array(amounts))
    assert shares is not None

    def read(members: tuple[float, ...]) -> float:
        return float(experts.bytes_of(np.array(sum(members)))) if members else 0.0

    np.testing.assert_allclose(shares, shapley(amounts, read), rtol=1e-9, atol=1.0)


def test_a_step_of_very_many_prompts_is_sampled() -> None:
    """With 11 prompts the exact sum is given up, and the oracle still shares out all of the step's energy."""
    assert shares_of_total(np.sqrt, np.arange(1.0, 13.0)) is None
    rates = server_rates(on_one_board(SPARSE), ROUND)
    game = step_costs(rates, np.arange(12), np.arange(1.0, 13.0)[None], np.zeros((1, 12)))
    shares = shapley_joules(game, 50, np.random.default_rng(0))
    assert shares.sum() == pytest.approx(game.step_joules[0], rel=1e-12)
    assert (np.diff(shares) > 0.0).all()


def test_half_the_clock_takes_twice_the_time_for_less_energy() -> None:
    """1 000 tokens are 2 TFLOP: 2 s and 2 J at full clock; at half of it 4 s, and 2 J x 0.75^2; 1 J of weights."""
    scenario = replace(
        one_gpu("half", 1.0, 1.0),
        gpus=(Gpu(id="gpu0", hardware=ROUND),),
        servers=(on_one_board(DENSE),),
        throttles=(Throttle(device="gpu0", start=10.0, end=20.0, clock_ratio=0.5),),
    )
    over_time = rates_over_time(scenario.servers[0], scenario)
    found = []
    for moment in (9.9, 10.0, 20.0):
        rates, _ = over_time.at(moment)
        game = step_costs(rates, np.arange(1), np.array([[1000.0]]), np.zeros((1, 1)))
        found.append((float(game.step_seconds[0]), float(game.step_joules[0])))
    np.testing.assert_allclose(found, [(2.0, 203.0), (4.0, 1.0 + 1.125 + 400.0), (2.0, 203.0)], rtol=1e-12)


def throttled_scenario(*throttles: Throttle, devices: tuple[str, ...] = ("gpu0",)) -> Scenario:
    boards = (Gpu(id="gpu0", hardware=ROUND), Gpu(id="gpu1", hardware=ROUND))
    servers = (replace(on_one_board(DENSE), devices=devices),)
    return replace(one_gpu("throttled", 1.0, 1.0), gpus=boards, servers=servers, throttles=throttles)


def test_rates_hold_until_the_next_throttle_comes_or_goes() -> None:
    """A cap from 5 s on for ever, and a slow clock from 10 to 20 s: four spans; of two caps the lower holds."""
    scenario = throttled_scenario(
        Throttle(device="gpu0", start=5.0, power_limit_watts=300.0),
        Throttle(device="gpu0", start=10.0, end=20.0, clock_ratio=0.5, power_limit_watts=200.0),
        Throttle(device="gpu1", start=7.0, clock_ratio=0.1),
    )
    over_time = rates_over_time(scenario.servers[0], scenario)
    spans = [over_time.at(moment) for moment in (0.0, 5.0, 19.9, 20.0)]
    assert [until for _, until in spans] == [5.0, 10.0, 20.0, np.inf]
    assert [rates.headroom_watts for rates, _ in spans] == [1e9 - 100.0, 200.0, 100.0, 200.0]
    assert [rates.flops_per_second for rates, _ in spans] == [1e12, 1e12, 5e11, 1e12]


def test_boards_of_a_group_are_throttled_alike_or_not_at_all() -> None:
    """A tensor-parallel pair has one pace; a throttle of one of them is refused."""
    one = Throttle(device="gpu0", clock_ratio=0.5)
    scenario = throttled_scenario(one, replace(one, device="gpu1"), devices=("gpu0", "gpu1"))
    rates, _ = rates_over_time(scenario.servers[0], scenario).at(0.0)
    assert rates.flops_per_second == 1e12  # two halves
    lame = replace(scenario, throttles=(one,))
    with pytest.raises(ValueError, match="same clock and limit"):
        rates_over_time(lame.servers[0], lame)
