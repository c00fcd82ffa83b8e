"""Receives request events over HTTP: POST /v1/events, one JSON object, a JSON array, or JSON lines.

post --> read_body --> split_events --> decode_event --> check --> EventSink --> 202
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collectors.collector import EventSink, SinkFull
from collectors.errors import Rejected, RetryLater
from collectors.rejected import RejectedInput, rejected_input
from collectors.requests.decoders.native import decode_event
from collectors.requests.event import DEFAULT_NAMESPACE, RequestEvent
from collectors.requests.receiver_body import BodyRoom, Kind, Limits, Refused, kind_of, read_body, split_events

MOST_LISTED: Final = 1_000
FULL_RETRY_SECONDS: Final = 1
UNAVAILABLE_RETRY_SECONDS: Final = 5
_WORKERS: Final = 8
_NEVER: Final = "the log takes no record with it; whoever runs wattribute finds the reason among its dead letters"
_NO_LIMITS: Final = Limits()
_encoder: Final = msgspec.json.Encoder()


class Refusal(msgspec.Struct, frozen=True):
    """What is wrong with one event; `index` counts from 0 among the events of the post, None is the whole body."""

    index: int | None
    reason: str
    detail: str


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a sender is told: how many events are stored, and which are not, at most the first 1 000 of them."""

    accepted: int = 0
    rejected_count: int = 0
    rejected: Sequence[Refusal] = ()


class Receiver:
    """The ASGI app of one source. An event is answered for once the sink has stored it, and not before.

    `check` raises Rejected for an event that is well-formed and yet of no use here, RetryLater where that cannot be
    told now. `refused` counts posts that were not taken, by reason.
    """

    def __init__(
        self,
        sink: EventSink,
        *,
        source: str,
        namespace: str = DEFAULT_NAMESPACE,
        allowed_labels: Collection[str] = (),
        check: Callable[[RequestEvent], object] = lambda _event: None,
        limits: Limits = _NO_LIMITS,
    ) -> None:
        self._sink, self._source, self._namespace = sink, source, namespace
        self._allowed_labels, self._check, self._limits = allowed_labels, check, limits
        self._room = BodyRoom(limits.unfinished_bytes)
        self._waiting = self._waiting_bytes = 0
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix=f"{source}-post")
        self.refused: Counter[str] = Counter()
        self.app = Starlette(
            routes=[Route("/v1/events", self._post, methods=["POST"])],
            exception_handlers={HTTPException: self._no_such_thing},
        )
        self.app.router.redirect_slashes = False  # a sender that does not follow would lose its events with a 307

    def close(self) -> None:
        """Begins no more posts; those under way end with their sink."""
        self._workers.shutdown(wait=False, cancel_futures=True)

    async def _post(self, request: Request) -> Response:
        try:
            kind = kind_of(request)
            self._refuse_when_full(0)
            body = await read_body(request, self._limits, self._room)
            answer = await self._stored(body, kind)
        except Refused as refused:
            return self._refusal(refused)
        return _json(
            400 if answer.rejected else 202,
            msgspec.structs.asdict(answer) if answer.rejected else {"accepted": answer.accepted},
        )

    async def _stored(self, body: bytes, kind: Kind) -> Answer:
        self._refuse_when_full(len(body))
        self._waiting += 1
        self._waiting_bytes += len(body)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._workers, self._take, body, kind)
        finally:
            self._waiting -= 1
            self._waiting_bytes -= len(body)

    def _refuse_when_full(self, more_bytes: int) -> None:
        if self._waiting >= self._limits.waiting or self._waiting_bytes + more_bytes > self._limits.waiting_bytes:
            raise Refused(429, "too_many_posts", "more posts than can be stored at once", FULL_RETRY_SECONDS)

    def _take(self, body: bytes, kind: Kind) -> Answer:
        """Decodes and stores, in a worker's thread."""
        try:
            raws = split_events(body, kind, self._limits)
        except Rejected as verdict:
            self._hand_on([], [self._letter(verdict, body)])
            return Answer(rejected_count=1, rejected=[Refusal(None, verdict.reason, verdict.detail)])
        events, indexes, refusals, letters = [], [], [], []
        for index, raw in enumerate(raws):
            try:
                events.append(self._event(raw))
                indexes.append(index)
            except Rejected as verdict:
                letters.append(self._letter(verdict, raw))
                refusals.append(Refusal(index, verdict.reason, verdict.detail))
        never = [Refusal(indexes[each], "refused", _NEVER) for each in self._hand_on(events, letters)]
        refusals = sorted([*refusals, *never], key=lambda refusal: refusal.index or 0)
        return Answer(accepted=len(events) - len(never), rejected_count=len(refusals), rejected=refusals[:MOST_LISTED])

    def _event(self, raw: bytes) -> RequestEvent:
        if len(raw) > self._limits.event_bytes:
            raise Rejected("too_large", f"{len(raw)} bytes; an event has at most {self._limits.event_bytes}")
        event = decode_event(raw, namespace=self._namespace, source=self._source, allowed_labels=self._allowed_labels)
        try:
            self._check(event)
        except RetryLater as error:
            raise _not_stored(error) from error
        return event

    def _letter(self, verdict: Rejected, raw: bytes) -> RejectedInput:
        """Its position is its content: the same bytes posted again are counted once."""
        return rejected_input(verdict, source=self._source, position=sha256(raw).hexdigest()[:32], raw=raw)

    def _hand_on(self, events: Sequence[RequestEvent], letters: Sequence[RejectedInput]) -> Sequence[int]:
        """Those that can never be stored, by index."""
        if not events and not letters:
            return ()
        try:
            return self._sink.accept(events, letters)
        except SinkFull as error:
            raise Refused(429, "too_many_posts", str(error), FULL_RETRY_SECONDS) from error
        except RetryLater as error:
            raise _not_stored(error) from error

    def _refusal(self, refused: Refused) -> Response:
        self.refused[refused.reason] += 1
        headers = {} if refused.retry_seconds is None else {"retry-after": str(refused.retry_seconds)}
        if refused.status == 408:
            headers["connection"] = "close"
        return _json(refused.status, {"accepted": 0, "error": refused.reason, "detail": refused.detail}, headers)

    async def _no_such_thing(self, _request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        reason = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "refused")
        content = {"accepted": 0, "error": reason, "detail": "events are sent with POST /v1/events"}
        return _json(error.status_code, content, dict(error.headers or {}))


def _not_stored(error: RetryLater) -> Refused:
    return Refused(503, "not_stored", str(error), UNAVAILABLE_RETRY_SECONDS)


def _json(status: int, content: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(_encoder.encode(content), status, headers, media_type="application/json")
