"""Rows as InfluxDB line protocol text, and back. Pure. In: rows. Out: one line for each, the same for the same row.

`energy,host=gpu-1,team=a energy_joules=1.5,revision=0i 1700000000000000000`. Two things are stricter than InfluxDB
asks, so that a line gives back exactly one row: a backslash in a tag is doubled, and line breaks are written \\n and
\\r. An empty tag and an unknown field are left out, as the format has no word for them.
"""

import re
from collections.abc import Iterator

from collectors.units import UnixSeconds
from monitor.core.points import FieldValue, Measurement, Row

_NANOSECONDS = 1_000_000_000
_TAG = str.maketrans({"\\": "\\\\", ",": "\\,", "=": "\\=", " ": "\\ ", "\n": "\\n", "\r": "\\r"})
_STRING = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r"})
_ESCAPE = re.compile(r"\\(.)")
_TAG_PAIR = re.compile(r",([a-z_]+)=((?:[^\\, ]|\\.)*)")
_FIELD_PAIR = re.compile(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|[^," ]+),?')


def line(measurement: Measurement, row: Row, name: str | None = None) -> str:
    """One row as one line without its end; `name` stands for the measurement's where a table has another."""
    tags = "".join(
        f",{key}={value.translate(_TAG)}" for key, value in zip(measurement.tags, row.tags, strict=True) if value
    )
    fields = ",".join(
        f"{key}={_field(value)}" for key, value in zip(measurement.fields, row.fields, strict=True) if value is not None
    )
    return f"{name or measurement.name}{tags} {fields} {_nanoseconds(row.time)}"


def row(measurement: Measurement, text: str) -> Row:
    """The row that `line` made this text from. Raises ValueError for any other text."""
    name_end = re.search(r"[, ]", text)
    if name_end is None or text[: name_end.start()] != measurement.name:
        raise ValueError(f"not a line of {measurement.name}: {text[:40]!r}")
    tags, position = _pairs(_TAG_PAIR, text, name_end.start())
    fields, position = _pairs(_FIELD_PAIR, text, position + 1)
    unknown = (tags.keys() - set(measurement.tags)) | (fields.keys() - set(measurement.fields))
    if unknown:
        raise ValueError(f"{measurement.name} has no {sorted(unknown)[0]!r}")
    return Row(
        measurement.name,
        int(text[position + 1 :]) / _NANOSECONDS,
        tuple(_unescape(tags.get(key, "")) for key in measurement.tags),
        tuple(_value(fields[key]) if key in fields else None for key in measurement.fields),
    )


def _pairs(pattern: re.Pattern[str], text: str, position: int) -> tuple[dict[str, str], int]:
    def matches() -> Iterator[re.Match[str]]:
        nonlocal position
        while match := pattern.match(text, position):
            position = match.end()
            yield match

    return {match[1]: match[2] for match in matches()}, position


def _field(value: FieldValue) -> str:
    if isinstance(value, str):
        return f'"{value.translate(_STRING)}"'
    return f"{value}i" if isinstance(value, int) else repr(value)


def _value(text: str) -> FieldValue:
    if text.startswith('"'):
        return _unescape(text[1:-1])
    return int(text[:-1]) if text.endswith("i") else float(text)


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: {"n": "\n", "r": "\r"}.get(match[1], match[1]), text)


def _nanoseconds(moment: UnixSeconds) -> int:
    """Exact to the nanosecond: whole seconds and the rest are taken apart before they are scaled."""
    whole = int(moment // 1)
    return whole * _NANOSECONDS + round((moment - whole) * _NANOSECONDS)
