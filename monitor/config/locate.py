"""On which line each key of a TOML text stands: tomllib does not tell.

In: a text that tomllib has already accepted, so that this scanner need not judge it. Out: {key path: line}.
"""

import re
import tomllib

from monitor.config.problems import KeyPath

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_STRING = re.compile(
    r'"""(?:[^\\"]|\\.|"{1,2}(?!"))*"{3,5}'
    r"|'''(?:[^']|'{1,2}(?!'))*'{3,5}"
    r'|"(?:[^\\"]|\\.)*"'
    r"|'[^']*'",
    re.DOTALL,
)
_KEY_PART = re.compile(r"""[ \t]*([A-Za-z0-9_-]+|"(?:[^\\"]|\\.)*"|'[^']*')[ \t]*""")
_SCALAR = re.compile(r"[^,\]}#\r\n]*")


def locate_keys(text: str) -> dict[KeyPath, int]:
    """The line (from 1) of every key, list element and table, inline ones included; a table's is its header's."""
    return _Scanner(text).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1
        self._counted_to = 0
        self._lines: dict[KeyPath, int] = {}
        self._array_lengths: dict[KeyPath, int] = {}

    def scan(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        self._skip_blank()
        while self._at < len(self._text):
            if self._looking_at("["):
                table = self._header()
            else:
                self._pair(table)
            self._skip_blank()
        return self._lines

    def _header(self) -> KeyPath:
        line = self._line_here()
        is_array = self._looking_at("[[")
        self._at += 2 if is_array else 1
        *parents, last = self._key()
        self._at += 2 if is_array else 1
        path: KeyPath = ()
        for part in parents:
            path = self._newest((*path, part))
            self._lines.setdefault(path, line)
        path = (*path, last)
        self._lines.setdefault(path, line)
        if is_array:
            self._array_lengths[path] = self._array_lengths.get(path, 0) + 1
        path = self._newest(path)
        self._lines[path] = line  # an implied table has its own header further down
        return path

    def _newest(self, path: KeyPath) -> KeyPath:
        """A header names an array of tables and means its newest element."""
        length = self._array_lengths.get(path)
        return path if length is None else (*path, length - 1)

    def _pair(self, table: KeyPath) -> None:
        line = self._line_here()
        path = table
        for part in self._key():
            path = (*path, part)
            self._lines.setdefault(path, line)
        self._at += 1  # the equals sign
        self._skip_blank()
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        if self._looking_at("["):
            self._array(path)
        elif self._looking_at("{"):
            self._inline_table(path)
        elif self._text[self._at] in "\"'":
            self._take(_STRING)
        else:
            self._take(_SCALAR)

    def _array(self, path: KeyPath) -> None:
        self._at += 1
        self._skip_blank()
        index = 0
        while not self._looking_at("]"):
            self._lines[(*path, index)] = self._line_here()
            self._value((*path, index))
            self._skip_separator()
            index += 1
        self._at += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._at += 1
        self._skip_blank()
        while not self._looking_at("}"):
            self._pair(path)
            self._skip_separator()
        self._at += 1

    def _key(self) -> list[str]:
        parts = [self._key_part()]
        while self._looking_at("."):
            self._at += 1
            parts.append(self._key_part())
        return parts

    def _key_part(self) -> str:
        token = self._take(_KEY_PART).strip(" \t")
        return str(tomllib.loads(f"key = {token}")["key"]) if token[0] in "\"'" else token

    def _skip_separator(self) -> None:
        self._skip_blank()
        if self._looking_at(","):
            self._at += 1
            self._skip_blank()

    def _skip_blank(self) -> None:
        self._take(_BLANK)

    def _looking_at(self, token: str) -> bool:
        return self._text.startswith(token, self._at)

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None or (match.end() == self._at and pattern is not _BLANK):
            raise ValueError(f"line {self._line_here()} is not TOML")
        self._at = match.end()
        return match.group()

    def _line_here(self) -> int:
        self._line += self._text.count("\n", self._counted_to, self._at)
        self._counted_to = self._at
        return self._line
