"""An allocation page as a table of plain text. The figures have all their digits: they are those of CSV and JSON."""

from typing import Final

from monitor.core.questions import AllocationPage
from monitor.reports.cells import MEASURES, cells, digits, names
from monitor.reports.layout import columns

_SHOWN: Final = (
    "energy_joules",
    "low_joules",
    "high_joules",
    "idle_share_joules",
    "emissions_grams",
    "idle_share_grams",
    "requests",
    "input_tokens",
    "output_tokens",
    "measured_ratio",
    "provisional_joules",
)


def render(page: AllocationPage) -> str:
    """The lines, then the books of the interval. "-" is what is not known, "0.0" what is zero."""
    all_names = names(page)
    kept = [place for place, name in enumerate(all_names) if name not in MEASURES or name in _SHOWN]
    rows = [[digits(row[place], "-") for place in kept] for row in cells(page)]
    header = [all_names[place] for place in kept]
    table = columns(header, rows, left=len(header) - len(_SHOWN)) if rows else ["no energy in this interval"]
    return "\n".join([*table, *_totals(page)]) + "\n"


def _totals(page: AllocationPage) -> list[str]:
    totals = page.totals
    if totals is None:
        return []
    names_of = ("measured", "attributed", "idle", "unattributed", "imbalance", "provisional")
    lines = []
    for name in names_of:
        lines.append(f"{name:<16}{getattr(totals, f'{name}_joules')!r} J")
        if name == "measured":  # 0 J in 0 s is not known, in an hour it is nothing
            lines.append(f"  {'read for':<15}{totals.covered_device_seconds!r} device-seconds")
        if name == "unattributed":  # why: docs/books.md
            told = {reason: joules for reason, joules in totals.unattributed_reasons.items() if joules}
            lines += [f"  {reason:<15}{joules!r} J" for reason, joules in told.items()]
    factors = [f"{'factor':<16}{factor}" for factor in page.factors]
    return ["", *lines, f"{'measured ratio':<16}{digits(totals.measured_ratio, '-')}", *factors]
