"""What prompts of mixtures of experts read beyond an equal part of their steps, in joules. Columns in and out. Pure."""

from collections.abc import Mapping, Sequence

import numpy as np

from monitor.core.attribution.experts import company, own_reads
from monitor.core.attribution.models import TokenCost
from monitor.core.attribution.pieces import Column, Flags
from monitor.core.attribution.priors import Marginals
from monitor.core.stepping import CHUNK_TOKENS
from monitor.core.usage_columns import Index, Route


def experts_of_prompts(
    routes: Sequence[Route],
    route: Index,
    times: tuple[Column, Column, Column],
    *,
    weight: Column,
    fresh_tokens: Column,
    prices: Mapping[str, Marginals],
    costs: Mapping[str, TokenCost],
) -> Column:
    """Joules of each request, on one of its devices, for those at these places of `routes`; 0 of dense models.

    `times` are columns of when each began, had its first token, and ended; those of a model on the same devices are one
    engine's, each as much as it weighs. Where the method has no price for a byte, there are none.
    """
    found = np.zeros(len(route))
    engines = [(each.model, tuple(sorted(each.devices or ()))) for each in routes]
    for engine in sorted({engines[place] for place in np.unique(route).tolist()}):
        model, devices = engine
        cost, price = costs.get(model), prices.get(model)
        if cost is None or price is None or not cost.mixes:
            continue
        mine: Flags = np.array([each == engine for each in engines], dtype=np.bool_)[route]
        start, first, end = (column[mine] for column in times)
        decoding, prompts = company(start, first, end, weight[mine])
        reads = own_reads(cost, fresh_tokens[mine], decoding, prompts, chunk_tokens=CHUNK_TOKENS)
        found[mine] = reads * price.byte_joules / max(len(devices), 1)
    return found
