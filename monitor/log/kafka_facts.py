"""The stream of facts in Kafka: one topic, one partition, kept for ever. In: an offset. Out: what came behind it.

Offsets are Kafka's plus one, so that 0 stands before the first, as in the embedded log. Log time is a running maximum,
so it is known from the first record on, or from a snapshot on, which says what it was there (snapshots.py).
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import structlog
from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors

from collectors.clock import monotonic
from collectors.errors import Rejected
from collectors.units import SECONDS_PER_DAY, SECONDS_PER_HOUR, UnixSeconds
from monitor.config.output_sections import Kafka
from monitor.log.kafka_client import client_settings, unavailable
from monitor.log.kafka_writer import SCHEMA_HEADER
from monitor.log.protocol import LogRecord
from monitor.log.snapshots import SNAPSHOT_SCHEMA, Assembly, Snapshot

PATIENCE_SECONDS: Final = 15.0
"""How long a call may go without a single record. 64 partitions that learn add 9 200 a day for each GPU type, of which
100 000 take about a second."""
SNAPSHOT_REACH_SECONDS: Final = 2 * SECONDS_PER_DAY
"""How far before a moment a snapshot is looked for. There is one a day; it says what was so when its day began."""
_POLL_MS: Final = 200
_CLOSE_SECONDS: Final = 2.0
_NOWHERE: Final = -1

logger = structlog.get_logger()


class KafkaFacts:
    """A FactsLog. Connects when it is first asked; for one thread, any may close it. Raises LogUnavailable."""

    def __init__(self, kafka: Kafka) -> None:
        self._settings = client_settings(kafka)
        self._partition = TopicPartition(kafka.topics.facts, 0)
        self._consumer: Any = None
        self._in_use = threading.Lock()
        self._closed = False
        self._next = 0
        self._log_time: UnixSeconds = float("-inf")
        self._snapshot: Snapshot | None = None

    def facts(self, after: int = 0) -> list[LogRecord]:
        """All records behind that offset, to the end that the topic has now."""
        with self._asking():
            return self._read(after)

    def snapshot(self, since: UnixSeconds) -> Snapshot | None:
        """The newest whole snapshot that was taken at that log time or before.

        None where there is none of the two days before it: begin at offset 0, with everything. Else ask next for the
        facts behind its `through`.
        """
        with self._asking():
            found = self._find_snapshot(since)
            self._snapshot = found or self._snapshot
            return found

    def close(self) -> None:
        """Lets go of the connections, at the latest when the call under way ends."""
        self._closed = True
        if self._in_use.acquire(timeout=_CLOSE_SECONDS):
            self._let_go()
            self._in_use.release()

    @contextmanager
    def _asking(self) -> Iterator[None]:
        with self._in_use:
            try:
                yield
            except kafka_errors.KafkaError as error:
                self._let_go()
                raise unavailable(self._settings, f"cannot read topic {self._partition.topic}", error) from error
            finally:
                if self._closed:
                    self._let_go()

    def _let_go(self) -> None:
        """The next call begins anew."""
        if self._consumer is not None:
            self._consumer.close(timeout_ms=1_000)
            self._consumer = None

    def _read(self, after: int) -> list[LogRecord]:
        consumer = self._opened()
        if after != self._next:
            self._rewind(after)
        end = self._end(consumer)
        if end < after:
            raise kafka_errors.KafkaError(f"it has {end} records and had {after}: it was made anew")
        found = []
        for message in self._messages(consumer, end):
            self._log_time = max(self._log_time, message.timestamp / 1_000)
            if message.offset >= after:
                found.append(self._record(message))
        return found

    def _find_snapshot(self, since: UnixSeconds) -> Snapshot | None:
        consumer = self._opened()
        reach_ms = max(0, int((since - SNAPSHOT_REACH_SECONDS) * 1_000))
        begin = consumer.offsets_for_times({self._partition: reach_ms}).get(self._partition)
        if begin is None:
            return None
        end = self._end(consumer)
        consumer.seek(self._partition, begin.offset)
        self._next = begin.offset
        newest, assembly = None, Assembly()
        try:
            for message in self._messages(consumer, end):
                if message.timestamp / 1_000 > since + SECONDS_PER_HOUR:
                    break  # one that was taken before `since` took no hour to be written, and if: the last one serves
                whole = self._put_together(assembly, message)
                newest = whole if whole is not None and whole.taken_at <= since else newest
        finally:
            self._next = _NOWHERE
        return newest

    def _put_together(self, assembly: Assembly, message: Any) -> Snapshot | None:
        if _schema(message) != SNAPSHOT_SCHEMA:
            return None
        try:
            return assembly.add(message.offset + 1, message.value or b"")
        except Rejected as rejected:
            logger.error("a snapshot of the facts is passed by", offset=message.offset + 1, why=str(rejected))
            return None

    def _messages(self, consumer: Any, end: int) -> Iterator[Any]:
        """Those from where the consumer is, up to that end."""
        deadline = monotonic() + PATIENCE_SECONDS
        while self._next < end:
            if monotonic() > deadline:
                raise kafka_errors.KafkaTimeoutError(
                    f"{end - self._next} are left, none came for {PATIENCE_SECONDS:.0f} s"
                )
            messages = consumer.poll(_POLL_MS).get(self._partition, ())
            if messages:
                deadline = monotonic() + PATIENCE_SECONDS
            for message in messages:
                self._next = message.offset + 1
                yield message

    def _end(self, consumer: Any) -> int:
        ends: dict[TopicPartition, int] = consumer.end_offsets([self._partition], timeout_ms=PATIENCE_SECONDS * 1_000)
        return ends[self._partition]

    def _opened(self) -> Any:
        if self._consumer is None:
            self._consumer = KafkaConsumer(
                **self._settings, auto_offset_reset="earliest", enable_auto_commit=False, group_id=None
            )
            self._consumer.assign([self._partition])
            self._next = _NOWHERE
        return self._consumer

    def _rewind(self, after: int) -> None:
        """To the last place before that offset of which the log time is known."""
        known = self._snapshot
        if known is not None and known.through <= after:
            self._next, self._log_time = known.through, known.taken_at
        else:
            self._next, self._log_time = 0, float("-inf")
        self._consumer.seek(self._partition, self._next)

    def _record(self, message: Any) -> LogRecord:
        return LogRecord(
            stream="facts",
            offset=message.offset + 1,
            stamp=self._log_time,
            key=(message.key or b"").decode(errors="replace"),
            schema=_schema(message),
            body=message.value or b"",
        )


def _schema(message: Any) -> str:
    found: bytes = next((value for name, value in message.headers if name == SCHEMA_HEADER and value), b"")
    return found.decode(errors="replace")
