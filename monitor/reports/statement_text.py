"""A statement as JSON, and as plain text for people. In: a Statement. Out: text; every number with its quality."""

import json
import textwrap
from typing import Final

import msgspec

from collectors.clock import rfc3339
from collectors.units import JOULES_PER_KILOWATT_HOUR, JOULES_PER_WATT_HOUR
from monitor.reports.layout import columns, printable
from monitor.reports.statement import Statement

WIDTH: Final = 80
DUST_JOULES: Final = 0.05
"""Less is rounding, and would be told as 0.0 J."""
"""Columns of a terminal; only names may make a line wider."""


def render_json(statement: Statement) -> str:
    """One object; times are unix seconds, null is what is not known."""
    return json.dumps(msgspec.to_builtins(statement), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def render_text(statement: Statement) -> str:
    """The books, who used what, and everything that a reader should know before trusting it."""
    title = f"Energy statement  {rfc3339(statement.start)} to {rfc3339(statement.end)}"
    blocks = [[title, "=" * len(title)], _books(statement), _lines(statement), _notes(statement)]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def energy(joules: float) -> str:
    """The same with the joules beside: 7.2e6 J are "2.000 kWh (7 200 000 J)"."""
    return f"{watt_hours(joules)} ({_joules(joules)})"


def watt_hours(joules: float) -> str:
    """Kilowatt hours from 0.1 kWh on, watt hours below: 7.2e6 J are "2.000 kWh", 3 600 J are "1.000 Wh"."""
    if abs(joules) >= JOULES_PER_KILOWATT_HOUR / 10:
        return f"{joules / JOULES_PER_KILOWATT_HOUR:,.3f} kWh".replace(",", " ")
    return f"{joules / JOULES_PER_WATT_HOUR:.3f} Wh"


def off_by(joules: float, low: float | None, high: float | None) -> float | None:
    """The wider half of a band, relative: of 100 J that are truly 90 to 115 J 0.15; None where it is not known."""
    return max(joules - low, high - joules) / joules if joules and low is not None and high is not None else None


def emissions(grams: float | None) -> str:
    """Of CO2e: "12.000 g CO2e"; "unknown" where no factor is known."""
    return "unknown" if grams is None else f"{_grams(grams)} CO2e"


def _books(statement: Statement) -> list[str]:
    measured = statement.measured_joules

    def row(name: str, joules: float) -> list[str]:
        return [name, energy(joules), _percent(joules / measured if measured else None)]

    rows = [
        row("measured", measured),
        row("attributed", statement.attributed_joules),
        row("idle", statement.idle_joules),
        row("unattributed", statement.unattributed_joules),
    ]
    metered = f"{_percent(statement.measured_ratio)} metered"
    gain = off_by(measured, statement.measured_low_joules, statement.measured_high_joules)
    metered = metered if gain is None else f"+-{_percent(gain)}, {metered}"
    notes = (metered, "", _idle_note(statement), _reasons(statement))
    lines = columns(("", "energy", "share"), rows, left=1)[2:]
    closing = (
        "no windows" if not statement.windows else f"{statement.windows} window{'s' if statement.windows != 1 else ''}"
    )
    off = f"books close: worst window off by {statement.worst_imbalance:.0e}"
    if statement.worst_imbalance > 1e-9:
        off = f"BOOKS DO NOT CLOSE: worst window off by {statement.worst_imbalance:.3g}"
    noted = [part for line, note in zip(lines, notes, strict=True) for part in _noted(line, note)]
    return [*noted, f"{off} ({closing})"]


def _noted(line: str, note: str) -> list[str]:
    """A note behind its line, or under it where both together are too wide."""
    together = f"{line}  {note}".rstrip()
    return [together] if len(together) <= WIDTH else [line, *_wrapped(f"  {note}")]


def _wrapped(note: str) -> list[str]:
    """Names are never broken: one that is wider than the page stays whole."""
    return textwrap.wrap(
        note, WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False, expand_tabs=False
    )


def _lines(statement: Statement) -> list[str]:
    header = ("model", "team", "energy", "+-", "CO2e", "reqs", "tok in", "tok out")
    rows = [
        (
            line.model,
            line.team or "(no team)",
            watt_hours(line.energy_joules),
            _whole_percent(off_by(line.energy_joules, line.low_joules, line.high_joules)),
            "unknown" if line.emissions_grams is None else _grams(line.emissions_grams),
            _count(line.requests),
            _count(line.input_tokens),
            _count(line.output_tokens),
        )
        for line in sorted(statement.by, key=lambda line: -line.energy_joules)
    ]
    return columns(header, rows, left=2) if rows else ["nobody used any energy in these windows"]


def _notes(statement: Statement) -> list[str]:
    notes = ["+-: what energy may be off, nine times in ten, the meters' gain included"] if statement.by else []
    if any(line.low_joules is None for line in statement.by):
        notes.append("  -: nobody knows how far")
    notes.append(f"emissions: {emissions(statement.emissions_grams)}, idle and unattributed included")
    notes += [f"  factor: {printable(factor)}" for factor in statement.factors]
    if statement.factorless_joules:
        notes.append(f"  without a factor, in no gram above: {energy(statement.factorless_joules)}")
    if statement.recovered_joules:
        notes.append(f"recovered from counters across holes: {energy(statement.recovered_joules)}")
    if statement.meter_disagreement_joules:
        more = energy(statement.meter_disagreement_joules)
        notes.append(f"meters disagree: children's tell {more} more than those that contain them; accounted on top")
    if statement.unmetered_requests:
        number = statement.unmetered_requests
        ran, their = ("request", "its") if number == 1 else ("requests", "their")
        notes.append(f"{_count(number)} {ran} ran where nothing was metered: {their} energy is missing, not zero")
    notes += [
        f"{printable(line.model)}, {printable(line.team) or '(no team)'}: {_percent(line.measured_ratio)} metered"
        for line in statement.by
        if line.measured_ratio is not None and line.measured_ratio < 1.0
    ]
    untold = sum(line.untold_requests or 0.0 for line in statement.by)
    if untold:
        notes.append(f"requests whose tokens nobody told: {_count(untold)}")
    if estimated := sum(line.estimated_start_joules or 0.0 for line in statement.by):
        unknown = any(line.estimated_start_joules is None for line in statement.by)
        least = " at least; older rows do not tell" if unknown else ""
        notes.append(f"placed by estimated starts (queue or first token): {energy(estimated)}{least}")
    if statement.provisional.windows:
        pending = statement.provisional
        notes.append(f"not yet final, in no sum: {energy(pending.measured_joules)} in {pending.windows} windows")
    notes += [f"rejected: {count} x {printable(reason)}" for reason, count in sorted(statement.rejected.items())]
    notes += [
        f"restated at {rfc3339(each.mark)}: {printable(each.host)}, {_count(each.windows)} windows,"
        f" {printable(each.reason or 'no reason given')}"
        for each in statement.restatements
    ]
    notes += [
        f"too late at {rfc3339(each.mark)}, in no sum: {printable(each.host)}, {_count(each.windows)} windows"
        for each in statement.too_late
    ]
    notes += [
        f"missing, not zero: {printable(each.host)} from {rfc3339(each.start)} to {rfc3339(each.end)};"
        f" {printable(each.reason)}"
        for each in statement.holes
    ]
    return [part for note in notes for part in _wrapped(note)]


def _idle_note(statement: Statement) -> str:
    sources = sorted({source for each in statement.idle_devices for source in each.idle_sources})
    return f"idle power: {', '.join(sources)}" if sources else ""


def _reasons(statement: Statement) -> str:
    reasons = {name: joules for name, joules in statement.unattributed_reasons.items() if abs(joules) >= DUST_JOULES}
    return ", ".join(f"{name} {_joules(joules)}" for name, joules in reasons.items())


def _joules(joules: float) -> str:
    """Whole joules from 100 J on; the JSON has all digits."""
    return f"{joules:,.{0 if abs(joules) >= 100 else 1}f} J".replace(",", " ")


def _grams(grams: float) -> str:
    """Kilograms from 1 kg on."""
    return f"{grams / 1000:,.3f} kg".replace(",", " ") if grams >= 1000 else f"{grams:.3f} g"


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{100 * ratio:.1f} %"


def _whole_percent(ratio: float | None) -> str:
    if ratio is None:
        return "-"
    return "<1%" if 0.0 < ratio < 0.005 else f"{100 * ratio:.0f}%"


def _count(number: float | None) -> str:
    return "-" if number is None else f"{number:,.10g}".replace(",", " ")
