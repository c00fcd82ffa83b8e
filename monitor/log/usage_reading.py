"""Records of requests (usage_wire.py) into the columns of the accounting, and which of them say what cannot be.

Nothing is done here for one request after the other: a figure is copied from the record into the columns as it stands,
and a rule is asked of all of them at once.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from math import inf
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from collectors.units import UnixSeconds
from monitor.core.attribution.pieces import Column, Flags
from monitor.core.phases import PHASE_FIGURES, PhaseDevices
from monitor.core.usage_columns import NO_USAGES, Index, Route, UsageColumns
from monitor.log.contract import LEAST_WEIGHT, MOST_TOKENS
from monitor.log.usage_wire import FIGURES, UNTOLD, UsageBatch, WireRoute

_FIGURE: Final = np.dtype("<f8")
_PLACE: Final = np.dtype("<u4")
_WORK: Final = FIGURES.index("work_amount")


def columns_of_batches(
    batches: Sequence[UsageBatch], first_number: int = 0, log_times: Sequence[UnixSeconds] | None = None
) -> UsageColumns:
    """All requests of these, one after the other, numbered from there on; a batch has one log time, 0 if none is told.

    The batches are whole (`check_whole`). Labels in another order are the same labels.
    """
    counts = [len(batch.request_ids) for batch in batches]
    if not (total := sum(counts)):
        return NO_USAGES
    names = FIGURES + PHASE_FIGURES if any(batch.phase_devices for batch in batches) else FIGURES
    figures = np.empty((len(names), total))
    for row, name in enumerate(names):
        figures[row] = _figure([getattr(batch, name) for batch in batches], counts, UNTOLD.get(name, np.nan))
    global_places, routes = _routes(batches)
    begins = np.cumsum([0, *(len(batch.routes) for batch in batches[:-1])])
    route = np.frombuffer(b"".join([batch.route for batch in batches]), _PLACE) + np.repeat(begins, counts)
    ids = list(chain.from_iterable([batch.request_ids for batch in batches]))
    columns = UsageColumns(
        np.arange(first_number, first_number + total, dtype=np.intp),
        np.zeros(total) if log_times is None else np.repeat(np.array(log_times, dtype=np.float64), counts),
        np.array(ids, dtype=np.object_),
        global_places[route],
        routes,
        figures,
    )
    if any(batch.work_amount for batch in batches):
        figures[_WORK, columns.where(lambda each: each.work_unit is None)] = np.nan  # an amount of nothing
    if len(names) > len(FIGURES):
        figures[len(FIGURES) :, columns.where(lambda each: each.phases is None)] = np.nan
    return columns


def _figure(said: Sequence[bytes], counts: Sequence[int], untold: float) -> Column | float:
    if not any(said):
        return untold
    if not all(said):
        said = [each or np.full(count, untold, _FIGURE).tobytes() for each, count in zip(said, counts, strict=True)]
    told: NDArray[np.float64] = np.frombuffer(b"".join(said), _FIGURE)
    return told


def _routes(batches: Sequence[UsageBatch]) -> tuple[Index, list[Route]]:
    """Of all routes of all batches, one after the other, the places in the list of those that differ; and that list.

    Records of a host say the same routes again and again: what came is compared as bytes before it is made a `Route`.
    """
    places: dict[Route, int] = {}
    known: dict[tuple[str, bytes, PhaseDevices | None], int] = {}
    found: list[int] = []
    for batch in batches:
        host = batch.host
        for each, phases in zip(batch.routes, batch.phase_devices or repeat(None), strict=False):
            key = host, _encode(each), phases
            place = known.get(key)
            if place is None:
                place = known[key] = places.setdefault(_route(host, each, phases), len(places))
            found.append(place)
    return np.array(found, dtype=np.intp), list(places)


_encode: Final = msgspec.msgpack.Encoder().encode


def _route(host: str, told: WireRoute, phases: PhaseDevices | None) -> Route:
    labels = tuple(sorted(told.labels.items()))
    return Route(
        host,
        told.namespace,
        told.attempt,
        told.model,
        told.team,
        told.deployment,
        told.devices,
        labels,
        told.status,
        told.work_unit,
        phases,
    )


def wrong_usages(usages: UsageColumns) -> dict[int, str]:
    """The places of those that say what cannot be, and the first thing wrong with each.

    Right are start <= scheduled <= first_token <= end where known, weight in (0, 1], and counts that are sane.
    """
    wrong: dict[int, str] = {}
    for right, broken in _rules_of_usage(usages):
        for place in () if right.all() else np.flatnonzero(~right).tolist():
            wrong.setdefault(place, broken)
    return wrong


def _rules_of_usage(usages: UsageColumns) -> Iterator[tuple[Flags, str]]:
    """All requests of a rule at once: nearly every one keeps to all of them."""
    start, end, scheduled, first_token = usages.start, usages.end, usages.active_start, usages.first_token
    began = np.where(np.isnan(first_token), scheduled, first_token)
    in_order = (-inf < start) & (start <= scheduled) & (scheduled <= began) & (began <= end) & (end < inf)
    yield in_order, "usage times are not finite and in the order start, scheduled, first_token, end"
    weighs = (usages.weight >= LEAST_WEIGHT) & (usages.weight <= 1.0)
    yield weighs, f"usage.weight is not in [{LEAST_WEIGHT:g}, 1]"
    if any(route.attempt < 0 for route in usages.routes):
        yield usages.where(lambda route: route.attempt >= 0), "usage.attempt is negative"
    yield _is_count(usages.input_tokens), "usage.input_tokens is not a whole number in [0, 2^53]"
    yield _is_count(usages.cached_input_tokens), "usage.cached_input_tokens is not a whole number in [0, 2^53]"
    yield _is_count(usages.output_tokens), "usage.output_tokens is not a whole number in [0, 2^53]"
    if any(route.work_unit is not None for route in usages.routes):
        has_none = usages.where(lambda route: route.work_unit is None)
        amount = usages.work_amount
        yield has_none | ((amount >= 0.0) & (amount <= MOST_TOKENS)), "usage.work.amount is not in [0, 2^53]"
    if (phases := usages.phases) is not None:
        yield _are_phases(usages, phases), "usage.phases are not within the request, or weigh nothing"


def _are_phases(usages: UsageColumns, phases: NDArray[np.float64]) -> Flags:
    """Of those that have phases: each lies within the request and weighs something, and at least one is there.

    Devices are named of a phase that is there alone.
    """
    right, there = np.ones(len(usages), dtype=np.bool_), np.zeros(len(usages), dtype=np.bool_)
    for at in range(2):
        start, end, weight = phases[3 * at : 3 * at + 3]
        none = np.array([route.phases is None or route.phases[at] == () for route in usages.routes], dtype=np.bool_)
        in_order = (usages.start <= start) & (start <= end) & (end <= usages.end)
        is_told = in_order & (weight >= LEAST_WEIGHT) & (weight <= 1.0)
        right &= is_told | (np.isnan(weight) & none[usages.route])
        there |= is_told
    without: Flags = usages.where(lambda route: route.phases is None)
    return without | (right & there)


def _is_count(told: Column) -> Flags:
    """NaN is no count, but one that was not told."""
    counted: Flags = np.isnan(told) | ((told >= 0.0) & (told <= MOST_TOKENS) & (np.floor(told) == told))
    return counted
