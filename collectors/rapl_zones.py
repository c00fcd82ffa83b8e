"""The RAPL zones of a host, each joule in one of them. In: <sysfs>/class/powercap. Out: the zones that are metered.

psys contains package, package contains core and uncore, dram of a server lies beside package (methodology: powercap
documentation of the kernel). So: every package and dram, psys alone where there is no package, core and uncore never.
The same counter shown by the processor (intel-rapl) and by memory-mapped I/O (intel-rapl-mmio) is metered once.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Literal

import msgspec

from collectors.units import joules_from_microjoules, watts_from_microwatts

ZoneKind = Literal["package", "dram", "psys"]

DEFAULT_LIMIT_WATTS: Final = 1000.0
"""More than any socket draws; AMD's zones tell no limit."""
SANE_LIMIT_WATTS: Final = (100.0, 2000.0)
"""Firmware writes 0 and 4 090 W as limits. A smaller one than 100 W is raised to it: a limit that an operator lowered,
or that of a long window, must not make a short peak implausible."""

_PACKAGE: Final = re.compile(r"package-(\d+)(?:-die-(\d+))?")


class Zone(msgspec.Struct, frozen=True, kw_only=True):
    """One RAPL counter. `device` is its id in the books, `package` the socket where the name tells it.

    `range_joules` None: how far it counts is not readable. `range_error` says why.
    """

    device: str
    kind: ZoneKind
    folder: Path
    package: int | None = None
    range_joules: float | None = None
    range_error: str = ""
    power_limit_watts: float = DEFAULT_LIMIT_WATTS

    @property
    def counter(self) -> Path:
        """The file with the count."""
        return self.folder / "energy_uj"


def powercap_folder(sysfs: Path) -> Path:
    """Where the kernel lists its power capping zones, all levels side by side."""
    return sysfs / "class" / "powercap"


def find_zones(sysfs: Path) -> list[Zone]:
    """The zones to meter, in order of their device ids; empty where the host has no RAPL."""
    named = dict(_named_folders(powercap_folder(sysfs)))
    zones = [zone for folder, name in named.items() if (zone := _zone(folder, name, named)) is not None]
    if any(zone.kind == "package" for zone in zones):
        zones = [zone for zone in zones if zone.kind != "psys"]
    return sorted(_told_apart(_without_twins(zones)), key=lambda zone: zone.device)


def _named_folders(powercap: Path) -> Iterator[tuple[Path, str]]:
    """Every zone's folder with its name. A zone that goes away while it is looked at is none."""
    try:
        folders = sorted(powercap.iterdir())
    except OSError:
        return
    for folder in folders:
        name = _text(folder / "name")
        if ":" in folder.name and name is not None:
            yield folder, name


def _zone(folder: Path, name: str, named: dict[Path, str]) -> Zone | None:
    """The zone as it is metered; None for core, uncore and what is no RAPL zone. `name` is dram's parent's for dram."""
    if name == "psys":
        return _with_facts(Zone(device="psys", kind="psys", folder=folder))
    if match := _PACKAGE.fullmatch(name):
        return _with_facts(Zone(device=_numbered("cpu", match), kind="package", folder=folder, package=int(match[1])))
    if name != "dram":
        return None
    # intel-rapl:0:1 lies in intel-rapl:0: the parent's name has the socket, the folder's number need not.
    parent = named.get(folder.with_name(folder.name.rpartition(":")[0]), "")
    if match := _PACKAGE.fullmatch(parent):
        return _with_facts(Zone(device=_numbered("dram", match), kind="dram", folder=folder, package=int(match[1])))
    return _with_facts(Zone(device=f"dram-{folder.name.partition(':')[2]}", kind="dram", folder=folder))


def _numbered(kind: str, match: re.Match[str]) -> str:
    """package-1 is cpu-1, package-0-die-1 is cpu-0-die-1."""
    return f"{kind}-{match[1]}" + (f"-die-{match[2]}" if match[2] else "")


def _with_facts(zone: Zone) -> Zone:
    """The same zone with its range and its power limit as far as they can be read."""
    range_joules, range_error = _range(zone.folder)
    return msgspec.structs.replace(
        zone, range_joules=range_joules, range_error=range_error, power_limit_watts=_power_limit_watts(zone.folder)
    )


def _range(folder: Path) -> tuple[float | None, str]:
    """Where the counter starts again, or why it is not known. Never a guess: a wrong range makes energy out of it."""
    try:
        microjoules = int((folder / "max_energy_range_uj").read_text())
    except (OSError, ValueError) as error:
        return None, f"{folder}/max_energy_range_uj is not readable ({_reason(error)})"
    if microjoules <= 0:
        return None, f"{folder}/max_energy_range_uj is {microjoules}"
    return joules_from_microjoules(microjoules), ""


def _power_limit_watts(folder: Path) -> float:
    """The highest limit that the zone tells and that can be true."""
    least, most = SANE_LIMIT_WATTS
    told = (_text(path) for pattern in ("constraint_*_max_power_uw", "constraint_*_power_limit_uw")
            for path in folder.glob(pattern))  # fmt: skip
    watts = [
        watts_from_microwatts(int(text)) for text in told if text is not None and text.isascii() and text.isdigit()
    ]
    sane = [value for value in watts if 0.0 < value <= most]
    return max(least, *sane) if sane else DEFAULT_LIMIT_WATTS


def _without_twins(zones: Iterable[Zone]) -> list[Zone]:
    """One of each (device, control type)s: the processor's own, else the first that can be read."""
    chosen: dict[str, list[Zone]] = {}
    for zone in sorted(zones, key=lambda zone: (not is_readable(zone.counter), _control_type(zone) != "intel-rapl")):
        known = chosen.setdefault(zone.device, [])
        if not known or _control_type(known[0]) == _control_type(zone):
            known.append(zone)
    return [zone for known in chosen.values() for zone in known]


def _told_apart(zones: Iterable[Zone]) -> Iterator[Zone]:
    """Two zones of one control type with one name (dies that do not say so) keep an id each."""
    seen: set[str] = set()
    for zone in zones:
        unique = zone if zone.device not in seen else msgspec.structs.replace(zone, device=_with_folder(zone))
        seen.add(unique.device)
        yield unique


def _with_folder(zone: Zone) -> str:
    return f"{zone.device}-zone-{zone.folder.name.partition(':')[2]}"


def _control_type(zone: Zone) -> str:
    return zone.folder.name.partition(":")[0]


def is_readable(path: Path) -> bool:
    """Whether the file can be opened, by this process as it is now."""
    try:
        path.open("rb").close()
    except OSError:
        return False
    return True


def sockets_of_topology(sysfs: Path) -> frozenset[int]:
    """The numbers of the sockets that the kernel sees processors on; empty where it does not tell."""
    files = (sysfs / "devices" / "system" / "cpu").glob("cpu[0-9]*/topology/physical_package_id")
    told = (_text(path) for path in files)
    return frozenset(int(text) for text in told if text is not None and text.isascii() and text.isdigit())


def may_mirror(zone: Zone, other: Zone, sockets: frozenset[int]) -> bool:
    """Whether two zones can be one counter shown twice: dies of one socket, or of sockets that there are not.

    Sockets that the kernel knows to be two are two, however alike they count.
    """
    if zone.kind != other.kind or zone.kind == "psys":
        return False
    if zone.package is None or other.package is None or zone.package == other.package or not sockets:
        return True
    return not {zone.package, other.package} <= sockets


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else "no whole number"
