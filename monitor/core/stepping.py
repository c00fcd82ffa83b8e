"""The power of engines' steps on a device that several of them share: requests' columns, counters -> `Steps`. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from collectors.readings import EngineReading
from collectors.units import UnixSeconds
from monitor.core.attribution.models import UNKNOWN_MODEL, TokenCost
from monitor.core.attribution.pieces import Column
from monitor.core.attribution.priors import Marginals
from monitor.core.attribution.requests import Steps, ToldSteps
from monitor.core.usage_columns import Index, Route

CHUNK_TOKENS: Final = 2_048.0
"""Of a prompt in one step, as vLLM and others have it unless told otherwise; it decides little."""

_Engine = tuple[str, tuple[str, ...]]
"""A model on these devices: one engine, as far as requests tell."""


def steps_on(
    routes: Sequence[Route],
    route: Index,
    *,
    prefill_seconds: Column,
    decode_seconds: Column,
    fresh_tokens: Column,
    decode_steps: Column,
    prices: Mapping[str, Marginals],
    costs: Mapping[str, TokenCost],
    counters: Iterable[EngineReading],
    begin: UnixSeconds,
) -> Steps | None:
    """The engines of the requests at these places of `routes`; None where there is but one, or no model's steps have a
    price. The other columns have a value for each of the requests; `begin` is the window's start.

    From requests alone an engine steps as its requests get on: one that makes 100 tokens in 2 s of a model of 16 GB at
    0.2 nJ/byte takes part in 50 steps of 3.2 J a second: 160 W. While a prompt is computed a step takes CHUNK_TOKENS.
    """
    engine_of = [(each.model, each.devices or ()) for each in routes]
    engines = sorted({engine_of[place] for place in np.unique(route).tolist()})
    joules = {engine: _step_joules(engine, prices) for engine in engines}
    if len(engines) < 2 or not any(joules.values()):
        return None
    number = {engine: place for place, engine in enumerate(engines)}
    engine = np.array([number.get(each, -1) for each in engine_of], dtype=np.intp)[route]
    of_each = np.array([joules[each] for each in engines], dtype=np.float64)[engine]
    chunks = np.where(fresh_tokens > 0.0, np.maximum(fresh_tokens / CHUNK_TOKENS, 1.0), 0.0)
    return Steps(
        engines=len(engines),
        engine=engine,
        prefill_watts=of_each * _rate(chunks, prefill_seconds),
        decode_watts=of_each * _rate(decode_steps, decode_seconds),
        told=_told(engines, joules, costs, counters, begin),
    )


def _step_joules(engine: _Engine, prices: Mapping[str, Marginals]) -> float:
    """On one of its devices."""
    model, devices = engine
    return prices[model].step_joules / max(len(devices), 1) if model in prices else 0.0


def _rate(steps: Column, seconds: Column) -> Column:
    return np.divide(steps, seconds, out=np.zeros_like(steps), where=seconds > 0.0)


def _told(
    engines: Sequence[_Engine],
    joules: Mapping[_Engine, float],
    costs: Mapping[str, TokenCost],
    counters: Iterable[EngineReading],
    begin: UnixSeconds,
) -> list[list[ToldSteps]]:
    """What each engine's own counter says. A model that several servers tell, or several engines serve, has none."""
    of_model: dict[str, list[EngineReading]] = {}
    for each in counters:
        of_model.setdefault(each.model, []).append(each)
    found = []
    for model, devices in engines:
        mine = of_model.get(model, [])
        alone = len({each.server for each in mine}) == 1 and sum(model == other for other, _ in engines) == 1
        cost, price = costs.get(model, UNKNOWN_MODEL), joules[model, devices]
        found.append(
            [
                ToldSteps(each.start - begin, each.end - begin, each.steps * price * _weights(cost, each, each.steps))
                for each in sorted(mine, key=lambda each: (each.start, each.end))
                if each.steps
            ]
            if alone
            else []
        )
    return found


def _weights(cost: TokenCost, told: EngineReading, steps: float) -> float:
    """How many times the weights of one token a step read: 1 of a dense model, more of one of experts."""
    if told.prefill_tokens is None or told.decode_tokens is None or cost.weight_bytes <= 0.0:
        return 1.0
    return cost.step_bytes((told.prefill_tokens + told.decode_tokens) / steps) / cost.weight_bytes
