"""The work of a window as requests tell it, worked by hand for 8e9 parameters at two bytes on an H100."""

import numpy as np
import pytest
from msgspec.structs import replace

from monitor.core.asked import work_asked
from monitor.core.attribution.hardware import hardware_of
from monitor.core.attribution.models import UNKNOWN_MODEL, TokenCost
from monitor.core.attribution.work import Work
from monitor.core.demand import demand_of
from monitor.core.usage import Usage
from monitor.core.usage_columns import columns_of

COST = TokenCost(
    flops_per_token=1.6e10, kv_bytes_per_token=131_072.0, weight_bytes=16e9, all_weight_bytes=16e9, source="given"
)
T = 100.0
REQUEST = Usage(
    host="h",
    namespace="",
    request_id="r",
    model="m",
    team="t",
    devices=("g0",),
    start=T,
    first_token=T + 0.1,
    end=T + 10.1,
    input_tokens=2_000,
    cached_input_tokens=0,
    output_tokens=601,
)
"""A prompt of 2 000 tokens, then 60 tokens a second."""


def work(
    *usages: Usage, per_step: dict[str, float] | None = None, costs: dict[str, TokenCost] | None = None
) -> Work | None:
    """What they ask of g0 in the 10 s from T on."""
    demand = demand_of(columns_of(usages), T)
    chosen = demand.usages.where(lambda route: "g0" in (route.devices or ())).nonzero()[0]
    hardware = hardware_of("NVIDIA H100 80GB HBM3")
    assert hardware is not None
    return work_asked(
        demand,
        chosen,
        lambda model: (costs or {}).get(model, COST),
        hardware,
        length_seconds=10.0,
        tokens_per_step=per_step or {},
    )


def known(found: Work | None) -> Work:
    assert found is not None
    return found


def test_the_docstrings_request() -> None:
    """594 of its 600 tokens fall into the window; its context is 2 001 to 2 595 tokens, 2 298 on average."""
    found = known(work(REQUEST))
    assert found.flops == pytest.approx(2_594 * 1.6e10)
    assert found.bytes == pytest.approx(594 * (16e9 + 2_298 * 131_072))


def test_two_that_are_decoded_together_take_the_same_steps() -> None:
    """A twin reads its own context, and the weights are read once for both."""
    found = known(work(REQUEST, replace(REQUEST, request_id="s")))
    assert found.flops == pytest.approx(2 * 2_594 * 1.6e10)
    assert found.bytes == pytest.approx(594 * (16e9 + 2 * 2_298 * 131_072))


def test_two_models_on_a_board_are_two_engines() -> None:
    """Each reads its own weights; likewise one model on other boards beside this one."""
    found = known(work(REQUEST, replace(REQUEST, request_id="s", model="n")))
    assert found.bytes == pytest.approx(2 * known(work(REQUEST)).bytes)


def test_a_group_of_two_has_a_half_each() -> None:
    """Tensor parallel."""
    found, whole = known(work(replace(REQUEST, devices=("g0", "g1")))), known(work(REQUEST))
    assert (found.flops, found.bytes) == (pytest.approx(whole.flops / 2), pytest.approx(whole.bytes / 2))


@pytest.mark.parametrize("per_step", [{"m": 2.0}, {"": 2.0}])
def test_where_a_step_makes_two_tokens_half_is_read(per_step: dict[str, float]) -> None:
    """An engine that tells its steps and not its tokens' context: 297 steps."""
    found = known(work(REQUEST, per_step=per_step))
    assert found.flops == pytest.approx(2_594 * 1.6e10)
    assert found.bytes == pytest.approx(297 * (16e9 + 2_298 * 131_072))


def test_of_experts_a_step_reads_those_of_its_tokens() -> None:
    """2 594 tokens in 594 steps are 4.367 a step, of which each is sent to half of the weights: 1 - 0.5^4.367."""
    experts = replace(COST, all_weight_bytes=32e9, kv_bytes_per_token=0.0)
    found = known(work(REQUEST, costs={"m": experts}))
    assert found.bytes == pytest.approx(594 * 32e9 * (1 - 0.5 ** (2_594 / 594)))


def test_a_cached_prefix_is_not_computed() -> None:
    """Of 2 000 tokens 1 500 were there: 500 are computed, and all are read."""
    found = known(work(replace(REQUEST, cached_input_tokens=1_500)))
    assert found.flops == pytest.approx(1_094 * 1.6e10)
    assert found.bytes == pytest.approx(known(work(REQUEST)).bytes)


def test_a_prompt_is_computed_just_before_its_first_token() -> None:
    """It came 40 s before: 2 000 tokens take 2 000 x 1.6e10 / (989e12 x 0.45) = 71.9 ms, at most four times as long.

    So 287.6 ms before 0.1 s: 0.1 / 0.2876 of it lies in the window. An engine that says when it began is believed.
    """
    longest = 4 * 2_000 * 1.6e10 / (989e12 * 0.45)
    waited = replace(REQUEST, start=T - 40.0)
    assert known(work(waited)).flops == pytest.approx((2_000 * 0.1 / longest + 594) * 1.6e10)
    told = replace(waited, scheduled=T - 0.1)
    assert known(work(told)).flops == pytest.approx((1_000 + 594) * 1.6e10)


def test_a_prompt_without_a_moment_of_its_own_is_computed_then() -> None:
    """Begun and answered at once: all of it there, in this window or in another."""
    at_once = replace(REQUEST, start=T + 0.1, output_tokens=1)
    assert known(work(at_once)).flops == pytest.approx(2_000 * 1.6e10)
    assert known(work(at_once)).bytes == 0.0
    assert known(work(replace(at_once, start=T - 1.0, first_token=T - 1.0))).flops == 0.0


@pytest.mark.parametrize(
    "untold",
    [
        pytest.param(replace(REQUEST, output_tokens=None), id="no output tokens"),
        pytest.param(replace(REQUEST, input_tokens=None), id="no input tokens"),
        pytest.param(replace(REQUEST, cached_input_tokens=None), id="nothing of the prefix cache"),
        pytest.param(replace(REQUEST, first_token=None), id="no first token"),
        pytest.param(replace(REQUEST, weight=0.5), id="may have been elsewhere"),
        pytest.param(replace(REQUEST, devices=None), id="on which device is not known"),
        pytest.param(replace(REQUEST, model="unknown"), id="a model of unknown size"),
        pytest.param(replace(REQUEST, first_token=T + 10.1), id="600 tokens in no time"),
        pytest.param(replace(REQUEST, output_tokens=8_500), id="850 tokens/s, at 4 x 3.35e12 / 16e9 = 837.5 at most"),
    ],
)
def test_a_request_that_does_not_tell_its_work(untold: Usage) -> None:
    """Half of what went on is not known: nothing is. Of 50 s of others it is a fiftieth, and left out."""
    costs = {"unknown": UNKNOWN_MODEL}
    untold = replace(untold, request_id="u")
    assert work(REQUEST, untold, costs=costs) is None
    others = [replace(REQUEST, request_id=f"r{number}") for number in range(5)]
    short = replace(untold, start=T + 9.0)
    if short.first_token is not None and short.first_token < short.start:
        short = replace(short, first_token=T + 9.1, output_tokens=short.output_tokens and 15 * short.output_tokens)
    assert work(*others, short, costs=costs) == work(*others)


def test_no_request_asks_nothing() -> None:
    """Which is known, and not a doubt."""
    assert work() == Work(0.0, 0.0)
    assert np.isfinite(known(work(replace(REQUEST, start=T + 20, first_token=T + 21, end=T + 22))).flops)
