"""Reads partitions of topics at offsets of its owner's choosing. In: places to read from. Out: records, buffered.

One consumer for all partitions that a process reads, of no group: who reads what is decided elsewhere
(kafka_group.py). A partition whose buffer is full is paused, so memory does not depend on how much waits in Kafka.
One thread owns a feed.
"""

import sys
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors

from collectors.units import UnixSeconds
from monitor.config.output_sections import Kafka
from monitor.log.kafka_client import client_settings, unavailable
from monitor.log.kafka_writer import SCHEMA_HEADER
from monitor.log.protocol import LogRecord, LogUnavailable, Stream

BUFFER_BYTES: Final = 4 * 2**20
"""Of one partition. A paused one still gets what was fetched already: at most twice as much is held."""
FETCH_BYTES: Final = 2**20
REQUEST_SECONDS: Final = 15.0
_ALL_THERE_IS: Final = sys.maxsize
"""A poll takes all that was fetched: kafka-python 3.0.12 never again gives the rest of a partition that is paused when
only a part of its records was given (tried: three of eight partitions stood still for ever)."""
_MS: Final = 1_000


class OffsetsGone(LogUnavailable):
    """What was to be read next is not there any more: deleted by retention, or with a topic that was made anew."""

    def __init__(self, parts: Iterable[TopicPartition], why: str) -> None:
        self.parts = frozenset(parts)
        named = ", ".join(f"{part.topic}[{part.partition}]" for part in sorted(self.parts))
        super().__init__(f"{named}: {why}")


class _Place(msgspec.Struct):
    """Where one partition is read: the next offset to fetch, log time there, and what waits to be taken."""

    stream: Stream
    topic_id: str | None
    next_offset: int
    log_time: UnixSeconds
    waiting: deque[LogRecord]
    waiting_bytes: int = 0
    paused: bool = False


class KafkaFeed:
    """Raises LogUnavailable in every method; what was buffered then stays, and the next call tries again."""

    def __init__(self, kafka: Kafka) -> None:
        self._settings = client_settings(kafka)
        self._consumer: Any = None
        self._places: dict[TopicPartition, _Place] = {}

    def place(self, part: TopicPartition, stream: Stream, offset: int, log_time: UnixSeconds) -> None:
        """From now on this partition is read from that offset, at which log time has come so far already."""
        self._places[part] = _Place(stream, self.topic_id(part), offset, log_time, deque())
        self._assign()

    def drop(self, parts: Iterable[TopicPartition]) -> None:
        """These are read no longer."""
        for part in parts:
            self._places.pop(part, None)
        self._assign()

    def fill(self, timeout_seconds: float) -> int:
        """Fetches what there is, waiting so long for a first record; returns how many came. Raises OffsetsGone."""
        if not self._places:
            return 0
        count = 0
        try:
            consumer = self._opened()
            found = consumer.poll(int(timeout_seconds * _MS), max_records=_ALL_THERE_IS)
            self._refuse_other_topics()
            for part, messages in found.items():
                count += self._take(part, messages)
            self._pause_and_resume(consumer)
        except kafka_errors.OffsetOutOfRangeError as error:
            raise OffsetsGone(error.args[0], "the records to be read next are deleted") from error
        except kafka_errors.LogTruncationError as error:
            raise OffsetsGone(error.divergent_offsets, "the log ends before what was read of it") from error
        except kafka_errors.KafkaError as error:
            raise self._unavailable("cannot read", error) from error
        return count

    def head(self, part: TopicPartition) -> LogRecord | None:
        """The next record, left where it is."""
        waiting = self._places[part].waiting
        return waiting[0] if waiting else None

    def take(self, part: TopicPartition) -> LogRecord:
        """The next record, taken away."""
        place = self._places[part]
        record = place.waiting.popleft()
        place.waiting_bytes -= len(record.body)
        return record

    def reads(self, part: TopicPartition) -> bool:
        """Whether this partition is read: it was placed, and not dropped since."""
        return part in self._places

    def log_time(self, part: TopicPartition) -> UnixSeconds:
        """The log time up to which the stream is known: nothing that is still to come stands before it."""
        return self._places[part].log_time

    def at_end(self, part: TopicPartition) -> bool:
        """Whether everything that the topic has now was fetched; False while nobody knows."""
        if self._consumer is None:
            return False
        end = self._consumer.highwater(part)
        return end is not None and self._places[part].next_offset >= end

    def lag(self) -> int | None:
        """How many records of all partitions are in Kafka and not fetched yet; None while nobody knows."""
        if self._consumer is None:
            return None
        ends = {part: self._consumer.highwater(part) for part in self._places}
        if any(end is None for end in ends.values()):
            return None
        return sum(max(0, int(ends[part]) - place.next_offset) for part, place in self._places.items())

    def partition_count(self, topic: str) -> int:
        """How many partitions the topic has; 0 for one that is not there."""
        try:
            return len(self._opened().partitions_for_topic(topic) or ())
        except kafka_errors.KafkaError as error:
            raise self._unavailable("cannot ask what is known of", error) from error

    def topic_id(self, part: TopicPartition) -> str | None:
        """Tells a topic from another one that is made later under its name; None while nobody knows."""
        consumer = self._opened()
        try:
            consumer.partitions_for_topic(part.topic)  # asks the brokers where the client has forgotten the topic
        except kafka_errors.KafkaError as error:
            raise self._unavailable("cannot ask what is known of", error) from error
        found = consumer._manager.cluster.topic_id(part.topic)  # no public name for it in kafka-python 3.0
        return None if found is None else str(found)

    def placed_in(self, part: TopicPartition) -> str | None:
        """The id of the topic that the place of this partition is in: the one of its name now may be another."""
        place = self._places.get(part)
        return None if place is None else place.topic_id

    def beginnings(self, parts: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The first offset that each partition still has."""
        found: Mapping[TopicPartition, int] = self._asked("beginning_offsets", list(parts))
        return found

    def ends(self, parts: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The offset behind the last record of each partition."""
        found: Mapping[TopicPartition, int] = self._asked("end_offsets", list(parts))
        return found

    def first_from(self, part: TopicPartition, log_time: UnixSeconds) -> tuple[int, UnixSeconds] | None:
        """(offset, stamp) of the first record stamped then or later: where the running maximum reaches it."""
        stamp_ms = 0 if log_time == float("-inf") else max(0, -int(-log_time * _MS // 1))
        found = self._asked("offsets_for_times", {part: stamp_ms}).get(part)
        return None if found is None else (found.offset, found.timestamp / _MS)

    def last_stamp(self, part: TopicPartition, since: UnixSeconds) -> UnixSeconds | None:
        """The newest stamp of the partition, a second too early at most; None where none is stamped since then.

        Found by asking for later and later ones, as the last record need not have it.
        """
        found = self.first_from(part, since)
        if found is None:
            return None
        step, newest = 1.0, found[1]
        while (further := self.first_from(part, newest + step)) is not None:
            newest, step = further[1], step * 2
        while step > 1.0:
            step /= 2
            further = self.first_from(part, newest + step)
            newest = newest if further is None else further[1]
        return newest

    def close(self) -> None:
        """Lets go of the connections."""
        if self._consumer is not None:
            self._consumer.close(timeout_ms=1_000)
            self._consumer = None

    def _asked(self, question: str, of: Any) -> Any:
        try:
            return getattr(self._opened(), question)(of, timeout_ms=int(REQUEST_SECONDS * _MS))
        except kafka_errors.KafkaError as error:
            raise self._unavailable("cannot ask for offsets", error) from error

    def _opened(self) -> Any:
        if self._consumer is None:
            self._consumer = KafkaConsumer(
                **self._settings,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",  # where an offset is gone, that is a hole to be named, not a place to jump to
                max_partition_fetch_bytes=FETCH_BYTES,
                fetch_max_bytes=16 * FETCH_BYTES,
                fetch_max_wait_ms=100,
                metrics_enabled=False,
            )
            self._assign()
        return self._consumer

    def _assign(self) -> None:
        if self._consumer is None:
            return
        self._consumer.assign(list(self._places))
        for part, place in self._places.items():
            self._consumer.seek(part, place.next_offset)
            place.paused = False
            self._consumer.resume(part)

    def _refuse_other_topics(self) -> None:
        """Offsets mean nothing in a topic that was made later under the same name, though they may exist there too."""
        changed = []
        for part, place in self._places.items():
            topic_id = self.topic_id(part)
            if place.topic_id is None:
                place.topic_id = topic_id
            elif topic_id is not None and topic_id != place.topic_id:
                changed.append(part)
        if changed:
            raise OffsetsGone(changed, "the topic was deleted and made anew")

    def _take(self, part: TopicPartition, messages: Iterable[Any]) -> int:
        place = self._places.get(part)
        if place is None:
            return 0
        count = 0
        for message in messages:
            if message.offset < place.next_offset:
                continue
            place.next_offset = message.offset + 1
            place.log_time = max(place.log_time, message.timestamp / _MS)
            record = _record(place, message)
            place.waiting.append(record)
            place.waiting_bytes += len(record.body)
            count += 1
        return count

    def _pause_and_resume(self, consumer: Any) -> None:
        for part, place in self._places.items():
            if not place.paused and place.waiting_bytes > BUFFER_BYTES:
                consumer.pause(part)
                place.paused = True
            elif place.paused and place.waiting_bytes < BUFFER_BYTES // 2:
                consumer.resume(part)
                place.paused = False

    def _unavailable(self, doing: str, error: Exception) -> LogUnavailable:
        topics = ", ".join(sorted({part.topic for part in self._places}))
        self.close()
        return unavailable(self._settings, f"{doing} {topics}", error)


def _record(place: _Place, message: Any) -> LogRecord:
    schema = next((value for name, value in message.headers if name == SCHEMA_HEADER), b"")
    return LogRecord(
        stream=place.stream,
        offset=message.offset,
        stamp=place.log_time,
        key=(message.key or b"").decode(errors="replace"),
        schema=schema.decode(errors="replace"),
        body=message.value or b"",
    )
