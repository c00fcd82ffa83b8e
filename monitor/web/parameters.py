"""What a question's parameters are made of: one table for parsing, for the OpenAPI document and for people.

In: the pairs of a query string. Out: the fields of a question, each with the parameter that it came from.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from collectors.units import UnixSeconds
from monitor.core.questions import BadQuery

Reader = Callable[[str, UnixSeconds], dict[str, Any]]
"""(text, now) -> the fields of the question that it fills. Raises ValueError with what to write instead."""


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter. `default` is read like what a client writes; with None nothing is filled in.

    `schema` is its text in JSON Schema, as OpenAPI wants it.
    """

    name: str
    about: str
    read: Reader
    schema: Mapping[str, Any]
    default: str | None = None
    example: str | None = None


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a question, and for each the parameter that it came from."""

    fields: dict[str, Any]
    origins: dict[str, str]

    def in_its_words(self, error: BadQuery) -> BadQuery:
        """The gate's complaint about a field, as one about the parameter that the client knows."""
        return BadQuery(self.origins.get(error.field, error.field), error.reason)


def parse(table: Sequence[Parameter], given: Iterable[tuple[str, str]], now: UnixSeconds) -> Asked:
    """What is asked. Raises BadQuery for a parameter that is unknown, there twice, or not readable."""
    known = {each.name: each for each in table}
    texts: dict[str, str] = {}
    for name, text in given:
        if name not in known:
            raise BadQuery(name, _unknown(name, list(known)))
        if name in texts:
            raise BadQuery(name, "is given twice; give it once, several values with commas")
        texts[name] = text
    fields: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for parameter in table:
        text_or_none = texts.get(parameter.name, parameter.default)
        if text_or_none is not None:
            found = _read(parameter, text_or_none, now)
            fields |= found
            origins |= dict.fromkeys(found, parameter.name)
    return Asked(fields=fields, origins=origins)


def _read(parameter: Parameter, text: str, now: UnixSeconds) -> dict[str, Any]:
    try:
        return parameter.read(text, now)
    except BadQuery:
        raise
    except ValueError as error:
        raise BadQuery(parameter.name, str(error)) from error


def _unknown(name: str, known: Sequence[str]) -> str:
    folded = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), list(folded), n=1, cutoff=0.6)
    if near:
        return f"is unknown here; did you mean {folded[near[0]]}?"
    return f"is unknown here; known are {', '.join(known)}" if known else "is unknown here; this takes no parameters"
