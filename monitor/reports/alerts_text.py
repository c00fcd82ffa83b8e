"""The alert rules as text for people. In: AlertSnapshots. Out: a table, an alert or a quiet value on each line."""

from collections.abc import Iterator, Sequence

from collectors.clock import rfc3339
from monitor.reports.layout import columns
from monitor.selfmetrics import AlertInstance, AlertSnapshot

_HEADER = ("rule", "where", "state", "value", "above", "since")


def render(alerts: Sequence[AlertSnapshot], kept_in: str) -> str:
    """ "-" is what is not known; a value that is missing now is the last one known, marked "?".

    `kept_in` names the file in which role control keeps how they stand.
    """
    if not alerts:
        return "no rules: [[alerts]] in the configuration is empty\n"
    rows = [row for alert in alerts for row in _rows(alert)]
    judged = next((each.judged_until for each in alerts), None)
    nothing = f"nothing was judged yet: role control does it, and keeps it in {kept_in}; --data names its folder"
    until = nothing if judged is None else f"judged until {rfc3339(judged)}"
    return "\n".join([*columns(_HEADER, rows, left=3), "", until]) + "\n"


def _rows(alert: AlertSnapshot) -> Iterator[tuple[str, ...]]:
    above = f"{alert.above:g} {alert.measure}"
    if not alert.instances:
        yield alert.name, "-", "-", "-", above, "-"
    for each in alert.instances:
        where = ", ".join(each.place.values()) or "all"
        since = "-" if each.since is None else rfc3339(each.since)
        yield alert.name, where, each.phase, _value(each), above, since


def _value(each: AlertInstance) -> str:
    if each.value is None:
        return "-"
    return f"{each.value:.6g}" + ("" if each.missing_since is None else "?")
