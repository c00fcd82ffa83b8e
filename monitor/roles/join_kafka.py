"""Role ingest where gateway and engine both tell of a request: their halves meet in a topic keyed by the request's id.

topics with part = .. --> halves --> wattribute.requests --> Joiner, one a partition --> place --> usage

A crash anywhere only repeats. Committed is the offset from which the halves are needed that are remembered, and beside
it how far they are decided: whoever goes on reads those again and throws away what was handed on.
"""

from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import structlog
from kafka import TopicPartition

from collectors.clock import Clock
from collectors.errors import Rejected
from collectors.requests.event import RequestEvent
from collectors.units import UnixSeconds
from monitor.config.sections import Config
from monitor.core.joining import Half, Joiner, Side
from monitor.core.usage import Placed
from monitor.log.kafka_writer import KafkaWriter
from monitor.log.protocol import LogUnavailable
from monitor.roles.placement import Placer
from monitor.roles.topic_events import Refusals, Unplaced
from monitor.roles.topic_reader import TopicReader
from monitor.roles.usage_batches import usage_batches

HALF_SCHEMA: Final = "request-half.v1"
GROUP_SUFFIX: Final = "-join"
MEMORY_SECONDS: Final = 3_600.0
"""A half that comes later than this after its request was handed on is taken for another request."""
LATENESS_SECONDS: Final = 5.0
"""So far behind the clock log time is moved on where no half comes: what a producer had under way is there by then."""

_encoder = msgspec.msgpack.Encoder()
logger = structlog.get_logger()


class _Decided(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The word beside a committed offset: halves before `offset` are decided, up to `log_time`; `begin` is the log time
    before the committed offset, None at the beginning."""

    offset: int
    log_time: UnixSeconds
    begin: UnixSeconds | None


class _Part:
    """One partition as long as this member has it."""

    def __init__(self, tenure: object, word: str, wait_seconds: float) -> None:
        self.tenure = tenure
        self.decided = _decided(word)
        self.begin = self.decided.begin
        self.joiner = Joiner(wait_seconds, MEMORY_SECONDS, float("-inf") if self.begin is None else self.begin)
        self.stamps: deque[tuple[int, UnixSeconds]] = deque()
        self.unjoined: Counter[tuple[Side, str]] = Counter()
        self.next_offset = 0
        self.replaying = self.decided.offset > 0

    def take(self, offset: int, half: Half, stamp: UnixSeconds) -> Sequence[RequestEvent]:
        """The requests that this half makes ready, those apart that were handed on before."""
        self._replayed_to(offset)
        before = self.joiner.unjoined
        found = self.joiner.take(half, stamp)
        self.unjoined[half.side, half.event.source] += self.joiner.unjoined - before
        self.stamps.append((offset, self.joiner.log_time))
        self.next_offset = offset + 1
        if not self.replaying:
            return found
        self._replayed_to(self.next_offset)  # the next half may not come for hours, and what waits here is due before
        return ()

    def _replayed_to(self, offset: int) -> None:
        """Where that is the end of what was decided, the joiner knows what the one before it knew."""
        if self.replaying and offset >= self.decided.offset:
            self.joiner.advance(self.decided.log_time)
            self.unjoined.clear()
            self.replaying = False

    def word(self) -> tuple[int, str]:
        """Where a successor has to begin, and how far everything is decided."""
        while self.stamps and self.stamps[0][1] <= self.joiner.needed_from:
            self.begin = self.stamps.popleft()[1]
        decided = self.decided
        if not self.replaying:
            decided = _Decided(offset=self.next_offset, log_time=self.joiner.log_time, begin=self.begin)
        begin = self.stamps[0][0] if self.stamps else self.next_offset
        return begin, msgspec.json.encode(decided).decode()


class KafkaJoin:
    """One member of the group that joins. One thread; raises LogUnavailable."""

    def __init__(self, config: Config, writer: KafkaWriter, *, clock: Clock) -> None:
        self._topic, self._wait = config.kafka.topics.requests, config.requests.join_wait_seconds
        self._live = config.kafka.clock == "broker"
        self._writer, self._clock = writer, clock
        self._reader = TopicReader(config.kafka, [self._topic], config.kafka.group + GROUP_SUFFIX)
        self._parts: dict[TopicPartition, _Part] = {}
        self._decoder = msgspec.msgpack.Decoder(Half)
        self.unjoined: Counter[tuple[Side, str]] = Counter()
        """Halves that came when their request had gone alone, by their side and the source that they name."""

    def send(self, events: Sequence[RequestEvent], side: Side, came_at: UnixSeconds) -> None:
        """Puts one side's halves on their way, without waiting."""
        for event in events:
            key = f"{event.namespace}/{event.request_id}"
            body = _encoder.encode(Half(side=side, event=event))
            self._writer.send_to(self._topic, key, HALF_SCHEMA, body, came_at)

    def step(self, placer: Placer) -> Counter[str]:
        """Joins what has come; returns the tokens of requests that nothing places, by kind."""
        placed: list[Placed] = []
        refused = Refusals()
        try:
            moved = self._join_what_came(placer, placed, refused) | self._let_go(placer, placed, refused)
            self._store(placed, refused)
        except (
            LogUnavailable
        ):  # what the joiners know is ahead of what is stored: they begin again at what is committed
            self.close()
            raise
        self._reader.deal()
        self._reader.commit({part: self._parts[part].word() for part in moved})
        return refused.unplaced_tokens

    def close(self) -> None:
        """Leaves the group."""
        self._reader.close()
        self._parts = {}

    def _join_what_came(self, placer: Placer, placed: list[Placed], refused: Refusals) -> set[TopicPartition]:
        found = self._reader.poll(0)
        for part, messages in found.items():
            state = self._state(part)
            for message in messages:
                for event in self._ready(state, message, refused):
                    _place(event, placer, message, placed, refused)
            if not state.replaying:
                self.unjoined.update(state.unjoined)
                state.unjoined.clear()
        return set(found)

    def _let_go(self, placer: Placer, placed: list[Placed], refused: Refusals) -> set[TopicPartition]:
        """Halves that waited long enough where no other half moves log time on."""
        moved = set()
        for lag in self._reader.lag() if self._live else ():
            part = TopicPartition(lag.topic, lag.partition)
            state = self._parts.get(part)
            if lag.messages == 0 and state is not None and not state.replaying:
                for event in state.joiner.advance(self._clock.now() - LATENESS_SECONDS):
                    _place(event, placer, None, placed, refused)
                    moved.add(part)
        return moved

    def _store(self, placed: Sequence[Placed], refused: Refusals) -> None:
        now = self._clock.now()
        latest = max((state.joiner.log_time for state in self._parts.values()), default=now)
        self._writer.send_letters(refused.letters, refused.bodies)
        self._writer.send(list(usage_batches(placed, None if self._live else latest)), now)
        self._writer.flush(now)

    def _ready(self, state: _Part, message: Any, refused: Refusals) -> Sequence[RequestEvent]:
        try:
            half = self._decoder.decode(message.value or b"")
        except msgspec.DecodeError as error:
            refused.add(message, "", Rejected("undecodable", str(error)), message.value or b"", self._clock.now())
            return ()
        return state.take(message.offset, half, message.timestamp / 1_000)

    def _state(self, part: TopicPartition) -> _Part:
        """Made anew where the partition was another member's meanwhile."""
        tenure = self._reader.tenure(part)
        state = self._parts.get(part)
        if state is None or state.tenure is not tenure:
            state = self._parts[part] = _Part(tenure, self._reader.committed_word(part), self._wait)
        return state


def _place(event: RequestEvent, placer: Placer, message: Any, placed: list[Placed], refused: Refusals) -> None:
    try:
        placed += placer.place(event, trust_team=True)
    except Rejected as rejected:
        unplaced = Unplaced(rejected, event)
        if message is None:
            refused.unplaced_tokens += unplaced.tokens
        else:
            refused.add(message, f"/{event.request_id}", unplaced, b"", event.end)


def _decided(word: str) -> _Decided:
    try:
        return msgspec.json.decode(word, type=_Decided)
    except msgspec.DecodeError:  # nobody was here before
        return _Decided(offset=0, log_time=0.0, begin=None)
