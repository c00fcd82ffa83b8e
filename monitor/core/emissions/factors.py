"""Grams of CO2e from joules: one factor, and the text that says which. Pure."""

import msgspec

from collectors.units import Energy, kilowatt_hours_from_joules


class Intensity(msgspec.Struct, frozen=True, kw_only=True):
    """The carbon intensity of a grid zone: a yearly average, or the value of some moment.

    `zone` is the zone asked for, whatever area `source` knows it by. `year` is the year of the data, None where the
    source states none. `estimated` is a stand-in for a missing value, such as a world average.
    """

    zone: str
    grams_per_kwh: float
    source: str
    year: int | None = None
    estimated: bool = False


def location_grams(energy_joules: Energy, pue: float, intensity: Intensity | None) -> Energy | None:
    """CO2e of energy metered in a facility with this PUE; None where no factor is known.

    Location-based: energy x PUE x the grid's average intensity (GHG Protocol Scope 2 Guidance, 2015).
    7.2e6 J x PUE 1.2 x 400 g/kWh = 2 kWh x 1.2 x 400 g/kWh = 960 g.
    """
    if intensity is None:
        return None
    return kilowatt_hours_from_joules(energy_joules) * pue * intensity.grams_per_kwh


def factor_label(intensity: Intensity | None, pue: float) -> str:
    """The factor as one line beside a number, "" where none is known.

    "FR 41.44 g/kWh (ecologits 0.11.3: yearly mix of FRA, year not stated), PUE 1.2, location-based".
    """
    if intensity is None:
        return ""
    year = "year not stated" if intensity.year is None else str(intensity.year)
    estimated = ", estimated" if intensity.estimated else ""
    value = f"{intensity.zone} {intensity.grams_per_kwh:.10g} g/kWh"
    return f"{value} ({intensity.source}, {year}{estimated}), PUE {pue:.10g}, location-based"
