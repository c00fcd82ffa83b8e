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
from monitor.core.attribution.open_models import open_model
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
        flops_per_token=1.6e10,
        kv_bytes_per_token=131_072.0,
        weight_bytes=16e9,
        all_weight_bytes=94e9,
        source="given",
        kv_estimated=True,
    )


def test_without_facts_the_name_tells_and_else_nothing_is_known() -> None:
    """Facts that leave out the parameters are none."""
    assert token_cost("chat-8b", ModelFacts(name="chat-8b", bytes_per_parameter=2.0)) == TokenCost(
        flops_per_token=1.6e10,
        kv_bytes_per_token=131_072.0,
        weight_bytes=16e9,
        all_weight_bytes=16e9,
        source="name",
        kv_estimated=True,
    )
    assert token_cost("gpt-4o", None) == UNKNOWN_MODEL


@pytest.mark.parametrize(
    ("name", "parameters", "active", "kv_bytes"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", 8.03e9, 8.03e9, 131_072.0),  # 2 x 32 x 8 x 128 x 2
        ("Meta-Llama-3-8B", 8.03e9, 8.03e9, 131_072.0),
        ("llama-3.1-70b-instruct-awq", 70.6e9, 70.6e9, 327_680.0),  # 2 x 80 x 8 x 128 x 2
        ("Qwen/Qwen3-30B-A3B-Instruct-2507-FP8", 30.5e9, 3.3e9, 98_304.0),  # 2 x 48 x 4 x 128 x 2
        ("Qwen/Qwen3-235B-A22B", 235.1e9, 22.2e9, 192_512.0),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", 46.7e9, 12.9e9, 131_072.0),
        ("openai/gpt-oss-120b", 116.8e9, 5.1e9, 73_728.0),
        ("deepseek-ai/DeepSeek-V3-0324", 671e9, 37e9, 70_272.0),
        ("llama_2_13b_chat", 13.02e9, 13.02e9, 819_200.0),
    ],
)
def test_an_open_model_is_known_by_name(name: str, parameters: float, active: float, kv_bytes: float) -> None:
    """Under the organisation's name, with what follows the size, in any case."""
    assert open_model(name) == pytest.approx((parameters, active, kv_bytes))


@pytest.mark.parametrize(
    "name",
    [
        "DeepSeek-R1-Distill-Llama-8B",
        "phi-4-mini-instruct",
        "Qwen3-VL-8B",
        "qwen3-80b",
        "llama-3.1-8bx",
        "my-phi-42",
        "",
    ],
)
def test_a_name_that_begins_alike_is_not_taken_for_another(name: str) -> None:
    """Their sizes are read off their names, if these tell any."""
    assert open_model(name) is None


def test_what_is_given_comes_before_the_table_and_leaves_the_rest_to_it() -> None:
    """Served with a cache of 8 bits: half the KV bytes; parameters told and no KV bytes: those of the table."""
    eight_bits = ModelFacts(name="llama-3.1-8b", parameters=8.03e9, kv_bytes_per_token=65_536.0)
    assert token_cost("llama-3.1-8b", eight_bits).kv_bytes_per_token == 65_536.0
    cost = token_cost("llama-2-13b", ModelFacts(name="llama-2-13b", parameters=13.0e9))
    assert (cost.kv_bytes_per_token, cost.flops_per_token, cost.source) == (819_200.0, 2.6e10, "given")
    assert token_cost("llama-2-13b", None).source == "table"


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
