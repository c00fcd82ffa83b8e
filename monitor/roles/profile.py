"""The host's own facts, as they go with its readings. Pure. In: configuration, devices as found. Out: HostProfile."""

from collections.abc import Iterable

import msgspec

from collectors.readings import Device, HostProfile, ModelFacts
from monitor.config.host_sections import HostDevice
from monitor.config.input_sections import Model
from monitor.config.sections import Config

NODE = "node"


def profile_of(config: Config, host: str, devices: Iterable[Device], models: Iterable[ModelFacts] = ()) -> HostProfile:
    """Devices in the order of their ids; what the operator says of one counts more than what was found.

    So with `models`, the facts that were found: [[models]] of the configuration first, what it leaves open from them.
    """
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
        models=_models(config, {each.name: each for each in models}),
    )


def _models(config: Config, found: dict[str, ModelFacts]) -> tuple[ModelFacts, ...]:
    said = [_as_told(model, found.get(model.name)) for model in config.models]
    named = {each.name for each in said}
    return (*said, *(found[name] for name in sorted(found.keys() - named)))


def _as_told(told: Model, found: ModelFacts | None) -> ModelFacts:
    """A size that is told stands alone: the active parameters of another size would be none of it."""
    facts = ModelFacts(
        name=told.name,
        parameters=told.parameters,
        active_parameters=told.active_parameters,
        bytes_per_parameter=told.bytes_per_parameter,
        kv_bytes_per_token=told.kv_bytes_per_token,
    )
    if found is None:
        return facts
    if facts.parameters is None and facts.active_parameters is None:
        facts = msgspec.structs.replace(
            facts, parameters=found.parameters, active_parameters=found.active_parameters, source=found.source
        )
    if facts.bytes_per_parameter is None:
        facts = msgspec.structs.replace(facts, bytes_per_parameter=found.bytes_per_parameter)
    if facts.kv_bytes_per_token is None:
        facts = msgspec.structs.replace(facts, kv_bytes_per_token=found.kv_bytes_per_token)
    return facts


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
