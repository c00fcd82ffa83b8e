"""Until when a request waited, where neither its event nor an engine tells: as its first token says. Pure.

An engine computes a prompt at some speed or other, seldom below half of the usual one. What passes before that until
the first token is not work on this request: it waited for a place among those that were answered meanwhile. Only as
long as there were such: one that is alone on its engine waits for nobody, and is slow.
"""

from typing import Final

import numpy as np

from monitor.core.asked import most_per_second
from monitor.core.attribution.hardware import Hardware
from monitor.core.attribution.models import TokenCost
from monitor.core.attribution.pieces import Column, Flags
from monitor.core.attribution.priors import prefill_seconds
from monitor.core.demand import Demand
from monitor.core.usage_columns import Index

LONGEST_PREFILL: Final = 2.0
"""Times as long as at the usual speed: tokens that others make are computed in the same steps. At 1 the simulator's
`queue` comes out as with engine counters, but a board that computes prompts more slowly would pay for it."""
LEAST_WAIT_SECONDS: Final = 0.25
"""Less is no queue: a network, a tokenizer, the step that the engine was in when the request came."""


def began_late(
    demand: Demand, mine: Index, others: Index, *, cost: TokenCost, hardware: Hardware, devices: int
) -> Column:
    """From when on an engine worked on each of `mine` (length m), in seconds of the window; never before it came.

    `others` are the places of all that the same engine serves for certain, those of `mine` among them. Each of `mine`
    has a first token. It began a prefill at half of the usual speed before its first token, but no later than when,
    from its coming (or the window's beginning) on, for once none of the others was being answered. Whoever does not
    tell its tokens, or made them faster than the board can read the weights (all were sent at once), began when it
    came; so did whoever is of a model of which nothing is known.

    Come at 1.5 s, first token at 9 s after a prompt of 0.5 s; another is answered over [1, 5) and a third over [4, 20):
    active from 8 s on. Were the third answered over [6, 20): from 5 s on.
    """
    came, first = demand.active[mine], demand.first[mine]
    if cost.flops_per_token <= 0.0:
        return came
    usages = demand.usages
    per_second = most_per_second(cost, devices, hardware)
    tells = ~(np.isnan(usages.input_tokens[mine]) | np.isnan(usages.output_tokens[mine]))
    tells &= demand.output_tokens[mine] - 1.0 <= per_second * (demand.end[mine] - first)
    prompt = demand.fresh_tokens[mine] * prefill_seconds(cost, hardware, LONGEST_PREFILL, devices)
    answered = others[demand.end[others] > demand.first[others]]  # NaN, no first token told, compares to nothing
    here_since = np.maximum(came, 0.0)
    began = np.minimum(first - prompt, _busy_until(demand.first[answered], demand.end[answered], here_since))
    return np.where(tells & (began - here_since >= LEAST_WAIT_SECONDS), began, came)


def _busy_until(start: Column, end: Column, moments: Column) -> Column:
    """For each moment when first none of the intervals [start, end) goes on: itself where none does then.

    Of [1, 5) and [4, 20): 20 from 4 s and from 1 s on, 0.5 from 0.5 s on.
    """
    if len(start) == 0:
        return moments
    order = np.argsort(start, kind="stable")
    starts, ends = start[order], np.maximum.accumulate(end[order])
    opens: Flags = np.concatenate(([True], starts[1:] > ends[:-1]))  # where nobody was answered just before
    begins, overs = starts[opens], ends[np.concatenate((opens[1:], [True]))]
    at = np.searchsorted(begins, moments, side="right") - 1
    inside = (at >= 0) & (moments < overs[at])
    return np.where(inside, overs[at], moments)
