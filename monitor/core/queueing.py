"""Until when a request waited in its engine's queue, where no event tells: by how many the engine counts as waiting.

Whoever waits is one of those counted, so the wait is over when none are. And a prompt takes some time before the first
token, at the board's usual speed at least. Pure.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from collectors.readings import EngineReading
from collectors.units import UnixSeconds
from monitor.core.attribution.hardware import Hardware
from monitor.core.attribution.models import TokenCost
from monitor.core.attribution.pieces import Column, Flags
from monitor.core.attribution.priors import prefill_seconds
from monitor.core.demand import Demand
from monitor.core.usage_columns import Index, Route


@dataclass(frozen=True, slots=True)
class Seated:
    """What requests ask, since an engine worked on them, and which of them (length n) that was estimated for."""

    demand: Demand
    estimated: Flags


def seated(
    demand: Demand,
    chosen: Index,
    engines: Iterable[EngineReading],
    cost_of: Callable[[str], TokenCost],
    hardware: Hardware,
    *,
    window_begin: UnixSeconds,
) -> Seated:
    """Of the `chosen`, which work on one device, those of whom no event says since when begin when their wait was over.

    That is when the one server of their model on the device first told that none waits; at the latest a prefill at
    usual speed before the first token. A request without a first token, of a server that does not tell who waits at its
    beginning (or at the window's), or tells that nobody does, began when it came.

    Come at 1.5 s, first token at 9 s after a prompt of 0.5 s; readings that end at 2, 3, 4, 5 and 6 s tell 4, 3, 3, 2
    and 0 waiting: it is active from 6 s on. Had they told 1 until 9 s: from 8.5 s on.
    """
    readings = list(engines)
    if not readings:
        return Seated(demand, np.zeros(len(demand.active), dtype=np.bool_))
    active, routes = demand.active.copy(), demand.usages.routes
    untold = np.zeros(len(active), dtype=np.bool_)
    untold[chosen] = ~demand.usages.scheduled_told[chosen] & ~np.isnan(demand.first[chosen])
    for model in sorted({routes[route].model for route in demand.usages.route[untold].tolist()}):
        mine = untold & demand.usages.where(_is_of(model))
        over = _wait_over([each for each in readings if each.model in (model, "")], active[mine], window_begin)
        boards = np.array([max(len(route.devices or ()), 1) for route in routes])[demand.usages.route[mine]]
        prompt = demand.fresh_tokens[mine] * prefill_seconds(cost_of(model), hardware, 1.0, 1) / boards
        active[mine] = np.maximum(active[mine], np.minimum(over, demand.first[mine] - prompt))
    return Seated(replace(demand, active=active), active > demand.active)


def _is_of(model: str) -> Callable[[Route], bool]:
    return lambda route: route.model == model


def _wait_over(readings: Sequence[EngineReading], came: Column, window_begin: UnixSeconds) -> Column:
    """When each that came then was out of the queue, in seconds of the window: never earlier than it came.

    It is infinite where the readings end with somebody waiting.
    """
    if not readings or len({each.server for each in readings}) > 1:
        return came
    ends = np.array([each.end for each in readings]) - window_begin
    waits: Flags = np.array([(each.waiting or 0.0) > 0.0 for each in readings] + [False])
    place = np.arange(len(ends))
    over = np.minimum.accumulate(np.where(waits[:-1], len(ends), place)[::-1])[::-1]
    at = np.searchsorted(ends, np.maximum(came, 0.0))
    until = np.concatenate((ends, [np.inf]))[np.concatenate((over, [len(ends)]))[at]]
    return np.where(waits[at], until, came)
