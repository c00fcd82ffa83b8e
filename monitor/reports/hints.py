"""What a report's reader should be told beside the figures. In: a page, the store's status. Out: sentences."""

from typing import Final

from collectors.clock import rfc3339
from monitor.core.allocation_lines import LABEL, NONE_KEY
from monitor.core.points import ATTRIBUTED, METER, PROVISIONAL_METER
from monitor.core.questions import AllocationPage, Missing, Status

_BEHIND_THE_START_SECONDS: Final = 1.0
"""An interval is half-open: it holds the newest window if it ends any time behind that window's start."""


def hints(page: AllocationPage, status: Status) -> list[str]:
    """One sentence for each thing that looks like zero or nobody, and is not."""
    return [
        *_nothing_there(page, status),
        *_holes(page, status),
        *_unknown_labels(page),
        *_requests_without_power(page),
    ]


def _nothing_there(page: AllocationPage, status: Status) -> list[str]:
    """The store holds windows, and all of them lie before or behind the interval."""
    if page.totals is None or page.totals.measured_joules:
        return []
    spans = [status.spans[each.name] for each in (METER, PROVISIONAL_METER) if each.name in status.spans]
    if not spans:
        return ["the store holds no window yet"]
    first, newest = min(start for start, _ in spans), max(end for _, end in spans)
    if first < page.query.end and page.query.start <= newest:
        return []
    start, end = rfc3339(first), rfc3339(newest + _BEHIND_THE_START_SECONDS)
    return [
        f"no window of the store starts in this interval; its first starts at {start}, its newest at"
        f" {rfc3339(newest)}: try --from {start} --to {end}"
    ]


def _holes(page: AllocationPage, status: Status) -> list[str]:
    """What the log lost is in no figure, and no zero either."""
    asked = page.query.filters.get("host")
    overlapping = (
        each
        for each in status.holes
        if each.start < page.query.end and page.query.start < each.end and (asked is None or each.host in asked)
    )
    return [missing_text(each) for each in overlapping]


def missing_text(hole: Missing) -> str:
    """In one sentence."""
    return (
        f"{hole.host} is missing from {rfc3339(hole.start)} to {rfc3339(hole.end)}, which is in no figure: the log lost"
        f" records before they were accounted ({hole.reason})"
    )


def _requests_without_power(page: AllocationPage) -> list[str]:
    """Requests that met no joule: nobody metered where they ran, or nobody knows where that was."""
    if page.totals is None or not page.totals.measured_joules:
        return []
    return [
        f"{each.line.requests:g} requests of {', '.join(each.line.key)} met no metered energy: their host, devices"
        " or model servers are none that the meters know; name host and devices (as doctor lists them) in the events"
        " or in [[deployments]]"
        for each in page.lines
        if each.line.account == ATTRIBUTED and each.line.requests and each.line.energy_joules == 0.0
    ]


def _unknown_labels(page: AllocationPage) -> list[str]:
    keys = [each.line.key for each in page.lines if each.line.account == ATTRIBUTED]
    return [
        f"no request carries the label {name.removeprefix(LABEL)!r}; [accounting] label_keys of the daemon decide"
        " which labels are kept"
        for place, name in enumerate(page.query.by)
        if name.startswith(LABEL) and keys and all(key[place] == NONE_KEY for key in keys)
    ]
