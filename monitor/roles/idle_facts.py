"""Which idle power of a device holds now, and which models are on it, as facts that go with its readings. Pure.

In: a device as its meter tells it, and as it was last told. Out: the device with `idle_watts` and `resident_models`.
"""

from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from collectors.readings import Device

MOST_RESIDENTS: Final = 32
LONGEST_NAME: Final = 256


def at_rest_now(device: Device, before: Device | None = None) -> Device:
    """With the level of the state that it is in. A level not learned yet is what the last run had learned.

    A GPU that rests at 71 W bare and at 118 W loaded, with a model loaded: 118 W, "quiet". Was it never quiet in that
    state, nothing is said: the other state's level would call the difference work, or work idle.
    """
    if before is not None:
        device = replace(
            device,
            bare_watts=before.bare_watts if device.bare_watts is None else device.bare_watts,
            loaded_watts=before.loaded_watts if device.loaded_watts is None else device.loaded_watts,
        )
    watts = device.loaded_watts if device.loaded else device.bare_watts
    if device.idle_watts is not None or watts is None:
        return device
    return replace(device, idle_watts=watts, idle_source="quiet")


def with_residents(device: Device, residents: Mapping[str, tuple[str, ...]]) -> Device:
    """With the models whose servers are on it. Paths without end are left out: they would stand in every record."""
    models = tuple(name for name in residents.get(device.id, ()) if len(name) <= LONGEST_NAME)[:MOST_RESIDENTS]
    return replace(device, resident_models=models) if models else device
