"""What the types of the sections allow, in the form in which a loader asks for it."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec
from msgspec import inspect

from monitor.config.problems import key_text, shown
from monitor.config.section import Section

_MANY_TABLES: Final = 3


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A type without its wrappings. `reader` is "" where the value is taken as it is."""

    kind: inspect.Type
    reader: str
    optional: bool


def wanted(kind: inspect.Type) -> Wanted:
    """The type that a file has to give; `or None` only says that the key may be left out."""
    reader, optional = "", False
    while isinstance(kind, inspect.Metadata | inspect.UnionType):
        if isinstance(kind, inspect.Metadata):
            reader, kind = (kind.extra or {}).get("reader", reader), kind.type
        else:
            optional = True
            (kind,) = (member for member in kind.types if not isinstance(member, inspect.NoneType))
    return Wanted(kind=kind, reader=reader, optional=optional)


def struct_type(section: type[Section]) -> inspect.StructType:
    """A section's fields with their keys and types."""
    info = inspect.type_info(section)
    assert isinstance(info, inspect.StructType)
    return info


def tables(section: inspect.StructType, name: str = "") -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every table, as "host.devices" (the whole file is ""), with its keys; those of arrays of tables included."""
    yield name, tuple(field.encode_name for field in section.fields)
    for field in section.fields:
        kind = wanted(field.type).kind
        if isinstance(kind, inspect.VarTupleType):
            kind = wanted(kind.item_type).kind
        if isinstance(kind, inspect.StructType):
            yield from tables(kind, f"{name}.{field.encode_name}" if name else field.encode_name)


def unknown_key(key: str, table: str, known: Mapping[str, tuple[str, ...]]) -> str:
    """What to say of a key that its table does not have: the nearest one, or where it belongs, or all there are."""
    near = difflib.get_close_matches(key, known[table], n=1, cutoff=0.7)
    if near:
        return f"unknown key; did you mean {shown(near[0])}?"
    homes = [name for name, keys in known.items() if key in keys]
    if 0 < len(homes) < _MANY_TABLES:
        return (
            f"unknown key here; it belongs {' or '.join(f'under [{home}]' if home else 'at the top' for home in homes)}"
        )
    near = difflib.get_close_matches(key, known[table], n=1, cutoff=0.5)
    if near:
        return f"unknown key; did you mean {shown(near[0])}?"
    return f"unknown key; known here are {', '.join(key_text((name,)) for name in known[table])}"
