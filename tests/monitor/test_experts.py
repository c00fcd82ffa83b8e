"""Experts that prompts bring into a step: the Shapley value of a step's reads, worked by hand and by all orders."""

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest
from asked_on import asked_on
from hypothesis import given
from hypothesis import strategies as st

from collectors.readings import Device, HostProfile, ModelFacts
from monitor.core.attribution.experts import company, own_reads
from monitor.core.attribution.methods import METHODS, SHORT_NAMES
from monitor.core.attribution.models import TokenCost
from monitor.core.attribution.pieces import Column
from monitor.core.attribution.priors import PRIOR
from monitor.core.demand import demand_of
from monitor.core.usage import Usage
from monitor.core.usage_columns import columns_of

GPU = Device(id="gpu0", kind="gpu", hardware="NVIDIA H100 80GB HBM3")
EXPERTS = ModelFacts(name="m", parameters=50e9, active_parameters=5e9, kv_bytes_per_token=0.0)
DENSE = ModelFacts(name="m", parameters=5e9, kv_bytes_per_token=0.0)
CHUNK = 2_048.0


def cost(active: float = 10.0, whole: float = 100.0, exponent: float = 1.0) -> TokenCost:
    """A model of so many bytes for a token and in all."""
    return TokenCost(
        flops_per_token=1.0,
        kv_bytes_per_token=0.0,
        weight_bytes=active,
        all_weight_bytes=whole,
        source="given",
        routing_exponent=exponent,
    )


def column(*values: float) -> Column:
    """As a column."""
    return np.array(values, dtype=np.float64)


def reads(of: TokenCost, fresh: float, decoding: float, prompts: float = 1.0) -> float:
    """What one prompt reads of its own."""
    (found,) = own_reads(of, column(fresh), column(decoding), column(prompts), chunk_tokens=CHUNK).tolist()
    return float(found)


def test_a_chunk_of_two_tokens_beside_one() -> None:
    """B(1) = 10, B(2) = 100 - 90 x 0.9 = 19: the chunk's own are B(2) - B(1) = 9, and 10 + 9 are left for both."""
    assert reads(cost(), 2.0, 1.0) == pytest.approx(9.0)


def test_a_prompt_of_one_token_is_as_anyone_else() -> None:
    """It is symmetric with those that decode: nothing is its own."""
    assert reads(cost(), 1.0, 5.0) == pytest.approx(0.0)


def test_a_prompt_without_company_pays_everything_anyway() -> None:
    """Alone its equal part is all there is; a dense model reads the same for any number of tokens."""
    assert reads(cost(), 1_000.0, 0.0) == 0.0
    assert reads(cost(100.0, 100.0), 1_000.0, 7.0) == 0.0
    assert reads(cost(), 0.0, 7.0) == 0.0


def test_long_prompts_take_steps_and_short_ones_share_one() -> None:
    """5 120 tokens are 2.5 chunks; four prompts of 100 tokens at a time have a quarter of a step each."""
    assert reads(cost(), 2.5 * CHUNK, 3.0) == pytest.approx(2.5 * reads(cost(), CHUNK, 3.0))
    assert reads(cost(), 100.0, 3.0, prompts=4.0) == pytest.approx(reads(cost(), 100.0, 3.0) / 4.0)


def test_between_whole_numbers_of_requests_in_proportion() -> None:
    """2.25 of them: three quarters as beside two, a quarter as beside three."""
    two, three = reads(cost(), 50.0, 2.0), reads(cost(), 50.0, 3.0)
    assert reads(cost(), 50.0, 2.25) == pytest.approx(0.75 * two + 0.25 * three)


@given(
    chunk=st.integers(1, 40), beside=st.integers(1, 4), part=st.floats(0.01, 0.9), exponent=st.sampled_from((1.0, 0.5))
)
def test_own_and_equal_part_are_the_shapley_value(chunk: int, beside: int, part: float, exponent: float) -> None:
    """Over all orders in which the step's requests may come, what the chunk adds on average."""
    of = cost(100.0 * part, 100.0, exponent)

    def cost_of(tokens: Sequence[int]) -> float:
        return of.step_bytes(sum(tokens)) if tokens else 0.0

    members = [chunk] + [1] * beside
    orders = list(permutations(range(len(members))))
    adds = []
    for order in orders:
        before = [members[each] for each in order[: order.index(0)]]
        adds.append(cost_of([*before, chunk]) - cost_of(before))
    own = reads(of, float(chunk), float(beside))
    left = cost_of(members) - own
    assert own + left / len(members) == pytest.approx(sum(adds) / len(orders), rel=1e-9, abs=1e-9)


def test_the_docstrings_company() -> None:
    """Prompts over [4, 6) and [5, 6), which decode until 9 s; two that decode over [0, 5)."""
    decoding, prompts = company(column(4, 5, 0, 0), column(6, 6, 0, 0), column(9, 9, 5, 5), np.ones(4))
    assert decoding.tolist() == [1.0, 0.0, 0.0, 0.0]
    assert prompts.tolist() == [1.5, 2.0, 1.0, 1.0]


def test_company_counts_by_weight() -> None:
    """One of two hosts decodes each of four others: on average two were beside the prompt here."""
    starts, firsts, ends = column(0, 0, 0, 0, 0), column(1, 0, 0, 0, 0), column(9, 9, 9, 9, 9)
    decoding, prompts = company(starts, firsts, ends, np.array([1.0, 0.5, 0.5, 0.5, 0.5]))
    assert decoding.tolist() == [2.0, 0.0, 0.0, 0.0, 0.0]
    assert prompts[0] == 1.0


def usage(start: float, first_token: float, input_tokens: int) -> Usage:
    """A request that decodes until 110 s."""
    return Usage(
        host="h",
        namespace="",
        request_id=f"r{start}",
        model="m",
        team="t",
        devices=("gpu0",),
        start=start,
        first_token=first_token,
        end=110.0,
        input_tokens=input_tokens,
        output_tokens=10,
    )


def prompt_joules(model: ModelFacts, method: str = "learned") -> list[float]:
    """Of one that decodes all the time and one whose prompt of 1 000 tokens is computed from 105 s to 106 s."""
    profile = HostProfile(host="h", devices=(GPU,), models=(model,))
    demand = demand_of(columns_of([usage(99.0, 100.0, 0), usage(105.0, 106.0, 1_000)]), 100.0)
    found = asked_on(demand, GPU, profile, idle_watts=110.0, method=METHODS[SHORT_NAMES[method]])
    return [float(each) for each in found.prefill_joules]


def test_a_prompt_is_priced_by_the_experts_that_it_brings() -> None:
    """Beside one request: B(1 000) - B(1) = 100e9 B - 10e9 B, at 0.18 nJ: 16.2 J beyond its FLOPs, at no time."""
    first, second = prompt_joules(EXPERTS)
    flops_alone = prompt_joules(DENSE)[1]
    assert first == 0.0
    assert second - flops_alone == pytest.approx(90e9 * PRIOR.joules_per_byte)


@pytest.mark.parametrize("method", ["token-share", "time-share"])
def test_methods_without_a_price_of_bytes_have_none_for_experts(method: str) -> None:
    """Others' shares stay what they are."""
    assert prompt_joules(EXPERTS, method) == prompt_joules(DENSE, method)
