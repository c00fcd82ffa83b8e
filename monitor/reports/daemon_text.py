"""A daemon's snapshot as text for people, 80 columns wide. In: DaemonSnapshot. Out: text, and what is wrong."""

import textwrap
from collections.abc import Iterator
from typing import Final

from collectors.clock import rfc3339
from collectors.units import SECONDS_PER_DAY, SECONDS_PER_HOUR, UnixSeconds
from monitor.reports.layout import columns, printable
from monitor.selfmetrics import DaemonSnapshot, LedgerSnapshot, MeterSnapshot, SourceSnapshot

WIDTH: Final = 80
_LONGEST_NAME: Final = 40
_SHOWN_NAME_END: Final = 12
_SHOWN_HOLES: Final = 5
LOOP_LATE_SECONDS: Final = 30.0
_MINUTE: Final = 60.0


def faults(snapshot: DaemonSnapshot) -> list[str]:
    """What is wrong, one sentence each, as "where: what and what mends it"; empty while all is well.

    A meter that is gone is no fault: this host has not that hardware. A device that is gone was there and was metered.
    """
    return [printable(each) for each in _faults(snapshot)]


def _faults(snapshot: DaemonSnapshot) -> Iterator[str]:
    if snapshot.loop_age_seconds >= LOOP_LATE_SECONDS:
        yield f"main loop: has not come round for {age(snapshot.loop_age_seconds)}; see the log of the daemon"
    if not snapshot.ready:
        yield f"not ready: {snapshot.reason or 'no good sample has passed yet'}"
    if snapshot.config_refused:
        yield f"configuration: the changed file was not taken, the one before is in force: {snapshot.config_refused}"
    for role in snapshot.roles:
        if role.state != "running":
            yield f"role {role.name}: {role.detail or 'has ended by an error; see the log of the daemon'}"
    parts: list[tuple[str, MeterSnapshot | SourceSnapshot]] = [
        *(("meter", meter) for meter in snapshot.meters),
        *(("source", source) for source in snapshot.sources),
    ]
    for kind, part in parts:
        if part.state in ("broken", "retrying"):
            yield f"{kind} {part.name}: {part.detail or part.state}"
    for alert in snapshot.alerts:
        if alert.detail:
            yield f"alert {alert.name}: {alert.detail}"
    for meter in snapshot.meters:
        for device in meter.devices:
            if device.state in ("broken", "not_responding", "gone"):
                yield f"{device.device}: {device.detail or device.state.replace('_', ' ')}"


def render(snapshot: DaemonSnapshot) -> str:
    """The whole, ending with what is wrong."""
    lines = [*_head(snapshot), "", *_meters(snapshot)]
    if snapshot.sources:
        lines += ["", *_sources(snapshot)]
    lines += ["", *_books(snapshot), ""]
    if snapshot.alerts:
        lines += [*_alerts(snapshot), ""]
    found = faults(snapshot)
    lines.append(
        f"{len(found)} {'thing needs' if len(found) == 1 else 'things need'} you:" if found else "All is well."
    )
    for fault in found:
        lines += textwrap.wrap(fault, WIDTH, initial_indent="  - ", subsequent_indent="    ", break_on_hyphens=False)
    return "\n".join(lines) + "\n"


def age(duration_seconds: float) -> str:
    """A duration in its two largest units: 3 661 s is "1 h 1 min"."""
    seconds = max(0.0, duration_seconds)
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < SECONDS_PER_HOUR:
        return f"{seconds // _MINUTE:.0f} min {seconds % _MINUTE:.0f} s"
    if seconds < SECONDS_PER_DAY:
        return f"{seconds // SECONDS_PER_HOUR:.0f} h {seconds % SECONDS_PER_HOUR // _MINUTE:.0f} min"
    return f"{seconds // SECONDS_PER_DAY:.0f} d {seconds % SECONDS_PER_DAY // SECONDS_PER_HOUR:.0f} h"


def _head(snapshot: DaemonSnapshot) -> list[str]:
    state = "running" if snapshot.ready else "starting"
    up = age(snapshot.at - snapshot.started_at)
    roles = (role.name if role.state == "running" else f"{role.name} ({role.state})" for role in snapshot.roles)
    facts = [
        ("roles", ", ".join(roles)),
        ("config", snapshot.config_file or "built-in defaults"),
        ("data", snapshot.data_directory or "none"),
        *_cost(snapshot),
        *_shipped(snapshot),
        *_refused(snapshot),
    ]
    return [
        printable(f"wattribute {snapshot.version} on {snapshot.host}, pid {snapshot.pid}: {state}"),
        f"  up       {up}, since {rfc3339(snapshot.started_at)}",
        *(printable(f"  {name:<8} {text}") for name, text in facts),
    ]


def _cost(snapshot: DaemonSnapshot) -> list[tuple[str, str]]:
    cost, up_seconds = snapshot.cost, snapshot.at - snapshot.started_at
    if cost is None or up_seconds <= 0.0:
        return []
    memory = "" if cost.memory_bytes is None else f", {cost.memory_bytes / 2**20:.0f} MiB"
    return [("cost", f"{100.0 * cost.cpu_seconds / up_seconds:.2f} % of a core since the start{memory}")]


def _shipped(snapshot: DaemonSnapshot) -> list[tuple[str, str]]:
    """How far this host's readings are at the brokers."""
    ship = snapshot.ship
    if ship is None:
        return []
    until = "nothing yet" if ship.until is None else f"until {rfc3339(ship.until)}"
    return [("shipped", f"{until}; {ship.waiting_records} records wait")]


def _refused(snapshot: DaemonSnapshot) -> list[tuple[str, str]]:
    """What was left out for good; nothing of a place where this process writes nothing."""
    told = [] if snapshot.refused_records is None else [f"{snapshot.refused_records} records by Kafka"]
    if snapshot.refused_rows is not None:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(snapshot.refused_rows.items()) if count)
        told.append(f"{sum(snapshot.refused_rows.values())} rows by InfluxDB" + (f" ({kinds})" if kinds else ""))
    return [("refused", f"for good: {', '.join(told)}")] if told else []


def _meters(snapshot: DaemonSnapshot) -> list[str]:
    rows: list[tuple[str, ...]] = []
    for meter in snapshot.meters:
        if not meter.devices:
            # What has no devices and has ended was never on this host.
            rows.append((meter.name, "-", "absent" if meter.state == "gone" else meter.state, "-", "-"))
        for each in meter.devices:
            watts = "-" if each.power_watts is None else f"{each.power_watts:.1f}"
            state = each.state.replace("_", " ")
            rows.append((meter.name, _short(each.device), state, watts, _ago(snapshot.at, each.last_reading_at)))
    if not rows:
        return ["No meters."]
    return columns(("METER", "DEVICE", "STATE", "WATTS", "LAST READING"), rows, left=3)


def _sources(snapshot: DaemonSnapshot) -> list[str]:
    rows = [
        (
            _short(each.name),
            each.kind,
            each.state,
            str(each.accepted),
            str(sum(each.rejected.values())),
            _ago(snapshot.at, each.last_event_at),
        )
        for each in snapshot.sources
    ]
    return columns(("SOURCE", "KIND", "STATE", "ACCEPTED", "REJECTED", "LAST EVENT"), rows, left=3)


def _books(snapshot: DaemonSnapshot) -> list[str]:
    ledger = snapshot.ledger
    if ledger is None:
        return ["Books: kept by another process."]
    if ledger.final_until is None:
        if ledger.windows_final:
            done = f"{ledger.windows_final} windows were made final here since the start"
            return [f"Books: {done}; none of its partitions is accounted now.", *_partitions(ledger), *_holes(ledger)]
        nothing = "the first windows are after the horizon for late events"
        if ledger.partitions is not None:
            nothing = "no host's records are in its partitions, or they are within the horizon"
        return [f"Books: nothing is final yet; {nothing}.", *_partitions(ledger), *_holes(ledger)]
    imbalance = ledger.worst_imbalance_ratio
    off = "" if imbalance is None else f", off by at most {imbalance:.1e} of a window"
    return [
        f"Books final until {rfc3339(ledger.final_until)}, {_ago(snapshot.at, ledger.final_until)}",
        f"  {ledger.windows_final} windows final since the start{off}",
        *_partitions(ledger),
        *_holes(ledger),
    ]


def _partitions(ledger: LedgerSnapshot) -> Iterator[str]:
    """Of a fleet: what this process accounts of it."""
    if ledger.partitions is not None:
        numbers = ", ".join(map(str, ledger.partitions)) or "none: other members have them, or it is not in the group"
        waiting = "" if ledger.waiting_records is None else f"; {ledger.waiting_records} records wait in Kafka"
        told = f"partitions {numbers}{waiting}"
        yield from textwrap.wrap(told, WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)


def _holes(ledger: LedgerSnapshot) -> Iterator[str]:
    """The newest; the statement of an interval lists all of it."""
    for hole in ledger.holes[-_SHOWN_HOLES:]:
        told = f"{hole.host} is missing from {rfc3339(hole.start)} to {rfc3339(hole.end)}: {hole.reason}"
        yield from textwrap.wrap(
            printable(told), WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
        )
    if len(ledger.holes) > _SHOWN_HOLES:
        yield f"  and {len(ledger.holes) - _SHOWN_HOLES} older holes, which statements name"


def _alerts(snapshot: DaemonSnapshot) -> list[str]:
    """Rules by name; `wattribute alerts` lists whose they are."""
    rows = [
        (_short(each.name), *(str(each.count(phase)) for phase in ("firing", "pending", "resolved")), str(each.sent))
        for each in snapshot.alerts
    ]
    return columns(("ALERT", "FIRING", "PENDING", "RESOLVED", "POSTS"), rows, left=1)


def _ago(now: UnixSeconds, moment: UnixSeconds | None) -> str:
    return "-" if moment is None else f"{age(now - moment)} ago"


def _short(name: str) -> str:
    """Both ends of a long name, so that a table keeps its width."""
    shown = printable(name)
    if len(shown) <= _LONGEST_NAME:
        return shown
    return f"{shown[: _LONGEST_NAME - _SHOWN_NAME_END - 2]}..{shown[-_SHOWN_NAME_END:]}"
