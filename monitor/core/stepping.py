"""The power of engines' steps on a device that several of them share: requests' columns, counters -> `Steps`. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from collectors.readings import EngineReading
from collectors.units import UnixSeconds
from monitor.core.attribution.models import TokenCost
from monitor.core.attribution.pieces import Column
from monitor.core.attribution.priors import Marginals
from monitor.core.attribution.requests import Steps, ToldSteps
from monitor.core.usage_columns import Index, Route

CHUNK_TOKENS: Final = 2_048.0
"""Of a prompt in one step, as vLLM and others have it unless told otherwise; it decides little."""


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
    """The engines of the requests at these places of `routes`, one for each model; None where there is but one, or no
    model's steps have a price. The columns have a value for each of the requests; `begin` is the window's start.

    From requests alone an engine steps as its requests get on: one that makes 100 tokens in 2 s of a model of 16 GB at
    0.2 nJ/byte takes part in 50 steps of 3.2 J a second: 160 W. While a prompt is computed a step takes CHUNK_TOKENS.
    """
    engines = sorted({routes[place].model for place in np.unique(route).tolist()}) if prices else []
    joules = {model: prices[model].step_joules for model in engines}
    if len(engines) < 2 or not any(joules.values()):
        return None
    number = {model: place for place, model in enumerate(engines)}
    engine = np.array([number.get(each.model, -1) for each in routes], dtype=np.intp)[route]
    parts = np.array([1.0 / max(len(each.devices or ()), 1) for each in routes], dtype=np.float64)[route]
    of_each = np.array([joules[model] for model in engines], dtype=np.float64)[engine] * parts
    chunks = np.where(fresh_tokens > 0.0, np.maximum(fresh_tokens / CHUNK_TOKENS, 1.0), 0.0)
    return Steps(
        engines=len(engines),
        engine=engine,
        prefill_watts=of_each * _rate(chunks, prefill_seconds),
        decode_watts=of_each * _rate(decode_steps, decode_seconds),
        told=_told(engines, joules, costs, counters, begin),
    )


def _rate(steps: Column, seconds: Column) -> Column:
    return np.divide(steps, seconds, out=np.zeros_like(steps), where=seconds > 0.0)


def _told(
    engines: Sequence[str],
    joules: Mapping[str, float],
    costs: Mapping[str, TokenCost],
    counters: Iterable[EngineReading],
    begin: UnixSeconds,
) -> list[list[ToldSteps]]:
    """What each engine's own counter says, on one of its devices; a model that several servers tell has none."""
    of_model: dict[str, list[EngineReading]] = {}
    for each in counters:
        of_model.setdefault(each.model, []).append(each)
    found = []
    for model in engines:
        mine = sorted(of_model.get(model, ()), key=lambda each: (each.start, each.end))
        if len({each.server for each in mine}) > 1:
            mine = []
        found.append([_steps_of(each, joules[model], costs[model], begin) for each in mine if each.steps])
    return found


def _steps_of(told: EngineReading, joules: float, cost: TokenCost, begin: UnixSeconds) -> ToldSteps:
    """50 steps of 3.2 J in a second of a server on two devices: 80 J."""
    steps = told.steps or 0.0
    part = _weights(cost, told, steps) / max(len(told.devices), 1)
    return ToldSteps(told.start - begin, told.end - begin, steps * joules * part)


def _weights(cost: TokenCost, told: EngineReading, steps: float) -> float:
    """How many times the weights of one token a step read: 1 of a dense model, more of one of experts."""
    if told.prefill_tokens is None or told.decode_tokens is None or cost.weight_bytes <= 0.0:
        return 1.0
    return cost.step_bytes((told.prefill_tokens + told.decode_tokens) / steps) / cost.weight_bytes
