"""What requests ask of a device: worked by hand for 8e9 parameters on an H100 with 110 W idle.

A token: 1.6e10 FLOP x (1.2e-12 J + 110 W / (989e12 x 0.45)) = 0.02315461 J. A context token read: 131 072 B x
(0.18e-9 J + 110 W / (3.35e12 x 0.75)) = 2.933143e-5 J. 1 000 fresh tokens and 100 made: prefill 23.15461 J, decode
2.315461 J + 1 000 x 100 reads = 2.933143 J, and 100 x 100 / 2 reads of a growing context = 0.1466572 J.
"""

import pytest
from asked_on import asked_on

from collectors.readings import Device, HostProfile, ModelFacts
from monitor.core.attribution.requests import Requests
from monitor.core.demand import demand_of
from monitor.core.usage import Usage
from monitor.core.usage_columns import columns_of

GPU = Device(id="gpu0", kind="gpu", hardware="NVIDIA H100 80GB HBM3")
MODEL = ModelFacts(name="m", parameters=8e9, kv_bytes_per_token=131_072.0)
PROFILE = HostProfile(host="h1", zone="FR", pue=1.0, devices=(GPU,), models=(MODEL,))


def usage(
    *,
    devices: tuple[str, ...] = ("gpu0",),
    first_token: float | None = 102.0,
    input_tokens: int = 1_000,
    cached_input_tokens: int = 0,
    output_tokens: int = 100,
) -> Usage:
    """A request from 101 s to 104 s."""
    return Usage(
        host="h1",
        namespace="default",
        request_id="r",
        model="m",
        team="t",
        devices=devices,
        start=101.0,
        first_token=first_token,
        end=104.0,
        input_tokens=input_tokens,
        cached_input_tokens=cached_input_tokens,
        output_tokens=output_tokens,
    )


def asked(*usages: Usage, idle_watts: float | None = 110.0, device: Device = GPU) -> Requests:
    """What they ask of the device in a window that begins at 100 s."""
    demand = demand_of(columns_of(usages), 100.0)
    return asked_on(demand, device, PROFILE, idle_watts=idle_watts)


def test_marginals_hold_static_power_for_the_time_of_the_work() -> None:
    """Tokens and context reads are priced with the idle power that their time on the roofline takes."""
    found = asked(usage())
    assert (found.start.tolist(), found.first.tolist(), found.end.tolist()) == ([1.0], [2.0], [4.0])
    assert found.prefill_joules == pytest.approx([23.15461], rel=1e-6)
    assert found.decode_joules == pytest.approx([5.248604], rel=1e-6)
    assert found.growing_joules == pytest.approx([0.1466572], rel=1e-6)


def test_an_idle_power_of_zero_is_a_known_one() -> None:
    """At 0 W idle no static power is added: 1 000 x 1.6e10 FLOP x 1.2e-12 J. Where unknown, the table's 70 W are."""
    assert asked(usage(), idle_watts=0.0).prefill_joules == pytest.approx([19.2], rel=1e-9)
    assert asked(usage(), idle_watts=None).prefill_joules == pytest.approx([21.71658], rel=1e-6)


def test_a_cached_prefix_is_read_and_not_computed() -> None:
    """Of 1 000 tokens 850 cached: 150 are computed, and decoding still reads all 1 000."""
    found = asked(usage(cached_input_tokens=850))
    assert found.prefill_joules == pytest.approx([3.473192], rel=1e-6)
    assert found.decode_joules == pytest.approx([5.248604], rel=1e-6)


def test_a_group_of_two_devices_takes_half_each() -> None:
    """Tensor parallelism splits the work evenly."""
    assert asked(usage(devices=("gpu0", "gpu1"))).prefill_joules == pytest.approx([11.577305], rel=1e-6)


def test_work_moves_to_the_part_that_exists() -> None:
    """Without a time of prefill or of decoding, the other part carries all."""
    no_decode = asked(usage(first_token=104.0))
    assert no_decode.prefill_joules == pytest.approx([23.15461 + 5.248604 + 0.1466572], rel=1e-6)
    assert (no_decode.decode_joules.tolist(), no_decode.growing_joules.tolist()) == ([0.0], [0.0])
    assert asked(usage(first_token=101.0)).decode_joules == pytest.approx([5.248604 + 23.15461], rel=1e-6)


def test_an_untold_first_token_is_taken_from_the_usual_speed_of_prefill() -> None:
    """1 000 tokens x 1.6e10 FLOP at 4.4505e14 FLOP/s are 0.03595 s; others in the same window keep what they told."""
    found = asked(usage(first_token=None), usage())
    assert found.first == pytest.approx([1.035951, 2.0], rel=1e-6)


def test_a_request_that_makes_no_tokens_is_all_prefill() -> None:
    """An embedding: no first token, no output."""
    assert asked(usage(first_token=None, output_tokens=0)).first.tolist() == [4.0]


def test_what_is_no_gpu_has_no_prices() -> None:
    """On a CPU those active share equally."""
    found = asked(usage(), device=Device(id="cpu0", kind="cpu"), idle_watts=None)
    assert (found.prefill_joules.tolist(), found.decode_joules.tolist()) == ([0.0], [0.0])


def test_a_context_is_read_once_for_all_tokens_of_a_step() -> None:
    """Of a model that makes 2.5 tokens in a step its context costs 1/2.5 of the same without."""
    demand = demand_of(columns_of([usage()]), 100.0)
    plain = asked_on(demand, GPU, PROFILE, idle_watts=110.0)
    for told in ({"m": 2.5}, {"": 2.5}):
        at_once = asked_on(demand, GPU, PROFILE, idle_watts=110.0, tokens_per_step=told)
        assert at_once.growing_joules[0] == pytest.approx(plain.growing_joules[0] / 2.5)
        assert at_once.prefill_joules[0] == plain.prefill_joules[0]
    other = asked_on(demand, GPU, PROFILE, idle_watts=110.0, tokens_per_step={"other": 2.5})
    assert other.growing_joules[0] == plain.growing_joules[0]
