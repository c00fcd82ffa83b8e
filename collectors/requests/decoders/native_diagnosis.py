"""Why a native event was not decoded: reason and detail, without a word of its content. Runs after a failure only."""

import re
from collections.abc import Mapping
from typing import Any, Final, NoReturn

import msgspec

from collectors.errors import Rejected
from collectors.requests.decoders.native_wire import TEXT_FIELDS

SCHEMA: Final = "wattribute.request.v1"
MAX_DEPTH: Final = 64

_LATER_SCHEMA: Final = re.compile(r"wattribute\.request\.v([0-9]{1,9})")
_TIME_FIELDS: Final = ("start", "end", "scheduled", "first_token", "arrived")
_TOKEN_FIELDS: Final = ("input_tokens", "cached_input_tokens", "output_tokens")
_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?'  # possessive, so linear; a last one may be cut off
_BRACKETS: Final = re.compile(_STRING + rb"|[\[\]{}]", re.DOTALL)
_NOT_FINITE: Final = re.compile(_STRING + rb"|(NaN|-?Infinity)", re.DOTALL)


def diagnosis(body: bytes, error: Exception) -> Rejected:
    """The verdict on bytes that the typed decoder refused with this error (its message names fields, never values)."""
    if not body.strip():
        return Rejected("empty", "no bytes but white space")
    try:
        body.decode()
        content = msgspec.json.decode(body)
    except UnicodeDecodeError:
        return Rejected("not_utf8", "the bytes are not UTF-8")
    except msgspec.DecodeError as syntax_error:
        return _syntax_verdict(body, str(syntax_error))
    if not isinstance(content, dict):
        return Rejected("not_object", "an event is a JSON object")
    try:
        _check_content(content)
    except Rejected as verdict:
        return verdict
    return Rejected("wrong_type", str(error))


def check_schema(schema: object) -> None:
    """Raises Rejected `schema_version` unless it is the version that is spoken here."""
    if schema is None or schema == SCHEMA:
        return
    later = _LATER_SCHEMA.fullmatch(schema) if isinstance(schema, str) else None
    if later is not None:
        raise Rejected("schema_version", f"version {int(later[1])}; this decoder reads {SCHEMA}: upgrade it first")
    raise Rejected("schema_version", f"another schema; this decoder reads {SCHEMA}")


def check_depth(body: bytes) -> None:
    """Raises Rejected `too_deep` where arrays and objects nest more than 64 deep, whatever the parser would do."""
    if body.count(b"{") + body.count(b"[") <= MAX_DEPTH:
        return
    depth = 0
    for token in _BRACKETS.finditer(body):
        opening = token[0]
        if opening in (b"{", b"["):
            depth += 1
        elif opening in (b"}", b"]"):
            depth -= 1
        if depth > MAX_DEPTH:
            raise Rejected("too_deep", f"nested more than {MAX_DEPTH} deep")


def count_from(value: float, field: str, *, prefix: str, maximum: int) -> int:
    """The count that a JSON number is, 12.0 being 12; raises Rejected `<prefix>_negative`, `_fractional`, `_absurd`."""
    if value < 0:
        raise Rejected(f"{prefix}_negative", f"{field} is below 0")
    if value > maximum:
        raise Rejected(f"{prefix}_absurd", f"{field} is above {maximum}")
    if value != int(value):
        raise Rejected(f"{prefix}_fractional", f"{field} is not a whole number")
    return int(value)


def _syntax_verdict(body: bytes, message: str) -> Rejected:
    if any(token[1] for token in _NOT_FINITE.finditer(body)):
        return Rejected("not_finite", "NaN and Infinity are not JSON; leave out what is unknown")
    if "truncated" in message:
        return Rejected("truncated", "the JSON text ends too early")
    if "out of range" in message:
        return Rejected("number_out_of_range", "a number is beyond what a 64-bit float can hold")
    return Rejected("not_json", message)


def _check_content(content: Mapping[str, Any]) -> None:
    """Raises Rejected for the first field, in the order of importance, that has not the type it should have."""
    check_schema(content.get("schema"))
    for field in TEXT_FIELDS:
        if not isinstance(content.get(field), str | None):
            _refuse_type(field, "a string")
    for field in ("request_id", "model"):
        if not content.get(field):
            raise Rejected(f"missing_{field}", f"{field} is required")
    for field in ("start", "end"):
        if content.get(field) is None:
            raise Rejected("missing_time", f"{field} is required")
    for field in _TIME_FIELDS:
        if not _is_number(content.get(field)) and not isinstance(content.get(field), str | None):
            raise Rejected("bad_time", f"{field} is neither a number nor a string")
    for field in _TOKEN_FIELDS:
        if content.get(field) is not None and not _is_number(content[field]):
            raise Rejected("tokens_not_a_number", f"{field} is {_kind(content[field])}")
    _check_nested(content)


def _check_nested(content: Mapping[str, Any]) -> None:
    attempt, devices, labels, work = (content.get(field) for field in ("attempt", "devices", "labels", "work"))
    if attempt is not None and not _is_number(attempt):
        _refuse_type("attempt", "a whole number")
    if devices is not None and not _all_texts(devices, list):
        raise Rejected("bad_devices", "devices is a list of strings")
    if labels is not None and not (_all_texts(labels, dict) and _all_texts(list(labels.values()), list)):
        raise Rejected("bad_labels", "labels is an object of strings")
    _check_parts(content.get("parts"))
    if work is not None and not (
        isinstance(work, dict) and isinstance(work.get("unit"), str) and _is_number(work.get("amount"))
    ):
        raise Rejected("bad_work", 'work is an object like {"unit": "image", "amount": 4}')


def _check_parts(parts: object) -> None:
    if parts is None:
        return
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise Rejected("bad_parts", 'parts is a list of objects like {"phase": "prefill", "host": "gpu-07"}')
    for part in parts:
        if not all(isinstance(part.get(field), str | None) for field in ("phase", "host", "deployment")):
            raise Rejected("bad_parts", "phase, host and deployment of a part are strings")
        if part.get("devices") is not None and not _all_texts(part["devices"], list):
            raise Rejected("bad_devices", "devices of a part is a list of strings")
        if not all(
            _is_number(part.get(field)) or isinstance(part.get(field), str | None) for field in ("start", "end")
        ):
            raise Rejected("bad_time", "start or end of a part is neither a number nor a string")


def _all_texts(value: object, kind: type[list[Any]] | type[dict[Any, Any]]) -> bool:
    return isinstance(value, kind) and all(isinstance(item, str) for item in value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _refuse_type(field: str, expected: str) -> NoReturn:
    raise Rejected("wrong_type", f"{field} is not {expected}")


def _kind(value: object) -> str:
    names = {bool: "a boolean", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "something else")
