"""Until when a request waited in its engine's queue, where no event tells: by how many the engine counts as waiting.

Whoever waits is one of those counted, so the wait is over when none are. And a prompt takes some time before the first
token, at the board's usual speed at least. Where no engine counts them either: waits.py. Pure.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from collectors.readings import EngineReading
from collectors.units import UnixSeconds
from monitor.core.attribution.hardware import Hardware
from monitor.core.attribution.models import TokenCost
from monitor.core.attribution.pieces import Column, Flags
from monitor.core.attribution.priors import prefill_seconds
from monitor.core.demand import Demand
from monitor.core.usage_columns import Index, Route
from monitor.core.waits import began_late


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
    by_first_token: bool = False,
) -> Seated:
    """Of the `chosen`, which work on one device, those of whom no event says since when begin when their wait was over.

    That is when the one server of their model on the device first told that none waits; at the latest a prefill at
    usual speed before the first token. A request without a first token, of a server that does not tell who waits at its
    beginning (or at the window's), or tells that nobody does, began when it came. Where no server of the model tells at
    all who waits, and with `by_first_token` (a whole board of known speed), it began as its first token and those who
    were answered before say (waits.py).

    Come at 1.5 s, first token at 9 s after a prompt of 0.5 s; readings that end at 2, 3, 4, 5 and 6 s tell 4, 3, 3, 2
    and 0 waiting: it is active from 6 s on. Had they told 1 until 9 s: from 8.5 s on.
    """
    readings = list(engines)
    if not (readings or by_first_token):
        return Seated(demand, np.zeros(len(demand.active), dtype=np.bool_))
    usages, route = demand.usages, demand.usages.route[chosen]
    untold = ~usages.scheduled_told[chosen] & ~np.isnan(demand.first[chosen])
    if not untold.any():
        return Seated(demand, np.zeros(len(demand.active), dtype=np.bool_))
    active, here = demand.active.copy(), demand.weight[chosen] == 1.0
    routes = np.flatnonzero(np.bincount(route)).tolist()
    engine_of = {place: _engine_of(usages.routes[place]) for place in routes}
    number = {engine: place for place, engine in enumerate(dict.fromkeys(engine_of.values()))}
    of_route = np.zeros(len(usages.routes), dtype=np.intp)
    of_route[routes] = [number[engine] for engine in engine_of.values()]
    whose = of_route[route]
    for engine, place in number.items():
        served: Flags = whose == place
        mine, boards, cost = untold & served, max(len(engine.devices), 1), cost_of(engine.model)
        if not mine.any():
            continue
        its = [each for each in readings if each.model in (engine.model, "")]
        if any(each.waiting is not None for each in its):
            late = chosen[mine]
            over = _wait_over(its, active[late], window_begin)
            prompt = demand.fresh_tokens[late] * prefill_seconds(cost, hardware, 1.0, 1) / boards
            active[late] = np.maximum(active[late], np.minimum(over, demand.first[late] - prompt))
        elif by_first_token:
            late, others = chosen[mine & here], chosen[served & here]
            active[late] = began_late(demand, late, others, cost=cost, hardware=hardware, devices=boards)
    return Seated(replace(demand, active=active), active > demand.active)


class _Engine(NamedTuple):
    """What requests of one model on the same devices are taken to be served by."""

    model: str
    devices: tuple[str, ...]


def _engine_of(route: Route) -> _Engine:
    return _Engine(route.model, tuple(sorted(route.devices or ())))


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
