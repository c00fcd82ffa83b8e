"""How the alerts stand, as the daemon shows it. In: the rules, what was kept. Out: a record for each rule."""

from collections.abc import Sequence

from collectors.units import UnixSeconds
from monitor.alerts.kept import Kept, KeptAlert
from monitor.alerts.state import AlertState
from monitor.config.output_sections import Alert
from monitor.selfmetrics import AlertInstance, AlertSnapshot


def snapshots(rules: Sequence[Alert], kept: Kept) -> tuple[AlertSnapshot, ...]:
    """In the order of the configuration; what was sent is not in it."""
    return tuple(
        AlertSnapshot(
            name=rule.name,
            measure=rule.measure,
            above=rule.above,
            for_seconds=rule.for_seconds,
            judged_until=kept.judged_until,
            instances=tuple(_instance(rule, alert) for alert in kept.alerts_of(rule).values()),
        )
        for rule in rules
    )


def _instance(rule: Alert, alert: KeptAlert) -> AlertInstance:
    state = alert.state
    return AlertInstance(
        place=dict(zip(rule.per, alert.instance, strict=True)),
        phase=state.phase,
        value=state.value,
        since=_since(state),
        missing_since=state.missing_since,
    )


def _since(state: AlertState) -> UnixSeconds | None:
    return {"firing": state.fired_at, "resolved": state.resolved_at, "pending": state.active_since}.get(state.phase)
