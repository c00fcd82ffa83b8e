"""Reads gateways' topics as a member of a consumer group. In: topics. Out: messages, committed when dealt with.

poll   --> messages of all partitions, in step by their timestamps to within a minute
settle --> offsets committed; rewind --> the same messages again

Between `poll` and `settle` a crash, a rebalance or a broker that is away makes messages come twice, and loses none.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final

import msgspec
import structlog
from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.structs import OffsetAndMetadata

from collectors.clock import monotonic
from collectors.units import UnixSeconds
from monitor.config.output_sections import Kafka
from monitor.garbage import look_seldom
from monitor.log.kafka_client import client_settings, trouble_of, unavailable
from monitor.log.kafka_group import Outside
from monitor.log.kafka_unpacking import read_quickly
from monitor.log.protocol import LogUnavailable

_PARTITION_BYTES: Final = 2**19
_FETCH_BYTES: Final = 2**21
"""Of one answer of a broker, compressed as it was sent: this bounds what a poll gives, some ten thousand messages."""
_ALL_THERE_IS: Final = sys.maxsize
"""A poll takes all that was fetched: kafka-python 3.0.12 never again gives the rest of a partition that is paused when
only a part of its messages was given (tried: three of eight partitions stood still for ever)."""
_TIMESTAMP: Final = attrgetter("timestamp")
POLL_MS: Final = 500
ANSWER_MS: Final = 10_000
GROUP_SECONDS: Final = 2.0
GROUP_MS: Final = 100
"""At least every two seconds a poll waits so long: the group is joined, and its rebalances are followed, in these."""
AHEAD_SECONDS: Final = 60.0
"""So far ahead of the slowest that has more to give may the messages be that a partition hands on."""
STUCK_SECONDS: Final = 15.0
"""A partition that gives nothing for so long, though more is there, holds up no other."""

logger = structlog.get_logger()


class _Part:
    """A partition of this member. Offsets before `settled` are dealt with, those before `fetched` are here."""

    __slots__ = ("fetched", "given", "held", "log_time", "moved_at", "settled")

    def __init__(self) -> None:
        self.settled: int | None = None
        self.fetched: int | None = None
        self.held: list[Any] = []
        self.given: list[Any] = []
        self.log_time: UnixSeconds = float("-inf")
        self.moved_at = monotonic()


class PartitionLag(msgspec.Struct, frozen=True, kw_only=True):
    """How many messages of a partition are waiting."""

    topic: str
    partition: int
    messages: int


class TopicReader:
    """Messages of the partitions that the group gives to this member. One thread. Raises LogUnavailable.

    The group's first reader begins at the oldest message. What retention took before it was read is named, and counted
    in `lost`, by topic.
    """

    def __init__(self, kafka: Kafka, topics: Iterable[str], group: str) -> None:
        self._session_seconds = kafka.session_seconds
        self._settings = client_settings(kafka)
        self._topics, self._group = sorted(set(topics)), group
        self._consumer: Any = None
        self._parts: dict[TopicPartition, _Part] = {}
        self._fresh: set[TopicPartition] = set()
        """Assigned and not begun yet: where the group has committed, whatever the client thinks."""
        self._waited_at = float("-inf")
        self._outside = Outside()
        self.lost: Counter[str] = Counter()

    @property
    def trouble(self) -> str:
        """Why nothing comes, and what to do; "" while nothing is known. Asks no broker; from any thread."""
        if reason := trouble_of(self._settings):
            return reason
        cluster = None if self._consumer is None else self._consumer._cluster  # its public way asks, and waits
        if cluster is None or not cluster._last_successful_refresh_ms:
            return ""
        missing = [topic for topic in self._topics if not cluster.partitions_for_topic(topic)]
        return f"there is no topic {', '.join(missing)}: make it, or correct its name in [[sources]]" if missing else ""

    def poll(self, timeout_ms: int = POLL_MS) -> Mapping[TopicPartition, Sequence[Any]]:
        """The next messages by partition, oldest first, possibly none: Kafka's ConsumerRecords, bytes as they are."""
        consumer = self._opened()
        if self._outside.too_long(consumer):
            logger.warning("no place in the consumer group for too long; begun again", group=self._group)
            self.close()
            consumer = self._opened()
        try:
            self._pause_who_holds()
            limit = self._limit()
            ready = any(state.held[0].timestamp <= limit for state in self._holding())
            found = self._found(consumer, self._patience_ms(timeout_ms, ready=ready))
            self._take({part: messages for part, messages in found.items() if part not in self._fresh})
            self._begin_what_is_fresh()
            return self._give()
        except kafka_errors.KafkaError as error:
            raise self._unavailable("cannot read", error) from error

    @property
    def has_more(self) -> bool:
        """Whether messages are here already that the next poll may give."""
        return bool(self._holding())

    def log_time(self, part: TopicPartition) -> UnixSeconds:
        """The running maximum of the timestamps of the partition's messages that are dealt with."""
        state = self._parts.get(part)
        return float("-inf") if state is None else state.log_time

    def settle(self) -> None:
        """What the last poll gave is dealt with: commits it."""
        self.commit({part: (offset, "") for part, offset in self.deal().items()})

    def deal(self) -> Mapping[TopicPartition, int]:
        """What the last poll gave is dealt with, and not committed; returns the offsets behind it."""
        offsets: dict[TopicPartition, int] = {}
        for part, state in list(self._parts.items()):
            if state.given:
                state.settled = state.given[-1].offset + 1
                state.log_time = max(state.log_time, max(map(_TIMESTAMP, state.given)) / 1_000)
                state.given = []
                offsets[part] = state.settled
        return offsets

    def committed_word(self, part: TopicPartition) -> str:
        """What stands beside the partition's committed offset; "" where nothing does. Raises LogUnavailable."""
        try:
            committed = self._consumer.committed(part, metadata=True, timeout_ms=ANSWER_MS)
        except kafka_errors.KafkaError as error:
            raise self._unavailable("cannot ask how far the group is in", error) from error
        return committed.metadata if committed is not None else ""

    def tenure(self, part: TopicPartition) -> object:
        """The same object as long as the partition stays with this member; None when it does not."""
        return self._parts.get(part)

    def commit(self, words: Mapping[TopicPartition, tuple[int, str]]) -> None:
        """Stores an offset of each partition and a word beside it. What fails is said: a later commit covers it."""
        if not words:
            return
        offsets = {part: OffsetAndMetadata(offset, word, -1) for part, (offset, word) in words.items()}
        try:
            self._consumer.commit(offsets, timeout_ms=ANSWER_MS)
        except kafka_errors.CommitFailedError:  # the group went on without us: others read these messages again
            logger.warning("partitions were given to another member while they were read", partitions=len(offsets))
        except kafka_errors.KafkaError as error:  # the next commit covers this one
            logger.warning("offsets could not be committed", error=str(error)[:300])

    def rewind(self) -> None:
        """The next poll gives again what the last one gave."""
        for state in list(self._parts.values()):
            state.held, state.given = state.given + state.held, []

    def lag(self) -> Sequence[PartitionLag]:
        """What is waiting, partition by partition, as of the last answers of the brokers."""
        found = []
        for part, state in sorted(self._parts.items()):
            high = self._high_water(part)
            if high is not None and state.settled is not None:
                messages = max(0, high - state.settled)
                found.append(PartitionLag(topic=part.topic, partition=part.partition, messages=messages))
        return found

    def close(self) -> None:
        """Leaves the group, so that its other members take over at once."""
        if self._consumer is not None:
            self._consumer.close(autocommit=False, timeout_ms=2_000)
            self._consumer = None
            self._parts = {}
            self._fresh = set()

    def _opened(self) -> Any:
        if self._consumer is None:
            look_seldom()
            self._consumer = KafkaConsumer(
                **self._settings,
                group_id=self._group,
                enable_auto_commit=False,
                auto_offset_reset="none",  # never in silence
                allow_auto_create_topics=False,
                session_timeout_ms=int(self._session_seconds * 1_000),
                heartbeat_interval_ms=int(min(3.0, self._session_seconds / 6) * 1_000),
                max_partition_fetch_bytes=_PARTITION_BYTES,
                fetch_max_bytes=_FETCH_BYTES,
            )
            read_quickly(self._consumer)
            self._outside = Outside()
            self._consumer.subscribe(self._topics, listener=_Handover(self._parts, self._fresh))
        return self._consumer

    def _pause_who_holds(self) -> None:
        """Nothing more is fetched of a partition before what it has here is handed on."""
        holding = {part for part, state in list(self._parts.items()) if state.held}
        holding &= self._consumer.assignment()
        paused = self._consumer.paused()
        if holding - paused:
            self._consumer.pause(*(holding - paused))
        if paused - holding:
            self._consumer.resume(*(paused - holding))

    def _found(self, consumer: Any, patience_ms: int) -> Mapping[TopicPartition, Sequence[Any]]:
        """What a poll finds; nothing, once where a partition has no offset, or one that is gone, is put right.

        What is not begun yet `_begin_what_is_fresh` puts right: that a message is gone is then said, and counted, once.
        """
        try:
            found: Mapping[TopicPartition, Sequence[Any]] = consumer.poll(patience_ms, max_records=_ALL_THERE_IS)
            return found
        except kafka_errors.NoOffsetForPartitionError as error:
            wanted: Mapping[TopicPartition, int | None] = dict.fromkeys(error.args[0])
        except kafka_errors.OffsetOutOfRangeError as error:
            wanted = error.args[0]
        if begun := {part: offset for part, offset in wanted.items() if part not in self._fresh}:
            self._begin_at_the_oldest(begun)
        return {}

    def _begin_what_is_fresh(self) -> None:
        """Partitions that a rebalance has given begin at the group's offset; what was found of them is passed by.

        kafka-python 3.0.12 keeps its position in a partition that it is given again, but what it had given from there
        and was not dealt with is forgotten here: going on would lose it. What was found of other partitions is taken
        before: here a broker may not answer, and the client's positions are behind it already.
        """
        for part in sorted(self._fresh & self._consumer.assignment()):
            committed = self._consumer.committed(part, timeout_ms=ANSWER_MS)
            if committed is None:
                self._begin_at_the_oldest({part: None})
            else:
                self._consumer.seek(part, committed)
                state = self._parts.setdefault(part, _Part())
                state.settled = state.fetched = committed
            self._fresh.discard(part)

    def _take(self, found: Mapping[TopicPartition, Sequence[Any]]) -> None:
        for part, messages in found.items():
            state = self._parts.setdefault(part, _Part())
            if state.settled is None:
                state.settled = messages[0].offset
            state.held += messages
            state.fetched = messages[-1].offset + 1
            state.moved_at = monotonic()

    def _give(self) -> Mapping[TopicPartition, Sequence[Any]]:
        limit_ms = self._limit()
        given: dict[TopicPartition, Sequence[Any]] = {}
        for part, state in list(self._parts.items()):
            if not state.held:
                continue
            count = len(state.held)
            if state.held[-1].timestamp > limit_ms:
                count = next(index for index, message in enumerate(state.held) if message.timestamp > limit_ms)
            if count:
                state.given, state.held = state.held[:count], state.held[count:]
                given[part] = state.given
        return given

    def _patience_ms(self, timeout_ms: int, *, ready: bool) -> int:
        """None where messages are here already; but kafka-python joins its group again only in a poll that waits."""
        if ready and monotonic() - self._waited_at < GROUP_SECONDS:
            return 0
        self._waited_at = monotonic()
        return max(timeout_ms, GROUP_MS)

    def _holding(self) -> list[_Part]:
        return [state for state in list(self._parts.values()) if state.held]

    def _limit(self) -> float:
        """The timestamp, in ms, up to which messages are handed on."""
        return (self._slowest() + AHEAD_SECONDS) * 1_000

    def _slowest(self) -> UnixSeconds:
        """The least time at which a partition stands that has more to give, here or at its broker."""
        now = monotonic()
        times = [float("inf")]
        for part, state in list(self._parts.items()):
            if state.held:
                times.append(max(state.log_time, state.held[0].timestamp / 1_000))
            elif now - state.moved_at < STUCK_SECONDS and self._has_more(part, state):
                times.append(state.log_time)
        return min(times)

    def _has_more(self, part: TopicPartition, state: _Part) -> bool:
        high = self._high_water(part)
        if state.fetched is None:
            state.fetched = state.settled = self._consumer.position(part, timeout_ms=0)
        return high is None or state.fetched is None or high > state.fetched

    def _high_water(self, part: TopicPartition) -> int | None:
        high: int | None = self._consumer.highwater(part) if part in self._consumer.assignment() else None
        return high

    def _begin_at_the_oldest(self, parts: Mapping[TopicPartition, int | None]) -> None:
        """`parts` gives the offset that was looked for, None where the group never read the partition."""
        try:
            oldest = self._consumer.beginning_offsets(list(parts), timeout_ms=ANSWER_MS)
        except kafka_errors.KafkaError as error:
            raise self._unavailable("cannot find the oldest messages of", error) from error
        for part, wanted in parts.items():
            self._consumer.seek(part, oldest[part])
            state = self._parts.setdefault(part, _Part())
            state.settled = state.fetched = oldest[part]
            if wanted is not None:
                lost = max(0, oldest[part] - wanted)
                self.lost[part.topic] += lost
                logger.error(
                    "messages are gone that nobody has read: retention was too short, or the topic was made anew",
                    topic=part.topic,
                    partition=part.partition,
                    wanted=wanted,
                    oldest=oldest[part],
                    lost=lost,
                )

    def _unavailable(self, doing: str, error: Exception) -> LogUnavailable:
        return unavailable(self._settings, f"{doing} {', '.join(self._topics)}", error)


class _Handover(AsyncConsumerRebalanceListener):  # type: ignore[misc]
    """Forgets what another member reads now: what was dealt with is committed, and what was not is theirs.

    Called in the client's own thread, while this member is inside of `poll`.
    """

    def __init__(self, parts: dict[TopicPartition, _Part], fresh: set[TopicPartition]) -> None:
        self._parts, self._fresh = parts, fresh

    async def on_partitions_revoked(self, revoked: Any) -> None:
        for part in revoked:
            self._parts.pop(part, None)
            self._fresh.discard(part)

    async def on_partitions_assigned(self, assigned: Any) -> None:
        for part in assigned:
            self._parts[part] = _Part()
            self._fresh.add(part)
