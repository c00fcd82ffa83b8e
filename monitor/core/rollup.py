"""Roll-ups: many rows of a series become one. Pure. In: rows of an hour or a day. Out: one row for each series.

Sums are exactly rounded (math.fsum), so a roll-up does not depend on the order of its rows. What differs among the rows
is said to differ; it is never one of them taken for all.
"""

import math
from collections.abc import Iterable, Sequence

from collectors.units import UnixSeconds
from monitor.core.points import METER, WHOLE_OR_NOT, FieldValue, Measurement, Row

MIXED = "mixed"
"""A fact that was not the same in all rows."""
MIXED_SOME_MISSING = "mixed, some missing"
"""As MIXED, and some rows did not know it at all."""


def roll_up(measurement: Measurement, rows: Iterable[Row], start: UnixSeconds) -> list[Row]:
    """One row at `start` for each set of tags, in the order of the tags.

    A sum leaves out what is None and is None only where all are, one of WHOLE_OR_NOT where any is; of a number among
    the facts (`revision`) the greatest counts; a string that differs becomes MIXED or MIXED_SOME_MISSING.
    """
    series: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        series.setdefault(row.tags, []).append(row)
    return [Row(measurement.name, start, tags, _fields(measurement, series[tags])) for tags in sorted(series)]


def parent_changes(meter_rows: Iterable[Row]) -> bool:
    """Whether a meter is contained in another in some of the rows only: then their sum is neither part nor whole."""
    position = METER.fields.index("parent")
    parents: dict[tuple[str, ...], FieldValue] = {}
    return any(
        parents.setdefault(row.tags, row.fields[position] or "") != (row.fields[position] or "") for row in meter_rows
    )


def _fields(measurement: Measurement, rows: Sequence[Row]) -> tuple[FieldValue, ...]:
    columns = list(zip(*(row.fields for row in rows), strict=True))
    width = len(measurement.sums)
    sums = (
        None if name in WHOLE_OR_NOT and None in column else _sum(column)
        for name, column in zip(measurement.sums, columns[:width], strict=True)
    )
    return (*sums, *(_fact(column) for column in columns[width:]))


def _sum(values: Sequence[FieldValue]) -> float | None:
    known = [value for value in values if isinstance(value, int | float)]
    return math.fsum(known) if known else None


def _fact(values: Sequence[FieldValue]) -> FieldValue:
    if all(value == values[0] for value in values):
        return values[0]
    numbers = [value for value in values if isinstance(value, int | float)]
    if numbers:
        return max(numbers)
    return MIXED if all(values) and MIXED_SOME_MISSING not in values else MIXED_SOME_MISSING
