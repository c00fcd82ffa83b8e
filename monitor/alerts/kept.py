"""What is known of the alerts, and the file that keeps it over a restart, so that none is sent anew as new."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from collectors.units import UnixSeconds
from monitor.alerts.coverage import DeviceKey, Seen
from monitor.alerts.measures import Instance
from monitor.alerts.state import AlertState
from monitor.config.output_sections import Alert

_VERSION: Final = 1


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What the receiver was last told: of the firing that began at `fired_at`, that it is resolved where that is set.

    `sent_at` is a moment of this machine, the others are of the books.
    """

    fired_at: UnixSeconds
    resolved_at: UnixSeconds | None
    sent_at: UnixSeconds


class KeptAlert(msgspec.Struct, frozen=True, kw_only=True):
    """One alert of a rule. `told` is None while nothing was sent of it."""

    instance: Instance
    state: AlertState
    told: Told | None = None


class KeptRule(msgspec.Struct, frozen=True, kw_only=True):
    """A rule's alerts. Those of another measure, or per other dimensions, say nothing of the rule as it is now."""

    name: str
    measure: str
    per: tuple[str, ...]
    alerts: tuple[KeptAlert, ...]


class KeptDevice(msgspec.Struct, frozen=True, kw_only=True):
    """A device that should be measured."""

    key: DeviceKey
    seen: Seen


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. `judged_until` is how far the books were judged."""

    judged_until: UnixSeconds | None = None
    rules: tuple[KeptRule, ...] = ()
    devices: tuple[KeptDevice, ...] = ()
    version: int = _VERSION

    def alerts_of(self, rule: Alert) -> dict[Instance, KeptAlert]:
        """What is known of a rule, by instance."""
        for each in self.rules:
            if (each.name, each.measure, each.per) == (rule.name, rule.measure, rule.per):
                return {alert.instance: alert for alert in each.alerts}
        return {}

    def with_told(self, name: str, told: Mapping[Instance, Told]) -> "Kept":
        """With what the receiver of the rule of that name has been told."""
        rules = tuple(each if each.name != name else _told(each, told) for each in self.rules)
        return msgspec.structs.replace(self, rules=rules)

    def with_all_told(self, other: "Kept") -> "Kept":
        """With what the other knows to have been told."""
        found = self
        for rule in other.rules:
            found = found.with_told(rule.name, {each.instance: each.told for each in rule.alerts if each.told})
        return found


def _told(rule: KeptRule, told: Mapping[Instance, Told]) -> KeptRule:
    alerts = (msgspec.structs.replace(each, told=told.get(each.instance, each.told)) for each in rule.alerts)
    return msgspec.structs.replace(rule, alerts=tuple(alerts))


class UnreadableAlerts(Exception):
    """The file is not one of this version; alerts then begin anew."""


def load_kept(path: Path) -> Kept:
    """What the file holds, nothing where there is none. Raises UnreadableAlerts."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Kept)
    except FileNotFoundError:
        return Kept()
    except (OSError, msgspec.DecodeError) as error:
        raise UnreadableAlerts(f"{path}: {error}") from error
    if found.version != _VERSION:
        raise UnreadableAlerts(f"{path}: is of version {found.version}, this program writes {_VERSION}")
    return found


def save_kept(path: Path, kept: Kept) -> None:
    """Replaces the file whole: after a crash there is the one before or this one. Raises OSError."""
    fresh = path.with_name(path.name + ".new")
    with fresh.open("wb") as file:
        file.write(msgspec.json.encode(kept))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
