"""What is to be told of a rule's alerts, in the form of Alertmanager's webhook (version "4"). Pure.

(prometheus.io/docs/alerting/latest/configuration/#webhook_config, read 2026-11-27; receivers made for Alertmanager take
it as it is.)
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

from collectors.clock import rfc3339
from collectors.units import UnixSeconds
from monitor.alerts.kept import KeptAlert, Told
from monitor.alerts.measures import Instance
from monitor.config.output_sections import Alert

REPEAT_SECONDS: Final = 4 * 3_600.0
"""While an alert fires its receiver is told again so often, as Alertmanager does by default."""
MOST_AT_ONCE: Final = 100
_NEVER: Final = "0001-01-01T00:00:00Z"
_FNV_OFFSET: Final = 0xCBF29CE484222325
_FNV_PRIME: Final = 0x100000001B3

Status = Literal["firing", "resolved"]


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One alert to be told now, and what will have been told then, once `sent_at` is set."""

    instance: Instance
    status: Status
    value: float | None
    starts_at: UnixSeconds
    ends_at: UnixSeconds | None

    def told(self, now: UnixSeconds) -> Told:
        """To be kept when the receiver has it."""
        return Told(fired_at=self.starts_at, resolved_at=self.ends_at, sent_at=now)


def due(alerts: Iterable[KeptAlert], now: UnixSeconds) -> list[Notice]:
    """Each alert whose receiver knows less than its state says. One that came and went untold is told as resolved."""
    found = []
    for alert in alerts:
        state, told = alert.state, alert.told
        if state.fired_at is None:
            continue
        known = told is not None and (told.fired_at, told.resolved_at) == (state.fired_at, state.resolved_at)
        again = state.resolved_at is None and told is not None and now - told.sent_at >= REPEAT_SECONDS
        if not known or again:
            found.append(
                Notice(
                    instance=alert.instance,
                    status="firing" if state.resolved_at is None else "resolved",
                    value=state.value,
                    starts_at=state.fired_at,
                    ends_at=state.resolved_at,
                )
            )
    return found[:MOST_AT_ONCE]


def body(rule: Alert, notices: Sequence[Notice], *, external_url: str) -> bytes:
    """The JSON to post; `external_url` is where the figures can be looked up."""
    alerts = [_alert(rule, notice, external_url) for notice in notices]
    firing = any(notice.status == "firing" for notice in notices)
    return msgspec.json.encode(_message(rule, "firing" if firing else "resolved", alerts, external_url))


def trial_body(rule: Alert, now: UnixSeconds) -> bytes:
    """A message that nobody can take for a real one: the label test="true", resolved as soon as it fires."""
    told = {"alertname": rule.name, "measure": rule.measure, "test": "true"}
    summary = f"A test of the rule {rule.name}: {rule.measure} above {rule.above:g} would be told like this"
    alert = {
        "status": "resolved",
        "labels": told,
        "annotations": {"summary": summary},
        "startsAt": rfc3339(now),
        "endsAt": rfc3339(now),
        "generatorURL": "",
        "fingerprint": fingerprint(told),
    }
    return msgspec.json.encode(_message(rule, "resolved", [alert], external_url=""))


def labels(rule: Alert, instance: Instance) -> dict[str, str]:
    """What an alert is known by: no value and no time is among them."""
    return {"alertname": rule.name, "measure": rule.measure, **dict(zip(rule.per, instance, strict=True))}


def fingerprint(named: Mapping[str, str]) -> str:
    """Alertmanager's: FNV-1a of the labels in the order of their names, each text ended by a byte 255."""
    found = _FNV_OFFSET
    for name in sorted(named):
        for text in (name, named[name]):
            for byte in (*text.encode(), 0xFF):
                found = (found ^ byte) * _FNV_PRIME % 2**64
    return f"{found:016x}"


def _message(rule: Alert, status: Status, alerts: Sequence[dict[str, Any]], external_url: str) -> dict[str, Any]:
    return {
        "version": "4",
        "groupKey": f'{{}}:{{alertname="{rule.name}"}}',
        "truncatedAlerts": 0,
        "status": status,
        "receiver": "wattribute",
        "groupLabels": {"alertname": rule.name},
        "commonLabels": _common([alert["labels"] for alert in alerts]),
        "commonAnnotations": _common([alert["annotations"] for alert in alerts]),
        "externalURL": external_url,
        "alerts": alerts,
    }


def _alert(rule: Alert, notice: Notice, external_url: str) -> dict[str, Any]:
    named = labels(rule, notice.instance)
    return {
        "status": notice.status,
        "labels": named,
        "annotations": {"summary": _summary(rule, notice), "value": "" if notice.value is None else repr(notice.value)},
        "startsAt": rfc3339(notice.starts_at),
        "endsAt": _NEVER if notice.ends_at is None else rfc3339(notice.ends_at),
        "generatorURL": _generator(rule, notice, external_url),
        "fingerprint": fingerprint(named),
    }


def _summary(rule: Alert, notice: Notice) -> str:
    where = "".join(f" of {name} {value}" for name, value in zip(rule.per, notice.instance, strict=True))
    value = "not known" if notice.value is None else f"{notice.value:.6g}"
    if notice.status == "resolved":
        return f"{rule.measure}{where} is {value}, no longer above {rule.above:g}"
    return f"{rule.measure}{where} is {value}, above {rule.above:g}"


def _generator(rule: Alert, notice: Notice, external_url: str) -> str:
    """The hour before the alert in the API, by the rule's own dimensions."""
    start, end = (
        datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for moment in (notice.starts_at - 3_600.0, notice.starts_at)
    )
    aggregate = ",".join(rule.per) or "host"
    return f"{external_url}/v1/allocation?window={start},{end}&aggregate={aggregate}"


def _common(told: Sequence[Mapping[str, str]]) -> dict[str, str]:
    first = told[0] if told else {}
    return {name: value for name, value in first.items() if all(each.get(name) == value for each in told)}
