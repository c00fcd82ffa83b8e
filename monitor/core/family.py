"""The meters of one host in one window, and which of them contains which. In: readings by device. Out: `Family`."""

from collections.abc import Mapping, Sequence

import msgspec

from collectors.readings import Device, HostProfile
from monitor.core.readings import Told


class Family(msgspec.Struct, frozen=True):
    """Every device with a reading in the window and every meter above it, by id, in order; `known` has all others too.

    All facts are the newest profile's. A device's `parent` is None where that profile does not know the parent, or
    where a chain of parents leads back to the device.
    """

    profile: HostProfile
    devices: dict[str, Device]
    known: dict[str, Device]

    def children(self, device_id: str) -> list[Device]:
        """The meters that this one contains directly, read in this window or not."""
        return [device for device in self.known.values() if device.parent == device_id]


def family_of(by_device: Mapping[str, Sequence[Told]]) -> Family:
    """The family of a window's readings, of which there is at least one.

    A parent that was not read in the window is in it all the same: its meter row then holds what its children tell.
    """
    latest = {device_id: max(told, key=_when) for device_id, told in by_device.items()}
    profile = max(latest.values(), key=_when).profile
    known = {device.id: device for device in profile.devices}
    for device_id, told in latest.items():
        device = known.get(device_id) or told.profile.device(device_id) or Device(id=device_id, kind="gpu")
        known[device_id] = device
    parents = {device_id: _parent(device_id, known) for device_id in known}
    there = set(by_device)
    for device_id in by_device:
        above = parents[device_id]
        while above is not None and above not in there:
            there.add(above)
            above = parents[above]
    known = {each: msgspec.structs.replace(known[each], parent=parents[each]) for each in sorted(known)}
    return Family(profile, {each: known[each] for each in sorted(there)}, known)


def _when(told: Told) -> tuple[float, float, str]:
    return told.reading.start, told.reading.end, told.reading.device


def _parent(device_id: str, known: Mapping[str, Device]) -> str | None:
    above, path = known[device_id].parent, [device_id]
    while above is not None and above in known and above not in path:
        path.append(above)
        above = known[above].parent
    return path[1] if len(path) > 1 and above != device_id else None
