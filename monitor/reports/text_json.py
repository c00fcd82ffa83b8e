"""An allocation page as JSON. null is what is not known."""

import json

import msgspec

from collectors.clock import rfc3339
from monitor.core.questions import AllocationPage
from monitor.reports.cells import cells, names


def render(page: AllocationPage) -> str:
    """One object: the question, `lines` (the CSV's columns by name), `totals`, `factors`, `final_until`, `next`."""
    query = page.query
    found = {
        "from": rfc3339(query.start),
        "to": rfc3339(query.end),
        "by": list(query.by),
        "step_seconds": query.step,
        "share_idle": query.share_idle,
        "lines": [dict(zip(names(page), row, strict=True)) for row in cells(page)],
        "totals": msgspec.to_builtins(page.totals),
        "factors": list(page.factors),
        "final_until": None if page.final_until is None else rfc3339(page.final_until),
        "next": page.next,
    }
    return json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
