"""What the model servers call their counters: one table, by kind of server, newest names first.

The first of a figure's formulas whose metrics are on the page tells it. Only what moves while requests run
is here: TGI (`tgi_request_generated_tokens`), llama.cpp (`tokens_predicted_total`), TensorRT-LLM
(`trtllm_generation_tokens_total`) and SGLang (`sglang:generation_tokens_total`) count tokens when a request ends, which
says nothing of the second that it ends in: not told. Step counters: vLLM since V1, SGLang since it counts passes of
prefill too, TGI, llama.cpp and Triton's TensorRT-LLM backend have one; vLLM V0 and trtllm-serve have none.

Read 2026-11-27 in the projects' sources: vLLM vllm/v1/metrics/loggers.py and stats.py (from 0.8 on; V0:
vllm/engine/metrics.py), SGLang python/sglang/srt/observability/metrics_collector.py and scheduler_metrics_mixin.py,
text-generation-inference docs/source/reference/metrics.md and its router, llama.cpp tools/server/server-task.cpp,
TensorRT-LLM tensorrt_llm/metrics/collector.py, Triton's tensorrtllm_backend README.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple


class Pick(NamedTuple):
    """Rows of one metric: those that have one of `values` in the label `where`, all of them where there is no `where`.

    Their number is the row's value, or stands in the label `in_label`.
    """

    name: str
    where: str = ""
    values: tuple[str, ...] = ()
    in_label: str = ""


class Total(NamedTuple):
    """The sum of these, each of which has to be there. `none_of`: told only while those are 0 or not there at all."""

    picks: tuple[Pick, ...]
    none_of: tuple[Pick, ...] = ()


class Product(NamedTuple):
    """These multiplied, engine by engine, and then summed over the engines. A factor without a model holds for all."""

    factors: tuple[Pick, ...]


Formula = Total | Product


class Kind(NamedTuple):
    """A kind of server. Its page is known by a line that begins with `mark`.

    `model` are the labels that name the model, () where the page does not. The label `engine` tells engines of one
    server apart, which are summed. Rows that differ in `copies` alone say the same of another rank: the largest counts.
    Rows with anything in the label `subset` are part of another row.
    """

    name: str
    mark: str
    figures: Mapping[str, tuple[Formula, ...]]
    model: tuple[str, ...] = ()
    engine: str = ""
    copies: tuple[str, ...] = ()
    subset: str = ""


def _one(name: str, where: str = "", value: str = "") -> Total:
    return Total((Pick(name, where, (value,)),))


_HITS: Final = (Pick("vllm:prefix_cache_hits_total"), Pick("vllm:gpu_prefix_cache_hits_total"))
_VLLM: Final = Kind(
    name="vllm",
    mark="vllm:",
    model=("model_name", "model"),  # "model": as Triton's vLLM backend shows it
    engine="engine",
    figures={
        # A histogram of the tokens in each step, despite its name: it is observed once per step.
        "steps_total": (_one("vllm:iteration_tokens_total_count"),),
        # Where the sources are not told apart, prompts hold what came from the cache, and V1 counts the hits of a
        # request again in each step that it waits for room: the difference would be wrong, so it is not told.
        "prefill_tokens_total": (
            _one("vllm:prompt_tokens_by_source_total", "source", "local_compute"),
            Total((Pick("vllm:prompt_tokens_total"),), none_of=_HITS),
        ),
        "cached_tokens_total": (
            _one("vllm:prompt_tokens_cached_total"),
            Total(_HITS[:1], none_of=_HITS),
            Total(_HITS[1:], none_of=_HITS),
        ),
        "decode_tokens_total": (_one("vllm:generation_tokens_total"),),
        "running": (_one("vllm:num_requests_running"),),
        "waiting": (_one("vllm:num_requests_waiting"),),
        "kv_tokens": tuple(
            Product(
                (
                    Pick(usage),
                    Pick("vllm:cache_config_info", in_label="num_gpu_blocks"),
                    Pick("vllm:cache_config_info", in_label="block_size"),
                )
            )
            for usage in ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
        ),
    },
)
_PASSES: Final = "sglang:cuda_graph_passes_total"
_SGLANG: Final = Kind(
    name="sglang",
    mark="sglang:",
    model=("model_name",),
    engine="dp_rank",
    copies=("tp_rank", "pp_rank", "moe_ep_rank"),
    subset="priority",
    figures={
        "steps_total": (
            Total(
                (
                    Pick(_PASSES, "mode", ("prefill_cuda_graph", "prefill_none")),
                    Pick(_PASSES, "mode", ("decode_cuda_graph", "decode_none")),
                )
            ),
        ),
        "prefill_tokens_total": (_one("sglang:realtime_tokens_total", "mode", "prefill_compute"),),
        "cached_tokens_total": (_one("sglang:realtime_tokens_total", "mode", "prefill_cache"),),
        "decode_tokens_total": (_one("sglang:realtime_tokens_total", "mode", "decode"),),
        "running": (_one("sglang:num_running_reqs"),),
        "waiting": (_one("sglang:num_queue_reqs"),),
        "kv_tokens": (_one("sglang:kv_used_tokens"), _one("sglang:num_used_tokens")),
    },
)
_TGI: Final = Kind(
    name="tgi",
    mark="tgi_",
    figures={
        "steps_total": (_one("tgi_batch_inference_count"),),  # calls of prefill and of decode
        "running": (_one("tgi_batch_current_size"),),
        "waiting": (_one("tgi_queue_size"),),
    },
)
_LLAMA_CPP: Final = Kind(
    name="llama.cpp",
    mark="llamacpp:",
    figures={
        "steps_total": (_one("llamacpp:n_decode_total"),),  # calls of llama_decode(), which is a step of either kind
        "prefill_tokens_total": (_one("llamacpp:prompt_tokens_total"),),  # when a prompt is done; cached ones apart
        "cached_tokens_total": (_one("llamacpp:prompt_tokens_cached_total"),),
        "running": (_one("llamacpp:requests_processing"),),
        "waiting": (_one("llamacpp:requests_deferred"),),
        "kv_tokens": (_one("llamacpp:kv_cache_tokens"),),  # until mid-2025
    },
)
_TENSORRT_LLM: Final = Kind(
    name="tensorrt-llm",
    mark="trtllm_",
    model=("model_name",),
    figures={
        "prefill_tokens_total": (_one("trtllm_prefill_batch_tokens_sum"),),
        "cached_tokens_total": (_one("trtllm_prompt_cache_hit_tokens_total"),),
        "running": (_one("trtllm_num_requests_running"),),
        "waiting": (_one("trtllm_num_requests_waiting"),),
        "kv_tokens": (Product((Pick("trtllm_kv_cache_used_blocks"), Pick("trtllm_kv_cache_tokens_per_block"))),),
    },
)
_BLOCKS: Final = "nv_trt_llm_kv_cache_block_metrics"
_TRITON: Final = Kind(
    name="triton",
    mark="nv_trt_llm_",
    model=("model",),
    figures={
        "steps_total": (_one("nv_trt_llm_general_metrics", "general_type", "iteration_counter"),),
        "running": (_one("nv_trt_llm_request_metrics", "request_type", "active"),),
        "waiting": (_one("nv_trt_llm_request_metrics", "request_type", "waiting"),),
        "kv_tokens": (
            Product(
                (
                    Pick(_BLOCKS, "kv_cache_block_type", ("used",)),
                    Pick(_BLOCKS, "kv_cache_block_type", ("tokens_per",)),
                )
            ),
        ),
    },
)

KINDS: Final = (_VLLM, _SGLANG, _TGI, _LLAMA_CPP, _TENSORRT_LLM, _TRITON)


def kind_of(page: bytes) -> Kind | None:
    """Whose page it is, which begins with a line end; None for nobody's in the table. A version is never looked for."""
    return next((kind for kind in KINDS if b"\n" + kind.mark.encode() in page), None)


def needed_by(formula: Formula) -> tuple[Pick, ...]:
    """What has to be on the page for it to be used."""
    return formula.factors if isinstance(formula, Product) else formula.picks
