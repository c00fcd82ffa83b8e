"""How much a GPU had to compute and to read in a window: what its model servers counted -> FLOPs and bytes.

These are the regressors from which J/FLOP and J/byte are learned (learning.py). FLOPs of a token are 2 x active
parameters; bytes are the weights once for each engine step, and the KV cache of every running request once for each.
Where no server counts them, core/asked.py works them out from requests.
"""

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from collectors.readings import EngineReading
from collectors.units import UnixSeconds
from monitor.core.attribution.models import TokenCost
from monitor.core.window import part_within

LEAST_COVERED: Final = 0.95
"""A window in which a server was not seen for longer than a twentieth tells nothing."""
LEAST_SPECULATED: Final = 1.2


class Work(msgspec.Struct, frozen=True):
    """FLOPs computed and bytes read."""

    flops: float
    bytes: float


def work_told(
    readings: Iterable[EngineReading], cost_of: Callable[[str], TokenCost], start: UnixSeconds, end: UnixSeconds
) -> Work | None:
    """One device's part of the work that its servers did in [start, end), None where they do not tell all of it.

    `readings` are those of the servers that run on the device; of a group of n devices each has an nth. Two servers of
    one model may be one by two addresses, and are not added up: None.

    A second of an 8e9 model at two bytes: 90 steps, 1 000 tokens of prompts, 450 made, 40 000 of context held:
    1 450 x 1.6e10 FLOP, and 90 x (16e9 B + 40 000 x 131 072 B).
    """
    flops = read = 0.0
    covered: dict[tuple[str, str], float] = {}
    tellers: dict[str, str] = {}
    for each in readings:
        part = part_within(each.start, each.end, start, end)
        cost = cost_of(each.model)
        prompts, made, steps, held = each.prefill_tokens, each.decode_tokens, each.steps, each.kv_tokens
        if prompts is None or made is None or steps is None or held is None or cost.source == "unknown":
            return None
        if tellers.setdefault(each.model, each.server) != each.server:
            return None
        share = part / max(len(each.devices), 1)
        flops += share * cost.flops_per_token * (prompts + made)
        if steps > 0:
            weights = cost.step_bytes((prompts + made) / steps)
            read += share * steps * (weights + held * cost.kv_bytes_per_token)
        key = each.server, each.model
        covered[key] = covered.get(key, 0.0) + part * (each.end - each.start)
    if not covered or min(covered.values()) < LEAST_COVERED * (end - start):
        return None
    return Work(flops, read)


def tokens_per_step(readings: Iterable[EngineReading]) -> dict[str, float]:
    """For each model how many tokens a decoding request made in a step, 1 unless more are told; "" if there is but one.

    With speculative decoding a step makes several tokens of a request and reads its context once for all of them. Of
    100 steps with 8 requests running that made 2 000 tokens: 2.5. `running` is of one moment and holds prompts too, so
    up to LEAST_SPECULATED it is taken as 1.
    """
    sums: dict[str, tuple[float, float]] = {}
    for each in readings:
        if each.steps and each.running is not None and each.decode_tokens is not None:
            made, turns = sums.get(each.model, (0.0, 0.0))
            sums[each.model] = made + each.decode_tokens, turns + each.steps * each.running
    found = {model: made / turns if turns > 0.0 else 1.0 for model, (made, turns) in sorted(sums.items())}
    told = {model: ratio if ratio > LEAST_SPECULATED else 1.0 for model, ratio in found.items()}
    return told | {"": next(iter(told.values()))} if len(told) == 1 else told
