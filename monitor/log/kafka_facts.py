"""The stream of facts in Kafka: one topic, one partition, kept for ever. In: an offset. Out: what came behind it.

Offsets are Kafka's plus one, so that 0 stands before the first, as in the embedded log.
"""

import threading
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors

from collectors.clock import monotonic
from collectors.units import UnixSeconds
from monitor.config.output_sections import Kafka
from monitor.log.kafka_client import client_settings, unavailable
from monitor.log.kafka_writer import SCHEMA_HEADER
from monitor.log.protocol import LogRecord

PATIENCE_SECONDS: Final = 15.0
"""How long a call may go without a single record. All of them are read at a start: 64 partitions that learn add 9 200 a
day for each GPU type, of which 100 000 take about a second."""
_POLL_MS: Final = 200
_CLOSE_SECONDS: Final = 2.0


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

    def facts(self, after: int = 0) -> list[LogRecord]:
        """All records behind that offset, to the end that the topic has now."""
        with self._in_use:
            try:
                return self._read(after)
            except kafka_errors.KafkaError as error:
                self._let_go()
                raise unavailable(self._settings, f"cannot read topic {self._partition.topic}", error) from error
            finally:
                if self._closed:
                    self._let_go()

    def close(self) -> None:
        """Lets go of the connections, at the latest when the call under way ends."""
        self._closed = True
        if self._in_use.acquire(timeout=_CLOSE_SECONDS):
            self._let_go()
            self._in_use.release()

    def _let_go(self) -> None:
        """The next call begins anew."""
        if self._consumer is not None:
            self._consumer.close(timeout_ms=1_000)
            self._consumer = None

    def _read(self, after: int) -> list[LogRecord]:
        consumer = self._opened(after)
        end = consumer.end_offsets([self._partition], timeout_ms=PATIENCE_SECONDS * 1_000)[self._partition]
        if end < after:
            raise kafka_errors.KafkaError(f"it has {end} records and had {after}: it was made anew")
        found = []
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
                self._log_time = max(self._log_time, message.timestamp / 1_000)
                if message.offset >= after:
                    found.append(self._record(message))
        return found

    def _opened(self, after: int) -> Any:
        """The consumer, at that offset. Log time is a running maximum, so it is known only from the start on."""
        if self._consumer is None:
            self._consumer = KafkaConsumer(
                **self._settings, auto_offset_reset="earliest", enable_auto_commit=False, group_id=None
            )
            self._consumer.assign([self._partition])
            self._rewind()
        elif after != self._next:
            self._rewind()
        return self._consumer

    def _rewind(self) -> None:
        self._consumer.seek(self._partition, 0)
        self._next, self._log_time = 0, float("-inf")

    def _record(self, message: Any) -> LogRecord:
        schema = next((value for name, value in message.headers if name == SCHEMA_HEADER and value), b"")
        return LogRecord(
            stream="facts",
            offset=message.offset + 1,
            stamp=self._log_time,
            key=(message.key or b"").decode(errors="replace"),
            schema=schema.decode(errors="replace"),
            body=message.value or b"",
        )
