"""Prefill and decode on servers of their own: an event for each phase, and each meter pays its own phase."""

from collections.abc import Sequence

import pytest

from collectors.readings import Device, EnergyReading, HostProfile, ModelFacts
from monitor.core.account import account
from monitor.core.explain import Part, watching
from monitor.core.points import USAGE
from monitor.core.readings import Told
from monitor.core.usage import Usage
from monitor.core.usage_columns import columns_of

T = 1_728_000_000.0
MODEL = ModelFacts(name="m", parameters=8e9, bytes_per_parameter=2.0, kv_bytes_per_token=1e5)
H100 = "NVIDIA H100 80GB HBM3"
PREFILL = Usage(
    request_id="r",
    model="m",
    start=T + 1.0,
    first_token=T + 1.4,
    end=T + 1.4,
    namespace="",
    team="t",
    host="prefill-1",
    devices=("p0",),
    input_tokens=10_000,
    output_tokens=0,
)
DECODE = Usage(
    request_id="r",
    attempt=1,
    model="m",
    start=T + 1.4,
    first_token=T + 1.4,
    end=T + 7.4,
    namespace="",
    team="t",
    host="decode-1",
    devices=("d0",),
    input_tokens=10_000,
    cached_input_tokens=10_000,
    output_tokens=300,
)


def part_of(usage: Usage, watts: Sequence[float]) -> tuple[Part, dict[str, float]]:
    """Its part of its host's first window, in readings of 0.2 s at these watts, and what `usage` counts there."""
    (device,) = usage.devices or ("",)
    gpu = Device(id=device, kind="gpu", hardware=H100, idle_watts=70.0)
    profile = HostProfile(host=usage.host, devices=(gpu,), models=(MODEL,))
    readings = [
        EnergyReading(
            device=device, start=T + 0.2 * at, end=T + 0.2 * (at + 1), energy_joules=0.2 * each, method="counter"
        )
        for at, each in enumerate(watts)
    ]
    told: list[Part] = []
    found = account(
        usage.host,
        T,
        T + 10.0,
        readings=[Told(reading, profile) for reading in readings],
        usages=columns_of([usage]),
        nearby=lambda _device, _start, _end: [],
        intensity_at=lambda _zone, _at: None,
        revision=0,
        watch=watching(("", "r", usage.attempt, usage.start), T, 10.0, told.append),
    )
    (row,) = [row for row in found.rows if row.measurement == USAGE.name]
    counts = {name: float(value or 0.0) for name, value in zip(USAGE.fields, row.fields, strict=True)}
    return told[0], counts


def test_each_phase_pays_on_its_own_meter() -> None:
    """Prefill: 0.4 s at 600 W on one host; decode: 6 s at 285 and 315 W (no level that a power limit
    would hold) on the other: 240 J and 1 800 J.

    Priced at the priors (attribution/priors.py), 70 W idle included: a token's FLOPs are 0.0217 J, so the prompt is
    217.2 J. The answer is 300 x 0.0217 J, and reads 300 x 10 000 + 300^2 / 2 tokens of context, 1e5 bytes each, at
    0.208 nJ: 6.5 + 63.3 J. The decode computes no prompt.
    """
    prefill, counted = part_of(PREFILL, [70.0] * 5 + [600.0] * 2 + [70.0] * 43)
    assert prefill.energy_joules == pytest.approx(240.0)
    assert (counted["requests"], counted["input_tokens"], counted["output_tokens"]) == (1.0, 10_000.0, 0.0)
    decode, counted = part_of(DECODE, [70.0] * 7 + [285.0, 315.0] * 15 + [70.0] * 13)
    assert decode.energy_joules == pytest.approx(1_800.0)
    assert (counted["input_tokens"], counted["cached_input_tokens"], counted["output_tokens"]) == (
        10_000.0,
        10_000.0,
        300.0,
    )
    assert prefill.priced_joules == pytest.approx(217.2, rel=0.01)
    assert decode.priced_joules == pytest.approx(69.8, rel=0.01)
    assert (prefill.own_joules, decode.own_joules) == (
        pytest.approx(prefill.priced_joules),
        pytest.approx(decode.priced_joules),
    )
