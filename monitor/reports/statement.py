"""The statement: what an interval's energy was, who used it, and whether the books close. In: the gate. Out: a record.

Final rows only; what is still provisional is named beside them and is in no sum.
"""

import csv
from typing import Final, TextIO

import msgspec

from collectors.units import UnixSeconds
from monitor.core.allocation_lines import AllocationLine, IdleDevice
from monitor.core.band import Tier
from monitor.core.questions import (
    AllocationPage,
    AllocationQuery,
    Denied,
    Missing,
    Principal,
    RequestsQuery,
    Restatement,
    TooLate,
    WindowsQuery,
)
from monitor.query import Query, every_request, every_window, whole_allocation

REQUEST_COLUMNS: Final = (
    "request_id",
    "model",
    "team",
    "energy_joules",
    "emissions_grams",
    "input_tokens",
    "output_tokens",
    "start",
    "end",
    "status",
    "namespace",
    "attempt",
    "host",
    "measured_ratio",
    "exact_joules",
    "work_unit",
    "work_amount",
)


class StatementLine(msgspec.Struct, frozen=True, kw_only=True):
    """What one team used of one model: truly `low_joules` to `high_joules`; `tier` is what most of it rests on.

    Unknown is None; `factorless_joules` is energy that is in no gram.
    """

    model: str
    team: str
    energy_joules: float
    emissions_grams: float | None
    requests: float | None
    input_tokens: float | None
    output_tokens: float | None
    measured_ratio: float | None
    cached_input_tokens: float | None
    untold_requests: float | None
    scheduled_requests: float | None
    estimated_start_joules: float | None
    factorless_joules: float
    exact_joules: float
    low_joules: float | None
    high_joules: float | None
    tier: Tier


class Provisional(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured in the interval and not yet final."""

    measured_joules: float
    windows: int


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """The fields in the order of the JSON. `windows` counts host-windows that are final; energy is theirs alone.

    `worst_imbalance` is the greatest |measured - attributed - idle - unattributed| / measured of them, measured being
    with `meter_disagreement_joules`: what children's meters claim beyond the meter that contains them.
    `unmetered_requests` ran where nothing was metered: their energy is missing, not zero.
    """

    measured_joules: float
    attributed_joules: float
    idle_joules: float
    unattributed_joules: float
    measured_ratio: float | None
    by: tuple[StatementLine, ...]
    windows: int
    worst_imbalance: float
    rejected: dict[str, int]
    start: UnixSeconds = msgspec.field(name="from")
    end: UnixSeconds = msgspec.field(name="to")
    first_window: UnixSeconds | None
    last_window: UnixSeconds | None
    emissions_grams: float | None
    factorless_joules: float
    recovered_joules: float
    meter_disagreement_joules: float
    unattributed_reasons: dict[str, float]
    idle_devices: tuple[IdleDevice, ...]
    factors: tuple[str, ...]
    provisional: Provisional
    restatements: tuple[Restatement, ...]
    too_late: tuple[TooLate, ...]
    holes: tuple[Missing, ...]
    unmetered_requests: int
    measured_low_joules: float | None
    measured_high_joules: float | None


class _Checked(msgspec.Struct):
    """Every window held against its own equation, in one pass."""

    windows: int = 0
    worst: float = 0.0
    first: UnixSeconds | None = None
    last: UnixSeconds | None = None
    provisional_joules: float = 0.0
    provisional_windows: int = 0


def statement(query: Query, principal: Principal, start: UnixSeconds, end: UnixSeconds) -> Statement:
    """The statement of [start, end). Raises Denied for a team: it tells what all of them used."""
    if principal.role == "team":
        raise Denied(f"{principal.name} may ask for its own lines; the statement is for the roles read and admin")
    by = _page(query, principal, start, end, ("model", "team"))
    whole = _page(query, principal, start, end, ())
    checked, status = _check_windows(query, principal, start, end), query.status(principal, since=start)
    totals = whole.totals
    if totals is None:
        raise Denied(f"{principal.name} may not see the totals")
    return Statement(
        measured_joules=totals.measured_joules,
        attributed_joules=totals.attributed_joules,
        idle_joules=totals.idle_joules,
        unattributed_joules=totals.unattributed_joules,
        measured_ratio=totals.measured_ratio,
        by=tuple(_statement_line(each.line) for each in by.lines if each.line.account == "attributed"),
        windows=checked.windows,
        worst_imbalance=checked.worst,
        rejected=status.rejected or {},
        start=start,
        end=end,
        first_window=checked.first,
        last_window=checked.last,
        emissions_grams=totals.emissions_grams,
        factorless_joules=totals.factorless_joules,
        recovered_joules=totals.recovered_joules,
        meter_disagreement_joules=totals.meter_disagreement_joules,
        unattributed_reasons=totals.unattributed_reasons,
        idle_devices=whole.idle_devices or (),
        factors=whole.factors,
        provisional=Provisional(measured_joules=checked.provisional_joules, windows=checked.provisional_windows),
        restatements=tuple(each for each in status.restatements or () if (each.first_window or start) < end),
        too_late=tuple(each for each in status.too_late or () if (each.first_window or start) < end),
        holes=tuple(each for each in status.holes if each.start < end and start < each.end),
        unmetered_requests=_unmetered(query, principal, start, end),
        measured_low_joules=totals.measured_low_joules,
        measured_high_joules=totals.measured_high_joules,
    )


def request_csv(query: Query, principal: Principal, start: UnixSeconds, end: UnixSeconds, out: TextIO) -> int:
    """Writes a header and a line for each request that used energy in [start, end); returns their number.

    Times are unix seconds; an empty cell is what is not known. Memory does not grow with the number.
    """
    writer, count = csv.writer(out, lineterminator="\n"), 0
    writer.writerow(REQUEST_COLUMNS)
    for line in every_request(query, principal, RequestsQuery(start=start, end=end)):
        known = {name: getattr(line, name) for name in REQUEST_COLUMNS if name != "host"}
        known["host"] = " ".join(line.hosts)
        values = (known[name] for name in REQUEST_COLUMNS)
        writer.writerow("" if value is None else value for value in values)
        count += 1
    return count


def _page(
    query: Query, principal: Principal, start: UnixSeconds, end: UnixSeconds, by: tuple[str, ...]
) -> AllocationPage:
    asked = AllocationQuery(start=start, end=end, by=by, include_provisional=False)
    return whole_allocation(query, principal, asked)


def _check_windows(query: Query, principal: Principal, start: UnixSeconds, end: UnixSeconds) -> _Checked:
    found = _Checked()
    for window in every_window(query, principal, WindowsQuery(start=start, end=end)):
        if window.provisional:
            found.provisional_windows += 1
            found.provisional_joules += window.measured_joules
            continue
        found.windows += 1
        found.worst = max(found.worst, window.imbalance_ratio)
        found.first = window.time if found.first is None else found.first
        found.last = window.time
    return found


def _unmetered(query: Query, principal: Principal, start: UnixSeconds, end: UnixSeconds) -> int:
    """Requests without a joule and without a gram: one that was metered at 0 W has 0 g."""
    requests = every_request(query, principal, RequestsQuery(start=start, end=end))
    return sum(not line.energy_joules and line.emissions_grams is None for line in requests)


def _statement_line(line: AllocationLine) -> StatementLine:
    model, team = line.key
    return StatementLine(
        model=model,
        team=team,
        energy_joules=line.energy_joules,
        emissions_grams=line.emissions_grams,
        requests=line.requests,
        input_tokens=line.input_tokens,
        output_tokens=line.output_tokens,
        measured_ratio=line.measured_ratio,
        cached_input_tokens=line.cached_input_tokens,
        untold_requests=line.untold_requests,
        scheduled_requests=line.scheduled_requests,
        estimated_start_joules=line.estimated_start_joules,
        factorless_joules=line.factorless_joules,
        exact_joules=line.exact_joules,
        low_joules=line.low_joules,
        high_joules=line.high_joules,
        tier=line.tier,
    )
