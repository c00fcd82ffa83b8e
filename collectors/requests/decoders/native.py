"""The native event format, `wattribute.request.v1`: one JSON object -> RequestEvent. See docs/request-events.md.

One typed decode and a few comparisons for a good event; why a bad one is bad is worked out afterwards
(native_diagnosis.py).
"""

from collections.abc import Collection
from typing import Final

import msgspec

from collectors.errors import Rejected
from collectors.moments import EARLIEST, LATEST, moment_from_number, moment_from_text
from collectors.requests.decoders.native_diagnosis import check_depth, check_schema, count_from, diagnosis
from collectors.requests.decoders.native_parts import parts_from
from collectors.requests.decoders.native_wire import WIRE_DECODER, Number, Time, WireEvent, WireWork, check_texts
from collectors.requests.event import DEFAULT_NAMESPACE, UNKNOWN_TEAM, RequestEvent, Work
from collectors.units import UnixSeconds

MAX_EVENT_BYTES: Final = 1 << 20
MAX_TOKENS: Final = 100_000_000
MAX_ATTEMPT: Final = 2**31 - 1
MAX_WORK_AMOUNT: Final = 1e15
FUTURE_SECONDS: Final = 7_200.0
_BOM: Final = b"\xef\xbb\xbf"


def decode_event(
    raw: bytes, *, namespace: str = DEFAULT_NAMESPACE, source: str = "", allowed_labels: Collection[str] = ()
) -> RequestEvent:
    """The event in these bytes; raises Rejected with one of the reasons of docs/request-events.md, and nothing else.

    `namespace` and `source` hold where the event names none. Of its labels the allowed keys are kept.
    """
    return decode_arrived_event(raw, namespace=namespace, source=source, allowed_labels=allowed_labels)[0]


def decode_arrived_event(
    raw: bytes, *, namespace: str = DEFAULT_NAMESPACE, source: str = "", allowed_labels: Collection[str] = ()
) -> tuple[RequestEvent, UnixSeconds]:
    """As `decode_event`, with the time it came as a recording's line says (`arrived`), by default its end."""
    wire = _wire_event(raw)
    check_schema(wire.schema)
    check_texts(raw, wire)
    start, end = _moment(wire.start, "start"), _moment(wire.end, "end")
    if end < start:
        raise Rejected("end_before_start", f"end is {start - end!r} s before start")
    scheduled = _moment_within(wire.scheduled, "scheduled", start, end)
    first_token = _moment_within(wire.first_token, "first_token", start if scheduled is None else scheduled, end)
    input_tokens = _tokens(wire.input_tokens, "input_tokens")
    cached_input_tokens = _tokens(wire.cached_input_tokens, "cached_input_tokens")
    if input_tokens is not None and cached_input_tokens is not None and cached_input_tokens > input_tokens:
        raise Rejected("cached_exceeds_input", "cached_input_tokens are among input_tokens, so not more than these")
    event = RequestEvent(
        namespace=wire.namespace or namespace,
        request_id=wire.request_id,
        attempt=_attempt(wire.attempt),
        source=wire.source or source,
        model=wire.model,
        team=wire.team or UNKNOWN_TEAM,
        host=None if wire.parts else wire.host or None,
        devices=None if wire.devices is None else _devices(wire.devices),
        deployment=wire.deployment or "",
        provider=wire.provider or "",
        start=start,
        scheduled=scheduled,
        first_token=first_token,
        end=end,
        input_tokens=input_tokens,
        cached_input_tokens=cached_input_tokens,
        output_tokens=_tokens(wire.output_tokens, "output_tokens"),
        work=None if wire.work is None else _work(wire.work),
        labels={key: text for key, text in wire.labels.items() if key in allowed_labels} if wire.labels else {},
        conversation_id=wire.conversation_id or "",
        trace_id=wire.trace_id or "",
        status=wire.status or "ok",
        parts=parts_from(wire, start if scheduled is None else scheduled, first_token, end) if wire.parts else (),
    )
    return event, end if wire.arrived is None else _moment(wire.arrived, "arrived")


def check_not_future(event: RequestEvent, log_time: UnixSeconds) -> None:
    """Raises Rejected `future` for an event that ends more than 2 h after the time at which it came."""
    ahead_seconds = event.end - log_time
    if ahead_seconds > FUTURE_SECONDS:
        raise Rejected(
            "future", f"end is {ahead_seconds:.0f} s after it came; the emitter's clock or time unit is wrong"
        )


def _wire_event(raw: bytes) -> WireEvent:
    if len(raw) > MAX_EVENT_BYTES:
        raise Rejected("too_large", f"{len(raw)} bytes; an event has at most {MAX_EVENT_BYTES}")
    body = raw.removeprefix(_BOM)
    check_depth(body)
    try:
        if not body.isascii():
            body.decode()  # msgspec does not look into what it skips
        return WIRE_DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise diagnosis(body, error) from None


def _moment(value: Time, field: str) -> UnixSeconds:
    if type(value) is float and EARLIEST <= value < LATEST:
        return value
    return moment_from_text(value, field) if isinstance(value, str) else moment_from_number(value, field)


def _moment_within(value: Time | None, field: str, earliest: UnixSeconds, end: UnixSeconds) -> UnixSeconds | None:
    """None, as if not sent, where it contradicts start or end: the clocks of gateway and engine differ by a little,
    and a request is not lost for a detail of its timing."""
    if value is None:
        return None
    moment = _moment(value, field)
    return moment if earliest <= moment <= end else None


def _tokens(value: Number | None, field: str) -> int | None:
    if value is None:
        return None
    if type(value) is int and 0 <= value <= MAX_TOKENS:
        return value
    return count_from(value, field, prefix="tokens", maximum=MAX_TOKENS)


def _attempt(value: Number | None) -> int:
    if value is None:
        return 0
    return count_from(value, "attempt", prefix="attempt", maximum=MAX_ATTEMPT)


def _devices(devices: list[str]) -> tuple[str, ...]:
    if not all(devices) or len(set(devices)) != len(devices):
        raise Rejected("bad_devices", "devices are named once each, and none is empty")
    return tuple(devices)


def _work(work: WireWork) -> Work:
    if not work.unit or not 0 <= work.amount <= MAX_WORK_AMOUNT:
        raise Rejected("bad_work", f"work has a unit and an amount from 0 to {MAX_WORK_AMOUNT:g}")
    return Work(unit=work.unit, amount=work.amount)
