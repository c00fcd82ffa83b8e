"""What one token of a model costs to compute and to read: facts given, of a table, by its name, or unknown."""

import re

import msgspec

from collectors.readings import ModelFacts
from monitor.core.attribution.open_models import open_model


class TokenCost(msgspec.Struct, frozen=True, kw_only=True):
    """FLOPs and bytes of a model's tokens. `source` says where the facts come from: given, folder (the server's own),
    table (of open models), name or unknown; `kv_estimated`: nothing told the KV bytes, they are typical.

    flops_per_token = 2 x active parameters, prefill and decode alike; kv_bytes_per_token is read once for each context
    token in each decode step. 0 and "unknown" mean that the request has no marginal energy of its own and pays only its
    equal part. A step of one token reads `weight_bytes`, the weights that are active for it; the more tokens, the more
    experts of a mixture, up to `all_weight_bytes`: n tokens as many as n^`routing_exponent` would that chose theirs
    independently of each other (core/routing.py).
    """

    flops_per_token: float
    kv_bytes_per_token: float
    weight_bytes: float = 0.0
    all_weight_bytes: float = 0.0
    source: str
    kv_estimated: bool = False
    routing_exponent: float = 1.0

    @property
    def mixes(self) -> bool:
        """Whether it is a mixture of experts."""
        return self.all_weight_bytes > self.weight_bytes > 0.0

    def step_bytes(self, tokens: float) -> float:
        """Weights that a step of so many tokens reads, tokens >= 1: all of a dense model; of experts those that any of
        the tokens is sent to. Each token is sent to the part r = active / all of them, so n of them read 1 - (1 - r)^n:
        of 22e9 active of 235e9 parameters at two bytes, 44e9 B for one token, 372e9 B for 16; with a routing exponent
        of 0.5 what four tokens read, 153e9 B.

        On ML.ENERGY's H100s at batches of 8 to 16 that leaves 3 % between priors and measured J/token, where the
        square root of n leaves 35 %.
        """
        if self.all_weight_bytes <= self.weight_bytes:
            return self.weight_bytes
        left_out = (1.0 - self.weight_bytes / self.all_weight_bytes) ** (max(tokens, 1.0) ** self.routing_exponent)
        return self.all_weight_bytes * (1.0 - float(left_out))


UNKNOWN_MODEL = TokenCost(flops_per_token=0.0, kv_bytes_per_token=0.0, source="unknown")

_FORMAT_BYTES = (
    (re.compile(r"fp8|int8|w8a8|w8a16|8bit", re.IGNORECASE), 1.0),
    (re.compile(r"awq|gptq|int4|w4a16|fp4|4bit", re.IGNORECASE), 0.5),
)
USUAL_BYTES = 2.0
"""Of a parameter whose format nobody told: bf16, as most open models are served."""

_SIZE = re.compile(r"(?:(\d+)x)?(\d+(?:\.\d+)?)b(?![a-z0-9])", re.IGNORECASE)
_ACTIVE = re.compile(r"(?<![a-z])a(\d+(?:\.\d+)?)b(?![a-z0-9])", re.IGNORECASE)


def token_cost(model: str, facts: ModelFacts | None, routing_exponent: float = 1.0) -> TokenCost:
    """A model's token cost. Llama-3.1-8B, given 8.03e9 parameters: 1.606e10 FLOP per token."""
    cost = _token_cost(model, facts)
    if routing_exponent == 1.0 or not cost.mixes:
        return cost
    return msgspec.structs.replace(cost, routing_exponent=routing_exponent)


def _token_cost(model: str, facts: ModelFacts | None) -> TokenCost:
    known = open_model(model)
    if facts is not None and (facts.active_parameters or facts.parameters):
        active = facts.active_parameters or facts.parameters or 0.0
        kv_bytes = facts.kv_bytes_per_token
        if kv_bytes is None:
            kv_bytes = typical_kv_bytes(active) if known is None else known.kv_bytes_per_token
        each = bytes_per_parameter_in(model) if facts.bytes_per_parameter is None else facts.bytes_per_parameter
        return TokenCost(
            flops_per_token=2.0 * active,
            kv_bytes_per_token=kv_bytes,
            weight_bytes=active * each,
            all_weight_bytes=max(facts.parameters or 0.0, active) * each,
            source=facts.source or "given",
            kv_estimated=facts.kv_bytes_per_token is None and known is None,
        )
    each = bytes_per_parameter_in(model)
    if known is not None:
        return TokenCost(
            flops_per_token=2.0 * known.active_parameters,
            kv_bytes_per_token=known.kv_bytes_per_token,
            weight_bytes=known.active_parameters * each,
            all_weight_bytes=known.parameters * each,
            source="table",
        )
    parameters = active_parameters_in(model)
    if parameters is None:
        return UNKNOWN_MODEL
    return TokenCost(
        flops_per_token=2.0 * parameters,
        kv_bytes_per_token=typical_kv_bytes(parameters),
        weight_bytes=parameters * each,
        all_weight_bytes=max(parameters_in(model) or 0.0, parameters) * each,
        source="name",
        kv_estimated=True,
    )


def bytes_per_parameter_in(model: str) -> float:
    """Bytes of a weight as a model's name tells them: 1 in "Llama-3.1-405B-FP8", 0.5 of an AWQ, else 2."""
    return next((size for pattern, size in _FORMAT_BYTES if pattern.search(model)), USUAL_BYTES)


def parameters_in(model: str) -> float | None:
    """All parameters as a model's name tells them: 235e9 in "Qwen3-235B-A22B", 8 x 7e9 of "8x7B", else None."""
    size = _SIZE.search(_ACTIVE.sub("", model))
    return None if size is None else float(size[1] or 1) * float(size[2]) * 1e9


def active_parameters_in(model: str) -> float | None:
    """Active parameters as a model's name tells them: 8e9 in "Llama-3.1-8B", 22e9 in "Qwen3-235B-A22B", else None.

    Of "8x7B" it is the two of eight experts that such models use, 14e9; None where the name tells no size.
    """
    if active := _ACTIVE.search(model):
        return float(active[1]) * 1e9
    if size := _SIZE.search(model):
        experts = min(int(size[1]), 2) if size[1] else 1
        return experts * float(size[2]) * 1e9
    return None


def typical_kv_bytes(active_parameters: float) -> float:
    """KV bytes per token of a dense model with grouped-query attention, by size: 131 072 at 8e9, 327 680 at 70e9.

    A power law through these two (Llama 3.1's own figures at two bytes, 2 x layers x 8 heads x 128 x 2); within a
    factor of 2 for current models, and it only decides who pays for long contexts.
    """
    if active_parameters <= 0:
        return 0.0
    return 131_072.0 * float((active_parameters / 8.0e9) ** 0.4225)
