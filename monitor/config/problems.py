"""What is wrong with a configuration: where it stands, what it is, and what to do about it."""

import json
import re
from collections.abc import Iterable

import msgspec

KeyPath = tuple[str | int, ...]
"""Keys and list indexes from the top of the file: ("sources", 0, "path")."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SHOWN_CHARACTERS = 60


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One mistake. `line` counts from 1, None where the whole file is meant; `key` is "" where no key is to blame."""

    file: str
    line: int | None
    key: str
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (place, self.key, self.message) if part)


class ConfigError(Exception):
    """All the mistakes of one load, in the order of the files and their lines. Nothing of the load is used."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Faulty(ValueError):
    """One value that cannot be used: its text says why and what to write; the caller knows the place."""


def key_text(path: KeyPath) -> str:
    """A path as a person writes it, on one line: ("sources", 0, "path") is "sources[0].path"."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if _BARE_KEY.fullmatch(part) else shown(part))
    return text


def shown(value: object) -> str:
    """A value of the file in one short line, control characters escaped."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        text = json.dumps(value[:_SHOWN_CHARACTERS])
        return text if len(value) <= _SHOWN_CHARACTERS else f'{text[:-1]}..."'
    if isinstance(value, int) and value.bit_length() > 128:
        return "a very large number"  # Python refuses to print integers of thousands of digits
    return f"{value}"[:_SHOWN_CHARACTERS]
