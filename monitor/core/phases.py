"""Which phases of a request a host served, where more than one server worked on it. Pure. In: its parts. Out: Phases.

A request that is computed on one server and answered by another one has two meters and is one request. Each host has
one record of it, which tells from when until when and on which devices the host did what, and how much of it.
"""

from collections.abc import Callable, Sequence
from math import fsum, isnan, nan
from typing import Final, NamedTuple

import msgspec

from collectors.requests.event import EventPart, PhaseName, RequestEvent
from collectors.units import UnixSeconds
from monitor.core.serving import Place

Devices = tuple[str, ...] | None
PhaseDevices = tuple[Devices, Devices]
"""On which the prompt was computed, and on which the answer: () none, None where nobody knows."""


class Phase(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One phase on one host over [start, end): a `weight` in (0, 1] of it, 1/n where it is one of n that may have
    served it, or that did so together.
    """

    start: UnixSeconds
    end: UnixSeconds
    weight: float = 1.0
    devices: Devices = None


class Phases(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one host did of a request; at least one is not None."""

    prefill: Phase | None = None
    decode: Phase | None = None

    @property
    def weight(self) -> float:
        """As which part of one request it counts there: each phase is half of it."""
        return ((self.prefill.weight if self.prefill else 0.0) + (self.decode.weight if self.decode else 0.0)) / 2.0

    @property
    def devices(self) -> PhaseDevices:
        """Of each phase; () of one that is not this host's."""
        return (self.prefill.devices if self.prefill else ()), (self.decode.devices if self.decode else ())

    @property
    def figures(self) -> tuple[float, ...]:
        """In the order of PHASE_FIGURES, NaN of a phase that is not this host's."""
        return (*_figures(self.prefill), *_figures(self.decode))


PHASE_FIGURES: Final = (
    "prefill_start",
    "prefill_end",
    "prefill_weight",
    "decode_start",
    "decode_end",
    "decode_weight",
)
NOT_PHASED: Final = (nan,) * len(PHASE_FIGURES)
"""The figures of a request that one server did alone."""


def phases_from(devices: PhaseDevices | None, figures: Sequence[float]) -> Phases | None:
    """What these figures say; None where there are no devices of phases."""
    if devices is None:
        return None
    prefill, decode = (
        None if isnan(weight) else Phase(start, end, weight, on)
        for (start, end, weight), on in zip((figures[:3], figures[3:]), devices, strict=True)
    )
    return Phases(prefill, decode)


def _figures(phase: Phase | None) -> tuple[float, float, float]:
    return (nan, nan, nan) if phase is None else (phase.start, phase.end, phase.weight)


class HostPart(NamedTuple):
    """What a host has of a request. `phases` None: both, over all of its time, as if nobody had told parts."""

    host: str
    weight: float
    devices: Devices
    deployment: str
    phases: Phases | None


def host_parts(event: RequestEvent, places_of: Callable[[EventPart], Sequence[Place]]) -> list[HostPart]:
    """What each host has of a request that tells parts, in the order in which they name it.

    A phase that no part names was done by all that are named, at its usual time, and work that makes no tokens has no
    phases. Parts of one phase did equal parts of it. Their clocks may differ a little from the request's: they are cut
    to it.

    Prefill on a, decode on b and c: a has all of the prefill and counts as 1/2 of a request, b and c have half of the
    decode each and count as 1/4.
    """
    no_phases = event.work is not None
    told = []
    for name in _NAMES:
        mine = [part for part in event.parts if no_phases or part.phase in (name, None)]
        told.append(_on_hosts(event, mine or _also(event, name), places_of))
    (prefills, prefilled_by), (decodes, decoded_by) = told
    deployments = {**decoded_by, **prefilled_by}
    return [
        _host_part(event, host, Phases(prefills.get(host), decodes.get(host)), deployments[host])
        for host in {**prefills, **decodes}
    ]


_NAMES: Final[tuple[PhaseName, PhaseName]] = ("prefill", "decode")


def _began(event: RequestEvent) -> UnixSeconds:
    return event.start if event.scheduled is None else event.scheduled


def _also(event: RequestEvent, name: PhaseName) -> list[EventPart]:
    """The parts, all of which name the other phase, as parts of this one: from the engine's start to the first token,
    or from there to the end. Without a first token the phase that they name tells when it came.
    """
    began, turn = _began(event), event.first_token
    if turn is None:
        turn = max(part.end for part in event.parts) if name == "decode" else min(part.start for part in event.parts)
    turn = min(max(turn, began), event.end)
    start, end = (began, turn) if name == "prefill" else (turn, event.end)
    return [msgspec.structs.replace(part, phase=name, start=start, end=end) for part in event.parts]


def _on_hosts(
    event: RequestEvent, parts: Sequence[EventPart], places_of: Callable[[EventPart], Sequence[Place]]
) -> tuple[dict[str, Phase], dict[str, str]]:
    """One phase on each of its hosts, and the deployment that each is there."""
    hosts: dict[str, list[Phase]] = {}
    deployments: dict[str, str] = {}
    for part in parts:
        start, end = (min(max(at, event.start), event.end) for at in (part.start, part.end))
        for place in places_of(part):
            hosts.setdefault(place.host, []).append(Phase(start, end, place.weight, place.devices))
            deployments.setdefault(place.host, place.deployment)
    return {host: _together(phases, len(parts)) for host, phases in hosts.items()}, deployments


def _together(phases: Sequence[Phase], count: int) -> Phase:
    """What a host did of a phase that has `count` parts: a pipeline's two stages, on a GPU each, are all of it on two.

    Divided once: six times 1/6 added up would be less than 1, and not certain any more.
    """
    devices: Devices = ()
    for phase in phases:
        devices = None if devices is None or phase.devices is None else (*devices, *phase.devices)
    return Phase(
        min(phase.start for phase in phases),
        max(phase.end for phase in phases),
        fsum(phase.weight for phase in phases) / count,
        None if devices is None else tuple(dict.fromkeys(devices)),
    )


def _host_part(event: RequestEvent, host: str, phases: Phases, deployment: str) -> HostPart:
    prefill, decode = phases.devices
    devices = None if prefill is None or decode is None else tuple(dict.fromkeys((*prefill, *decode)))
    return HostPart(
        host, phases.weight, devices, event.deployment or deployment, None if _is_whole(event, phases) else phases
    )


def _is_whole(event: RequestEvent, phases: Phases) -> bool:
    """Whether the phases say no more than the event itself: both all the time, or in turn at the told first token."""
    prefill, decode = phases.prefill, phases.decode
    if prefill is None or decode is None or (prefill.weight, prefill.devices) != (decode.weight, decode.devices):
        return False
    began, turn, end = _began(event), event.first_token, event.end
    times = prefill.start, prefill.end, decode.start, decode.end
    return times in ((began, end, began, end), (began, turn, turn, end))
