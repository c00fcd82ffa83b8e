"""The same partition as a fleet's aggregator sees it: the real KafkaPartition over a feed and commits in memory."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import cast

from kafka import TopicPartition
from msgspec.structs import replace

from accounting_model.partition import PARTS, Partition, Topic
from collectors.clock import SystemClock
from monitor.config.output_sections import Kafka
from monitor.log.kafka_feed import KafkaFeed
from monitor.log.kafka_partition import KafkaPartition
from monitor.log.protocol import DeadLetter, LogRecord, Stream

KAFKA = Kafka(bootstrap_servers=("127.0.0.1:9",), clock="records")
TOPICS: dict[str, Stream] = {KAFKA.topics.readings: "readings", KAFKA.topics.usage: "usage"}


class MemoryKafka(KafkaPartition):
    """A member's hand on the partition: a PartitionLog that fills its feed before it reads."""

    def __init__(self, partition: Partition) -> None:
        super().__init__(
            KAFKA,
            0,
            1,
            feed=_feed(partition),
            spare=lambda: _feed(partition),
            commits=_Commits(partition),
            reject=lambda letters: partition.keep(list(map(_of_the_one_partition, letters))),
            clock=SystemClock(),
        )

    def read(self, positions: Mapping[str, int], limit: int) -> list[LogRecord]:
        """What there is."""
        for stream in PARTS:
            if self._next.get(stream) != positions.get(stream, 0):
                self._place(stream, positions.get(stream, 0))
        self._feed.fill(0.0)
        return super().read(positions, limit)


def _of_the_one_partition(letter: DeadLetter) -> DeadLetter:
    assert letter.position.startswith("0/"), "an offset alone names no record of a topic"
    return replace(letter, position=letter.position.removeprefix("0/"))


def _feed(partition: Partition) -> KafkaFeed:
    return cast(KafkaFeed, _Feed(partition))


class _Feed:
    """What KafkaFeed is, without a network: everything there is comes at each filling."""

    def __init__(self, partition: Partition) -> None:
        self._partition = partition
        self._next: dict[TopicPartition, int] = {}
        self._times: dict[TopicPartition, float] = {}
        self._waiting: dict[TopicPartition, deque[LogRecord]] = {}

    def place(self, part: TopicPartition, _stream: Stream, offset: int, log_time: float) -> None:
        self._next[part], self._times[part], self._waiting[part] = offset, log_time, deque()

    def drop(self, parts: Iterable[TopicPartition]) -> None:
        for part in parts:
            self._next.pop(part, None)

    def fill(self, _timeout_seconds: float) -> int:
        count = 0
        for part, offset in self._next.items():
            topic, waiting = self._topic(part), self._waiting[part]
            log_time = self._times[part]
            for record, stamp in zip(topic.records[offset:], topic.stamps[offset:], strict=True):
                log_time = max(log_time, stamp)
                waiting.append(
                    LogRecord(
                        stream=record.stream,
                        offset=record.offset,
                        stamp=log_time,
                        key=record.key,
                        schema=record.schema,
                        body=record.body,
                    )
                )
                count += 1
            self._times[part], self._next[part] = log_time, len(topic.records)
        return count

    def head(self, part: TopicPartition) -> LogRecord | None:
        waiting = self._waiting[part]
        return waiting[0] if waiting else None

    def take(self, part: TopicPartition) -> LogRecord:
        return self._waiting[part].popleft()

    def log_time(self, part: TopicPartition) -> float:
        return self._times[part]

    def at_end(self, part: TopicPartition) -> bool:
        return self._next[part] >= len(self._topic(part).records)

    def topic_id(self, part: TopicPartition) -> str:
        return part.topic

    def placed_in(self, part: TopicPartition) -> str | None:
        return part.topic if part in self._next else None

    def beginnings(self, parts: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(parts, 0)

    def ends(self, parts: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return {part: len(self._topic(part).records) for part in parts}

    def first_from(self, part: TopicPartition, log_time: float) -> tuple[int, float] | None:
        stamps = self._topic(part).stamps
        return next(((offset, stamp) for offset, stamp in enumerate(stamps) if stamp >= log_time), None)

    def last_stamp(self, part: TopicPartition, since: float) -> float | None:
        newest = max(self._topic(part).stamps, default=-inf)
        return newest if newest >= since and newest > -inf else None

    def _topic(self, part: TopicPartition) -> Topic:
        return self._partition.topics[TOPICS[part.topic]]


class _Commits:
    """Where the group's offsets are kept, as text beside them."""

    def __init__(self, partition: Partition) -> None:
        self._partition = partition
        self._generation = partition.generation

    def commit(self, offsets: Mapping[TopicPartition, tuple[int, str]]) -> None:
        streams = self._partition.lets(self._generation)
        for part, claimed in offsets.items():
            if TOPICS[part.topic] in streams:
                self._partition.claims[TOPICS[part.topic]] = claimed

    def committed(self, parts: Sequence[TopicPartition]) -> dict[TopicPartition, tuple[int, str] | None]:
        return {part: self._partition.claims.get(TOPICS[part.topic]) for part in parts}
