"""An allocation page as names and cells: what table, CSV and JSON have in common, so that they hold the same digits."""

from collections.abc import Iterator
from typing import Final

from collectors.clock import rfc3339
from monitor.core.questions import AllocationPage

Cell = str | float | None

MEASURES: Final = (
    "energy_joules",
    "low_joules",
    "high_joules",
    "idle_share_joules",
    "emissions_grams",
    "idle_share_grams",
    "factorless_joules",
    "requests",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "untold_requests",
    "scheduled_requests",
    "marginal_joules",
    "exact_joules",
    "steps_joules",
    "learned_joules",
    "estimated_start_joules",
    "tier",
    "metered_joules",
    "recovered_joules",
    "provisional_joules",
    "measured_ratio",
)


def names(page: AllocationPage) -> tuple[str, ...]:
    """The columns: the step where there is one, the dimensions asked for, the account, the measures."""
    step = ("start", "end") if page.query.step is not None else ()
    return (*step, *page.query.by, "account", *MEASURES)


def cells(page: AllocationPage) -> Iterator[tuple[Cell, ...]]:
    """One tuple for each line, in the order of `names`; None is what is not known."""
    for each in page.lines:
        step = (rfc3339(each.start), rfc3339(each.end)) if page.query.step is not None else ()
        line = each.line
        yield (*step, *line.key, line.account, *(getattr(line, name) for name in MEASURES))


def digits(cell: Cell, unknown: str) -> str:
    """A float with all its digits (the shortest text that reads back as it), as JSON has it too."""
    if cell is None:
        return unknown
    return cell if isinstance(cell, str) else repr(cell)
