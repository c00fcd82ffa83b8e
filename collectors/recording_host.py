"""host.toml of a recording <-> HostProfile: what the host, its meters and its models are."""

import difflib
import json
import math
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, TypeVar

import msgspec

from collectors.readings import Device, DeviceKind, HostProfile, IdleSource, ModelFacts
from collectors.recording_error import RecordingError

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
_Positive = Annotated[float, msgspec.Meta(gt=0)]
_NOT_A_NAME: Final = re.compile(r"^\s|\s\Z|[\x00-\x1f\x7f-\x9f]")
_FORMAT: Final = "see docs/recording.md"


class _DeviceTable(msgspec.Struct):
    id: _Name
    kind: DeviceKind
    hardware: str = ""
    parent: str | None = None
    idle_watts: Annotated[float, msgspec.Meta(ge=0)] | None = None


class _ModelTable(msgspec.Struct):
    name: _Name
    parameters: _Positive | None = None
    active_parameters: _Positive | None = None
    bytes_per_parameter: _Positive | None = None
    kv_bytes_per_token: _Positive | None = None
    devices: tuple[str, ...] = ()


class _HostTable(msgspec.Struct):
    host: _Name
    zone: str = ""
    site: str = ""
    pue: Annotated[float, msgspec.Meta(ge=1)] = 1.0
    devices: list[dict[str, Any]] = []
    models: list[dict[str, Any]] = []


_Table = TypeVar("_Table", _HostTable, _DeviceTable, _ModelTable)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A table of the file: its top level, or the index-th [[name]]. tomllib tells no lines, this finds them."""

    file: Path
    text: str
    name: str = ""
    index: int = 0

    def line(self, key: str) -> int | None:
        """The line of the key in this table, else of the table, else None (an inline table)."""
        found = None
        for number, line in self._lines():
            if found is None and self.name:
                found = number
            if re.match(rf"""\s*["']?{re.escape(key)}["']?\s*=""", line):
                return number
        return found

    def refuse(self, key: str, what: str, remedy: str = _FORMAT) -> NoReturn:
        table = f" of [[{self.name}]]" if self.name else ""
        raise RecordingError(self.file, f"{key}{table} {what}", remedy, line=self.line(key))

    def _lines(self) -> Iterator[tuple[int, str]]:
        table, seen = "", {"": 0}
        for number, line in enumerate(self.text.splitlines(), start=1):
            if header := re.match(r"\s*\[\[?\s*([^\]]*?)\s*\]", line):
                table = header[1]
                seen[table] = seen.get(table, -1) + 1
            if table == self.name and seen[table] == self.index:
                yield number, line


def read_host(file: Path) -> HostProfile:
    """The profile in host.toml; raises RecordingError for anything in it that is not as docs/recording.md says."""
    text = _text(file)
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        line = re.search(r"at line (\d+)", str(error))
        raise RecordingError(file, f"not TOML: {error}", _FORMAT, line=int(line[1]) if line else None) from None
    top = _Place(file=file, text=text)
    table = _converted(content, _HostTable, top)
    devices = [
        (place, _converted(entry, _DeviceTable, place)) for place, entry in _entries(top, "devices", table.devices)
    ]
    models = [(place, _converted(entry, _ModelTable, place)) for place, entry in _entries(top, "models", table.models)]
    if not devices:
        raise RecordingError(file, "no [[devices]]", "name at least one meter with id and kind")
    _check_devices(devices)
    _check_models(models, {device.id for _, device in devices})
    return HostProfile(
        host=table.host,
        zone=table.zone,
        site=table.site,
        pue=table.pue,
        devices=tuple(_device(device) for _, device in devices),
        models=tuple(ModelFacts(**msgspec.structs.asdict(model)) for _, model in models),
    )


def host_toml(profile: HostProfile) -> str:
    """The text of host.toml that reads back as this profile."""
    top = {key: getattr(profile, key) for key in ("host", "zone", "site", "pue")}
    tables = [
        _toml_lines(top),
        *(["[[devices]]", *_toml_lines(_values(device, _DeviceTable))] for device in profile.devices),
        *(["[[models]]", *_toml_lines(_values(model, _ModelTable))] for model in profile.models),
    ]
    return "\n\n".join("\n".join(lines) for lines in tables) + "\n"


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise RecordingError(file, "there is no such file", f"a recording has one, {_FORMAT}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecordingError(file, f"cannot be read: {error}", "it is UTF-8 text") from None


def _entries(top: _Place, name: str, tables: list[dict[str, Any]]) -> Iterator[tuple[_Place, dict[str, Any]]]:
    for index, table in enumerate(tables):
        yield _Place(file=top.file, text=top.text, name=name, index=index), table


def _values(record: Device | ModelFacts, kind: type[msgspec.Struct]) -> dict[str, Any]:
    return {key: getattr(record, key) for key in _keys(kind)}


def _keys(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    return kind.__struct_fields__


def _converted(content: dict[str, Any], kind: type[_Table], place: _Place) -> _Table:
    for key, value in content.items():
        if key not in _keys(kind):
            near = difflib.get_close_matches(key, _keys(kind), n=1)
            remedy = f"did you mean {near[0]}?" if near else f"it has {', '.join(_keys(kind))}"
            place.refuse(key, "is not a known key", remedy)
        if isinstance(value, float) and not math.isfinite(value):
            place.refuse(key, "is not a finite number")
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        named = re.search(r"`\$\.(\w+)|required field `(\w+)", str(error))
        place.refuse((named[1] or named[2]) if named else "it", f"is wrong: {error}")


def _check_devices(devices: list[tuple[_Place, _DeviceTable]]) -> None:
    parents: dict[str, str | None] = {}
    for place, device in devices:
        _check_name(place, "id", device.id)
        if device.id in parents:
            place.refuse("id", f"{device.id!r} is there twice", "a meter has one table")
        parents[device.id] = device.parent
    for place, device in devices:
        above, path = device.parent, {device.id}
        while above is not None:
            if above not in parents:
                place.refuse("parent", f"{above!r} is no device of this host", "name the id of another [[devices]]")
            if above in path:
                place.refuse("parent", "leads back to the device itself", "a meter contains others, never itself")
            path.add(above)
            above = parents[above]


def _check_models(models: list[tuple[_Place, _ModelTable]], device_ids: set[str]) -> None:
    names: set[str] = set()
    for place, model in models:
        _check_name(place, "name", model.name)
        if model.name in names:
            place.refuse("name", f"{model.name!r} is there twice", "a model has one table")
        names.add(model.name)
        for device in model.devices:
            if device not in device_ids:
                place.refuse("devices", f"names {device!r}, no device of this host", "name ids of [[devices]]")


def _check_name(place: _Place, key: str, name: str) -> None:
    if _NOT_A_NAME.search(name):
        place.refuse(key, "begins or ends with white space, or holds a control character")


def _device(table: _DeviceTable) -> Device:
    source: IdleSource = "unknown" if table.idle_watts is None else "configured"
    return Device(**msgspec.structs.asdict(table), idle_source=source)


def _toml_lines(values: dict[str, Any]) -> list[str]:
    return [f"{key} = {_toml_value(value)}" for key, value in values.items() if value not in (None, "", ())]


def _toml_value(value: str | float | tuple[str, ...]) -> str:
    """A JSON string is a TOML string, but that TOML has DEL escaped; repr() keeps every bit of a float."""
    if isinstance(value, tuple):
        return f"[{', '.join(_toml_value(item) for item in value)}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f") if isinstance(value, str) else repr(value)
