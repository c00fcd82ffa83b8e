"""The host's own facts, as they go with its readings. Pure. In: configuration, devices as found. Out: HostProfile."""

from collections.abc import Iterable

import msgspec

from collectors.readings import Device, HostProfile, ModelFacts
from monitor.config.host_sections import HostDevice
from monitor.config.sections import Config

NODE = "node"


def profile_of(config: Config, host: str, devices: Iterable[Device]) -> HostProfile:
    """Devices in the order of their ids; what the operator says of one counts more than what was found."""
    found = {device.id: device for device in devices}
    placed = {device.id: _within(device, found) for device in found.values()}
    said = {each.id: each for each in config.host.devices}
    known = tuple(_as_said(placed[each], said.get(each), placed) for each in sorted(placed))
    return HostProfile(
        host=host,
        zone=config.host.zone,
        site=config.host.site,
        pue=config.host.pue,
        devices=known,
        models=tuple(
            ModelFacts(
                name=model.name,
                parameters=model.parameters,
                active_parameters=model.active_parameters,
                bytes_per_parameter=model.bytes_per_parameter,
                kv_bytes_per_token=model.kv_bytes_per_token,
            )
            for model in config.models
        ),
    )


def _within(device: Device, found: dict[str, Device]) -> Device:
    """A node's meter contains all others; a module (Grace Hopper) its own CPU and memory too."""
    if device.parent is not None or device.id == NODE:
        return device
    modules = [each.id for each in found.values() if each.kind == "node" and each.id.endswith("/module")]
    if device.kind in ("cpu", "dram") and len(modules) == 1:
        return msgspec.structs.replace(device, parent=modules[0])
    return msgspec.structs.replace(device, parent=NODE) if NODE in found else device


def _as_said(device: Device, said: HostDevice | None, found: dict[str, Device]) -> Device:
    if said is None:
        return device
    if said.idle_watts is not None:
        device = msgspec.structs.replace(device, idle_watts=said.idle_watts, idle_source="configured")
    if said.hardware is not None:
        device = msgspec.structs.replace(device, hardware=said.hardware)
    if said.parent is not None and said.parent in found:
        device = msgspec.structs.replace(device, parent=said.parent)
    return device
