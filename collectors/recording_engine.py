"""engine.csv of a recording <-> EngineReadings: what model servers did; every bad row is named, costs only itself."""

import csv
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Final, NamedTuple

from collectors.clock import rfc3339
from collectors.engine_sample import EngineSample, reading_between
from collectors.errors import Rejected
from collectors.readings import EngineReading
from collectors.recording_error import RecordingError
from collectors.recording_lines import lines_numbered, lines_of, open_lines
from collectors.recording_rows import MAX_ROW_BYTES, fields_of, header_of, moment_of, number_of, shown
from collectors.recording_samples import hole_seconds
from collectors.rejected import RejectedInput

MOST: Final = 2.0**53
"""No counter counts so far, and a float no longer knows each number beyond it."""
_KEYS: Final = ("time", "server", "model")
_VALUES: Final = tuple(name for name in EngineSample._fields if name not in (*_KEYS, "devices"))
_REMEDY: Final = f"the first line names {', '.join(EngineSample._fields)}, as far as they are told"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginesFile:
    """What engine.csv came to: readings by (end, server, model), and what was not used by its line."""

    engines: tuple[EngineReading, ...] = ()
    rejected: tuple[RejectedInput, ...] = ()
    duplicates: int = 0


class _Row(NamedTuple):
    number: int
    sample: EngineSample


_Rows = dict[tuple[str, str], list[_Row]]
_Flaws = dict[int, tuple[Rejected, float]]
"""Line -> the verdict on it and its time, of rows that only their neighbours show to be wrong."""


def read_engines(path: Path, device_ids: Collection[str], *, source: str) -> EnginesFile:
    """The readings of these devices' servers, none where there is no file; raises RecordingError for a bad header."""
    if not path.exists():
        return EnginesFile()
    rows: _Rows = {}
    rejected: dict[int, RejectedInput] = {}
    with open_lines(path) as file:
        lines = lines_of(file, MAX_ROW_BYTES)
        names, header = header_of(path, lines, EngineSample._fields, _REMEDY)
        places = {name: place for place, name in enumerate(names) if name in EngineSample._fields}
        for name in _KEYS:
            if name not in places:
                raise RecordingError(path, f"there is no column {name}", _REMEDY, line=header)
        for line in lines:
            time = None
            try:
                fields = fields_of(line, len(names))
                if not fields:
                    continue
                cells = {name: fields[place].strip() for name, place in places.items()}
                time = moment_of(cells["time"])
                sample = _sample(time, cells, device_ids)
            except Rejected as verdict:
                rejected[line.number] = line.rejected(verdict, source, time)
                continue
            rows.setdefault((sample.server, sample.model), []).append(_Row(line.number, sample))
    return _differences(path, rows, rejected, source)


def write_engines(path: Path, samples: Iterable[EngineSample]) -> None:
    """Writes the file with these samples, or removes it where there are none."""
    rows = [[_cell(value) for value in sample] for sample in samples]
    if not rows:
        path.unlink(missing_ok=True)
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(EngineSample._fields)
        writer.writerows(rows)


def _sample(time: float, cells: Mapping[str, str], device_ids: Collection[str]) -> EngineSample:
    if not cells["server"]:
        raise Rejected("blank_value", "server is blank")
    devices = tuple(each for name in cells.get("devices", "").split(";") if (each := name.strip()))
    for device in devices:
        if device not in device_ids:
            raise Rejected("unknown_device", f"{shown(device)} is no device of host.toml")
    values = {name: number_of(cells[name], name, MOST) for name in _VALUES if cells.get(name)}
    if not values:
        raise Rejected("blank_value", f"none of {', '.join(_VALUES)} has a value")
    return EngineSample(time, cells["server"], cells["model"], devices, **values)


def _differences(path: Path, rows: _Rows, rejected: dict[int, RejectedInput], source: str) -> EnginesFile:
    engines: list[EngineReading] = []
    flaws: _Flaws = {}
    duplicates = 0
    for told in rows.values():
        kept, repeated = _kept(told, flaws)
        duplicates += repeated
        engines += _readings(kept, flaws)
    for number, line in (lines_numbered(path, flaws, MAX_ROW_BYTES) if flaws else {}).items():
        rejected[number] = line.rejected(flaws[number][0], source, flaws[number][1])
    engines.sort(key=attrgetter("end", "server", "model", "start"))
    return EnginesFile(
        engines=tuple(engines),
        rejected=tuple(rejected[number] for number in sorted(rejected)),
        duplicates=duplicates,
    )


def _kept(told: Sequence[_Row], flaws: _Flaws) -> tuple[list[_Row], int]:
    """(one for each moment in the order of time, how many were left out that say the same).

    Of one moment the first in the file counts; what differs from it is a conflict.
    """
    kept: list[_Row] = []
    repeated = 0
    for row in sorted(told, key=lambda each: each.sample.time):
        if not kept or row.sample.time != kept[-1].sample.time:
            kept.append(row)
        elif row.sample == kept[-1].sample:
            repeated += 1
        else:
            detail = f"{row.sample.server!r} has other figures of {row.sample.model!r} at this time further up"
            flaws[row.number] = Rejected("conflict", detail), row.sample.time
    return kept, repeated


def _readings(kept: Sequence[_Row], flaws: _Flaws) -> Iterator[EngineReading]:
    limit_seconds = hole_seconds([row.sample.time for row in kept])
    for before, after in itertools.pairwise(kept):
        start, end = before.sample.time, after.sample.time
        try:
            if end - start > limit_seconds:
                told = f"nothing of {after.sample.server!r} from {rfc3339(start)} to {rfc3339(end)}"
                raise Rejected("engine_gap", f"{told} ({end - start:.3f} s)")
            yield reading_between(before.sample, after.sample)
        except Rejected as verdict:
            flaws[after.number] = verdict, end


def _cell(value: float | str | tuple[str, ...] | None) -> str:
    if isinstance(value, tuple):
        return ";".join(value)
    return "" if value is None else value if isinstance(value, str) else repr(float(value))
