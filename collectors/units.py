"""The one place where a number changes its unit. In: what a sensor or a file says. Out: base units."""

from typing import Final

UnixSeconds = float
"""A moment: seconds since 1970-01-01T00:00:00Z, as a 64-bit float (docs/decisions/0002-times-are-floats.md)."""

JOULES_PER_KILOWATT_HOUR: Final = 3_600_000.0
JOULES_PER_WATT_HOUR: Final = 3_600.0
SECONDS_PER_HOUR: Final = 3_600.0
SECONDS_PER_DAY: Final = 86_400.0


def kilowatt_hours_from_joules(energy_joules: float) -> float:
    """7.2e6 J are 2 kWh."""
    return energy_joules / JOULES_PER_KILOWATT_HOUR
