"""requests.jsonl of a recording -> events placed on its host; every bad line is named and costs only itself."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from collectors.errors import Rejected
from collectors.readings import HostProfile
from collectors.recording_lines import Line, lines_of, open_lines
from collectors.rejected import RejectedInput
from collectors.requests.decoders.native import MAX_EVENT_BYTES, check_not_future, decode_arrived_event
from collectors.requests.event import EventPart, RequestEvent
from collectors.units import UnixSeconds

_LINE_END_BYTES: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrivedEvent:
    """An event, the time at which it came, and the line on which it stands (0: on none yet)."""

    event: RequestEvent
    arrived: UnixSeconds
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestsFile:
    """What requests.jsonl came to: events by (arrived, line), and what was not used by its line."""

    requests: tuple[ArrivedEvent, ...]
    rejected: tuple[RejectedInput, ...]


def read_requests(
    path: Path, profile: HostProfile, *, source: str, allowed_labels: Collection[str] = ()
) -> RequestsFile:
    """The events of the file; where there is none, nobody asked. Raises RecordingError if it cannot be read."""
    if not path.exists():
        return RequestsFile(requests=(), rejected=())
    placement = Placement(profile)
    requests: list[ArrivedEvent] = []
    rejected: list[RejectedInput] = []
    with open_lines(path) as file:
        for line in lines_of(file, MAX_EVENT_BYTES + _LINE_END_BYTES):
            if not line.raw.strip() and line.too_long_sha256 is None:
                continue
            arrived = None
            try:
                event, arrived = _decoded(line, allowed_labels)
                check_not_future(event, arrived)
                requests.append(ArrivedEvent(event=placement.placed(event), arrived=arrived, line=line.number))
            except Rejected as verdict:
                rejected.append(line.rejected(verdict, source, arrived))
    requests.sort(key=lambda request: (request.arrived, request.line))
    return RequestsFile(requests=tuple(requests), rejected=tuple(rejected))


class Placement:
    """Where on this host an event ran that does not say so."""

    def __init__(self, profile: HostProfile) -> None:
        gpus = tuple(device.id for device in profile.devices if device.kind == "gpu")
        self._host = profile.host
        self._device_ids = frozenset(device.id for device in profile.devices)
        self._only_gpu = gpus if len(gpus) == 1 else None
        self._devices_of_model: Mapping[str, tuple[str, ...]] = {
            model.name: model.devices for model in profile.models if model.devices
        }

    def placed(self, event: RequestEvent) -> RequestEvent:
        """The event with host and devices: its own, else the only GPU, else those of the model's server, else None.

        Raises Rejected `unknown_host` or `unknown_device`.
        """
        if event.host is not None and event.host != self._host:
            raise Rejected("unknown_host", f"host is {event.host!r}; this is a recording of {self._host!r}")
        devices = event.devices
        if devices is None:
            devices = self._only_gpu or self._devices_of_model.get(event.model)
        elif not self._device_ids.issuperset(devices):
            unknown = next(device for device in devices if device not in self._device_ids)
            raise Rejected("unknown_device", f"{unknown!r} is no device of host.toml")
        return msgspec.structs.replace(event, host=self._host, devices=devices, parts=self._parts(event))

    def _parts(self, event: RequestEvent) -> tuple[EventPart, ...]:
        """Those that name no host were served here; of other hosts the recordings are played beside this one."""
        parts = []
        for part in event.parts:
            host, devices = part.host or self._host, part.devices
            if host == self._host:
                devices = self._only_gpu if devices is None else devices
                if devices is not None and not self._device_ids.issuperset(devices):
                    raise Rejected("unknown_device", f"{devices!r} of a part are not all devices of host.toml")
            parts.append(msgspec.structs.replace(part, host=host, devices=devices))
        return tuple(parts)


def _decoded(line: Line, allowed_labels: Collection[str]) -> tuple[RequestEvent, UnixSeconds]:
    if line.too_long_sha256 is not None:
        raise Rejected("too_large", f"the line has more than {MAX_EVENT_BYTES} bytes")
    return decode_arrived_event(line.raw.rstrip(b"\r\n"), allowed_labels=allowed_labels)
