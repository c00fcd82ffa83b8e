"""The one list of measurement, tag and field names. Stores, queries, boards and docs are checked against it.

Every row is a `Row`: the window's start as its time, the tags in the order given here, the fields in the order given
here. Additive fields (`sums`) may be added over any rows; the others (`facts`) describe a row and never add up. None is
"not known", which is not 0.
"""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from collectors.units import UnixSeconds

Account = Literal["attributed", "idle", "unattributed"]
ATTRIBUTED: Account = "attributed"
IDLE: Account = "idle"
UNATTRIBUTED: Account = "unattributed"

FieldValue = float | int | str | None

FACT_TYPES: Final[Mapping[str, type[float] | type[int] | type[str]]] = {
    "idle_source": str,
    "resident_models": str,
    "factor": str,
    "revision": int,
    "parent": str,
    "start": float,
    "first_token": float,
    "end": float,
    "input_tokens": int,
    "cached_input_tokens": int,
    "output_tokens": int,
    "work_unit": str,
    "work_amount": float,
    "weight": float,
    "status": str,
    "reason": str,
    "first_window": float,
    "last_window": float,
    "restated_windows": str,
}
"""A name has one type in every measurement and for ever: InfluxDB refuses a field that comes with another."""
WHOLE_OR_NOT: Final = frozenset(
    {"split_variance", "steps_joules", "learned_joules", "estimated_start_joules", "scheduled_requests"}
)
"""Sums that are not known where one of their parts is not: a band that leaves out a doubt is none.

The others came after the first books. Rows from before do not hold them, and what the rest says would be too little.
"""


class Measurement(msgspec.Struct, frozen=True):
    """The names of one kind of row. `sums` hold floats that add up over rows; `facts` are strings and integers."""

    name: str
    tags: tuple[str, ...]
    sums: tuple[str, ...]
    facts: tuple[str, ...]

    @property
    def fields(self) -> tuple[str, ...]:
        """All field names, in the order of a row's `fields`."""
        return self.sums + self.facts

    @property
    def types(self) -> tuple[type[float] | type[int] | type[str], ...]:
        """What each field holds where it is known, in the order of `fields`."""
        return (*(float for _ in self.sums), *(FACT_TYPES[name] for name in self.facts))


class Row(msgspec.Struct, frozen=True, gc=False):
    """One point. `tags` and `fields` are in the order of the measurement's names. Identity: measurement, time, tags."""

    measurement: str
    time: UnixSeconds
    tags: tuple[str, ...]
    fields: tuple[FieldValue, ...]


ENERGY = Measurement(
    "energy",
    ("host", "device", "kind", "account", "model", "team", "deployment", "labels"),
    (
        "energy_joules",
        "marginal_joules",  # placed by the requests' own tokens
        "metered_joules",  # not modelled
        "recovered_joules",  # from a counter, across a hole
        "exact_joules",  # one request alone on the device
        "steps_joules",  # not exact, placed by an engine's own counters
        "learned_joules",  # not exact, priced by learned scalars
        "flop_sensitivity_joules",  # what a standard error of J/FLOP moves, with its sign
        "byte_sensitivity_joules",
        "split_variance",  # of the rest of the split's error, in J^2
        "location_grams",  # CO2e, location-based, PUE included
        "unknown_device_joules",  # the reasons of the unattributed row, all above idle
        "other_process_joules",
        "gap_joules",
        "unreported_joules",
        "estimated_start_joules",  # of requests in windows in which it was estimated when an engine began on them
    ),
    ("idle_source", "resident_models", "factor", "revision"),
)
METER = Measurement(
    "meter",
    ("host", "device", "kind"),
    ("energy_joules", "metered_joules", "recovered_joules", "meter_disagreement_joules", "covered_seconds"),
    ("parent", "revision"),
)
USAGE = Measurement(
    "usage",
    ("host", "model", "team", "deployment", "status", "labels"),
    (
        "requests",  # a sum of weights
        "input_tokens",
        "cached_input_tokens",
        "output_tokens",
        "active_seconds",
        "untold_requests",  # requests whose event carried no token counts: their tokens are missing, not 0
        "scheduled_requests",  # requests whose event told when an engine began
    ),
    ("revision",),
)
REQUEST_ENERGY = Measurement(
    "request_energy",
    ("host", "namespace", "request_id", "attempt", "model", "team", "deployment", "labels"),
    (
        "energy_joules",
        "marginal_joules",
        "metered_joules",
        "recovered_joules",
        "exact_joules",
        "steps_joules",
        "learned_joules",
        "flop_sensitivity_joules",
        "byte_sensitivity_joules",
        "split_variance",
        "location_grams",
    ),
    (
        "start",
        "first_token",
        "end",
        "input_tokens",
        "cached_input_tokens",
        "output_tokens",
        "work_unit",
        "work_amount",
        "weight",
        "status",
        "factor",
        "revision",
    ),
)
RESTATEMENT = Measurement(
    "restatement",  # time: the mark
    ("host",),
    ("late_readings", "late_requests", "late_controls", "windows", "old_energy_joules", "new_energy_joules"),
    ("reason", "first_window", "last_window", "restated_windows", "revision"),
)
TOO_LATE = Measurement(
    "too_late",  # time: the mark
    ("host",),
    ("late_readings", "late_requests", "late_energy_joules", "windows"),
    ("reason", "first_window", "last_window", "revision"),
)
HOLE = Measurement(
    "hole",  # time: the first window that is missing, because the log lost its records before they were accounted
    ("host",),
    ("missing_seconds",),
    ("reason", "first_window", "last_window", "revision"),
)
PROVISIONAL_ENERGY = Measurement("provisional_energy", ENERGY.tags, ENERGY.sums, ENERGY.facts)
PROVISIONAL_METER = Measurement("provisional_meter", METER.tags, METER.sums, METER.facts)
PROVISIONAL_USAGE = Measurement("provisional_usage", USAGE.tags, USAGE.sums, USAGE.facts)

BOOKS = (ENERGY, METER, USAGE)
"""Final rows, with hourly and daily roll-ups."""
PROVISIONAL = (PROVISIONAL_ENERGY, PROVISIONAL_METER, PROVISIONAL_USAGE)
MEASUREMENTS: dict[str, Measurement] = {
    measurement.name: measurement for measurement in (*BOOKS, REQUEST_ENERGY, RESTATEMENT, TOO_LATE, HOLE, *PROVISIONAL)
}
"""`labels` is a tag of canonical JSON: the allowed keys in sorted order, "" for none.

`resident_models` is a comma-separated list, `factor` names the emission factor with value, year and source, `revision`
is 0 for a first account and the mark (unix seconds, an integer) for a restated one.
"""
