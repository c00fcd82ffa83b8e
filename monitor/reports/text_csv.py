"""An allocation page as CSV (RFC 4180, header first). An empty cell is what is not known."""

import csv
import io

from monitor.core.questions import AllocationPage
from monitor.reports.cells import cells, digits, names


def render(page: AllocationPage) -> str:
    """The lines alone; the totals of an interval are in the table and in JSON."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names(page))
    writer.writerows([digits(cell, "") for cell in row] for row in cells(page))
    return out.getvalue()
