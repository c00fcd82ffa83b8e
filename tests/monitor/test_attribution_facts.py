"""What is known of boards and models, and what a token costs by it."""

import pytest

from collectors.readings import ModelFacts
from monitor.core.attribution.hardware import Hardware, hardware_of
from monitor.core.attribution.models import (
    UNKNOWN_MODEL,
    TokenCost,
    active_parameters_in,
    token_cost,
    typical_kv_bytes,
)
from monitor.core.attribution.priors import Marginals, marginals, prefill_seconds


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA A100-PCIE-40GB", "A100"),
        ("NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB"),
        ("NVIDIA A100 80GB PCIe", "A100 80GB"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIE"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA GB200", "GB200"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40", "L40"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA A40", "A40"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("Tesla T4", "T4"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("AMD Instinct MI300X", "MI300X"),
    ],
)
def test_a_board_is_found_by_the_name_its_maker_gives(name: str, key: str) -> None:
    """The names as the driver tells them."""
    hardware = hardware_of(name)
    assert hardware is not None
    assert hardware.name == key


@pytest.mark.parametrize(
    "name", ["", "NVIDIA RTX A4000", "NVIDIA RTX A1000", "NVIDIA T400", "NVIDIA H20", "NVIDIA A2", "NVIDIA A30"]
)
def test_a_board_that_is_not_in_the_table_is_not_taken_for_another(name: str) -> None:
    """Part of a name is not a name."""
    assert hardware_of(name) is None


def test_the_data_sheet_is_in_base_units() -> None:
    """An A100 of 40 GB: 312 TFLOP/s, 1 555 GB/s."""
    assert hardware_of("NVIDIA A100-SXM4-40GB") == Hardware(
        name="A100",
        peak_flops_per_second=312e12,
        peak_bytes_per_second=1_555e9,
        idle_watts=50,
        power_limit_watts=400,
    )


@pytest.mark.parametrize(
    ("model", "billions"),
    [
        ("llama2-13b", 13.0),
        ("Llama-2-70b-chat-hf", 70.0),
        ("falcon-7b", 7.0),
        ("meta-llama/Llama-3.1-8B-Instruct", 8.0),
        ("qwen2.5-0.5b", 0.5),
        ("llama3:8b_q4", 8.0),
        ("llama-7b-4bit", 7.0),
        ("Qwen3-235B-A22B-Instruct", 22.0),
        ("Qwen3-30B-A3B", 3.0),
        ("Mixtral-8x7B", 14.0),
        ("gpt-4o", None),
        ("phi-3-mini-128k", None),
        ("text-embedding", None),
        ("model-v2beta", None),
        ("", None),
    ],
)
def test_a_size_is_read_off_the_name(model: str, billions: float | None) -> None:
    """Active parameters, or nothing where the name tells none."""
    assert active_parameters_in(model) == (None if billions is None else pytest.approx(billions * 1e9))


def test_kv_bytes_of_llama() -> None:
    """2 x 32 layers x 8 heads x 128 x 2 B = 131 072 at 8e9; 2 x 80 x 8 x 128 x 2 = 327 680 at 70e9; nothing at 0."""
    assert typical_kv_bytes(8e9) == 131_072.0
    assert typical_kv_bytes(70e9) == pytest.approx(327_680.0, rel=1e-3)
    assert typical_kv_bytes(0.0) == 0.0


def test_given_facts_come_before_the_name() -> None:
    """8.03e9 parameters are 1.606e10 FLOP a token; of a sparse model the active ones count."""
    dense = token_cost("my-70b", ModelFacts(name="my-70b", parameters=8.03e9, kv_bytes_per_token=1_000.0))
    assert dense == TokenCost(
        flops_per_token=1.606e10,
        kv_bytes_per_token=1_000.0,
        weight_bytes=1.606e10,
        all_weight_bytes=1.606e10,
        source="given",
    )
    sparse = token_cost("x", ModelFacts(name="x", parameters=47e9, active_parameters=8e9))
    assert sparse == TokenCost(
        flops_per_token=1.6e10, kv_bytes_per_token=131_072.0, weight_bytes=16e9, all_weight_bytes=94e9, source="given"
    )


def test_without_facts_the_name_tells_and_else_nothing_is_known() -> None:
    """Facts that leave out the parameters are none."""
    assert token_cost("llama-3-8b", ModelFacts(name="llama-3-8b", bytes_per_parameter=2.0)) == TokenCost(
        flops_per_token=1.6e10, kv_bytes_per_token=131_072.0, weight_bytes=16e9, all_weight_bytes=16e9, source="name"
    )
    assert token_cost("gpt-4o", None) == UNKNOWN_MODEL


H100 = Hardware(
    name="H100",
    peak_flops_per_second=989e12,
    peak_bytes_per_second=3_350e9,
    idle_watts=70.0,
    power_limit_watts=700.0,
)
LLAMA_8B = TokenCost(flops_per_token=1.6e10, kv_bytes_per_token=131_072.0, source="given")


def test_the_worked_prior() -> None:
    """0.0192 + 70 / 4.4505e14 x 1.6e10 = 0.021717 J a token, 2.36e-5 + 70 / 2.5125e12 x 131 072 = 2.7245e-5 J read."""
    prices = marginals(LLAMA_8B, H100, 70.0)
    assert prices.prefill_joules == prices.decode_joules == pytest.approx(0.021717, rel=1e-4)
    assert prices.context_joules == pytest.approx(2.7245e-5, rel=1e-4)


def test_an_unknown_model_has_no_marginal_energy() -> None:
    """It pays its equal part only."""
    assert marginals(UNKNOWN_MODEL, H100, 70.0) == Marginals(prefill_joules=0.0, decode_joules=0.0, context_joules=0.0)


def test_the_usual_prefill() -> None:
    """1 000 tokens x 1.6e10 FLOP / (989e12 x 0.45) = 36 ms on one board, 18 ms on two; 0 boards count as one."""
    assert prefill_seconds(LLAMA_8B, H100, 1_000.0, 1) == pytest.approx(0.03595, rel=1e-3)
    assert prefill_seconds(LLAMA_8B, H100, 1_000.0, 2) == pytest.approx(0.01798, rel=1e-3)
    assert prefill_seconds(LLAMA_8B, H100, 1_000.0, 0) == pytest.approx(0.03595, rel=1e-3)
