"""A targeted reader of the Prometheus text format. In: a page, the few metric names that are wanted. Out: their rows.

An exporter's page holds hundreds of lines of which a meter needs three per device, each second: a full parse
(prometheus_client.parser, ~10 ms for 8 GPUs) costs more than everything else the meter does. Lines of other names are
passed by after one prefix comparison.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (version 0.0.4, read 2026-11-24).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final

import msgspec

# Possessive throughout (++, *+): a hostile line costs no more than its length.
_ROW: Final = re.compile(
    r'([A-Za-z_:][\w:]*+)(?:\{((?:[^"}]++|"(?:[^"\\]++|\\.)*+")*+)\})?'  # name, labels
    r"[ \t]++(\S++)(?:[ \t]++(-?\d{1,19}+))?[ \t]*+"  # value, milliseconds: 64 bits
)
_LABEL: Final = re.compile(r'(\w++)\s*+=\s*+"((?:[^"\\]++|\\.)*+)"')
_ESCAPED: Final = re.compile(r"\\(.)")
_LABELS_KEPT: Final = 1_024
_LONGEST_KEPT: Final = 4_096
"""A page's rows have the same labels each second, and reading them is most of the work of a row."""
_AFTER_NAME: Final = (b"{", b" ", b"\t")
"""What follows a metric's name on its own lines; W_LIMIT is another metric than W."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line. `value` is None where it is no number ("N/A"); NaN and Inf are numbers here, the meter judges them.

    `at_milliseconds` is the exporter's own time of the value; None on most pages.
    """

    name: str
    labels: Mapping[str, str]
    value: float | None
    at_milliseconds: int | None = None


def rows(page: str, names: Sequence[str]) -> Iterator[Row]:
    """The rows of these metrics in the order of the page; lines that cannot be read are passed by.

    'W{gpu="0"} 62.5' is Row(name="W", labels={"gpu": "0"}, value=62.5).
    """
    prefixes, wanted = tuple(names), frozenset(names)
    for line in page.split("\n"):
        if not line.startswith(prefixes):
            continue
        found = _ROW.fullmatch(line.rstrip("\r"))
        if found is None or found[1] not in wanted:
            continue
        at = None if found[4] is None else int(found[4])
        yield Row(name=found[1], labels=_labels(found[2] or ""), value=_number(found[3]), at_milliseconds=at)


def found_rows(page: bytes, name: str) -> Iterator[Row]:
    """The rows of this metric; one that cannot be read, or is cut off, has no labels and no value.

    For a long page of which few lines are wanted: they are searched for, and no other line is looked at. `page` begins
    with a line end, so that its first line is found like any other. All rows of a metric are one group, as the format
    has it.
    """
    needle = b"\n" + name.encode()
    at, group = page.find(needle), len(page)
    while at >= 0:
        after, end = at + len(needle), page.find(b"\n", at + 1)
        if page[after : after + 1] in _AFTER_NAME:
            yield Row(name=name, labels={}, value=None) if end < 0 else _row(name, page[at + 1 : end])
            if (comment := page.find(b"\n#", after)) >= 0:
                group = comment  # a metric's rows are one group, and the next group begins with a comment
        at = page.find(needle, after, group)


def _row(name: str, line: bytes) -> Row:
    found = _ROW.fullmatch(line.decode("utf-8", "replace").rstrip("\r"))
    if found is None:
        return Row(name=name, labels={}, value=None)
    at = None if found[4] is None else int(found[4])
    labels = found[2] or ""
    known = _known_labels(labels) if len(labels) <= _LONGEST_KEPT else _labels(labels)
    return Row(name=name, labels=known, value=_number(found[3]), at_milliseconds=at)


@lru_cache(maxsize=_LABELS_KEPT)
def _known_labels(text: str) -> Mapping[str, str]:
    return _labels(text)


def _labels(text: str) -> Mapping[str, str]:
    return {name: _unescaped(value) for name, value in _LABEL.findall(text)}


def _unescaped(value: str) -> str:
    if "\\" not in value:
        return value
    return _ESCAPED.sub(lambda found: "\n" if found[1] == "n" else found[1], value)


def _number(text: str) -> float | None:
    if "_" in text:  # float() reads 1_0, the format does not
        return None
    try:
        return float(text)
    except ValueError:
        return None
