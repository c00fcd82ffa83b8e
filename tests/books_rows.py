"""Rows of the books for tests, by name instead of by position."""

from typing import Any

from monitor.core.points import ENERGY, HOLE, METER, REQUEST_ENERGY, USAGE, Measurement, Row


def made(measurement: Measurement, time: float, tags: dict[str, str], fields: dict[str, Any]) -> Row:
    """A row with these tags ("" for the others) and fields (None for the others)."""
    assert not tags.keys() - set(measurement.tags), tags
    assert not fields.keys() - set(measurement.fields), fields
    return Row(
        measurement.name,
        time,
        tuple(tags.get(name, "") for name in measurement.tags),
        tuple(fields.get(name) for name in measurement.fields),
    )


def energy(
    time: float, joules: float, account: str = "attributed", measurement: Measurement = ENERGY, **named: Any
) -> Row:
    """An energy row; metered whole and with 0.1 g/J unless told otherwise."""
    tags = {"host": "h1", "device": "gpu0", "kind": "gpu", "account": account}
    tags |= {name: named.pop(name) for name in list(named) if name in measurement.tags}
    fields = {"energy_joules": joules, "metered_joules": joules, "location_grams": joules / 10, "factor": "FR 2023"}
    none = dict.fromkeys(("steps_joules", "learned_joules", "estimated_start_joules"), 0.0)
    return made(measurement, time, tags, {**fields, **none, "revision": 0, **named})


def meter(time: float, joules: float, measurement: Measurement = METER, **named: Any) -> Row:
    """A meter row of a top-level device."""
    tags = {"host": "h1", "device": "gpu0", "kind": "gpu"}
    tags |= {name: named.pop(name) for name in list(named) if name in measurement.tags}
    fields = {"energy_joules": joules, "metered_joules": joules, "covered_seconds": 10.0, "parent": "", "revision": 0}
    return made(measurement, time, tags, {**fields, **named})


def usage(time: float, requests: float, measurement: Measurement = USAGE, **named: Any) -> Row:
    """A usage row with 10 input and 5 output tokens for each request."""
    tags = {"host": "h1", "status": "ok"} | {name: named.pop(name) for name in list(named) if name in measurement.tags}
    fields = {"requests": requests, "input_tokens": 10 * requests, "output_tokens": 5 * requests, "revision": 0}
    return made(measurement, time, tags, {"cached_input_tokens": 0.0, "untold_requests": 0.0, **fields, **named})


def hole(time: float, missing_seconds: float, host: str = "h1") -> Row:
    """What a log lost of a host, from then on."""
    last = time + missing_seconds - 10.0
    facts = {"missing_seconds": missing_seconds, "reason": "usage was made anew", "first_window": time}
    return made(HOLE, time, {"host": host}, {**facts, "last_window": last, "revision": 0})


def request(time: float, request_id: str, joules: float, **named: Any) -> Row:
    """A request's share of one window."""
    tags = {"host": "h1", "namespace": "default", "request_id": request_id, "attempt": "0", "model": "m", "team": "a"}
    tags |= {name: named.pop(name) for name in list(named) if name in REQUEST_ENERGY.tags}
    fields = {"energy_joules": joules, "metered_joules": joules, "exact_joules": 0.0, "location_grams": joules / 10}
    facts = {"start": time, "end": time + 10.0, "input_tokens": 10, "output_tokens": 5, "weight": 1.0, "status": "ok"}
    return made(REQUEST_ENERGY, time, tags, {**fields, **facts, "revision": 0, **named})
