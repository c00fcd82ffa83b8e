"""Whose the CPU was on a host with several model servers: by the processor time of each. Pure.

Of what a CPU, or DRAM, uses above idle, other processes have their part by their busy seconds (foreign.py). The rest is
divided among the servers in the same way, and then equally among the requests of each. Nothing is fitted: each server's
processor time is measured. In: activities. Out: `Steps`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from collectors.readings import ActivityReading, EngineReading
from collectors.units import UnixSeconds
from monitor.core.attribution.requests import Steps, ToldSteps
from monitor.core.usage_columns import Index, Route

_SERVER: Final = "server:"
_LEAST_SECONDS: Final = 1e-6
"""A tick of the kernel's is 10 ms."""


def busy_servers(
    routes: Sequence[Route],
    route: Index,
    *,
    activities: Iterable[ActivityReading],
    engines: Iterable[EngineReading],
    cpus: frozenset[str],
    start: UnixSeconds,
    length_seconds: float,
) -> Steps | None:
    """What each server did for the requests at these places of `routes`, its busy seconds in the place of joules.

    None with one server, or where no server tells that it has the model of some request. Models of one server, and
    servers of one model, are one. Of activities that overlap the earliest counts.

    Servers a and b were busy for 6 s and 3 s of [0, 10), a request of each was active: of 900 J they have 600 and 300.
    """
    engines = list(engines)
    models = sorted({routes[place].model for place in np.unique(route).tolist()})
    servers = {model: {each.server for each in engines if each.model == model} for model in models}
    if len(models) < 2 or not all(servers.values()):
        return None
    groups = _together([servers[model] for model in models])
    if len(groups) < 2:
        return None
    number = {model: next(at for at, group in enumerate(groups) if servers[model] <= group) for model in models}
    nothing = np.zeros(len(route))
    return Steps(
        engines=len(groups),
        engine=np.array([number.get(each.model, -1) for each in routes], dtype=np.intp)[route],
        prefill_watts=nothing,
        decode_watts=nothing,
        told=_told(groups, activities, cpus, start, length_seconds),
    )


def _together(named: Iterable[set[str]]) -> list[frozenset[str]]:
    """Sets that have a member in common as one: {a}, {b, c}, {c} are {a} and {b, c}."""
    groups: list[frozenset[str]] = []
    for each in named:
        touching = [group for group in groups if not group.isdisjoint(each)]
        groups = [group for group in groups if group.isdisjoint(each)]
        groups.append(frozenset(each).union(*touching))
    return sorted(groups, key=sorted)


def _told(
    groups: Sequence[frozenset[str]],
    activities: Iterable[ActivityReading],
    cpus: frozenset[str],
    start: UnixSeconds,
    length_seconds: float,
) -> list[list[ToldSteps]]:
    """Busy seconds of each group's servers in the window; of an interval that reaches beyond it the part within."""
    busy: dict[tuple[float, float], dict[str, float]] = {}
    for each in activities:
        begin, end = each.start - start, each.end - start
        if each.device in cpus and each.consumer.startswith(_SERVER) and begin < length_seconds and end > 0.0:
            of_server = busy.setdefault((begin, end), {})
            name = each.consumer.removeprefix(_SERVER)
            of_server[name] = of_server.get(name, 0.0) + each.busy_seconds
    found: list[list[ToldSteps]] = [[] for _ in groups]
    until = 0.0
    for (begin, end), of_server in sorted(busy.items()):
        since, stop = max(begin, 0.0), min(end, length_seconds)
        if since < until:
            continue
        until = stop
        for told, group in zip(found, groups, strict=True):
            told.append(ToldSteps(since, stop, _seconds(of_server, group) * (stop - since) / (end - begin)))
    return found


def _seconds(of_server: Mapping[str, float], group: frozenset[str]) -> float:
    """Of servers that were told to be busy for 0 s hardly anything; 0, which tells nothing, where none was told."""
    told = [of_server[name] for name in sorted(group) if name in of_server]
    return max(sum(told), _LEAST_SECONDS) if told else 0.0
