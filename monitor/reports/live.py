"""What goes on now, for `wattribute top` and the demo. In: the query gate. Out: a LiveView, and what rich shows of it.

"Now" is the newest window in the store, so that a replay or an archive is shown in its own time. Zero, missing and
provisional are three things: "0.0", "–", and a figure with "~" behind it.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from collectors.clock import rfc3339
from collectors.units import UnixSeconds
from monitor.core.allocation_lines import AllocationLine, AllocationTotals
from monitor.core.band import tier
from monitor.core.points import ATTRIBUTED
from monitor.core.questions import AllocationQuery, MeterWindow, Principal, Status, WindowsQuery
from monitor.query import Query, every_meter, whole_allocation
from monitor.reports.fitted import Fitted
from monitor.reports.layout import printable

MISSING: Final = "–"
PROVISIONAL: Final = " ~"
STALE_AFTER_SECONDS: Final = 60.0
"""A host whose newest window is this much older than now has no power now: what it had is not what it has.

A device that has dropped out of its host's windows stays listed, without power, for as long.
"""


class DevicePower(msgspec.Struct, frozen=True, kw_only=True):
    """A device's mean power in the window at `time`, its newest.

    `power_watts` is None where nothing was measured, or where that window is past (`stale`): now is not known.
    `metered_ratio` is the part that a meter told and no model, None of no energy. `parent` is the device whose meter
    contains this one.
    """

    time: UnixSeconds
    host: str
    device: str
    kind: str
    parent: str
    power_watts: float | None
    covered_seconds: float | None
    metered_ratio: float | None
    provisional: bool
    stale: bool


class LiveView(msgspec.Struct, frozen=True, kw_only=True):
    """All that is shown. Times are the starts of windows; `now` and `final_until` are None where there is no window.

    `lines` are by model and team over the windows that start in (now - span, now]. A team is not shown what others
    used: `devices`, `totals` and `rejected` are then None.
    """

    now: UnixSeconds | None
    span_seconds: float
    final_until: UnixSeconds | None
    final_hosts: int
    hosts: int
    devices: tuple[DevicePower, ...] | None
    lines: tuple[AllocationLine, ...]
    totals: AllocationTotals | None
    factors: tuple[str, ...]
    rejected: dict[str, int] | None


def live_view(query: Query, principal: Principal, *, span_seconds: float = 3_600.0) -> LiveView:
    """The state of the books. Raises what the gate raises."""
    status = query.status(principal, since=math.inf)
    newest = _newest(status)
    now = max(newest.values(), default=None)
    if now is None:
        return LiveView(
            now=None,
            span_seconds=span_seconds,
            final_until=None,
            final_hosts=0,
            hosts=0,
            devices=None if principal.role == "team" else (),
            lines=(),
            totals=None,
            factors=(),
            rejected=status.rejected,
        )
    asked = AllocationQuery(start=math.nextafter(now - span_seconds, math.inf), end=math.nextafter(now, math.inf))
    page = whole_allocation(query, principal, asked)
    return LiveView(
        now=now,
        span_seconds=span_seconds,
        final_until=page.final_until,
        final_hosts=len(status.final_until),
        hosts=len(newest),
        devices=None if principal.role == "team" else _devices(query, principal, newest, now),
        lines=tuple(each.line for each in page.lines),
        totals=page.totals,
        factors=page.factors,
        rejected=status.rejected,
    )


def _newest(status: Status) -> dict[str, UnixSeconds]:
    """The newest window of each host, final or provisional."""
    hosts = status.final_until.keys() | status.provisional_until.keys()
    return {
        host: max(times.get(host, -math.inf) for times in (status.final_until, status.provisional_until))
        for host in hosts
    }


def _devices(
    query: Query, principal: Principal, newest: dict[str, UnixSeconds], now: UnixSeconds
) -> tuple[DevicePower, ...]:
    """One question for each newest window that some hosts have in common, which is mostly one in all."""
    hosts_at: dict[UnixSeconds, set[str]] = {}
    for host, time in newest.items():
        hosts_at.setdefault(time, set()).add(host)
    found: dict[tuple[str, str, str], DevicePower] = {}
    for last, hosts in hosts_at.items():
        first, end = (math.nextafter(time, math.inf) for time in (last - STALE_AFTER_SECONDS, last))
        for meter in every_meter(query, principal, WindowsQuery(start=first, end=end, hosts=frozenset(hosts))):
            stale = meter.time < last or now - last > STALE_AFTER_SECONDS
            found[meter.host, meter.device, meter.kind] = _power(
                meter, stale=stale
            )  # in order of time: the newest stays
    return tuple(sorted(found.values(), key=_device_place))


def _device_place(device: DevicePower) -> tuple[str, str, bool, str]:
    """By host; what a meter contains stands under it."""
    return device.host, device.parent or device.device, device.parent != "", device.device


def _power(meter: MeterWindow, *, stale: bool) -> DevicePower:
    """300 J in 10 covered seconds are 30 W; in no covered second they are no power."""
    energy, covered = meter.energy_joules, meter.covered_seconds
    return DevicePower(
        time=meter.time,
        host=meter.host,
        device=meter.device,
        kind=meter.kind,
        parent=meter.parent,
        power_watts=None if stale or energy is None or not covered else energy / covered,
        covered_seconds=covered,
        metered_ratio=meter.metered_joules / energy if energy and meter.metered_joules is not None else None,
        provisional=meter.provisional,
        stale=stale,
    )


def render_live(view: LiveView, most_lines: int | None = None) -> RenderableType:
    """Everything of the view, or that there is nothing yet.

    Of models and teams the `most_lines` that used most, the rest as one sum; None: as many as the terminal has room
    for.
    """
    if view.now is None:
        return Group(Text("No window in the store yet."), *_rejected(view))
    if most_lines is not None:
        return _picture(view, most_lines)
    return Fitted(lambda lines: _picture(view, lines), sum(line.account == ATTRIBUTED for line in view.lines))


def _picture(view: LiveView, most_lines: int) -> Group:
    parts: list[RenderableType] = [_head(view)]
    if view.devices is not None:
        parts += [Text(), _device_table(view.devices)]
    parts += [Text(), *_books(view), _line_table(view, most_lines), Text(), *_foot(view)]
    return Group(*parts)


def _head(view: LiveView) -> Text:
    assert view.now is not None
    final = MISSING if view.final_until is None else rfc3339(view.final_until)
    behind = "" if view.final_hosts == view.hosts else f" on {view.final_hosts} of {view.hosts} hosts"
    return Text(f"newest window {rfc3339(view.now)}   final up to {final}{behind}", style="bold")


def _device_table(devices: Iterable[DevicePower]) -> Table:
    table = _table("Power in the newest window", ("host", "device", "kind"), ("watts", "covered s", "metered"), "note")
    for each in devices:
        watts = _figure(each.power_watts, 1) + (
            PROVISIONAL if each.provisional and each.power_watts is not None else ""
        )
        figures = (watts, _figure(each.covered_seconds, 1), _percent(each.metered_ratio))
        _add(table, (each.host, each.device, each.kind, *figures, _note(each)), "dim" if each.stale else "")
    return table


def _note(device: DevicePower) -> str:
    parts = [f"in {device.parent}"] if device.parent else []
    if device.stale:
        parts.append(f"last window {rfc3339(device.time)}")
    return ", ".join(parts)


def _line_table(view: LiveView, most_lines: int) -> Table:
    table = _table(None, ("model", "team"), ("joules", "g CO2e", "reqs", "tok in", "tok out", "metered"))
    used = sorted((line for line in view.lines if line.account == ATTRIBUTED), key=lambda line: -line.energy_joules)
    for line in used[:most_lines]:
        _add(table, _line_cells(line), "")
    if rest := used[most_lines:]:
        _add(table, _line_cells(_sum(rest)), "italic")
    for line in view.lines:
        if line.account != ATTRIBUTED:
            named = msgspec.structs.replace(line, key=(line.account, *("" for _ in line.key[1:])))
            _add(table, _line_cells(named), "dim italic")
    return table


def _sum(lines: Sequence[AllocationLine]) -> AllocationLine:
    """Some lines as one, "+N more"; as in an allocation, what is known is added up and None is what no line knows.

    Bands do not add up, and the live table shows none: None.
    """
    apart = {"key": (f"+{len(lines)} more", ""), "account": ATTRIBUTED, "low_joules": None, "high_joules": None}
    sums: dict[str, float | None] = {}
    for name in AllocationLine.__struct_fields__:
        if name not in (*apart, "tier"):
            known = [value for line in lines if (value := getattr(line, name)) is not None]
            sums[name] = math.fsum(known) if known else None
    energy, metered, exact, learned, steps = (
        sums[f"{name}_joules"] or 0.0 for name in ("energy", "metered", "exact", "learned", "steps")
    )
    sums["measured_ratio"] = metered / energy if energy else None
    told = {**apart, **sums, "tier": tier(energy, metered, exact, learned, steps)}
    return msgspec.convert(told, AllocationLine)


def _line_cells(line: AllocationLine) -> tuple[str, ...]:
    mark = PROVISIONAL if line.provisional_joules else ""
    return (
        *line.key,
        _figure(line.energy_joules, 1) + mark,
        _figure(line.emissions_grams, 3) + (mark if line.emissions_grams is not None else ""),
        _figure(line.requests, 0),
        _figure(line.input_tokens, 0),
        _figure(line.output_tokens, 0),
        _percent(line.measured_ratio),
    )


def _books(view: LiveView) -> list[Text]:
    """Above the lines, where they stay in sight however many lines there are."""
    lines = [Text(f"The last {view.span_seconds / 60.0:.10g} minutes", style="italic")]
    if view.totals is not None:
        totals = view.totals
        names = ("measured", "attributed", "idle", "unattributed", "provisional")
        books = ", ".join(f"{name} {_figure(getattr(totals, f'{name}_joules'), 1)} J" for name in names)
        lines.append(Text(f"{books}; metered {_percent(totals.measured_ratio)}"))
    return [*lines, *(Text(f"factor {printable(factor)}") for factor in view.factors), Text()]


def _foot(view: LiveView) -> list[Text]:
    return [*_rejected(view), Text(f"{MISSING} not known   ~ provisional, may still change", style="dim")]


def _rejected(view: LiveView) -> list[Text]:
    if not view.rejected:
        return []
    counts = ", ".join(f"{printable(reason)} {count}" for reason, count in sorted(view.rejected.items()))
    return [Text(f"rejected: {counts}", style="yellow")]


def _figure(value: float | None, decimals: int) -> str:
    return MISSING if value is None else f"{value:,.{decimals}f}"


def _percent(ratio: float | None) -> str:
    return MISSING if ratio is None else f"{ratio:.1%}"


def _table(title: str | None, names: tuple[str, ...], figures: tuple[str, ...], last: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in names:
        table.add_column(name, min_width=len(name), overflow="fold")
    for name in figures:
        table.add_column(name, justify="right", no_wrap=True)
    if last is not None:
        table.add_column(last)
    return table


def _add(table: Table, cells: tuple[str, ...], style: str) -> None:
    # As Text, for in a plain string rich would read a team named "[red]" as markup.
    table.add_row(*(Text(printable(cell)) for cell in cells), style=style)
