"""What config.json tells: shapes of real models, written down here, against what their makers say of them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.errors import Rejected
from collectors.model_config import LARGEST_CONFIG_BYTES, facts_in
from collectors.readings import ModelFacts

DENSE: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
"""Llama-3.1-8B's."""
EXPERTS: dict[str, Any] = {
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "vocab_size": 151936,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}
"""Qwen3-30B-A3B's."""
LATENT: dict[str, Any] = {
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "num_hidden_layers": 61,
    "first_k_dense_replace": 3,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "vocab_size": 129280,
    "tie_word_embeddings": False,
    "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
}
"""DeepSeek-V3's."""
SLIDING: dict[str, Any] = {
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "num_hidden_layers": 36,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "num_local_experts": 128,
    "experts_per_token": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 18,
    "vocab_size": 201088,
    "tie_word_embeddings": False,
    "quantization_config": {"quant_method": "mxfp4"},
}
"""gpt-oss-120b's."""
MIXTRAL = DENSE | {"vocab_size": 32000, "num_local_experts": 8, "num_experts_per_tok": 2}


def told(config: dict[str, Any], **served: Any) -> ModelFacts:
    """What such a file tells."""
    return facts_in(json.dumps(config).encode(), **served)


@pytest.mark.parametrize(
    ("config", "parameters", "active", "each", "kv_bytes"),
    [
        pytest.param(DENSE, 8.03e9, 8.03e9, 2.0, 131_072.0, id="dense: 2 x 32 x 8 x 128 x 2"),
        pytest.param(EXPERTS, 30.5e9, 3.35e9, 2.0, 98_304.0, id="experts: 2 x 48 x 4 x 128 x 2"),
        pytest.param(MIXTRAL, 46.7e9, 12.9e9, 2.0, 131_072.0, id="experts as large as the dense network"),
        pytest.param(LATENT, 671e9, 37.5e9, 1.0, 70_272.0, id="latent attention: 61 x 576 x 2"),
        pytest.param(SLIDING, 116.8e9, 5.7e9, 0.53125, 36_864.0, id="half of it sliding: 2 x 18 x 8 x 64 x 2"),
        pytest.param(
            {"text_config": DENSE, "vision_config": {"hidden_size": 1}, "torch_dtype": "bfloat16"},
            8.03e9,
            8.03e9,
            2.0,
            131_072.0,
            id="text beside vision",
        ),
    ],
)
def test_shapes_of_real_models(
    config: dict[str, Any], parameters: float, active: float, each: float, kv_bytes: float
) -> None:
    """Parameters to 1 % of what their makers say; active ones with both embeddings, as every token passes them."""
    facts = told(config)
    assert facts.parameters == pytest.approx(parameters, rel=0.01)
    assert facts.active_parameters == pytest.approx(active, rel=0.015)
    assert (facts.bytes_per_parameter, facts.kv_bytes_per_token) == (each, kv_bytes)
    assert facts.source == "folder"


def test_a_small_model_by_hand() -> None:
    """Tied: 10 x 4 + 2 layers x (2 x 4 x 4 + 2 x 4 x 2 + 3 x 4 x 8) = 40 + 2 x 144 = 328; KV 2 x 2 x 1 x 2 x 2 B."""
    small = {
        "hidden_size": 4,
        "intermediate_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 10,
    }
    facts = told(small)
    assert (facts.parameters, facts.active_parameters, facts.kv_bytes_per_token) == (328.0, 328.0, 16.0)
    assert facts.bytes_per_parameter is None
    shared = small | {"num_experts": 4, "num_experts_per_tok": 1, "shared_expert_intermediate_size": 5}
    # 40 + 2 x (48 + router 4 x 4 + shared 3 x 4 x 5) = 288, and 2 x 96 for each expert
    assert (told(shared).parameters, told(shared).active_parameters) == (288.0 + 8 * 96.0, 288.0 + 2 * 96.0)
    one_dense = shared | {"first_k_dense_replace": 1}
    assert told(one_dense).parameters == 40.0 + 2 * 48.0 + 96.0 + (4 * 96.0 + 16.0 + 60.0)


@pytest.mark.parametrize(
    ("quantization", "each"),
    [
        ({"quant_method": "awq", "bits": 4}, 0.5),
        ({"quant_method": "gptq", "bits": 8}, 1.0),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 0.5),
        ({"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 8}}}}, 1.0),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, 1.0),
        ({"quant_method": "a new one"}, None),
        ({"quant_method": "awq", "bits": "four"}, None),
    ],
)
def test_bytes_of_a_quantized_weight(quantization: dict[str, Any], each: float | None) -> None:
    """None where the format is not known: the model's name tells it then."""
    assert told(DENSE | {"quantization_config": quantization}).bytes_per_parameter == each


def test_what_the_command_line_says_of_formats() -> None:
    """A cache of 8 bits has half the bytes; weights that the server makes FP8 itself have one byte."""
    facts = told(DENSE, kv_bytes=1.0, quantized="fp8")
    assert (facts.kv_bytes_per_token, facts.bytes_per_parameter) == (65_536.0, 1.0)
    assert told(LATENT, quantized="awq").bytes_per_parameter == 1.0  # what the file says counts more


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "not_json"),
        (b"\xff\xfe", "not_json"),
        (b"[" * 100_000, "not_json"),
        (b"[]", "wrong_type"),
        (b'{"hidden_size": "4096"}', "wrong_type"),
        (b"{}", "not_a_model"),
        (b'{"mamba_d_state": 16, "hidden_size": 8}', "unknown_architecture"),
        (json.dumps(DENSE | {"layer_types": ["linear_attention"] * 32}).encode(), "unknown_architecture"),
        (json.dumps(DENSE | {"hidden_size": 10**12}).encode(), "absurd_value"),
        (json.dumps(DENSE | {"hidden_size": 10**9}).encode(), "absurd_value"),
        (b" " * (LARGEST_CONFIG_BYTES + 1), "too_large"),
    ],
)
def test_what_is_no_models_file_is_named(text: bytes, reason: str) -> None:
    """And nothing is taken from it."""
    with pytest.raises(Rejected) as caught:
        facts_in(text)
    assert caught.value.reason == reason


def test_what_is_told_in_part_is_taken_in_part() -> None:
    """Without a vocabulary no parameters, but the KV bytes; experts without their number chosen are not guessed."""
    facts = told({key: value for key, value in DENSE.items() if key != "vocab_size"})
    assert (facts.parameters, facts.kv_bytes_per_token) == (None, 131_072.0)
    assert told({key: value for key, value in EXPERTS.items() if key != "num_experts_per_tok"}).parameters is None


numbers = st.one_of(st.none(), st.integers(-5, 70), st.integers(-(10**20), 10**20))


@given(st.fixed_dictionaries({}, optional=dict.fromkeys([*DENSE, *EXPERTS, *LATENT], numbers)))
def test_whatever_stands_there_gives_sane_facts_or_a_reason(config: dict[str, Any]) -> None:
    """Never another error, and no negative or endless figure."""
    try:
        facts = told(config)
    except Rejected:
        return
    for value in (facts.parameters, facts.active_parameters, facts.kv_bytes_per_token):
        assert value is None or 0.0 < value < 1e30
    assert (facts.active_parameters or 0.0) <= (facts.parameters or 0.0)
