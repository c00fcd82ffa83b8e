"""Every format of request events, and what one message holds. In: bytes of a message. Out: bytes of its events.

A format is one file beside this one with a class like NativeDecoder; here it gets its name of [[sources]] `format`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from collectors.requests.decoders.native_fast import NativeDecoder
from collectors.requests.event import RequestEvent

AUTO: Final = "auto"
_NATIVE: Final = "native"
_ANY: Final = msgspec.json.Decoder(msgspec.Raw)
_ARRAY: Final = msgspec.json.Decoder(list[msgspec.Raw])


class EventDecoder(Protocol):
    """Decodes the events of one source, in one format."""

    def decode(self, raw: bytes) -> RequestEvent:
        """The event in these bytes; raises Rejected."""
        ...

    def events(self, raws: Sequence[bytes | None], most_bytes: int) -> Sequence[RequestEvent | None]:
        """What `decode` gives of each; None where it refuses, where bytes are not there or more, and for arrays."""
        ...


DECODERS: Final[Mapping[str, type[NativeDecoder]]] = {_NATIVE: NativeDecoder}


def decoder_of(name: str | None, *, namespace: str, source: str, allowed_labels: Collection[str] = ()) -> EventDecoder:
    """The decoder of a source; "auto" and None are native, as long as there is no other."""
    kind = DECODERS[_NATIVE if name in (None, AUTO) else name or _NATIVE]
    return kind(namespace=namespace, source=source, allowed_labels=allowed_labels)


def events_in(message: bytes) -> Sequence[bytes]:
    """The events of a message, as bytes each: of a JSON array, of JSON lines, or the message itself, whatever it is.

    A line that is no event spoils no other. A message that is neither whole array nor lines stays as it is, so that its
    decoder tells what is wrong with it.
    """
    if message[:1] == b"[":
        try:
            return [bytes(raw) for raw in _ARRAY.decode(message)]
        except (msgspec.DecodeError, RecursionError):
            return [message]
    if b"\n" in message:
        lines = [line for line in message.splitlines() if line.strip()]
        some_event = any(line.startswith(b"{") and line.rstrip().endswith(b"}") for line in lines)
        if len(lines) > 1 and some_event and not _is_one(message):
            return lines
    return [message]


def _is_one(message: bytes) -> bool:
    """Whether it is one value, written over several lines."""
    try:
        _ANY.decode(message)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
