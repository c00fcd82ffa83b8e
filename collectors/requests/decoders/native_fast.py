"""The fast path of the native format: good events of the common form, at a fraction of the price; the same events.

`NativeDecoder` first tries typed decodes whose every limit is checked in C: without fields unknown to it, then with.
What they do not take (text that is not ASCII, escapes, times as text, null, anything wrong) goes through decode_event,
which alone decides.
"""

from collections.abc import Collection, Sequence
from typing import Annotated, Any, Final, Literal, cast

import msgspec
from msgspec import Meta

from collectors.errors import Rejected
from collectors.moments import EARLIEST, LATEST
from collectors.requests.decoders.native import (
    MAX_ATTEMPT,
    MAX_EVENT_BYTES,
    MAX_TOKENS,
    decode_event,
)
from collectors.requests.decoders.native_diagnosis import MAX_DEPTH, SCHEMA
from collectors.requests.decoders.native_wire import MAX_LABELS, MAX_TEXT_BYTES
from collectors.requests.event import UNKNOWN_TEAM, RequestEvent

_MAX_PLAIN_DEVICES: Final = 8
_ARRAY: Final = ord("[")
_ESCAPE: Final = ord("\\")
_DEL: Final = 0x7F
_Text = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT_BYTES)]
_Any = Annotated[str, Meta(max_length=MAX_TEXT_BYTES)]
_Moment = Annotated[float, Meta(ge=EARLIEST, lt=LATEST)]
_Tokens = Annotated[int, Meta(ge=0, le=MAX_TOKENS)]
_Labels = Annotated[dict[_Any, _Any], Meta(max_length=MAX_LABELS)]
_Devices = Annotated[tuple[_Text, ...], Meta(max_length=_MAX_PLAIN_DEVICES)]


class NativeDecoder:
    """Decodes the events of one source. Any thread; keep one, it is dear to make.

    `namespace` and `source` hold where the event names none. Of its labels the allowed keys are kept.
    """

    def __init__(self, *, namespace: str, source: str, allowed_labels: Collection[str] = ()) -> None:
        self._namespace, self._source, self._allowed = namespace, source, frozenset(allowed_labels)
        self._known = msgspec.json.Decoder(_plain_event(namespace, source, forbid_unknown_fields=True))
        self._plain = msgspec.json.Decoder(_plain_event(namespace, source))

    def decode(self, raw: bytes) -> RequestEvent:
        """As `decode_event`: the event in these bytes, or Rejected."""
        event = self._common_event(raw)
        if event is None:
            return decode_event(raw, namespace=self._namespace, source=self._source, allowed_labels=self._allowed)
        return event

    def events(self, raws: Sequence[bytes | None], most_bytes: int = MAX_EVENT_BYTES) -> Sequence[RequestEvent | None]:
        """What `decode` gives of each of these, in their order; None where it refuses, and for arrays, which it would.

        None, too, for no bytes, and for more than `most_bytes`. Many at once cost less than one by one: what is asked
        of bytes is asked of all together, and the decoder is called without a step of Python in between.
        """
        if not _are_common(raws, most_bytes):
            return [self._event(raw, most_bytes) for raw in raws]
        found: list[RequestEvent | None] = []
        keep_allowed, append = self._keep_allowed, found.append
        decoded = map(self._known.decode, cast(Sequence[bytes], raws))  # nests no deeper than an event does
        while len(found) < len(raws):
            try:
                for event in decoded:
                    if event.labels:
                        keep_allowed(event.labels)
                    append(event if _is_right(event) else self._event(raws[len(found)], most_bytes))
            except msgspec.DecodeError:
                raw = cast(bytes, raws[len(found)])
                append(self._with_unknown(raw) or self._event(raw, most_bytes))
        return found

    def _event(self, raw: bytes | None, most_bytes: int) -> RequestEvent | None:
        if not raw or len(raw) > most_bytes or raw[0] == _ARRAY:
            return None
        try:
            return self.decode(raw)
        except Rejected:
            return None

    def _common_event(self, raw: bytes) -> RequestEvent | None:
        if not _are_common((raw,), MAX_EVENT_BYTES):
            return None
        try:
            event = self._known.decode(raw)
        except msgspec.DecodeError:
            return self._with_unknown(raw)
        if event.labels:
            self._keep_allowed(event.labels)
        return event if _is_right(event) else None

    def _keep_allowed(self, labels: dict[str, str]) -> None:
        """Of an event that was decoded a moment ago, and is nobody else's."""
        if self._allowed.isdisjoint(labels):
            labels.clear()
        elif not labels.keys() <= self._allowed:
            for key in labels.keys() - self._allowed:
                del labels[key]

    def _with_unknown(self, raw: bytes) -> RequestEvent | None:
        if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH:
            return None
        try:
            event = self._plain.decode(raw)
        except msgspec.DecodeError:
            return None
        self._keep_allowed(event.labels)
        return event if _is_right(event) else None


def _are_common(raws: Sequence[bytes | None], most_bytes: int) -> bool:
    """An escape may stand for a control character; DEL is one."""
    try:
        together = b"".join(cast(Sequence[bytes], raws))
    except TypeError:  # one is not there; to look for it would cost as much as all the rest of this
        return False
    if not together.isascii() or _ESCAPE in together or _DEL in together:
        return False
    most_bytes = min(most_bytes, MAX_EVENT_BYTES)
    return len(together) <= most_bytes or max(map(len, cast(Sequence[bytes], raws))) <= most_bytes


def _is_right(event: RequestEvent) -> bool:
    """What no type says: the order of its moments, and what is among what."""
    first_token, scheduled = event.first_token, event.scheduled
    earliest = event.start if scheduled is None else scheduled
    latest = event.end if first_token is None else first_token
    if not event.start <= earliest <= latest <= event.end:
        return False
    cached, devices = event.cached_input_tokens, event.devices
    if cached is not None and event.input_tokens is not None and cached > event.input_tokens:
        return False
    return devices is None or len(set(devices)) == len(devices)


def _plain_event(namespace: str, source: str, *, forbid_unknown_fields: bool = False) -> type[RequestEvent]:
    """RequestEvent with the limits of each field in its type, and what the source says as defaults."""
    limited: list[tuple[str, Any, Any]] = [
        ("namespace", _Text, namespace),
        ("attempt", Annotated[int, Meta(ge=0, le=MAX_ATTEMPT)], 0),
        ("source", _Text, source),
        ("team", _Text, UNKNOWN_TEAM),
        ("host", _Text | None, None),
        ("devices", _Devices | None, None),
        ("deployment", _Any, ""),
        ("provider", _Any, ""),
        ("scheduled", _Moment | None, None),
        ("first_token", _Moment | None, None),
        ("input_tokens", _Tokens | None, None),
        ("cached_input_tokens", _Tokens | None, None),
        ("output_tokens", _Tokens | None, None),
        ("work", None, None),  # rare, and left to the other path, as parts are
        ("labels", _Labels, msgspec.field(default_factory=dict)),
        ("conversation_id", _Any, ""),
        ("trace_id", _Any, ""),
        ("status", _Text, "ok"),
        ("schema", Literal[SCHEMA], SCHEMA),
        ("arrived", _Moment | None, None),
        ("parts", tuple[()], ()),
    ]
    needed: list[tuple[str, Any]] = [("request_id", _Text), ("model", _Text), ("start", _Moment), ("end", _Moment)]
    plain: Any = msgspec.defstruct(
        "PlainEvent",
        [*needed, *limited],
        bases=(RequestEvent,),
        frozen=True,
        kw_only=True,
        gc=False,
        forbid_unknown_fields=forbid_unknown_fields,
        omit_defaults=False,  # its defaults are this source's alone
    )
    return cast(type[RequestEvent], plain)
