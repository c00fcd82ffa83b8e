"""From files to one tree of values that knows where each of its keys stands.

Drop-ins are laid over the main file in name order: tables merge, arrays of tables append, anything else replaces.
"""

import codecs
import re
import stat
import tomllib
from pathlib import Path
from typing import Any, Final

import msgspec

from monitor.config.locate import locate_keys
from monitor.config.problems import KeyPath, Problem

LARGEST_FILE_BYTES: Final = 2**20
_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a key stands."""

    file: Path
    line: int


class Tree(msgspec.Struct, kw_only=True):
    """The merged values, the place of every key, and what was wrong with files that are not in it."""

    values: dict[str, Any] = {}
    places: dict[KeyPath, Place] = {}
    problems: list[Problem] = []

    def add(self, file: Path) -> None:
        """Lays one file over what is there."""
        text = _text(file, self.problems)
        if text is None:
            return
        try:
            values, lines = tomllib.loads(text), locate_keys(text)
        except tomllib.TOMLDecodeError as error:
            self.problems.append(_syntax_problem(file, text, str(error)))
        except (RecursionError, ValueError) as error:  # a thousand nested lists; a number of thousands of digits
            cause = "lists or tables are nested too deep" if isinstance(error, RecursionError) else str(error)
            self.problems.append(Problem(file=str(file), line=None, key="", message=f"cannot be read: {cause}"))
        else:
            _Merge(self, file, lines).tables(self.values, values, (), ())


class _Merge:
    """Lays the values of one file over a tree. `old` and `new` are the paths of one key in tree and file."""

    def __init__(self, tree: Tree, file: Path, lines: dict[KeyPath, int]) -> None:
        self._places = tree.places
        self._file = file
        self._lines = lines

    def tables(self, into: dict[str, Any], over: dict[str, Any], old: KeyPath, new: KeyPath) -> None:
        for key, value in over.items():
            here, there = (*old, key), (*new, key)
            below = into.get(key)
            if isinstance(value, dict) and isinstance(below, dict):
                self.tables(below, value, here, there)
            elif isinstance(below, list) and _are_tables(value) and _are_tables(below):
                for index, table in enumerate(value):
                    self._place((*here, len(below)), (*there, index), table)
                    below.append(table)
            else:
                into[key] = value
                self._place(here, there, value)

    def _place(self, old: KeyPath, new: KeyPath, value: object) -> None:
        self._places[old] = Place(file=self._file, line=self._lines[new])
        children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, child in children:
            self._place((*old, key), (*new, key), child)


def _are_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _text(file: Path, problems: list[Problem]) -> str | None:
    def problem(message: str, line: int | None = None) -> None:
        problems.append(Problem(file=str(file), line=line, key="", message=message))

    try:
        if not stat.S_ISREG(file.stat().st_mode):
            problem("is not a file; name a TOML file")
            return None
        with file.open("rb") as opened:
            raw = opened.read(LARGEST_FILE_BYTES + 1)
    except OSError as error:
        problem(f"cannot be read ({error.strerror}); check the path and its permissions")
        return None
    if len(raw) > LARGEST_FILE_BYTES:
        problem("is larger than 1 MiB; this is not a configuration file")
    elif raw.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        problem("starts with a byte order mark; save it as UTF-8 without one", 1)
    else:
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            problem("is not UTF-8 from this line on; save it as UTF-8", raw.count(b"\n", 0, error.start) + 1)
    return None


def _syntax_problem(file: Path, text: str, message: str) -> Problem:
    place = _PLACE.search(message)
    line = int(place.group(1)) if place and place.group(1) else text.count("\n") + 1
    return Problem(file=str(file), line=line, key="", message=f"not TOML: {_PLACE.sub('', message)}")
