"""The parts of a native event, where more than one server worked on the request. In: as sent. Out: EventPart.

What a part does not tell of its times follows from the request's own: prefill lasts from the engine's start to the
first token, decoding from there to the end. Clocks of several machines differ: an end that no part tells gives way to
one that a part does.
"""

from collections.abc import Mapping
from typing import Final

from collectors.errors import Rejected
from collectors.moments import moment_from_number, moment_from_text
from collectors.requests.decoders.native_wire import Time, WireEvent, WirePart
from collectors.requests.event import EventPart, PhaseName
from collectors.units import UnixSeconds

_PHASES: Final[Mapping[str, PhaseName]] = {"prefill": "prefill", "decode": "decode"}


def parts_from(
    wire: WireEvent, began: UnixSeconds, first_token: UnixSeconds | None, end: UnixSeconds
) -> tuple[EventPart, ...]:
    """The parts of a request that an engine worked on over [began, end). Raises Rejected, mostly as `bad_parts`.

    Without a first token decoding begins when the prefill is told to have ended, and the other way round: a prefill
    from 1 s and a decode from 3 s on, in a request that ends at 9 s, are [1, 3) and [3, 9).

    An event that names its own host, and one part of one phase on another, has a part more than was sent: what is left
    was done on its own host.
    """
    wires = wire.parts or ()
    told = [(_phase(part), _moment(part.start, "start"), _moment(part.end, "end")) for part in wires]
    ended = [until for phase, _, until in told if phase == "prefill" and until is not None]
    begun = [since for phase, since, _ in told if phase == "decode" and since is not None]
    turn = first_token if first_token is not None else max(ended) if ended else min(begun) if begun else None
    turn = None if turn is None else min(max(turn, began), end)
    usual = {"prefill": (began, turn), "decode": (turn, end), None: (began, end)}
    parts: list[EventPart] = []
    for part, (phase, since, until) in zip(wires, told, strict=True):
        usual_start, usual_end = usual[phase]
        begin, stop = (usual_start if since is None else since), (usual_end if until is None else until)
        if begin is None or stop is None:
            raise Rejected("bad_parts", f"nothing tells from when until when the {phase} lasted: first_token would")
        if stop < begin:
            if since is not None and until is not None:
                raise Rejected("bad_parts", f"a part's end is {begin - stop!r} s before its start")
            begin = stop = begin if until is None else stop
        parts.append(
            EventPart(
                phase=phase,
                host=part.host or wire.host or None,
                devices=None if part.devices is None else _devices(part.devices),
                deployment=part.deployment or "",
                start=begin,
                end=stop,
            )
        )
    if len(parts) == 1 and parts[0].phase is not None and wire.host and parts[0].host != wire.host:
        other: PhaseName = "decode" if parts[0].phase == "prefill" else "prefill"
        begin, stop = usual[other]
        if begin is not None and stop is not None:
            devices = None if wire.devices is None else _devices(wire.devices)
            parts.append(EventPart(phase=other, host=wire.host, devices=devices, start=begin, end=stop))
    return tuple(parts)


def _phase(part: WirePart) -> PhaseName | None:
    if part.phase is None:
        return None
    known = _PHASES.get(part.phase)
    if known is None:
        raise Rejected("bad_parts", "the phase of a part is prefill or decode, or absent where it is both")
    return known


def _moment(value: Time | None, field: str) -> UnixSeconds | None:
    if value is None:
        return None
    return moment_from_text(value, field) if isinstance(value, str) else moment_from_number(value, field)


def _devices(devices: list[str]) -> tuple[str, ...]:
    if not all(devices) or len(set(devices)) != len(devices):
        raise Rejected("bad_devices", "devices of a part are named once each, and none is empty")
    return tuple(devices)
