"""One request out of its rows, one for each window and host it ran in. Pure."""

import math
from collections.abc import Sequence
from math import nan
from typing import Final

import msgspec

from collectors.units import UnixSeconds
from monitor.core.band import Band, Doubt, Gains, Tier, tier
from monitor.core.points import REQUEST_ENERGY, WHOLE_OR_NOT, FieldValue, Row

RequestKey = tuple[str, str, str, FieldValue]
"""Namespace, id, attempt, and start: an id that was used again later is another request."""

_T: Final = {name: place for place, name in enumerate(REQUEST_ENERGY.tags)}
_F: Final = {name: place for place, name in enumerate(REQUEST_ENERGY.fields)}
_KEY: Final = (_T["namespace"], _T["request_id"], _T["attempt"])


class RequestLine(msgspec.Struct, frozen=True, kw_only=True):
    """What one request used in the interval asked for. Tokens and work are the whole request's, None where not told.

    Joules are None where no window was measured on its devices, and then there is no tier; one of points.WHOLE_OR_NOT
    where a row does not hold it.

    `hosts` are those it ran on, `low_joules` to `high_joules` is the band of its energy (band.py), None where it is not
    known. `whole` tells whether it lies in the interval from start to end.
    """

    namespace: str
    request_id: str
    attempt: str
    model: str
    team: str
    deployment: str
    labels: str
    hosts: tuple[str, ...]
    energy_joules: float | None
    marginal_joules: float | None
    metered_joules: float | None
    recovered_joules: float | None
    exact_joules: float | None
    steps_joules: float | None
    learned_joules: float | None
    low_joules: float | None
    high_joules: float | None
    tier: Tier | None
    emissions_grams: float | None
    measured_ratio: float | None
    start: UnixSeconds | None
    first_token: UnixSeconds | None
    end: UnixSeconds | None
    input_tokens: float | None
    cached_input_tokens: float | None
    output_tokens: float | None
    work_unit: str | None
    work_amount: float | None
    status: str | None
    factor: str | None
    whole: bool


def request_key(row: Row) -> RequestKey:
    """Which request a row is of."""
    namespace, request_id, attempt = (row.tags[place] for place in _KEY)
    return namespace, request_id, attempt, row.fields[_F["start"]]


def request_end(row: Row) -> UnixSeconds:
    """When the row's request ended; where that is not known, at once."""
    end = row.fields[_F["end"]]
    return float(end) if isinstance(end, int | float) else row.time


def sum_request(rows: Sequence[Row], start: UnixSeconds, end: UnixSeconds, gains: Gains) -> RequestLine:
    """One request's rows within [start, end), at least one: 3 J in one window and 4 J in the next are 7 J."""
    last = max(rows, key=lambda row: (row.time, row.tags))
    joules = {name: _sum(rows, name) for name in REQUEST_ENERGY.sums if name.endswith("_joules")}
    facts = {name: last.fields[_F[name]] for name in REQUEST_ENERGY.facts}
    tags = {name: last.tags[place] for name, place in _T.items()}
    energy, metered, exact, learned, steps = (
        joules[f"{name}_joules"] or 0.0 for name in ("energy", "metered", "exact", "learned", "steps")
    )
    band = _band(rows, gains)
    known = {name: facts[name] for name in _FACTS}
    return msgspec.convert(
        {
            **{name: tags[name] for name in _TAGS},
            **joules,
            **known,
            "low_joules": band.low_joules,
            "high_joules": band.high_joules,
            "tier": None if joules["energy_joules"] is None else tier(energy, metered, exact, learned, steps),
            "hosts": tuple(sorted({row.tags[_T["host"]] for row in rows})),
            "emissions_grams": _sum(rows, "location_grams"),
            "measured_ratio": metered / energy if energy else None,
            "whole": _within(facts["start"], start, end) and _within(facts["end"], start, end),
        },
        RequestLine,
    )


_DOUBTS: Final = ("metered_joules", "flop_sensitivity_joules", "byte_sensitivity_joules", "split_variance")


def _band(rows: Sequence[Row], gains: Gains) -> Band:
    """Rows of requests name no device: a host's meters are taken as one. Others' variance is far more than its own."""
    doubt, measured = Doubt(), [row for row in rows if row.fields[_F["energy_joules"]] is not None]
    if not measured:
        return Band(None, None, None)
    for row in measured:
        known = (row.fields[_F[name]] for name in _DOUBTS)
        metered, flop, byte, variance = (float(value) if isinstance(value, int | float) else nan for value in known)
        energy = row.fields[_F["energy_joules"]]
        doubt.add((row.tags[_T["host"]], ""), float(energy or 0.0), metered, (flop, byte), variance)
    return doubt.band(gains)


_TAGS: Final = ("namespace", "request_id", "attempt", "model", "team", "deployment", "labels")
_FACTS: Final = (
    "start",
    "first_token",
    "end",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "work_unit",
    "work_amount",
    "status",
    "factor",
)


def _sum(rows: Sequence[Row], name: str) -> float | None:
    """Of what is known; one of WHOLE_OR_NOT is not where a row that has joules does not hold it."""
    told = [(row.fields[_F[name]], row.fields[_F["energy_joules"]]) for row in rows]
    if name in WHOLE_OR_NOT and any(value is None and energy is not None for value, energy in told):
        return None
    values = [value for value, _ in told if isinstance(value, int | float)]
    return math.fsum(values) if values else None


def _within(moment: FieldValue, start: UnixSeconds, end: UnixSeconds) -> bool:
    return isinstance(moment, int | float) and start <= moment <= end
