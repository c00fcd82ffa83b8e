"""A recording: a folder of host.toml, readings.csv, requests.jsonl and engine.csv. The format is in docs/recording.md.

`load_recording` raises RecordingError for what makes the whole folder unusable; a bad row or event is in `rejected`.
"""

import csv
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from collectors.engine_sample import EngineSample
from collectors.readings import EnergyReading, EngineReading, HostProfile
from collectors.recording_engine import read_engines, write_engines
from collectors.recording_error import RecordingError
from collectors.recording_host import host_toml, read_host
from collectors.recording_readings import read_readings
from collectors.recording_requests import ArrivedEvent, read_requests
from collectors.rejected import RejectedInput
from collectors.requests.decoders.native_diagnosis import SCHEMA
from collectors.requests.event import RequestEvent
from collectors.units import UnixSeconds

__all__ = ["ArrivedEvent", "EngineSample", "Recording", "RecordingError", "Sample", "load_recording", "write_recording"]

HOST_FILE: Final = "host.toml"
READINGS_FILE: Final = "readings.csv"
REQUESTS_FILE: Final = "requests.jsonl"
ENGINE_FILE: Final = "engine.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What a host and its users did for a while.

    `readings` are in the order of (end, device, start), `requests` of (arrived, line), `engines` of (end, server,
    model). Duplicate and conflicting events are all there: what counts is decided by identity, in the account.
    `rejected` names what was not used, rows first; `counts` what was dropped without loss ("duplicate_reading",
    "duplicate_engine").
    """

    profile: HostProfile
    readings: tuple[EnergyReading, ...]
    requests: tuple[ArrivedEvent, ...]
    rejected: tuple[RejectedInput, ...]
    counts: Mapping[str, int]
    engines: tuple[EngineReading, ...] = ()


class Sample(NamedTuple):
    """One row of readings.csv: the power at this moment, or the total of a counter."""

    time: UnixSeconds
    device: str
    power_watts: float | None = None
    energy_joules_total: float | None = None


def load_recording(path: Path, *, allowed_labels: Collection[str] = ()) -> Recording:
    """The recording in this folder; raises RecordingError."""
    if not path.is_dir():
        raise RecordingError(path, "there is no such folder", f"a recording is a folder with {HOST_FILE}")
    profile = read_host(path / HOST_FILE)
    device_ids = frozenset(device.id for device in profile.devices)
    name = path.resolve().name
    rows = read_readings(path / READINGS_FILE, device_ids, source=f"{name}/{READINGS_FILE}")
    events = read_requests(
        path / REQUESTS_FILE, profile, source=f"{name}/{REQUESTS_FILE}", allowed_labels=allowed_labels
    )
    engines = read_engines(path / ENGINE_FILE, device_ids, source=f"{name}/{ENGINE_FILE}")
    return Recording(
        profile=profile,
        readings=rows.readings,
        requests=events.requests,
        rejected=rows.rejected + engines.rejected + events.rejected,
        counts=+Counter(duplicate_reading=rows.duplicates, duplicate_engine=engines.duplicates),
        engines=engines.engines,
    )


def write_recording(
    path: Path,
    profile: HostProfile,
    samples: Iterable[Sample],
    events: Iterable[ArrivedEvent | RequestEvent],
    engines: Iterable[EngineSample] = (),
) -> None:
    """Writes the folder, replacing its files; what was written loads again bit for bit. No engines: no engine.csv."""
    path.mkdir(parents=True, exist_ok=True)
    (path / HOST_FILE).write_text(host_toml(profile), encoding="utf-8")
    with (path / READINGS_FILE).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Sample._fields)
        for sample in samples:
            writer.writerow([repr(float(sample.time)), sample.device, _cell(sample[2]), _cell(sample[3])])
    with (path / REQUESTS_FILE).open("wb") as lines:
        lines.writelines(_event_line(event) for event in events)
    write_engines(path / ENGINE_FILE, engines)


def _cell(value: float | None) -> str:
    return "" if value is None else repr(float(value))


def _event_line(item: ArrivedEvent | RequestEvent) -> bytes:
    event = item.event if isinstance(item, ArrivedEvent) else item
    content = {"schema": SCHEMA, **msgspec.to_builtins(event)}
    if isinstance(item, ArrivedEvent) and item.arrived != event.end:
        content["arrived"] = item.arrived
    return msgspec.json.encode(content) + b"\n"
