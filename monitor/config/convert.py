"""From the tree of values to a Config, along the types of the sections, with a problem for each key that is wrong."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

from msgspec import inspect

from monitor.config.files import Place, Tree
from monitor.config.problems import Faulty, KeyPath, Problem, key_text, shown
from monitor.config.readers import EXAMPLES, READERS
from monitor.config.schema import Wanted, struct_type, tables, unknown_key, wanted
from monitor.config.section import Section
from monitor.config.substitute import substitute

_WRONG: Final = object()
"""Stands for a value whose problem is already noted."""
_NAMES: Final[tuple[tuple[type[inspect.Type], str], ...]] = (
    (inspect.FloatType, "a number"),
    (inspect.IntType, "a whole number"),
    (inspect.BoolType, "true or false"),
    (inspect.VarTupleType, "a list in square brackets"),
    (inspect.StructType, "a table"),
    (inspect.DictType, "a table"),
    (inspect.Type, "a text in quotes"),
)


class Converter:
    """Converts one tree. `problems` fills up meanwhile; what it returns counts only if there are none."""

    def __init__(self, tree: Tree, environ: Mapping[str, str], main_file: Path) -> None:
        self._tree = tree
        self._environ = environ
        self._top = Place(file=main_file, line=1)
        self._tables: dict[str, tuple[str, ...]] = {}
        self.problems: list[Problem] = []

    def convert(self, section: type[Section]) -> object:
        """The whole tree as that section."""
        info = struct_type(section)
        self._tables = dict(tables(info))
        return self._struct(info, self._tree.values, ())

    def _note(self, path: KeyPath, message: str) -> object:
        place, key = self._place(path), key_text(path)
        self.problems.append(Problem(file=str(place.file), line=place.line, key=key, message=message))
        return _WRONG

    def _place(self, path: KeyPath) -> Place:
        """Where the key stands; for one that is not there, its table."""
        while path and path not in self._tree.places:
            path = path[:-1]
        return self._tree.places.get(path, self._top)

    def _value(self, kind: inspect.Type, value: object, path: KeyPath) -> object:
        want = wanted(kind)
        if isinstance(value, str) and (want.reader or isinstance(want.kind, inspect.StrType | inspect.LiteralType)):
            return self._text(want, value, path)
        if isinstance(want.kind, inspect.StructType) and isinstance(value, dict):
            return self._struct(want.kind, value, path)
        if isinstance(want.kind, inspect.DictType) and isinstance(value, dict):
            return self._dict(want.kind, value, path)
        if isinstance(want.kind, inspect.VarTupleType) and isinstance(value, list):
            return self._tuple(want.kind, value, path)
        return self._number(want, value, path)

    def _struct(self, info: inspect.StructType, value: dict[str, Any], path: KeyPath) -> object:
        table = ".".join(part for part in path if isinstance(part, str))
        fields = {field.encode_name: field for field in info.fields}
        for key in value:
            if key not in fields:
                self._note((*path, key), unknown_key(key, table, self._tables))
        built: dict[str, object] = {}
        for key, field in fields.items():
            if key in value:
                built[field.name] = self._value(field.type, value[key], (*path, key))
            elif field.required:
                built[field.name] = self._note((*path, key), "is missing; every one of these tables needs it")
        if any(item is _WRONG for item in built.values()):
            return _WRONG
        section = cast("Section", info.cls(**built))
        for key_path, message in section.faults():
            self._note((*path, *key_path), message)
        return section

    def _tuple(self, kind: inspect.VarTupleType, value: list[Any], path: KeyPath) -> object:
        items = tuple(self._value(kind.item_type, item, (*path, index)) for index, item in enumerate(value))
        item_kind = wanted(kind.item_type).kind
        if isinstance(item_kind, inspect.StructType):
            self._unique(cast("type[Section]", item_kind.cls).identity, items, value, path)
        if kind.min_length is not None and len(items) < kind.min_length:
            return self._note(path, f"is too short; it needs at least {kind.min_length}")
        if kind.max_length is not None and len(items) > kind.max_length:
            return self._note(path, f"has {len(items)} elements; at most {kind.max_length} are allowed")
        return _WRONG if any(item is _WRONG for item in items) else items

    def _unique(self, key: str, items: tuple[object, ...], values: list[Any], path: KeyPath) -> None:
        first: dict[str, int] = {}
        for index, (item, value) in enumerate(zip(items, values, strict=True)):
            name = getattr(item, key, None) or (value.get(key) if isinstance(value, dict) else None)
            if not isinstance(name, str) or first.setdefault(name, index) == index:
                continue
            place = self._place((*path, first[name], key))
            written = shown(value[key])  # not `name`, which may come from the environment
            same = f"{written} is taken by {place.file}:{place.line}; give each a {key} of its own"
            self._note((*path, index, key), same)

    def _dict(self, kind: inspect.DictType, value: dict[str, Any], path: KeyPath) -> object:
        built = {
            self._value(kind.key_type, key, (*path, key)): self._value(kind.value_type, item, (*path, key))
            for key, item in value.items()
        }
        return _WRONG if any(part is _WRONG for pair in built.items() for part in pair) else built

    def _text(self, want: Wanted, raw: str, path: KeyPath) -> object:
        try:
            text = substitute(raw, self._environ)
        except Faulty as fault:
            return self._note(path, str(fault))
        try:
            read: object = READERS[want.reader](text, self._place(path).file.parent) if want.reader else text
            if isinstance(want.kind, inspect.LiteralType) and read not in want.kind.values:
                raise Faulty(f"{shown(text)} is not one of {', '.join(shown(value) for value in want.kind.values)}")
            if read is None and not want.optional:
                raise Faulty("must not be empty")
        except Faulty as fault:
            # What came from the environment may be a secret: the reference is shown in its place.
            return self._note(path, str(fault).replace(shown(text), shown(raw)))
        return read

    def _number(self, want: Wanted, value: object, path: KeyPath) -> object:
        kind = want.kind
        if isinstance(value, bool) and isinstance(kind, inspect.BoolType):
            return value
        if isinstance(value, bool) or not isinstance(value, int | float):
            return self._note(path, _wrong_type(want, value, path))
        if want.reader in EXAMPLES:
            advice = f"write it in quotes with one, as in {EXAMPLES[want.reader]}"
            return self._note(path, f"{shown(value)} has no unit; {advice}")
        if isinstance(kind, inspect.FloatType):
            number = _float(value)
        elif isinstance(kind, inspect.IntType) and isinstance(value, int):
            number = value
        else:
            return self._note(path, _wrong_type(want, value, path))
        limits = _broken_limits(kind, number)
        return self._note(path, f"{shown(value)} is out of range; it must be {limits}") if limits else number


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # TOML as Python reads it has integers of any size
        return math.inf


def _broken_limits(kind: inspect.IntType | inspect.FloatType, number: float) -> str:
    if not math.isfinite(number):
        return "finite"
    limits = (
        (kind.ge, "at least", kind.ge is None or number >= kind.ge),
        (kind.gt, "more than", kind.gt is None or number > kind.gt),
        (kind.le, "at most", kind.le is None or number <= kind.le),
        (kind.lt, "less than", kind.lt is None or number < kind.lt),
    )
    return " and ".join(f"{word} {limit:g}" for limit, word, kept in limits if limit is not None and not kept)


def _wrong_type(want: Wanted, value: object, path: KeyPath) -> str:
    if isinstance(want.kind, inspect.VarTupleType) and isinstance(value, dict):
        return f"is one table, but there may be many; write [[{key_text(path)}]]"
    if isinstance(want.kind, inspect.StructType) and isinstance(value, list):
        return f"is a list, but there is one; write [{key_text(path)}]"
    found = "a table" if isinstance(value, dict) else "a list" if isinstance(value, list) else shown(value)
    if want.reader in EXAMPLES:
        return f"is {found}; it must be a text in quotes with a unit, as in {EXAMPLES[want.reader]}"
    name = next(name for kind, name in _NAMES if isinstance(want.kind, kind))
    return f"is {found}; it must be {name}"
