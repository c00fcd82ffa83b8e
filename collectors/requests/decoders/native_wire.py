"""The native event as it is sent: its typed form, and the limits on every text in it."""

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from collectors.errors import Rejected

MAX_TEXT_BYTES: Final = 256
MAX_LABELS: Final = 64
MAX_DEVICES: Final = 1024
MAX_PARTS: Final = 64
_SURELY_SHORT_CHARACTERS: Final = MAX_TEXT_BYTES // 4
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")

Number = int | float
Time = float | str


class WireWork(msgspec.Struct):
    """What a model that makes no tokens has done."""

    unit: str
    amount: float


class WirePart(msgspec.Struct):
    """Where a part of the request was served; all of it may be absent."""

    phase: str | None = None
    host: str | None = None
    devices: list[str] | None = None
    deployment: str | None = None
    start: Time | None = None
    end: Time | None = None


class WireEvent(msgspec.Struct):
    """null means the same as absent, but for the four that are required. What is not named here is skipped unread."""

    request_id: str
    model: str
    start: Time
    end: Time
    schema: str | None = None
    namespace: str | None = None
    attempt: Number | None = None
    source: str | None = None
    team: str | None = None
    host: str | None = None
    devices: list[str] | None = None
    deployment: str | None = None
    provider: str | None = None
    scheduled: Time | None = None
    first_token: Time | None = None
    input_tokens: Number | None = None
    cached_input_tokens: Number | None = None
    output_tokens: Number | None = None
    work: WireWork | None = None
    labels: dict[str, str] | None = None
    conversation_id: str | None = None
    trace_id: str | None = None
    status: str | None = None
    arrived: Time | None = None
    parts: list[WirePart] | None = None


WIRE_DECODER: Final = msgspec.json.Decoder(WireEvent)
TEXT_FIELDS: Final = (
    "request_id",
    "model",
    "namespace",
    "source",
    "team",
    "host",
    "deployment",
    "provider",
    "conversation_id",
    "trace_id",
    "status",
)


def check_texts(raw: bytes, wire: WireEvent) -> None:
    """Raises Rejected for an empty id or model, a text of more than 256 bytes, or one with control characters.

    Commas, spaces, quotes, backslashes and any script are legal in names.
    """
    if not wire.request_id:
        raise Rejected("missing_request_id", "request_id is empty")
    if not wire.model:
        raise Rejected("missing_model", "model is empty")
    # In JSON a control character stands as an escape, as DEL, or (C1) behind the byte 0xC2: short events need no look.
    if len(raw) > MAX_TEXT_BYTES or b"\\" in raw or b"\x7f" in raw or b"\xc2" in raw:
        _check_each_text(wire)


def _check_each_text(wire: WireEvent) -> None:
    if wire.labels and len(wire.labels) > MAX_LABELS:
        raise Rejected("bad_labels", f"{len(wire.labels)} labels; an event has at most {MAX_LABELS}")
    if wire.devices and len(wire.devices) > MAX_DEVICES:
        raise Rejected("bad_devices", f"{len(wire.devices)} devices; a host has at most {MAX_DEVICES}")
    if wire.parts and len(wire.parts) > MAX_PARTS:
        raise Rejected("bad_parts", f"{len(wire.parts)} parts; a request has at most {MAX_PARTS}")
    for field, text in _texts(wire):
        if len(text) > _SURELY_SHORT_CHARACTERS and len(text.encode()) > MAX_TEXT_BYTES:
            raise Rejected("text_too_long", f"{field} has {len(text.encode())} bytes; at most {MAX_TEXT_BYTES}")
        if not text.isprintable() and _CONTROL.search(text):
            raise Rejected("control_character", f"{field} holds a control character")


def _texts(wire: WireEvent) -> Iterator[tuple[str, str]]:
    for field in TEXT_FIELDS:
        if text := getattr(wire, field):
            yield field, text
    if wire.work is not None:
        yield "work.unit", wire.work.unit
    for device in wire.devices or ():
        yield "devices", device
    for part in wire.parts or ():
        yield from (("parts", text) for text in (part.host, part.deployment, *(part.devices or ())) if text)
    for key, text in (wire.labels or {}).items():
        yield "a label's key", key
        yield "a label", text
