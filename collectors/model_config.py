"""What a model's own `config.json` (Hugging Face's form) tells of it. In: its bytes. Out: ModelFacts, nameless. Pure.

Parameters are counted from the shapes: embeddings (twice where input and output have their own), attention, and the
layers' networks; of a mixture of experts those that a token is sent to are the active ones. Norms and biases, below a
thousandth of all, are left out. An architecture whose shapes mean something else (state spaces, linear attention) is
passed by, rather than counted wrong.
"""

from typing import Any, Final

import msgspec

from collectors.errors import Rejected
from collectors.readings import ModelFacts

LARGEST_CONFIG_BYTES: Final = 1_048_576
_MOST: Final = 1e14
"""Parameters; none has a tenth of that."""
_TWO_MATRICES: Final = frozenset(
    {"bert", "roberta", "xlm-roberta", "mpnet", "gpt_neox", "gptj", "opt", "bloom", "phi", "mpt", "starcoder2"}
)
"""Whose network is two matrices; all others have a gate too, and three."""
_OTHER_SHAPES: Final = (
    "ssm_cfg",
    "state_size",
    "mamba_d_state",
    "hybrid_override_pattern",
    "linear_num_value_heads",
    "num_kv_shared_layers",
    "block_configs",
    "multi_query",
)
_KEEPS_ALL: Final = ("full_attention", "attention", "global")


class _Shape(msgspec.Struct):
    """The keys that are read; every other is skipped."""

    model_type: str | None = None
    hidden_size: int | None = None
    num_hidden_layers: int | None = None
    num_attention_heads: int | None = None
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    vocab_size: int | None = None
    tie_word_embeddings: bool | None = None
    intermediate_size: int | None = None
    layer_types: list[str] | None = None
    sliding_window: int | None = None
    sliding_window_pattern: int | None = None
    num_experts: int | None = None
    num_local_experts: int | None = None
    n_routed_experts: int | None = None
    num_experts_per_tok: int | None = None
    experts_per_token: int | None = None
    moe_intermediate_size: int | None = None
    n_shared_experts: int | None = None
    shared_expert_intermediate_size: int | None = None
    first_k_dense_replace: int | None = None
    decoder_sparse_step: int | None = None
    mlp_only_layers: list[int] | None = None
    kv_lora_rank: int | None = None
    q_lora_rank: int | None = None
    qk_rope_head_dim: int | None = None
    qk_nope_head_dim: int | None = None
    v_head_dim: int | None = None


class _Config(_Shape):
    text_config: _Shape | None = None
    llm_config: _Shape | None = None
    language_config: _Shape | None = None
    torch_dtype: str | None = None
    dtype: str | None = None
    quantization_config: dict[str, Any] | None = None


def facts_in(text: bytes, *, kv_bytes: float = 2.0, quantized: str = "") -> ModelFacts:
    """What it tells; what it does not is None. `name` is "" for the caller to fill in, `source` is "folder".

    `kv_bytes` is the size of a value in the KV cache and `quantized` the format that the server makes of the weights
    itself, as its command line tells them. Llama-3.1-8B: 2 x 128 256 x 4 096 + 32 x (2 x 4 096 x 4 096 + 2 x 4 096 x
    1 024 + 3 x 4 096 x 14 336) = 8.03e9 parameters, 2 x 32 x 8 x 128 x 2 B = 131 072 B of KV cache a token.

    Raises Rejected: too_large, not_json, wrong_type, unknown_architecture, not_a_model, absurd_value.
    """
    if len(text) > LARGEST_CONFIG_BYTES:
        raise Rejected("too_large", f"above {LARGEST_CONFIG_BYTES} bytes")
    try:
        every = msgspec.json.decode(text)
        config = msgspec.convert(every, _Config)
    except msgspec.ValidationError as error:
        raise Rejected("wrong_type", str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Rejected("not_json", "cannot be decoded") from None
    shape = next((each for each in (config.text_config, config.llm_config, config.language_config) if each), config)
    _refuse_other_shapes(every, shape)
    kv = _kv_bytes_per_token(shape, kv_bytes)
    counted = _parameters(shape, tied=_tied(config, shape))
    if kv is None and counted is None:
        raise Rejected("not_a_model", "tells neither hidden_size and num_hidden_layers nor heads")
    every_parameter, active = counted or (None, None)
    return ModelFacts(
        name="",
        parameters=every_parameter,
        active_parameters=active,
        bytes_per_parameter=_bytes_per_parameter(config, quantized),
        kv_bytes_per_token=kv,
        source="folder",
    )


def _refuse_other_shapes(every: Any, shape: _Shape) -> None:
    nested = [
        every[key] for key in ("text_config", "llm_config", "language_config") if isinstance(every.get(key), dict)
    ]
    for each in (every, *nested):
        if found := [key for key in _OTHER_SHAPES if each.get(key) not in (None, 0)]:
            raise Rejected("unknown_architecture", found[0])
    if any("linear" in kind or "mamba" in kind or "conv" in kind for kind in shape.layer_types or ()):
        raise Rejected("unknown_architecture", "layer_types")
    for name in shape.__struct_fields__:
        value = getattr(shape, name)
        if isinstance(value, int) and not isinstance(value, bool) and not 0 <= value <= 10**9:
            raise Rejected("absurd_value", name)


def _tied(config: _Config, shape: _Shape) -> bool:
    """Whether input and output share their embeddings. Where nobody says they do: what is so by default is left out."""
    told = shape.tie_word_embeddings if shape.tie_word_embeddings is not None else config.tie_word_embeddings
    return True if told is None else told


def _kv_bytes_per_token(shape: _Shape, kv_bytes: float) -> float | None:
    """2 x layers x heads x size x bytes, of layers that keep the whole context; of latent attention what that keeps."""
    layers = shape.num_hidden_layers
    if not layers or layers < 0:
        return None
    if shape.kv_lora_rank:
        return layers * (shape.kv_lora_rank + (shape.qk_rope_head_dim or 0)) * kv_bytes
    heads, size = shape.num_key_value_heads or shape.num_attention_heads, _head_size(shape)
    if not heads or not size:
        return None
    if shape.layer_types and len(shape.layer_types) == layers:
        layers = sum(kind in _KEEPS_ALL for kind in shape.layer_types) or layers
    elif shape.sliding_window and (shape.sliding_window_pattern or 0) > 1:
        layers = layers // (shape.sliding_window_pattern or 1) or layers
    return 2.0 * layers * heads * size * kv_bytes


def _head_size(shape: _Shape) -> float | None:
    if shape.head_dim:
        return float(shape.head_dim)
    if shape.hidden_size and shape.num_attention_heads:
        return shape.hidden_size / shape.num_attention_heads
    return None


def _parameters(shape: _Shape, *, tied: bool) -> tuple[float, float] | None:
    """(all, active), None where the shapes that it takes are not all told."""
    hidden, layers, words = shape.hidden_size, shape.num_hidden_layers, shape.vocab_size
    experts = shape.n_routed_experts or shape.num_local_experts or shape.num_experts or 0
    chosen = shape.num_experts_per_tok or shape.experts_per_token or 0
    attention = _attention(shape)
    if not hidden or not layers or not words or attention is None:
        return None
    if experts > 1 and not 0 < chosen <= experts:
        return None
    matrices = 2 if shape.model_type in _TWO_MATRICES else 3
    sparse = _sparse_layers(shape, layers) if experts > 1 else 0
    wide = shape.intermediate_size
    each = shape.moe_intermediate_size or wide
    if (sparse < layers and not wide) or (sparse and not each):
        return None
    dense = (layers - sparse) * matrices * hidden * (wide or 0)
    expert = matrices * hidden * (each or 0)
    shared = (shape.n_shared_experts or 0) * expert + matrices * hidden * (shape.shared_expert_intermediate_size or 0)
    common = words * hidden * (1 if tied else 2) + layers * attention + dense + sparse * (shared + hidden * experts)
    every, active = common + sparse * experts * expert, common + sparse * chosen * expert
    if not 0 < active <= every < _MOST:
        raise Rejected("absurd_value", "parameters")
    return float(every), float(active)


def _attention(shape: _Shape) -> float | None:
    """Parameters of one layer's attention."""
    hidden, heads, size = shape.hidden_size, shape.num_attention_heads, _head_size(shape)
    if not hidden or not heads:
        return None
    if shape.kv_lora_rank:
        rope, nope, value = shape.qk_rope_head_dim or 0, shape.qk_nope_head_dim or 0, shape.v_head_dim or 0
        rank = shape.q_lora_rank
        query = hidden * rank + rank * heads * (nope + rope) if rank else hidden * heads * (nope + rope)
        kept = hidden * (shape.kv_lora_rank + rope) + shape.kv_lora_rank * heads * (nope + value)
        return float(query + kept + heads * value * hidden)
    if not size:
        return None
    return 2.0 * hidden * heads * size + 2.0 * hidden * (shape.num_key_value_heads or heads) * size


def _sparse_layers(shape: _Shape, layers: int) -> int:
    """Layers with experts: all but the first few, each n-th, or all but those that are named."""
    left_out = set(range(shape.first_k_dense_replace or 0)) | set(shape.mlp_only_layers or ())
    every = max(shape.decoder_sparse_step or 1, 1)
    return sum(layer not in left_out and (layer + 1) % every == 0 for layer in range(min(layers, 10_000)))


def _bytes_per_parameter(config: _Config, quantized: str) -> float | None:
    """2 of 16-bit weights, 1 of FP8, 0.5 of 4-bit ones; a scale of 8 bits for 32 of them (MXFP4) makes 0.53125."""
    told = config.quantization_config
    if told is None and quantized:
        told = {"quant_method": quantized}
    if told is not None:
        return _quantized_bytes(told)
    dtype = (config.torch_dtype or config.dtype or "").removeprefix("torch.")
    if "float8" in dtype:
        return 1.0
    return 2.0 if dtype in {"bfloat16", "float16", "float32"} else None  # servers make 16 bits of 32


def _quantized_bytes(told: dict[str, Any]) -> float | None:
    method = str(told.get("quant_method", "")).lower()
    bits = told.get("bits", told.get("w_bit"))
    if method in {"fp8", "fbgemm_fp8"} or (method == "modelopt" and "FP8" in str(told.get("quant_algo"))):
        return 1.0
    if method == "mxfp4":
        return 0.53125
    if method == "bitsandbytes":
        return 0.5 if told.get("load_in_4bit") else 1.0 if told.get("load_in_8bit") else None
    if method == "compressed-tensors" and isinstance(groups := told.get("config_groups"), dict):
        weights = [each.get("weights") for each in groups.values() if isinstance(each, dict)]
        bits = next((each.get("num_bits") for each in weights if isinstance(each, dict)), None)
    elif method in {"awq", "gptq", "gptq_marlin", "awq_marlin"}:
        bits = bits or 4
    return bits / 8.0 if isinstance(bits, int) and 1 <= bits <= 16 else None
