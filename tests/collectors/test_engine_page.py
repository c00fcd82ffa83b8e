"""What each server's page tells, by hand, and that nothing bad on it ever becomes a number."""

import pytest
from engine_pages import (
    LLAMA_CPP,
    SGLANG,
    SGLANG_BEFORE,
    TENSORRT_LLM,
    TGI,
    TRITON,
    VLLM,
    VLLM_V0,
    VLLM_V1_BEFORE,
)
from hypothesis import given
from hypothesis import strategies as st

from collectors.engine_names import KINDS
from collectors.engine_page import MOST_MODELS, EnginePage, read_page
from collectors.engine_sample import EngineSample


def told(text: str) -> EnginePage:
    found = read_page(text.encode())
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("page", "kind", "model", "figures"),
    [
        (
            VLLM,
            "vllm",
            "llama",
            {
                "steps_total": 500.0,  # 410 + 90: the histogram's count, not its sum
                "prefill_tokens_total": 2_200.0,  # 1 000 + 1 200 computed
                "cached_tokens_total": 2_000.0,
                "decode_tokens_total": 3_000.0,
                "running": 5.0,
                "waiting": 1.0,
                "kv_tokens": 16_000.0,  # 0.5 x 1 000 x 16 + 0.25 x 2 000 x 16
            },
        ),
        (
            VLLM_V1_BEFORE.replace("HITS", "0.0"),
            "vllm",
            "llama",
            {"steps_total": 410.0, "prefill_tokens_total": 3_000.0, "cached_tokens_total": 0.0, "running": 3.0},
        ),
        (
            VLLM_V1_BEFORE.replace("HITS", "1200.0"),  # prompts hold them, and they may be counted several times
            "vllm",
            "llama",
            {"steps_total": 410.0, "running": 3.0},
        ),
        (
            VLLM_V0,
            "vllm",
            "llama",
            {
                "prefill_tokens_total": 3_000.0,
                "decode_tokens_total": 2_500.0,
                "running": 3.0,
                "waiting": 0.0,
                "kv_tokens": 2_000.0,  # 0.125 x 1 000 x 16
            },
        ),
        (
            SGLANG,
            "sglang",
            "qwen",
            {
                "steps_total": 750.0,
                "prefill_tokens_total": 6_000.0,
                "cached_tokens_total": 1_500.0,
                "decode_tokens_total": 2_900.0,  # the larger of two ranks that show the same
                "running": 9.0,  # 4 + 5: no copy, no priority's part
                "waiting": 2.0,
                "kv_tokens": 8_192.0,
            },
        ),
        (SGLANG_BEFORE, "sglang", "qwen", {"running": 4.0}),
        (TGI, "tgi", "", {"steps_total": 1_000.0, "running": 5.0, "waiting": 2.0}),
        (
            LLAMA_CPP,
            "llama.cpp",
            "",
            {
                "steps_total": 424.0,
                "prefill_tokens_total": 77_454.0,
                "cached_tokens_total": 129_725.0,
                "running": 3.0,
                "waiting": 1.0,
            },
        ),
        (
            TENSORRT_LLM,
            "tensorrt-llm",
            "nemotron",
            {
                "prefill_tokens_total": 9_600.0,
                "cached_tokens_total": 320.0,
                "running": 6.0,
                "waiting": 0.0,
                "kv_tokens": 1_600.0,
            },
        ),
        (
            TRITON,
            "triton",
            "tensorrt_llm",
            {"steps_total": 777.0, "running": 4.0, "waiting": 1.0, "kv_tokens": 640.0},
        ),
    ],
)
def test_each_server_s_page_is_known_by_its_names(page: str, kind: str, model: str, figures: dict[str, float]) -> None:
    """What it tells, and nothing else: a figure that it does not tell is absent."""
    assert told(page) == EnginePage(kind=kind, models={model: figures}, bad=frozenset())


def test_the_table_makes_figures_of_a_sample_alone() -> None:
    """Every figure that any kind has is a field of EngineSample."""
    assert {figure for kind in KINDS for figure in kind.figures} <= set(EngineSample._fields)


def test_several_models_on_a_page_are_apart() -> None:
    """Two models of one server, their engines summed each for itself."""
    twins = [(line, line.replace("llama", "qwen").replace(" 410.0", " 10.0")) for line in VLLM.splitlines()]
    models = told("".join(f"{one}\n{other}\n" if one != other else f"{one}\n" for one, other in twins)).models
    assert {model: figures["steps_total"] for model, figures in models.items()} == {"llama": 500.0, "qwen": 100.0}


def test_a_page_that_names_ever_new_models_does_not_fill_the_memory() -> None:
    """64 are kept."""
    page = "".join(f'vllm:num_requests_running{{model_name="m{each}"}} 1\n' for each in range(1_000))
    assert len(told(page).models) == MOST_MODELS


def test_no_page_of_a_model_server_is_none() -> None:
    """Another exporter's, an empty one, one that has a name in the middle of a line."""
    assert read_page(b"") is None
    assert read_page(b"# vllm:num_requests_running\nnode_load1 0.3\n") is None


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "-1", "1e16", "many", "", "1_0"])
@pytest.mark.parametrize(
    ("metric", "figure"),
    [
        ("vllm:iteration_tokens_total_count", "steps_total"),
        ("vllm:prompt_tokens_by_source_total", "prefill_tokens_total"),
        ("vllm:kv_cache_usage_perc", "kv_tokens"),
        ("vllm:num_requests_waiting", "waiting"),
    ],
)
def test_a_value_that_is_none_is_named_and_makes_its_figure_untold(metric: str, figure: str, value: str) -> None:
    """One engine's is enough: the sum of the others would be too little. All other figures stand."""
    lines = VLLM.splitlines()
    place = next(at for at, line in enumerate(lines) if line.startswith(metric + "{"))
    lines[place] = lines[place].rpartition(" ")[0] + f" {value}"
    page = told("\n".join(lines) + "\n")
    whole = dict(told(VLLM).models["llama"])
    del whole[figure]
    assert page.models == {"llama": whole}
    assert page.bad == {metric}


@pytest.mark.parametrize(
    "line", ['vllm:generation_tokens_total{model_name="llama" 9\n', "vllm:generation_tokens_total {"]
)
def test_a_line_that_cannot_be_read_spoils_its_metric_alone(line: str) -> None:
    """Whose it is cannot be known either; a page that breaks off in the middle of a number is such a line."""
    page = told(VLLM.replace("# HELP vllm:generation_tokens_total", f"{line.rstrip()}\n# HELP x", 1))
    assert "decode_tokens_total" not in page.models["llama"]
    assert page.models["llama"]["steps_total"] == 500.0
    assert page.bad == {"vllm:generation_tokens_total"}


def test_a_page_that_is_cut_off_tells_nothing_of_its_last_line() -> None:
    """424 cut to 42 would be a wrong number."""
    cut = LLAMA_CPP[: LLAMA_CPP.index("llamacpp:n_decode_total 42") + len("llamacpp:n_decode_total 42")]
    page = told(cut)
    assert page.models == {"": {"prefill_tokens_total": 77_454.0, "cached_tokens_total": 129_725.0}}
    assert page.bad == {"llamacpp:n_decode_total"}


def test_a_metric_of_another_name_is_not_taken_for_it() -> None:
    """Renamed in a version to come: not told, and never another one's number."""
    page = told(VLLM.replace("vllm:iteration_tokens_total", "vllm:iteration_tokens"))
    assert "steps_total" not in page.models["llama"]
    assert page.bad == frozenset()


@given(before=st.binary(max_size=60), place=st.integers(0, len(VLLM)), length=st.integers(0, 40))
def test_no_bytes_make_a_number_out_of_range(before: bytes, place: int, length: int) -> None:
    """Whatever stands in the middle of a page: figures are finite, from 0 to 2^53, or not told."""
    raw = VLLM.encode()
    found = read_page(raw[:place] + before + raw[place + length :])
    values = [] if found is None else [value for each in found.models.values() for value in each.values()]
    assert all(0.0 <= value <= 2.0**53 for value in values)
