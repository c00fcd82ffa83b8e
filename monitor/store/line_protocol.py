"""Rows as InfluxDB line protocol text, and back. Pure. In: rows. Out: one line for each, the same for the same row.

`energy,host=gpu-1,team=a energy_joules=1.5,revision=0i 1700000000000000000`. InfluxDB has no escape for a backslash at
the end of a tag nor for a line break, so texts go in their stored form: a backslash is `\\b`, line breaks are `\\n` and
`\\r`. An empty tag and an unknown field are left out, as the format has no word for them.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

from collectors.units import UnixSeconds
from monitor.core.points import FieldValue, Measurement, Row

_NANOSECONDS = 1_000_000_000
_STORED = str.maketrans({"\\": "\\b", "\n": "\\n", "\r": "\\r"})
_READ = {"\\b": "\\", "\\n": "\n", "\\r": "\r"}
_READ_ESCAPE = re.compile(r"\\[bnr]")
_TAG = str.maketrans({",": "\\,", "=": "\\=", " ": "\\ "})
_STRING = str.maketrans({"\\": "\\\\", '"': '\\"'})
_TAG_ESCAPE = re.compile(r"\\([,= ])")
_STRING_ESCAPE = re.compile(r'\\([\\"])')
_TAG_PAIR = re.compile(r",([a-z_]+)=((?:[^\\, ]|\\.)*)")
_FIELD_PAIR = re.compile(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|[^," ]+),?')


def line(measurement: Measurement, row: Row, name: str | None = None) -> str:
    """One row as one line without its end; `name` stands for the measurement's where a table has another.

    Raises ValueError for a row of another shape, or a value that its field's type cannot hold.
    """
    tags = series(name or measurement.name, measurement.tags, row.tags)
    return f"{tags} {','.join(field_pairs(measurement, row))} {nanoseconds(row.time)}"


@lru_cache(maxsize=16_384)
def series(name: str, keys: tuple[str, ...], values: tuple[str, ...]) -> str:
    """What stands before the fields: `energy,host=gpu-1,team=a`."""
    pairs = (f",{key}={stored(value).translate(_TAG)}" for key, value in zip(keys, values, strict=True) if value)
    return name + "".join(pairs)


def field_pairs(measurement: Measurement, row: Row) -> list[str]:
    """`energy_joules=1.5` and so on, for the fields that are known. -0.0 is 0.0: not every store keeps its sign."""
    return [
        prefix + (repr(value + 0.0) if kind is float and type(value) is float else _typed(value, kind))
        for (prefix, kind), value in zip(_plan(measurement), row.fields, strict=True)
        if value is not None
    ]


@lru_cache
def _plan(measurement: Measurement) -> tuple[tuple[str, type[float] | type[int] | type[str]], ...]:
    return tuple((f"{name}=", kind) for name, kind in zip(measurement.fields, measurement.types, strict=True))


@lru_cache(maxsize=16_384)
def quoted(text: str) -> str:
    """A text as the value of a field."""
    return f'"{stored(text).translate(_STRING)}"'


def stored(text: str) -> str:
    """A text as the store holds it: without line breaks, and never with a backslash at its end."""
    return text.translate(_STORED)


def unstored(text: str) -> str:
    """The text that is stored so."""
    return _READ_ESCAPE.sub(lambda match: _READ[match[0]], text) if "\\" in text else text


def nanoseconds(moment: UnixSeconds) -> int:
    """Exact to the nanosecond: whole seconds and the rest are taken apart before they are scaled."""
    whole = int(moment // 1)
    return whole * _NANOSECONDS + round((moment - whole) * _NANOSECONDS)


def seconds(nanosecond: int) -> UnixSeconds:
    """The moment that `nanoseconds` told."""
    return nanosecond / _NANOSECONDS


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
        seconds(int(text[position + 1 :])),
        tuple(unstored(_TAG_ESCAPE.sub(r"\1", tags.get(key, ""))) for key in measurement.tags),
        tuple(_value(fields[key]) if key in fields else None for key in measurement.fields),
    )


def _pairs(pattern: re.Pattern[str], text: str, position: int) -> tuple[dict[str, str], int]:
    def matches() -> Iterator[re.Match[str]]:
        nonlocal position
        while match := pattern.match(text, position):
            position = match.end()
            yield match

    return {match[1]: match[2] for match in matches()}, position


def _typed(value: float | int | str, kind: type[float] | type[int] | type[str]) -> str:
    if isinstance(value, str) or kind is str:
        if not isinstance(value, str) or kind is not str:
            raise ValueError(f"{value!r} is no {kind.__name__}")
        return quoted(value)
    if kind is float:
        return repr(float(value) + 0.0)
    if value != int(value):
        raise ValueError(f"{value!r} is no whole number")
    return f"{int(value)}i"


def _value(text: str) -> FieldValue:
    if text.startswith('"'):
        return unstored(_STRING_ESCAPE.sub(r"\1", text[1:-1]))
    return int(text[:-1]) if text.endswith("i") else float(text)
