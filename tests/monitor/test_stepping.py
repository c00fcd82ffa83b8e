"""What the steps of engines cost that share a device: worked by hand for 8e9 and 4e9 parameters on an H100, 110 W idle.

A byte costs 0.18e-9 J + 110 W / (3.35e12 B/s x 0.75) = 0.2237811e-9 J: a step that reads 16e9 B 3.580498 J, one that
reads 8e9 B 1.790249 J.
"""

from typing import Any

import numpy as np
import pytest
from asked_on import asked_on

from collectors.readings import Device, EngineReading, HostProfile, ModelFacts
from monitor.core.attribution.methods import METHODS
from monitor.core.attribution.requests import Requests, ToldSteps
from monitor.core.demand import demand_of
from monitor.core.usage import Usage
from monitor.core.usage_columns import columns_of

T = 1_000.0
GPU = Device(id="gpu0", kind="gpu", hardware="NVIDIA H100 80GB HBM3")
BIG = ModelFacts(name="big", parameters=8e9, kv_bytes_per_token=131_072.0)
SMALL = ModelFacts(name="small", parameters=4e9, kv_bytes_per_token=131_072.0)
EXPERTS = ModelFacts(name="experts", parameters=16e9, active_parameters=8e9, kv_bytes_per_token=131_072.0)
PROFILE = HostProfile(host="h1", zone="FR", pue=1.0, devices=(GPU,), models=(BIG, SMALL, EXPERTS))
BIG_STEP, SMALL_STEP = 3.580498, 1.790249


def usage(model: str, **facts: Any) -> Usage:
    """A prompt of 1 000 tokens over [1, 2) s, 100 tokens made over [2, 4) s."""
    told: dict[str, Any] = {"first_token": T + 2, "input_tokens": 1_000, "output_tokens": 100, "devices": ("gpu0",)}
    return Usage(
        host="h1", namespace="", request_id="r", model=model, team="t", start=T + 1, end=T + 4, **(told | facts)
    )


def counted(model: str, steps: float | None = 50.0, **facts: Any) -> EngineReading:
    """The second from 1 s on."""
    told: dict[str, Any] = {"server": f"server-of-{model}", "start": T + 1, "end": T + 2, "devices": ("gpu0",)} | facts
    return EngineReading(model=model, steps=steps, **told)


def asked(*usages: Usage, device: Device = GPU, **facts: Any) -> Requests:
    """What they ask of the device in the window from T on."""
    demand = demand_of(columns_of(usages), T)
    return asked_on(demand, device, PROFILE, idle_watts=110.0, **facts)


def test_an_engine_steps_as_its_requests_get_on() -> None:
    """1 000 tokens of prompt are less than a chunk: one step in its second; 50 tokens a second are 50 steps."""
    found = asked(usage("small"), usage("big")).steps
    assert found is not None
    assert (found.engines, found.engine.tolist(), list(found.told)) == (2, [1, 0], [[], []])
    assert found.prefill_watts == pytest.approx([SMALL_STEP, BIG_STEP], rel=1e-6)
    assert found.decode_watts == pytest.approx([50 * SMALL_STEP, 50 * BIG_STEP], rel=1e-6)


def test_a_long_prompt_takes_a_step_for_each_chunk() -> None:
    """5 120 fresh tokens in one second: 2.5 steps of 2 048; cached ones take none."""
    found = asked(usage("small"), usage("big", input_tokens=6_120, cached_input_tokens=1_000)).steps
    assert found is not None
    assert found.prefill_watts[1] == pytest.approx(2.5 * BIG_STEP, rel=1e-6)


def test_several_tokens_made_at_once_are_one_step() -> None:
    """50 tokens a second, 2.5 to a step: 20 steps."""
    found = asked(usage("small"), usage("big"), tokens_per_step={"big": 2.5, "small": 1.0}).steps
    assert found is not None
    assert found.decode_watts == pytest.approx([50 * SMALL_STEP, 20 * BIG_STEP], rel=1e-6)


def test_a_request_that_told_no_tokens_tells_no_steps() -> None:
    """Missing is not one step."""
    found = asked(usage("small"), usage("big", input_tokens=None, output_tokens=None)).steps
    assert found is not None
    assert (found.prefill_watts[1], found.decode_watts[1]) == (0.0, 0.0)


def test_a_group_of_two_devices_reads_half_of_the_weights_on_each() -> None:
    """By events as by its counter."""
    counters = [counted("big", devices=("gpu0", "gpu1"))]
    found = asked(usage("small"), usage("big", devices=("gpu0", "gpu1")), counters=counters).steps
    assert found is not None
    assert found.decode_watts[1] == pytest.approx(25 * BIG_STEP, rel=1e-6)
    assert found.told[0] == [ToldSteps(1.0, 2.0, pytest.approx(25 * BIG_STEP, rel=1e-6))]


@pytest.mark.parametrize(
    ("usages", "facts"),
    [
        pytest.param((usage("big"), usage("big")), {}, id="one engine"),
        pytest.param((usage("big"), usage("big", devices=("gpu0", "gpu1"))), {}, id="one model on several devices"),
        pytest.param((usage("x"), usage("y")), {}, id="models of which nobody knows the size"),
        pytest.param((usage("big"), usage("small")), {"method": METHODS["time-share.4"]}, id="equal parts by method"),
        pytest.param((usage("big"), usage("small")), {"method": METHODS["token-share.4"]}, id="tokens by method"),
        pytest.param((usage("big"), usage("small")), {"device": Device(id="c", kind="cpu")}, id="no GPU"),
        pytest.param((), {}, id="nobody"),
    ],
)
def test_where_steps_say_nothing_there_are_none(usages: tuple[Usage, ...], facts: dict[str, Any]) -> None:
    """All who are active pay equal parts of the rest, as before."""
    assert asked(*usages, **facts).steps is None


def test_counted_steps() -> None:
    """50 steps of each in the second; one that counted none did none, and one that does not count tells none."""
    counters = [counted("big"), counted("small"), counted("big", 0.0, start=T + 2, end=T + 3), counted("small", None)]
    found = asked(usage("small"), usage("big"), counters=counters).steps
    assert found is not None
    ((big,), (small,)) = found.told
    assert (big, small) == (
        ToldSteps(1.0, 2.0, pytest.approx(50 * BIG_STEP, rel=1e-6)),
        ToldSteps(1.0, 2.0, pytest.approx(50 * SMALL_STEP, rel=1e-6)),
    )


def test_a_step_of_many_tokens_reads_more_experts() -> None:
    """Half of the weights for one token, three quarters for the two that 50 steps of 100 tokens have."""
    counters = [counted("experts", prefill_tokens=40.0, decode_tokens=60.0)]
    found = asked(usage("small"), usage("experts"), counters=counters).steps
    assert found is not None
    assert found.told[0] == [ToldSteps(1.0, 2.0, pytest.approx(50 * 1.5 * BIG_STEP, rel=1e-6))]


def test_counters_that_may_be_of_two_engines_are_not_taken() -> None:
    """Two servers that tell one model may be one by two addresses."""
    twice = [counted("big"), counted("big", server="another"), counted("small")]
    found = asked(usage("small"), usage("big"), counters=twice).steps
    assert found is not None
    assert [len(each) for each in found.told] == [0, 1]


def test_requests_of_another_device_are_no_engines_of_this_one() -> None:
    """Only those that are on it count."""
    found = asked(usage("big"), usage("small", devices=("gpu1",)))
    assert (len(found), found.steps) == (1, None)
    assert np.array_equal(found.start, [1.0])
