"""Rows of a recording's CSV file: cells under a header, times and numbers; what cannot be read is Rejected by name."""

import csv
import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from collectors.errors import Rejected
from collectors.moments import EARLIEST, LATEST, moment_from_number, moment_from_text
from collectors.recording_error import RecordingError
from collectors.recording_lines import Line
from collectors.units import UnixSeconds

MAX_ROW_BYTES: Final = 64 * 1024
_SHOWN_CHARACTERS: Final = 40


def header_of(path: Path, lines: Iterator[Line], known: Collection[str], remedy: str) -> tuple[list[str], int]:
    """The names of the columns and the line they stand in; raises RecordingError for none, or a `known` one twice."""
    try:
        line = next(line for line in lines if line.raw.strip() or line.too_long_sha256)
        names = [name.strip() for name in _cells(line)]
    except StopIteration:
        raise RecordingError(path, "it is empty", remedy) from None
    except Rejected as verdict:
        raise RecordingError(path, f"its header cannot be read ({verdict.detail})", remedy, line=1) from None
    if any(names.count(name) > 1 for name in known):
        raise RecordingError(path, "a column is there twice", remedy, line=line.number)
    return names, line.number


def fields_of(line: Line, total: int) -> list[str]:
    """The row's cells, none for a blank line; raises Rejected where they are not `total`, as many as in the header."""
    cells = _cells(line)
    if len(cells) == total:
        return cells
    if not cells or (len(cells) == 1 and not cells[0].strip()):
        return []
    if len(cells) < total:
        raise Rejected("cut_row", f"{len(cells)} of {total} columns")
    raise Rejected("too_many_columns", f"{len(cells)} columns, the header has {total}; decimals have a point")


def moment_of(cell: str) -> UnixSeconds:
    """The time in a cell: unix seconds, or RFC 3339. Raises Rejected."""
    try:
        seconds = float(cell)
    except ValueError:
        return moment_from_text(cell.strip(), "time")
    return seconds if EARLIEST <= seconds < LATEST else moment_from_number(seconds, "time")


def number_of(text: str, name: str, most: float) -> float:
    """The number in a cell without blanks, in [0, most]; raises Rejected, which names the column."""
    try:
        value = float(text)
    except ValueError:
        number = text.split(maxsplit=1)[0]
        hint = f"; write {number} without its unit" if _is_number(number) else ""
        raise Rejected("not_a_number", f"{name} is {shown(text)}{hint}") from None
    if 0 <= value <= most:
        return value
    if not math.isfinite(value):
        raise Rejected("not_finite", f"{name} is {shown(text)}")
    if value < 0:
        raise Rejected("negative_value", f"{name} is below 0")
    raise Rejected("absurd_value", f"{name} is above {most:g}")


def shown(text: str) -> str:
    """A cell as a message quotes it, cut where it is long."""
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…")


def _cells(line: Line) -> list[str]:
    """A row is one line, so a quote that is never closed costs one row only."""
    if line.too_long_sha256 is not None:
        raise Rejected("too_large", f"the row has more than {MAX_ROW_BYTES} bytes")
    try:
        text = line.raw.decode().rstrip("\r\n")
        return next(csv.reader([text], skipinitialspace=True, strict=True), []) if '"' in text else text.split(",")
    except UnicodeDecodeError:
        raise Rejected("not_utf8", "the row is not UTF-8") from None
    except csv.Error:
        raise Rejected("bad_quotes", "a quoted cell is not closed, or goes on after its end") from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
