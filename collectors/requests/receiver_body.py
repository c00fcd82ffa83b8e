"""The body of a post: read within its limits, unpacked, and split into events. In: a request. Out: bytes of each event.

Everything that a client can make large is bounded before it is held: bytes on the wire, bytes unpacked, members of a
gzip stream, events, and what all unfinished bodies hold together.
"""

import asyncio
import zlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, Literal

import msgspec
from starlette.requests import ClientDisconnect, Request

from collectors.errors import Rejected

Kind = Literal["json", "lines"]

KINDS: Final[dict[str, Kind]] = {
    "application/json": "json",
    "application/x-ndjson": "lines",
    "application/ndjson": "lines",
    "application/jsonl": "lines",
    "application/x-jsonlines": "lines",
}
_UNPACK_BYTES: Final = 2**20
_MOST_MEMBERS: Final = 1_000
_MOST_COMMAS_PER_EVENT: Final = 64
_LINE_ENDS_PER_EVENT: Final = 4
_GZIP: Final = 16 + zlib.MAX_WBITS
_RAWS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_RAW: Final = msgspec.json.Decoder(msgspec.Raw)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one post and all posts together may take. `waiting` are posts that wait to be stored."""

    body_bytes: int = 16 * 2**20
    event_bytes: int = 2**20
    events: int = 10_000
    body_seconds: float = 30.0
    waiting: int = 64
    waiting_bytes: int = 64 * 2**20
    unfinished_bytes: int = 64 * 2**20


class Refused(Exception):
    """A post that is not looked into: HTTP status, reason and detail, and when to come again."""

    def __init__(self, status: int, reason: str, detail: str, retry_seconds: int | None = None) -> None:
        super().__init__(f"{status} {reason}: {detail}")
        self.status, self.reason, self.detail, self.retry_seconds = status, reason, detail, retry_seconds


class BodyRoom:
    """What unfinished bodies hold together. When it is too much, the post that began first is out of time.

    An honest body is complete within milliseconds, so those that crowd the room are the first to go.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._held: dict[asyncio.Timeout, int] = {}
        self.held_bytes = 0

    def take(self, post: asyncio.Timeout, size_bytes: int) -> None:
        """So many bytes more are held for the post."""
        self._held[post] = self._held.get(post, 0) + size_bytes
        self.held_bytes += size_bytes
        while self.held_bytes > self._most_bytes:
            oldest = next(iter(self._held))
            self.leave(oldest)
            oldest.reschedule(0.0)

    def leave(self, post: asyncio.Timeout) -> None:
        """The post is complete or given up."""
        self.held_bytes -= self._held.pop(post, 0)


def kind_of(request: Request) -> Kind:
    """Raises Refused 415. A media type is asked for: a web page cannot send one of these to this host unasked."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in KINDS:
        raise Refused(415, "media_type", f"Content-Type is one of {', '.join(KINDS)}")
    return KINDS[media_type]


async def read_body(request: Request, limits: Limits, room: BodyRoom) -> bytes:
    """The whole body, unpacked. Raises Refused: 413, 415, 408, and 400 for a broken gzip stream or a client that went.

    The body is not held packed: 10 MB that would unpack to 10 GB cost no more than the limit and are then refused.
    """
    body = bytearray()
    try:
        async with aclosing(_chunks(request, limits)) as chunks, asyncio.timeout(limits.body_seconds) as post:
            try:
                async for chunk in chunks:
                    body += chunk
                    if len(body) > limits.body_bytes:
                        raise _too_large(limits)
                    room.take(post, len(chunk))
            finally:
                room.leave(post)
    except TimeoutError:
        detail = f"the body was not complete within {limits.body_seconds:g} s, or others were waiting for its room"
        raise Refused(408, "body_too_slow", detail) from None
    except ClientDisconnect:
        raise Refused(400, "client_gone", "the client went before its body was complete") from None
    return bytes(body)


def split_events(body: bytes, kind: Kind, limits: Limits) -> list[bytes]:
    """The bytes of each event. Raises Refused 413 for too many; Rejected where the body as a whole cannot be read."""
    if not body.strip():
        raise Rejected("empty", "no bytes but white space")
    first = body.lstrip()[:1]
    if kind == "json" and first == b"[":
        return _elements(body, limits)
    if kind == "json" and (first != b"{" or not _is_several(body)):
        return [body]
    if body.count(b"\n") > limits.events * _LINE_ENDS_PER_EVENT:
        raise _too_many(limits)
    lines = [line for line in body.split(b"\n") if line.strip()]
    if len(lines) > limits.events:
        raise _too_many(limits)
    return lines


def _elements(body: bytes, limits: Limits) -> list[bytes]:
    if body.count(b",") > limits.events * _MOST_COMMAS_PER_EVENT:  # before each element becomes an object
        raise _too_many(limits)
    try:
        body.decode()  # msgspec does not look into what it leaves raw
        elements = _RAWS.decode(body)
    except UnicodeDecodeError:
        raise Rejected("not_utf8", "the bytes are not UTF-8") from None
    except RecursionError:
        raise Rejected("too_deep", "the array nests too deep to be read") from None
    except msgspec.DecodeError as error:
        raise Rejected("truncated" if "truncated" in str(error) else "not_json", f"the array: {error}") from None
    if len(elements) > limits.events:
        raise _too_many(limits)
    return [bytes(element) for element in elements]


def _is_several(body: bytes) -> bool:
    """Whether more follows behind a first object: lines that were sent as application/json."""
    try:
        _RAW.decode(body)
    except msgspec.DecodeError as error:
        return "trailing" in str(error)
    except RecursionError:
        return False
    return False


async def _chunks(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and len(declared) < 20 and int(declared) > limits.body_bytes:
        raise _too_large(limits)
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding == "identity":
        async for chunk in request.stream():
            yield chunk
    elif encoding in ("gzip", "x-gzip"):
        async for chunk in _unpacked(request, limits):
            yield chunk
    else:
        raise Refused(415, "content_encoding", "Content-Encoding is gzip or none")


async def _unpacked(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    """A gzip stream of one or more members, in pieces of at most 1 MiB; between two of them others have their turn."""
    unpacker = zlib.decompressobj(_GZIP)
    packed_bytes, members = 0, 1
    async for chunk in request.stream():
        packed_bytes += len(chunk)
        if packed_bytes > limits.body_bytes:
            raise _too_large(limits)
        waiting, more_inside = chunk, False
        while waiting or more_inside:
            if unpacker.eof:
                unpacker, members = zlib.decompressobj(_GZIP), members + 1
                if members > _MOST_MEMBERS:
                    raise Refused(400, "bad_gzip", f"a gzip stream of more than {_MOST_MEMBERS} members")
            try:
                piece = unpacker.decompress(waiting, _UNPACK_BYTES)
            except zlib.error:
                raise Refused(400, "bad_gzip", "Content-Encoding is gzip, but the body is not") from None
            yield piece
            more_inside = len(piece) == _UNPACK_BYTES and not unpacker.eof
            waiting = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
            await asyncio.sleep(0)
    if not unpacker.eof:
        raise Refused(400, "bad_gzip", "the gzip stream ends too early")


def _too_large(limits: Limits) -> Refused:
    return Refused(413, "body_too_large", f"a body has at most {limits.body_bytes} bytes, unpacked; send it in parts")


def _too_many(limits: Limits) -> Refused:
    return Refused(413, "too_many_events", f"a post has at most {limits.events} events; send it in parts")
