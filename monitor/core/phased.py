"""Requests that several servers worked on, on one device of one of them: only what was done there. Pure.

A host that computed a prompt and left the answer to another one has, on the GPUs that did it, the prompt's tokens over
the time of the prefill; the one that answered has the tokens made, and its reads of the whole context, over the time of
decoding. For all that follows each is a request like any other.
"""

from dataclasses import replace

import numpy as np

from collectors.readings import Device
from monitor.core.attribution.pieces import Column, Flags
from monitor.core.demand import Demand
from monitor.core.usage_columns import Route, UsageColumns

LESS_THAN_ALL = float(np.nextafter(1.0, 0.0))
"""The greatest weight of a request of which it is not certain that it was done there."""


def phase_on(demand: Demand, device: Device) -> Demand:
    """What the requests ask of this device: those with phases only by the phases that ran on it.

    Prefill [1, 1.4) of 10 000 tokens on gpu0, decode [1.5, 7.5) of 300 on gpu1: gpu0 has a request of 10 000 fresh
    tokens over [1, 1.4) that makes none, gpu1 one of 300 over [1.5, 7.5) whose 10 000 tokens of context are all there.
    A phase of which nobody knows the device is on every GPU of the host of unknown device. A request has one weight on
    a device: of one with both phases there that is their weights' mean over its time, so that what is shared equally
    comes out right over both, and its tokens are those of each phase by that phase's own weight. Prefill of weight 1
    over [0, 0.4) and decode of weight 1/2 over [0.4, 10): 0.52.
    """
    usages = demand.usages
    if usages.phases is None:
        return demand
    here = [_here(route, device) for route in usages.routes]
    prefills, decodes = (np.array([each[at] for each in here], dtype=np.bool_)[usages.route] for at in (0, 1))
    phases = usages.phases
    p_start, p_end, p_weight = np.where(prefills, phases[:3], np.nan)
    d_start, d_end, d_weight = np.where(decodes, phases[3:], np.nan)
    mine = prefills | decodes
    in_turn = mine & ~(prefills & decodes & (d_start <= p_start))  # else they tell no more than the request itself
    routes = [_with_devices(route, *each) for route, each in zip(usages.routes, here, strict=True)]
    on = replace(usages, routes=routes)
    active = np.where(mine, np.fmin(p_start, d_start) - demand.begin, demand.active)
    first = np.where(in_turn, np.where(decodes, d_start, p_end) - demand.begin, demand.first)
    end = np.where(mine, np.fmax(p_end, d_end) - demand.begin, demand.end)
    weight = np.where(prefills & decodes, _mean(p_weight, d_weight, active, first, end), np.fmax(p_weight, d_weight))
    return replace(
        demand,
        usages=on,
        active=active,
        first=first,
        end=end,
        weight=np.where(mine, weight, demand.weight),
        fresh_tokens=demand.fresh_tokens * _part(mine, p_weight / weight),
        output_tokens=demand.output_tokens * _part(mine, d_weight / weight),
        unknown=on.where(lambda route: route.devices is None).nonzero()[0],
    )


def counted(usages: UsageColumns) -> tuple[Column, Column, Column]:
    """As which part of one request each counts with its prompt and with its answer, and its weighed active seconds.

    Prefill of half a second here, decode elsewhere: its prompt counts here, no answer, and 0.5 s.
    """
    weight = usages.weight
    seconds = weight * (usages.end - usages.active_start)
    if usages.phases is None:
        return weight, weight, seconds
    phased = usages.where(lambda route: route.phases is not None)
    p_start, p_end, p_weight, d_start, d_end, d_weight = usages.phases
    p_seconds, d_seconds = p_weight * (p_end - p_start), d_weight * (d_end - d_start)
    at_once = d_start <= p_start
    worked = np.where(at_once, np.fmax(p_seconds, d_seconds), np.nan_to_num(p_seconds) + np.nan_to_num(d_seconds))
    return (
        np.where(phased, np.nan_to_num(p_weight), weight),
        np.where(phased, np.nan_to_num(d_weight), weight),
        np.where(phased, worked, seconds),
    )


def _here(route: Route, device: Device) -> tuple[bool, bool]:
    """Whether prefill and decode of its requests ran on this device; where none names it, whether one may have."""
    if route.phases is None:
        return False, False
    prefill, decode = route.phases
    if device.kind != "gpu":
        return prefill != (), decode != ()
    parts = {device.id, *device.instances}
    named = not parts.isdisjoint(prefill or ()), not parts.isdisjoint(decode or ())
    return named if any(named) else (prefill is None, decode is None)


def _with_devices(route: Route, prefills: bool, decodes: bool) -> Route:
    """The route with the devices of those phases; none where it has phases and neither is here."""
    if route.phases is None:
        return route
    devices: tuple[str, ...] = ()
    for is_here, on in zip((prefills, decodes), route.phases, strict=True):
        if is_here and on is None:
            return route._replace(devices=None)
        if is_here and on is not None:
            devices = tuple(dict.fromkeys((*devices, *on)))
    return route._replace(devices=devices)


def _mean(prefill: Column, decode: Column, active: Column, first: Column, end: Column) -> Column:
    """The mean of both weights over [active, end), the former until `first`; until half where nobody knows that.

    Exactly 1 where both are, and less where one is: then it is not certain that all of it was done there.
    """
    turn = np.clip(np.where(np.isnan(first), (active + end) / 2.0, first), active, end)
    lasts = end - active
    until = np.divide(turn - active, lasts, out=np.full(len(lasts), 0.5), where=lasts > 0.0)
    mean = decode + (prefill - decode) * until
    return np.where((prefill == 1.0) & (decode == 1.0), 1.0, np.minimum(mean, LESS_THAN_ALL))


def _part(mine: Flags, part: Column) -> Column:
    """1 of whole requests, 0 of a phase that is not here."""
    return np.where(mine, np.nan_to_num(part), 1.0)
