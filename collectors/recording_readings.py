"""readings.csv of a recording -> EnergyReadings; every bad row is named and costs only itself."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Final, NamedTuple

from collectors.errors import Rejected
from collectors.readings import EnergyReading
from collectors.recording_error import RecordingError
from collectors.recording_lines import Line, lines_numbered, lines_of, open_lines
from collectors.recording_rows import MAX_ROW_BYTES, fields_of, header_of, moment_of, number_of, shown
from collectors.recording_samples import Flaw, SampleKind, Samples, intervals_of
from collectors.rejected import RejectedInput
from collectors.units import UnixSeconds

MAX_VALUE: Final[Mapping[SampleKind, float]] = {"power_watts": 1e7, "energy_joules_total": 1e15}
"""No device uses 10 MW, or has used what that makes in three years: such a value is noise and would ruin every sum."""
_KNOWN: Final = ("time", "device", "power_watts", "energy_joules_total")
_REMEDY: Final = "the first line names time, device, and power_watts or energy_joules_total"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingsFile:
    """What readings.csv came to: readings by (end, device, start), and what was not used by its line."""

    readings: tuple[EnergyReading, ...]
    rejected: tuple[RejectedInput, ...]
    duplicates: int


class _Columns(NamedTuple):
    """Where in a row what stands; -1: there is no such column."""

    total: int
    time: int
    device: int
    power: int
    energy: int


def read_readings(path: Path, device_ids: Collection[str], *, source: str) -> ReadingsFile:
    """The readings of these devices; raises RecordingError where there is no file or no usable header."""
    samples: dict[str, Samples] = {}
    rejected: dict[int, RejectedInput] = {}
    with open_lines(path) as file:
        lines = lines_of(file, MAX_ROW_BYTES)
        columns = _header(path, lines)
        for line in lines:
            time = None
            try:
                fields = fields_of(line, columns.total)
                if not fields:
                    continue
                time = moment_of(fields[columns.time])
                _take(samples, fields, columns, time=time, row=line.number, device_ids=device_ids)
            except Rejected as verdict:
                rejected[line.number] = line.rejected(verdict, source, time)
    return _integrated(path, samples, rejected, source)


def _integrated(
    path: Path, samples: Mapping[str, Samples], rejected: dict[int, RejectedInput], source: str
) -> ReadingsFile:
    readings: list[EnergyReading] = []
    flaws: dict[int, Flaw] = {}
    duplicates = 0
    for device in samples.values():
        intervals = intervals_of(device)
        readings += intervals.readings
        flaws.update((flaw.row, flaw) for flaw in intervals.flaws)
        duplicates += intervals.duplicates
    for number, line in (lines_numbered(path, flaws, MAX_ROW_BYTES) if flaws else {}).items():
        rejected[number] = line.rejected(flaws[number].verdict, source, flaws[number].at)
    readings.sort(key=attrgetter("end", "device", "start"))
    return ReadingsFile(
        readings=tuple(readings),
        rejected=tuple(rejected[number] for number in sorted(rejected)),
        duplicates=duplicates,
    )


def _header(path: Path, lines: Iterator[Line]) -> _Columns:
    names, line = header_of(path, lines, _KNOWN, _REMEDY)
    for name in ("time", "device"):
        if name not in names:
            raise RecordingError(path, f"there is no column {name}", _REMEDY, line=line)
    if not {"power_watts", "energy_joules_total"} & set(names):
        raise RecordingError(path, "there is neither power_watts nor energy_joules_total", _REMEDY, line=line)
    time, device, power, energy = (names.index(name) if name in names else -1 for name in _KNOWN)
    return _Columns(total=len(names), time=time, device=device, power=power, energy=energy)


def _take(
    samples: dict[str, Samples],
    fields: list[str],
    columns: _Columns,
    *,
    time: UnixSeconds,
    row: int,
    device_ids: Collection[str],
) -> None:
    device = fields[columns.device].strip()
    if device not in device_ids:
        raise Rejected("unknown_device", f"{shown(device)} is no device of host.toml")
    kind, value = _value(fields, columns)
    own = samples.get(device)
    if own is None:
        own = samples[device] = Samples(device, kind)
    if own.kind != kind:
        raise Rejected("mixed_kinds", f"{device!r} has {own.kind} further up; a device has one kind of sensor")
    own.add(time, value, row)


def _value(fields: list[str], columns: _Columns) -> tuple[SampleKind, float]:
    power = "" if columns.power < 0 else fields[columns.power].strip()
    energy = "" if columns.energy < 0 else fields[columns.energy].strip()
    if power and energy:
        raise Rejected("two_values", "power_watts and energy_joules_total in one row; leave one blank")
    if power:
        return "power_watts", number_of(power, "power_watts", MAX_VALUE["power_watts"])
    if energy:
        return "energy_joules_total", number_of(energy, "energy_joules_total", MAX_VALUE["energy_joules_total"])
    raise Rejected("blank_value", "neither power_watts nor energy_joules_total has a value")
