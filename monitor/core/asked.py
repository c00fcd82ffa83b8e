"""How much a GPU had to compute and to read in a window, worked out from what requests asked of it. Pure.

The same two regressors as attribution/work.py gives from model servers' counters, for hosts whose servers tell none.
Prompts are computed between scheduling and first token; the steps in which tokens are made follow from how fast
requests that are decoded together get theirs (attribution/progress.py).
"""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from monitor.core.attribution.hardware import Hardware
from monitor.core.attribution.models import TokenCost
from monitor.core.attribution.pieces import Column, Flags
from monitor.core.attribution.priors import prefill_seconds
from monitor.core.attribution.progress import progress_of
from monitor.core.attribution.work import Work
from monitor.core.demand import Demand
from monitor.core.usage_columns import Index

SLOWEST_PREFILL: Final = 4.0
"""A prompt takes no longer to compute than at a quarter of the usual speed: what lies before that, it waited."""
MOST_PER_STEP: Final = 4.0
"""With speculative decoding a request makes several tokens in a step, hardly ever more than so many on average."""
MOST_UNTOLD: Final = 0.02
"""Of the request-seconds of a window those of which the work may be unknown: one of a hundred requests that failed."""


def work_asked(
    demand: Demand,
    chosen: Index,
    cost_of: Callable[[str], TokenCost],
    hardware: Hardware,
    *,
    length_seconds: float,
    tokens_per_step: Mapping[str, float],
) -> Work | None:
    """The work on one GPU in [0, length_seconds), None where its requests do not tell nearly all of it.

    A request tells it by its tokens, those of the prefix cache among them, and the moment of the first one; it was
    certainly on this host, and is of a model whose size is known. Tokens that come faster than the board can read the
    weights tell nothing: their moments are wrong. Requests of one model on the same devices count as one engine's.
    `tokens_per_step` as in `Ask`.

    Alone on a GPU, an 8e9 model at two bytes, a prompt of 2 000 tokens computed over [0, 0.1) and 601 tokens made until
    10.1 s: in 10 s 2 000 + 594 tokens of 1.6e10 FLOP, and 594 steps, each of which reads 16e9 B and 131 072 B for each
    of the 2 001 to 2 595 tokens of its context.
    """
    usages = demand.usages
    costs = {route.model: cost_of(route.model) for route in usages.routes}
    tells = _tells(demand, costs, hardware)
    if _untold(demand, chosen, tells, length_seconds) > MOST_UNTOLD:
        return None
    engines = [(route.model, tuple(sorted(route.devices or ()))) for route in usages.routes]
    telling = chosen[tells[chosen]]
    whose = usages.route[telling]
    flops = read = 0.0
    for engine in sorted({engines[route] for route in whose.tolist()}):
        model, devices = engine
        cost, boards = costs[model], max(len(devices), 1)
        mine = telling[np.array([each == engine for each in engines], dtype=np.bool_)[whose]]
        tokens, steps, contexts = _decoded(demand, mine, length_seconds)
        tokens += _prefilled(demand, mine, prefill_seconds(cost, hardware, SLOWEST_PREFILL, boards), length_seconds)
        at_once = tokens_per_step.get(model, tokens_per_step.get("", 1.0))
        flops += tokens * cost.flops_per_token / boards
        if steps > 0.0:
            weights = steps * cost.step_bytes(at_once * tokens / steps)
            read += (weights + contexts * cost.kv_bytes_per_token) / at_once / boards
    return Work(flops, read)


def _tells(demand: Demand, costs: Mapping[str, TokenCost], hardware: Hardware) -> Flags:
    """Which of all requests tell what they asked."""
    usages = demand.usages
    fastest = np.array(
        [most_per_second(costs[route.model], len(route.devices or ()), hardware) for route in usages.routes],
        dtype=np.float64,
    )[usages.route]
    known = ~(np.isnan(usages.input_tokens) | np.isnan(usages.cached_input_tokens) | np.isnan(usages.output_tokens))
    decoding = np.maximum(demand.end - demand.first, 0.0)  # NaN where no first token is told, which compares to nothing
    possible = (fastest > 0.0) & (demand.output_tokens - 1.0 <= fastest * decoding)
    tells: Flags = known & possible & (demand.weight == 1.0)
    return tells


def most_per_second(cost: TokenCost, devices: int, hardware: Hardware) -> float:
    """Tokens of one request: 836 of an 8e9 model at two bytes on an H100; 0 where the model's size is not known."""
    read_per_second = hardware.peak_bytes_per_second * max(devices, 1)
    return MOST_PER_STEP * read_per_second / cost.weight_bytes if cost.weight_bytes > 0.0 else 0.0


def _untold(demand: Demand, chosen: Index, tells: Flags, length_seconds: float) -> float:
    """The part of the request-seconds that may have been on the board of which nothing is told."""
    seconds = np.clip(demand.end, 0.0, length_seconds) - np.clip(demand.active, 0.0, length_seconds)
    untold = float(seconds[chosen[~tells[chosen]]].sum() + seconds[demand.unknown].sum())
    total = float(seconds[chosen].sum() + seconds[demand.unknown].sum())
    return untold / total if total > 0.0 else 0.0


def _decoded(demand: Demand, mine: Index, length_seconds: float) -> tuple[float, float, float]:
    """Tokens made behind the first one, steps, if each makes one token, and tokens of context read for all of them."""
    more = np.maximum(demand.output_tokens[mine] - 1.0, 0.0)
    made = progress_of(demand.first[mine], demand.end[mine], more, length_seconds)
    within = made.until - made.before
    contexts = within * (demand.context_tokens[mine] + 1.0 + (made.before + made.until) / 2.0)
    return float(within.sum()), made.steps, float(contexts.sum())


def _prefilled(demand: Demand, mine: Index, longest_per_token: float, length_seconds: float) -> float:
    """Tokens of prompts that were computed in the window: evenly until the first token of the answer was there."""
    fresh, first = demand.fresh_tokens[mine], demand.first[mine]
    begin = np.maximum(demand.active[mine], first - longest_per_token * fresh)
    within = np.clip(first, 0.0, length_seconds) - np.clip(begin, 0.0, length_seconds)
    at_once: Flags = (first >= 0.0) & (first < length_seconds)
    part: Column = np.divide(within, first - begin, out=at_once.astype(np.float64), where=first > begin)
    return float((fresh * part).sum())
