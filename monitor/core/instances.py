"""A board with MIG, split among its instances before it is split among requests. Pure. In: activities. Out: `Split`.

Nothing meters an instance. Its part of the board's idle power goes by its size; what exceeds that by how active it was,
weighted by its size; together they are what the board's meter says. From then on an instance is a GPU of its own: its
requests share its part, and where it has none its idle part is idle and the rest unreported.

    300 W, idle 70 W; an instance of 3 slices always active, one of 4 a quarter of the time: 230 W go 3 : 1
    first 30 + 172.5 W, second 40 + 57.5 W
Instances of which only the activity of all together is known are one (`Device.instance_units`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from collectors.readings import ActivityReading, Device
from collectors.units import UnixSeconds
from monitor.core.attribution.pieces import Column, Flags
from monitor.core.attribution.requests import Requests
from monitor.core.attribution.virtual_energy import Meter, Quiet, Split, split

LEAST_COVERED: Final = 0.9
"""Of the metered time. Where less is known of the instances' activity the board stays one."""
_CONSUMER: Final = "instance:"
_Unit = tuple[str, ...]
"""The instances that are one."""
_Span = tuple[float, float, Mapping[str, float]]


def split_by_instance(
    device: Device,
    activities: Iterable[ActivityReading],
    meter: Meter,
    requests: Requests,
    places: Sequence[Sequence[str]],
    *,
    start: UnixSeconds,
    length_seconds: float,
    idle_watts: float | None,
    elsewhere: tuple[Column, Column],
    limit_watts: float | None,
    rest_equally: bool,
) -> Split | None:
    """The board's split by its instances, `places` being the devices of each request; None where it stays one:

    it has no instances, a request names the board and no instance of it, or the activity of an instance with requests,
    or of all of them for a tenth of the time, is not known. Nothing in it is `exact`: activity decided all of it.
    """
    if not device.instances or any(set(device.instances).isdisjoint(devices) for devices in places):
        return None
    spans = _spans(device, activities, start, length_seconds)
    known = {instance for _, _, busy in spans for instance in busy}
    if not {instance for devices in places for instance in devices if instance in device.instances} <= known:
        return None
    units = _units(device)
    slices = _slices(device, units)
    pieces, shares = _cut(meter, spans, units, slices)
    if pieces is None:
        return None
    base = np.zeros_like(pieces.watts) if idle_watts is None else np.minimum(pieces.watts, idle_watts)
    total = _nothing(len(requests))
    for place, unit in enumerate(units):
        chosen = np.array([not set(unit).isdisjoint(devices) for devices in places], dtype=np.bool_)
        part = split(
            _with_watts(pieces, slices[place] * base + shares[place] * (pieces.watts - base)),
            _of(requests, chosen),
            length_seconds=length_seconds,
            idle_watts=None if idle_watts is None else slices[place] * idle_watts,
            shares_idle=True,
            elsewhere=elsewhere,
            limit_watts=limit_watts,
            rest_equally=rest_equally,
        )
        total = _plus(total, part, chosen)
    return total


def _units(device: Device) -> list[_Unit]:
    """Which instances are one, in the order of the first of each; each for itself where nothing is told."""
    told = device.instance_units
    units: dict[int, list[str]] = {}
    for place, instance in enumerate(device.instances):
        units.setdefault(told[place] if len(told) == len(device.instances) else place, []).append(instance)
    return [tuple(instances) for instances in units.values()]


def _slices(device: Device, units: Sequence[_Unit]) -> Column:
    """Each unit's part of all instances' size; instances count alike where sizes are not told."""
    told = device.instance_slices
    sizes = dict(zip(device.instances, told, strict=True)) if len(told) == len(device.instances) else {}
    sums = np.array([sum(sizes.get(instance, 1.0) for instance in unit) for unit in units], dtype=np.float64)
    parts: Column = sums / sums.sum()
    return parts


def _spans(device: Device, activities: Iterable[ActivityReading], start: UnixSeconds, length: float) -> list[_Span]:
    """(begin, end, ratio of each instance) in seconds of the window, disjoint; where two overlap the earlier holds."""
    told: dict[tuple[float, float], dict[str, float]] = {}
    for each in activities:
        instance = each.consumer.removeprefix(_CONSUMER)
        if each.device == device.id and each.consumer.startswith(_CONSUMER) and instance in device.instances:
            ratio = min(each.busy_seconds / (each.end - each.start), 1.0)
            told.setdefault((each.start - start, each.end - start), {})[instance] = ratio
    spans: list[_Span] = []
    for (begin, end), busy in sorted(told.items()):
        since = max(begin, spans[-1][1]) if spans else begin  # clocks of two scrapes let neighbours overlap a little
        if since < min(end, length) and end > 0.0:
            spans.append((since, end, busy))
    return spans


def _cut(meter: Meter, spans: Sequence[_Span], units: Sequence[_Unit], slices: Column) -> tuple[Meter | None, Column]:
    """The readings cut where activity changes, and of each unit its share of each piece (units x pieces).

    Slivers of which nothing is known go by the mean of the others. None where too little is known.
    """
    edges = [edge for begin, end, _ in spans for edge in (begin, end)]
    cuts = [
        (max(begin, low), min(end, high), place)
        for place, (begin, end) in enumerate(zip(meter.start.tolist(), meter.end.tolist(), strict=True))
        for low, high in zip([-np.inf, *edges], [*edges, np.inf], strict=True)
        if min(end, high) > max(begin, low)
    ]
    if not cuts:
        return None, np.empty((len(units), 0))
    begins, ends = (np.array([cut[side] for cut in cuts], dtype=np.float64) for side in (0, 1))
    place = np.array([cut[2] for cut in cuts], dtype=np.intp)
    middles = (begins + ends) / 2.0
    found = np.searchsorted([begin for begin, _, _ in spans], middles, side="right") - 1
    known = np.array([at >= 0 and middle < spans[at][1] for at, middle in zip(found, middles, strict=True)])
    seconds = ends - begins
    if seconds[known].sum() < LEAST_COVERED * seconds.sum():
        return None, np.empty((len(units), 0))
    active = np.zeros((len(units), len(cuts)))
    for piece in known.nonzero()[0].tolist():
        busy = spans[found[piece]][2]
        active[:, piece] = [max(busy.get(instance, 0.0) for instance in unit) for unit in units]
    active *= slices[:, None]
    active[:, ~known] = (active[:, known] @ seconds[known] / seconds[known].sum())[:, None]
    sums = active.sum(axis=0)
    shares = np.where(sums > 0.0, active / np.where(sums > 0.0, sums, 1.0), slices[:, None])
    return (
        Meter(
            start=begins,
            end=ends,
            watts=meter.watts[place],
            lasts_seconds=meter.lasts_seconds[place],
            recovered=meter.recovered[place],
            modelled=meter.modelled[place],
        ),
        shares,
    )


def _with_watts(meter: Meter, watts: Column) -> Meter:
    return Meter(
        start=meter.start,
        end=meter.end,
        watts=watts,
        lasts_seconds=meter.lasts_seconds,
        recovered=meter.recovered,
        modelled=meter.modelled,
    )


def _of(requests: Requests, chosen: Flags) -> Requests:
    steps = requests.steps
    if steps is not None:
        steps = replace(
            steps,
            engine=steps.engine[chosen],
            prefill_watts=steps.prefill_watts[chosen],
            decode_watts=steps.decode_watts[chosen],
        )
    return Requests(
        start=requests.start[chosen],
        first=requests.first[chosen],
        end=requests.end[chosen],
        weight=requests.weight[chosen],
        prefill_joules=requests.prefill_joules[chosen],
        decode_joules=requests.decode_joules[chosen],
        growing_joules=requests.growing_joules[chosen],
        steps=steps,
    )


def _nothing(count: int) -> Split:
    none = Quiet(0.0, 0.0, 0.0)
    return Split(
        energy=np.zeros(count),
        marginal=np.zeros(count),
        exact=np.zeros(count),
        metered=np.zeros(count),
        recovered=np.zeros(count),
        idle=none,
        gap=none,
        unknown_device=none,
        other_process=none,
        unreported=none,
    )


def _plus(total: Split, part: Split, chosen: Flags) -> Split:
    """With an instance's requests added at their places, and what is nobody's."""
    sums: dict[str, Any] = {}
    for name in ("energy", "marginal", "metered", "recovered"):
        sums[name] = getattr(total, name).copy()
        sums[name][chosen] += getattr(part, name)
    for name in ("idle", "gap", "unknown_device", "other_process", "unreported"):
        before, more = getattr(total, name), getattr(part, name)
        sums[name] = Quiet(
            before.energy + more.energy, before.metered + more.metered, before.recovered + more.recovered
        )
    return replace(total, **sums)
