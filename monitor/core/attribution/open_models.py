"""Facts of the common open models, by the names that they are served under. Facts re-typed from their makers.

Source: the `config.json` and model card that each maker publishes with the weights: parameters, active parameters of a
mixture of experts, and layers, key-value heads and head size. KV bytes of a token of context are 2 (keys, values) x
layers x heads x size x 2 bytes; of multi-head latent attention what it keeps instead. A cache that is kept in 8 bits
has half of it: who serves so says it in `[[models]]`. The parameters agree with ecologits' table to 0.2 %, where it has
them.
"""

import re
from functools import lru_cache
from typing import Final, NamedTuple


class OpenModel(NamedTuple):
    """`parameters` and `active_parameters` in units, `kv_bytes_per_token` at two bytes a value."""

    parameters: float
    active_parameters: float
    kv_bytes_per_token: float


def _kv(layers: int, heads: int, size: int) -> float:
    """Llama-3.1-8B: 2 x 32 x 8 x 128 x 2 bytes = 131 072."""
    return 2.0 * layers * heads * size * 2.0


# Name -> billions of parameters, of active ones, KV bytes. What follows in a name (-Instruct, -FP8, -2507) is ignored,
# what stands before it (an organisation) too. The more special name comes first.
_TABLE: Final = {
    "llama-3.3-70b": (70.6, 70.6, _kv(80, 8, 128)),
    "llama-3.2-1b": (1.24, 1.24, _kv(16, 8, 64)),
    "llama-3.2-3b": (3.21, 3.21, _kv(28, 8, 128)),
    "llama-3.1-8b": (8.03, 8.03, _kv(32, 8, 128)),
    "llama-3.1-70b": (70.6, 70.6, _kv(80, 8, 128)),
    "llama-3.1-405b": (405.9, 405.9, _kv(126, 8, 128)),
    "llama-3-8b": (8.03, 8.03, _kv(32, 8, 128)),
    "llama-3-70b": (70.6, 70.6, _kv(80, 8, 128)),
    "llama-2-7b": (6.74, 6.74, _kv(32, 32, 128)),
    "llama-2-13b": (13.02, 13.02, _kv(40, 40, 128)),
    "llama-2-70b": (68.98, 68.98, _kv(80, 8, 128)),
    "qwen3-0.6b": (0.596, 0.596, _kv(28, 8, 128)),
    "qwen3-1.7b": (1.72, 1.72, _kv(28, 8, 128)),
    "qwen3-4b": (4.02, 4.02, _kv(36, 8, 128)),
    "qwen3-8b": (8.19, 8.19, _kv(36, 8, 128)),
    "qwen3-14b": (14.8, 14.8, _kv(40, 8, 128)),
    "qwen3-32b": (32.8, 32.8, _kv(64, 8, 128)),
    "qwen3-30b-a3b": (30.5, 3.3, _kv(48, 4, 128)),
    "qwen3-coder-30b-a3b": (30.5, 3.3, _kv(48, 4, 128)),
    "qwen3-235b-a22b": (235.1, 22.2, _kv(94, 4, 128)),
    "qwen2.5-0.5b": (0.494, 0.494, _kv(24, 2, 64)),
    "qwen2.5-1.5b": (1.54, 1.54, _kv(28, 2, 128)),
    "qwen2.5-3b": (3.09, 3.09, _kv(36, 2, 128)),
    "qwen2.5-7b": (7.62, 7.62, _kv(28, 4, 128)),
    "qwen2.5-14b": (14.8, 14.8, _kv(48, 8, 128)),
    "qwen2.5-32b": (32.8, 32.8, _kv(64, 8, 128)),
    "qwen2.5-72b": (72.7, 72.7, _kv(80, 8, 128)),
    "mistral-7b": (7.25, 7.25, _kv(32, 8, 128)),
    "mistral-small-24b": (23.6, 23.6, _kv(40, 8, 128)),
    "mixtral-8x7b": (46.7, 12.9, _kv(32, 8, 128)),
    "mixtral-8x22b": (140.6, 39.1, _kv(56, 8, 128)),
    "gpt-oss-20b": (20.9, 3.6, _kv(24, 8, 64)),
    "gpt-oss-120b": (116.8, 5.1, _kv(36, 8, 64)),
    "phi-4": (14.7, 14.7, _kv(40, 10, 128)),
    # 61 layers that keep 512 + 64 values each in place of keys and values
    "deepseek-v3": (671.0, 37.0, 61 * 576 * 2.0),
    "deepseek-r1-0528": (671.0, 37.0, 61 * 576 * 2.0),
}
_FOLLOWS: Final = r"(?![a-z0-9.])(?!-(?:distill|mini|vision|vl|moe))"  # names of other models that begin alike
_NAMES: Final = tuple(
    (re.compile(rf"(?<![a-z0-9.]){re.escape(name)}{_FOLLOWS}", re.IGNORECASE), OpenModel(1e9 * every, 1e9 * active, kv))
    for name, (every, active, kv) in _TABLE.items()
)


@lru_cache(maxsize=1_024)
def open_model(name: str) -> OpenModel | None:
    """The facts of a model by a name such as "meta-llama/Llama-3.1-8B-Instruct", None where it is not in the table.

    "Meta-Llama-3-8B" is "llama-3-8b"; "DeepSeek-R1-Distill-Llama-8B" and "Phi-4-mini" are none of these.
    """
    spelled = name.replace("_", "-").replace(" ", "-")
    return next((facts for pattern, facts in _NAMES if pattern.search(spelled)), None)
