"""What one window teaches of a unit of work: a board's joules above idle, and the units that its requests did. Pure."""

from collections.abc import Iterable
from typing import Final

import numpy as np

from collectors.readings import Device, EngineReading
from monitor.core.attribution.pieces import Column
from monitor.core.attribution.units import UnitKind, UnitSums, unit_sums_of
from monitor.core.demand import Demand
from monitor.core.usage_columns import Index

MOST_NAME_BYTES: Final = 160
"""Of a GPU type, a model and a unit together, as JSON: sums of open periods stand in commits, which are small."""
MOST_UNITS: Final = 1e9
"""In one window; more is a mistake in an event, and its square would outweigh a day of others."""


def tells_units(demand: Demand) -> bool:
    """Whether any request does work that is counted in units: a cheap look before the rest."""
    return any(route.work_unit is not None for route in demand.usages.routes)


def unit_lesson_in(
    demand: Demand,
    chosen: Index,
    device: Device,
    engines: Iterable[EngineReading],
    *,
    joules: float | None,
    length_seconds: float,
) -> tuple[UnitKind, UnitSums] | None:
    """What the window says of a unit, None where it says nothing or something is doubtful.

    `joules` are the board's above idle power (teaching.py), None where they are doubtful. The board's requests are all
    of one model and unit, surely there (weight 1, and no other of the host of which nobody knows the device); no other
    model's server did anything on it. A group of n devices does an nth on each.
    """
    usages = demand.usages
    if joules is None or len(chosen) == 0 or len(demand.unknown):
        return None
    routes = [usages.routes[place] for place in np.unique(usages.route[chosen]).tolist()]
    kinds = {(route.model, route.work_unit) for route in routes}
    model, unit = next(iter(kinds))
    if len(kinds) > 1 or unit is None or not (demand.weight[chosen] == 1.0).all() or not _alone(model, engines):
        return None
    if len(f"{device.hardware}{model}{unit}".encode()) + _escaped(device.hardware, model, unit) > MOST_NAME_BYTES:
        return None
    parts = np.array([1.0 / (len(route.devices or ()) or 1) for route in usages.routes])[usages.route[chosen]]
    amounts = usages.work_amount[chosen] * parts
    units, busy = units_within(demand.active[chosen], demand.end[chosen], amounts, length_seconds)
    if not 0.0 < units <= MOST_UNITS or busy <= 0.0:
        return None
    return UnitKind(model, unit), unit_sums_of(units, busy, joules)


def units_within(start: Column, end: Column, amount: Column, length_seconds: float) -> tuple[float, float]:
    """Units done in [0, length_seconds), and the seconds of it in which a request was active. At least one request.

    A request's amount is placed evenly over its active time, that of one which lasts 0 s at its moment: 4 images over
    [-2, 6) and 1 over [5, 5) are 3 + 1 in 6 s of [0, 10).
    """
    began, ended = np.clip(start, 0.0, length_seconds), np.clip(end, 0.0, length_seconds)
    lasts = end - start
    within = np.divide(ended - began, lasts, out=np.zeros_like(lasts), where=lasts > 0.0)
    part = np.where(lasts > 0.0, within, ((start >= 0.0) & (start < length_seconds)).astype(np.float64))
    order = np.argsort(began, kind="stable")
    reached = np.maximum.accumulate(ended[order])
    before = np.concatenate([[0.0], reached[:-1]])
    busy = np.maximum(reached - np.maximum(began[order], before), 0.0)
    return float((part * amount).sum()), float(busy.sum())


def _alone(model: str, engines: Iterable[EngineReading]) -> bool:
    """Whether the servers on the board are this model's, or did nothing. One that tells nothing may be its own."""
    silent: set[str] = set()
    for each in engines:
        if each.model == model:
            continue
        if each.prefill_tokens == each.decode_tokens == 0.0 and not each.running:
            continue
        if each.model or each.prefill_tokens is not None or each.decode_tokens is not None:
            return False
        silent.add(each.server)
    return len(silent) <= 1


def _escaped(*names: str) -> int:
    return sum(name.count('"') + name.count("\\") for name in names)
