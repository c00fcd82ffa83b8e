"""The one place where a number changes its unit. In: what a sensor or a file says. Out: base units."""

from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

UnixSeconds = float
"""A moment: seconds since 1970-01-01T00:00:00Z, as a 64-bit float (docs/decisions/0002-times-are-floats.md)."""

JOULES_PER_KILOWATT_HOUR: Final = 3_600_000.0
JOULES_PER_WATT_HOUR: Final = 3_600.0
SECONDS_PER_HOUR: Final = 3_600.0
SECONDS_PER_DAY: Final = 86_400.0

Energy = TypeVar("Energy", float, "NDArray[np.float64]")
"""One figure, or a column of them: the operations are the same, and so are the bits."""


def joules_from_millijoules(millijoules: float) -> float:
    """NVML counts energy in mJ: 1 500 mJ are 1.5 J."""
    return millijoules / 1e3


def watts_from_milliwatts(milliwatts: float) -> float:
    """NVML tells power in mW: 62 000 mW are 62 W."""
    return milliwatts / 1e3


def joules_from_microjoules(microjoules: float) -> float:
    """The kernel's powercap counts energy in uJ: 2 500 000 uJ are 2.5 J."""
    return microjoules / 1e6


def watts_from_microwatts(microwatts: float) -> float:
    """The kernel's powercap tells limits in uW: 270 000 000 uW are 270 W."""
    return microwatts / 1e6


def kilowatt_hours_from_joules(energy_joules: Energy) -> Energy:
    """7.2e6 J are 2 kWh."""
    return energy_joules / JOULES_PER_KILOWATT_HOUR
