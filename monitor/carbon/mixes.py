"""The yearly electricity mix of a zone's country, from EcoLogits' table. In: a zone key. Out: an Intensity, or None.

The table's carbon intensities are from Our World in Data (EcoLogits' documentation, methodology/llm_inference, "On
impact factors"; set in its pull request 181). Neither says of which year they are, so no year is claimed here.
"""

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import msgspec

from monitor.config.zones import iso3_of_zone
from monitor.core.emissions.factors import Intensity

_PACKAGE: Final = "ecologits"
_TABLE: Final = Path("data", "electricity_mixes.json")
_STAND_IN: Final = "electricity-mix-gwp-world"
"""The table's warning that a country's carbon intensity is the world's; it has such for its other columns."""


class _Mix(msgspec.Struct, frozen=True):
    name: str
    gwp: float  # kg CO2e/kWh
    warnings: list[str] | None = None


class _Table(msgspec.Struct, frozen=True):
    electricity_mixes: list[_Mix]


def mix_of_zone(zone: str) -> Intensity | None:
    """The mix of the zone's country; None for no zone, an unknown one, or a country that is not in the table.

    "FR" is 41.44 g/kWh: the table says 0.04144 kg/kWh for FRA.
    """
    country = iso3_of_zone(zone)
    mix = next((mix for mix in _read_mixes() if mix.name == country), None) if country else None
    return None if mix is None else _intensity(zone, mix)


def _intensity(zone: str, mix: _Mix) -> Intensity:
    return Intensity(
        zone=zone,
        grams_per_kwh=round(mix.gwp * 1_000.0, 6),  # 0.14982 x 1000 is 149.82, not 149.82000000000002
        source=f"{_PACKAGE} {version(_PACKAGE)}: yearly mix of {mix.name}",
        estimated=_STAND_IN in (mix.warnings or ()),
    )


def _read_mixes() -> list[_Mix]:
    # The package is found, not imported: importing it, as importlib.resources does, loads pydantic and takes seconds.
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"the package {_PACKAGE} is not installed", name=_PACKAGE)
    table = Path(spec.submodule_search_locations[0]) / _TABLE
    return msgspec.json.decode(table.read_bytes(), type=_Table).electricity_mixes
