"""Draws the picture of how the daemon does, from its roles. Out: a snapshot, and a line for people."""

import os
from importlib.metadata import version
from typing import Final

import msgspec

from collectors.clock import Clock, monotonic
from collectors.meter import DeviceHealth
from collectors.units import UnixSeconds
from monitor.roles.meter_thread import MeterThread
from monitor.roles.running import RunningRoles
from monitor.selfcost import agent_cost
from monitor.selfmetrics import (
    DaemonSnapshot,
    DeviceSnapshot,
    HoleSnapshot,
    LedgerSnapshot,
    MeterSnapshot,
    PartState,
    RoleSnapshot,
    RoleState,
    nested,
)

_STATES: dict[str, PartState] = {
    "opening": "waiting",
    "ok": "ok",
    "not_answering": "retrying",
    "absent": "gone",
    "broken": "broken",
    "stopped": "gone",
}


FRESH_SECONDS = 15.0
FRESH_INTERVALS = 3.0
"""A device's watts are shown until its last reading is older than either."""

_LOOPS: Final = {"collect": ("collect", "ship", "servers")}
"""Loops that belong to a role whose name they do not have."""


class SelfWatch:
    """Asked from any thread. The daemon sets `roles`, and calls `beat` each time its main loop comes round."""

    def __init__(self, clock: Clock, *, config_file: str | None, data_directory: str) -> None:
        self.roles: RunningRoles | None = None
        self.reload_failed = ""
        self._clock = clock
        self._config_file, self._data_directory = config_file, data_directory
        self._started_at = clock.now()
        self._beat = monotonic()
        self._version = version("wattribute")

    def beat(self) -> None:
        """The main loop has come round."""
        self._beat = monotonic()

    def snapshot(self, *, with_cost: bool = True) -> DaemonSnapshot:
        """The present moment; without the cost where nobody looks at it."""
        roles = self.roles
        missing = ["starting"] if roles is None else roles.missing()
        return DaemonSnapshot(
            version=self._version,
            host="" if roles is None else roles.host,
            pid=os.getpid(),
            at=self._clock.now(),
            started_at=self._started_at,
            loop_age_seconds=monotonic() - self._beat,
            ready=not missing,
            reason="; ".join(missing),
            config_file=self._config_file,
            data_directory=self._data_directory,
            config_refused=self.reload_failed,
            roles=() if roles is None else self._roles(roles),
            meters=() if roles is None or roles.collect is None else _meters(roles),
            sources=() if roles is None or roles.sourced is None else roles.sourced.snapshots(),
            ledger=None if roles is None else _ledger(roles),
            ship=None if roles is None else roles.shipped(),
            refused_records=None if roles is None else roles.refused_records(),
            refused_rows=None if roles is None else roles.refused_rows(),
            alerts=() if roles is None or roles.alerting is None else roles.alerting.snapshots(),
            cost=agent_cost() if with_cost else None,
        )

    def line(self) -> str:
        """What `systemctl status` shows."""
        now = self.snapshot(with_cost=False)
        watts = [
            device.power_watts for meter in now.meters for device in meter.devices if device.power_watts is not None
        ]
        wrong = [meter.name for meter in now.meters if meter.state in ("broken", "retrying")]
        parts = [f"{len(watts)} device{'s' * (len(watts) != 1)}, {sum(watts):.0f} W"] if now.meters else []
        if now.sources:
            parts.append(f"{sum(source.accepted for source in now.sources)} events")
        if now.ledger is not None:
            parts.append(f"{now.ledger.windows_final} windows final")
        if wrong:
            parts.append(f"needs attention: {', '.join(wrong)} (wattribute doctor)")
        if self.reload_failed:
            parts.append(f"configuration not reloaded: {self.reload_failed}")
        return "; ".join([*parts, *([now.reason] if now.reason else [])])

    def _roles(self, roles: RunningRoles) -> tuple[RoleSnapshot, ...]:
        troubles = roles.troubles()
        waits = roles.waits()
        found = []
        for name in roles.config.roles:
            loops = _LOOPS.get(name, (name,))
            broken = [each for each in troubles if each.startswith(loops)]
            waiting = [waits[each] for each in loops if each in waits]
            state: RoleState = "broken" if broken else "retrying" if waiting else "running"
            found.append(RoleSnapshot(name=name, state=state, detail="; ".join(broken + waiting)))
        return tuple(found)


def _meters(roles: RunningRoles) -> tuple[MeterSnapshot, ...]:
    assert roles.collect is not None
    return tuple(_meter(thread, roles) for thread in roles.collect.threads)


def _meter(thread: MeterThread, roles: RunningRoles) -> MeterSnapshot:
    health, stats = thread.health(), thread.stats
    state, detail = _STATES[stats.state], stats.detail or health.note
    if not thread.alive and stats.state != "stopped":
        state, detail = "broken", "its thread has ended by an error; see the log"
    told = {each.device: each for each in health.devices}
    kinds = {device.id: device.kind for device in thread.meter.devices}
    fresh_since = roles.now() - max(FRESH_SECONDS, FRESH_INTERVALS * thread.meter.interval_seconds)
    devices = tuple(
        _device(told.get(each), (each, kinds.get(each, "")), roles, fresh_since) for each in sorted(told.keys() | kinds)
    )
    return MeterSnapshot(
        name=thread.meter.name,
        state=state,
        detail=detail,
        interval_seconds=thread.meter.interval_seconds,
        devices=devices,
        reads=stats.reads,
        read_errors=dict(stats.errors),
        events=nested(health.events),
        skipped=stats.skipped,
        read=stats.read,
        late=stats.late,
    )


def _device(
    health: DeviceHealth | None, named: tuple[str, str], roles: RunningRoles, fresh_since: UnixSeconds
) -> DeviceSnapshot:
    """Watts that are old say nothing of now: they are then not known."""
    assert roles.collect is not None
    device, kind = named
    at, watts = roles.collect.last_watts.get(device, (None, None))
    if at is not None and at < fresh_since:
        watts = None
    return DeviceSnapshot(
        device=device,
        kind=kind,
        state="waiting" if health is None else health.state,
        detail="" if health is None else health.detail,
        power_watts=watts,
        last_reading_at=at,
        counter_disagreement_ratio=None if health is None else health.counter_disagreement,
    )


def _ledger(roles: RunningRoles) -> LedgerSnapshot | None:
    if roles.aggregate is None:
        return None
    return LedgerSnapshot(
        final_until=roles.final_until(),
        log_time=roles.log_time(),
        windows_final=roles.aggregate.progress.finals,
        worst_imbalance_ratio=roles.aggregate.progress.worst_imbalance_ratio,
        holes=tuple(HoleSnapshot(**msgspec.structs.asdict(each)) for each in roles.aggregate.holes),
        partitions=roles.partitions(),
        waiting_records=roles.lag(),
    )
