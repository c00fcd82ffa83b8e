"""What servers counted, as FLOPs and bytes, worked by hand."""

from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from collectors.readings import EngineReading
from monitor.core.attribution.models import UNKNOWN_MODEL, TokenCost, token_cost
from monitor.core.attribution.work import Work, tokens_per_step, work_told

DENSE = TokenCost(
    flops_per_token=1.6e10, kv_bytes_per_token=131_072.0, weight_bytes=16e9, all_weight_bytes=16e9, source="given"
)
SECOND = EngineReading(
    server="vllm-8000",
    model="m",
    devices=("g0",),
    start=0.0,
    end=1.0,
    steps=90.0,
    prefill_tokens=1_000.0,
    decode_tokens=450.0,
    kv_tokens=40_000.0,
)
NEIGHBOUR = EngineReading(server="ollama", model="", devices=("g0",), start=-9.0, end=1.0)
"""A server that tells nothing of ten seconds."""


def told(*readings: EngineReading, cost: TokenCost = DENSE, end: float = 1.0) -> Work | None:
    """The work of [0, end)."""
    return work_told(readings, lambda _model: cost, 0.0, end)


def test_the_docstrings_second() -> None:
    """1 450 tokens of 16 GFLOP; 90 x (16 GB of weights and 5.24288 GB of KV)."""
    work = told(SECOND)
    assert work is not None
    assert work.flops == pytest.approx(2.32e13)
    assert work.bytes == pytest.approx(90 * (16e9 + 5.24288e9))


def test_a_group_of_four_has_a_quarter_each() -> None:
    """Tensor parallel: each board computes and reads its part."""
    work, whole = told(replace(SECOND, devices=("g0", "g1", "g2", "g3"))), told(SECOND)
    assert work is not None
    assert whole is not None
    assert work.flops == pytest.approx(whole.flops / 4)
    assert work.bytes == pytest.approx(whole.bytes / 4)


def test_what_reaches_over_the_border_counts_in_proportion() -> None:
    """[-1, 1) at the border of [0, 1): a half; two models on one board add up."""
    work = told(replace(SECOND, start=-1.0), replace(SECOND, server="vllm-8001", model="n"))
    assert work is not None
    assert work.flops == pytest.approx(1.5 * 2.32e13)


def test_of_experts_a_step_of_many_tokens_reads_more() -> None:
    """22e9 of 235e9 parameters at two bytes: 44 GB for one token, 470 GB x (1 - (213/235)^16) for 16, at most all."""
    cost = token_cost("house-235B-A22B", None)
    assert cost.step_bytes(1.0) == pytest.approx(44e9)
    assert cost.step_bytes(16.0) == pytest.approx(372.4e9, rel=1e-3)
    assert cost.step_bytes(1e6) == pytest.approx(470e9)
    assert DENSE.step_bytes(256.0) == 16e9


@pytest.mark.parametrize(
    ("model", "weight_bytes"),
    [("house-8b", 16e9), ("house-8b-instruct-FP8", 8e9), ("house-8b-AWQ", 4e9), ("house-8x7b", 28e9)],
)
def test_the_name_tells_the_size_of_a_weight(model: str, weight_bytes: float) -> None:
    """Two bytes unless it says otherwise; of eight experts two are active."""
    assert token_cost(model, None).weight_bytes == pytest.approx(weight_bytes)


@dataclass(frozen=True)
class Silent:
    why: str
    readings: tuple[EngineReading, ...]
    end: float = 1.0


@pytest.mark.parametrize(
    "case",
    [
        Silent("no server", ()),
        Silent("no steps", (replace(SECOND, steps=None),)),
        Silent("no prompts", (replace(SECOND, prefill_tokens=None),)),
        Silent("no tokens", (replace(SECOND, decode_tokens=None),)),
        Silent("no context", (replace(SECOND, kv_tokens=None),)),
        Silent("a second of ten", (SECOND,), 10.0),
        Silent("one of two not seen all the time", (SECOND, replace(SECOND, server="b", model="n", end=0.5))),
        Silent("one model by two names", (SECOND, replace(SECOND, server="10.0.0.5:8000"))),
        Silent("a neighbour that tells nothing", (SECOND, NEIGHBOUR)),
    ],
    ids=lambda case: case.why,
)
def test_what_is_not_told_whole_is_not_guessed(case: Silent) -> None:
    """None, which is not zero work."""
    assert told(*case.readings, end=case.end) is None


def test_of_a_model_that_nobody_knows_nothing_is_known() -> None:
    """Neither its FLOPs nor its bytes."""
    assert told(SECOND, cost=UNKNOWN_MODEL) is None


def test_a_quiet_server_did_nothing() -> None:
    """Zero is told, and is zero."""
    assert told(replace(SECOND, steps=0.0, prefill_tokens=0.0, decode_tokens=0.0, kv_tokens=0.0)) == Work(0.0, 0.0)


def test_tokens_that_a_request_makes_in_a_step() -> None:
    """2 000 tokens of 100 steps with 8 running are 2.5 each; 900 of them are 1.1, which is taken as 1."""
    speculating = replace(SECOND, steps=100.0, running=8.0, decode_tokens=2_000.0)
    plain = replace(SECOND, model="n", steps=100.0, running=8.0, decode_tokens=900.0)
    assert tokens_per_step([speculating]) == {"m": 2.5, "": 2.5}
    assert tokens_per_step([speculating, plain]) == {"m": 2.5, "n": 1.0}
    assert tokens_per_step([plain]) == {"n": 1.0, "": 1.0}
    assert tokens_per_step([]) == {}


@pytest.mark.parametrize("silent", [{"steps": None}, {"steps": 0.0}, {"running": None}, {"decode_tokens": None}])
def test_what_is_not_told_makes_no_ratio(silent: dict[str, float | None]) -> None:
    """Nothing is divided by what nobody knows."""
    assert tokens_per_step([replace(SECOND, **({"running": 8.0} | silent))]) == {}


def test_nobody_running_at_the_ends_of_the_readings_is_no_speculation() -> None:
    """Short requests that came and went in between."""
    assert tokens_per_step([replace(SECOND, running=0.0)]) == {"m": 1.0, "": 1.0}
