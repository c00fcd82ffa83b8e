"""Records into Kafka, acknowledged by all replicas. In: records with their topic. Out: nothing, or who was refused.

kafka-python's idempotent producer fails for ever after one record that the broker refuses, and after a broker that
forgot it, so bytes are kept until they are acknowledged, and a producer that failed is made new and given them again.
What was stored already may then stand in the topic twice; the books take it once (by identity, by device and start).
"""

from collections import deque
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import structlog
from kafka import KafkaProducer
from kafka import errors as kafka_errors
from kafka.producer.future import FutureRecordMetadata

from collectors.clock import monotonic
from monitor.log.kafka_client import unavailable
from monitor.log.protocol import Append, LogUnavailable

ACK_SECONDS: Final = 30.0
"""How long one flush may take, with everything that is sent again."""
CONNECT_SECONDS: Final = 5.0
MOST_WAITING_BYTES: Final = 16 * 2**20
"""Not acknowledged yet; who sends more waits for the oldest. kafka-python itself knows no limit."""
_BATCH_BYTES: Final = 256 * 2**10
_LINGER_MS: Final = 5
_NOT_ACKNOWLEDGED: Final = "not acknowledged in time; too few replicas may be in sync (min.insync.replicas)"
_REFUSED: Final = (
    kafka_errors.MessageSizeTooLargeError,
    kafka_errors.RecordListTooLargeError,
    kafka_errors.InvalidTimestampError,
    kafka_errors.InvalidRecordError,
    kafka_errors.UnsupportedForMessageFormatError,
)
"""The record itself is at fault: sent again it is refused again."""
_HOPELESS: Final = (
    kafka_errors.AuthorizationError,
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.InvalidTopicError,
)
"""Nothing gets better by trying again at once; a person has to change something."""

logger = structlog.get_logger()


class Outgoing(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A record on its way. `partition` None: by its key. `timestamp_ms` None: the broker's clock.

    `append` is what it was made of, None of what is no record of a stream.
    """

    topic: str
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int | None = None
    timestamp_ms: int | None = None
    append: Append | None = None

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        return len(self.key) + len(self.value) + 200


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A record that no broker takes, and its word for it."""

    record: Outgoing
    why: str


class Sender:
    """Sends without waiting, and waits for all of it in `flush`. One thread's.

    `settings` are those that every client has (monitor/log/kafka_client.py). After LogUnavailable nothing is kept: the
    caller gives everything since its last flush again.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = dict(settings)
        self._producer: KafkaProducer | None = None
        self._waiting: deque[tuple[Outgoing, FutureRecordMetadata]] = deque()
        self._waiting_bytes = 0
        self._refused: list[Refused] = []
        self.acknowledged = self.sent_again = 0

    def send(self, record: Outgoing) -> None:
        """Takes one; waits only where too much is not acknowledged yet. Raises LogUnavailable."""
        deadline = monotonic() + ACK_SECONDS
        while self._waiting_bytes > MOST_WAITING_BYTES:
            self._settle_oldest(deadline)
        self._give(record)

    def flush(self, timeout_seconds: float = ACK_SECONDS) -> list[Refused]:
        """Returns once everything sent since the last flush is acknowledged; those refused, in order, are not.

        Raises LogUnavailable.
        """
        deadline = monotonic() + timeout_seconds
        while self._waiting:
            self._settle_oldest(deadline)
        refused, self._refused = self._refused, []
        return refused

    def close(self, timeout_seconds: float = 2.0) -> None:
        """Lets go of the connections; what is not flushed may be lost."""
        self._forget()
        if self._producer is not None:
            _close(self._producer, timeout_seconds)
            self._producer = None

    def _settle_oldest(self, deadline: float) -> None:
        record, future = self._waiting[0]
        error = _outcome(future, deadline)
        if error is None:
            self._waiting.popleft()
            self._waiting_bytes -= record.size_bytes
            self.acknowledged += 1
        elif monotonic() >= deadline or isinstance(error, _HOPELESS):
            raise self._unavailable(record.topic, error)
        else:
            self._send_again(deadline)

    def _send_again(self, deadline: float) -> None:
        """All that wait and are not acknowledged, with a new producer, in their order.

        A batch is refused as a whole for one of its records: its records go first, one by one, so that each shows
        whether it is the one.
        """
        waiting, self._waiting = self._waiting, deque()
        self._waiting_bytes = 0
        self._renew()
        stored = [future.is_done and not future.failed() for _, future in waiting]
        self.acknowledged += sum(stored)
        again = [each for each, is_stored in zip(waiting, stored, strict=True) if not is_stored]
        self.sent_again += len(again)
        logger.warning("records are sent to Kafka again", count=len(again), topic=waiting[0][0].topic)
        suspects = [record for record, future in again if isinstance(future.exception, _REFUSED)]
        for record in suspects:
            self._send_alone(record, deadline)
        for record, future in again:
            if not isinstance(future.exception, _REFUSED):
                self._give(record)

    def _send_alone(self, record: Outgoing, deadline: float) -> None:
        """Nothing else is on its way."""
        while True:
            self._give(record)
            if not self._waiting:  # the client refused it
                return
            error = _outcome(self._waiting[0][1], deadline)
            self._waiting.clear()
            self._waiting_bytes = 0
            if error is None:
                self.acknowledged += 1
                return
            self._renew()
            if isinstance(error, _REFUSED):
                self._refuse(record, error)
                return
            if monotonic() >= deadline or isinstance(error, _HOPELESS):
                raise self._unavailable(record.topic, error)

    def _give(self, record: Outgoing) -> None:
        """Hands it to the producer, which sends it in its own thread."""
        try:
            future = self._started(record.topic).send(**_arguments(record))
        except (*_REFUSED, TypeError, ValueError, AssertionError) as error:
            self._refuse(record, error)  # by the client: nothing of it has gone out
        except kafka_errors.KafkaError as error:
            raise self._unavailable(record.topic, error) from error
        else:
            self._waiting.append((record, future))
            self._waiting_bytes += record.size_bytes

    def _started(self, topic: str) -> KafkaProducer:
        if self._producer is None:
            try:
                self._producer = KafkaProducer(
                    **self._settings,
                    acks="all",
                    compression_type="lz4",
                    linger_ms=_LINGER_MS,
                    batch_size=_BATCH_BYTES,
                    max_block_ms=int(CONNECT_SECONDS * 1_000),
                    delivery_timeout_ms=int(ACK_SECONDS * 1_000),
                    request_timeout_ms=10_000,
                    allow_auto_create_topics=False,
                )
            except kafka_errors.KafkaError as error:
                raise self._unavailable(topic, error) from error
        return self._producer

    def _refuse(self, record: Outgoing, error: Exception) -> None:
        self._refused.append(Refused(record=record, why=f"{type(error).__name__}: {error}"))

    def _renew(self) -> None:
        """The old one is ended at once, and every future of it is decided: what it still holds is sent by the next."""
        if self._producer is not None:
            self._producer._sender.force_close()  # close(timeout=0) raises where anything is still on its way
            _close(self._producer, 1.0)
            self._producer = None

    def _forget(self) -> None:
        self._waiting.clear()
        self._waiting_bytes = 0
        self._refused = []

    def _unavailable(self, topic: str, error: Exception) -> LogUnavailable:
        self._forget()
        self._renew()
        return unavailable(self._settings, f"cannot write to topic {topic}", error)


def _close(producer: KafkaProducer, timeout_seconds: float) -> None:
    try:
        producer.close(timeout=timeout_seconds)
    except kafka_errors.KafkaError:  # raised before anything is closed
        producer._sender.force_close()
        producer.close(timeout=timeout_seconds)


def _arguments(record: Outgoing) -> dict[str, Any]:
    return {
        "topic": record.topic,
        "key": record.key,
        "value": record.value,
        "headers": list(record.headers),
        "partition": record.partition,
        "timestamp_ms": record.timestamp_ms,
    }


def _outcome(future: FutureRecordMetadata, deadline: float) -> Exception | None:
    """None once it is acknowledged, else its error, or a time-out at the deadline.

    kafka-python tries a refusal for too few replicas again by itself until then, and keeps it to itself.
    """
    try:
        future.get(timeout=max(0.0, deadline - monotonic()))
    except kafka_errors.KafkaError as error:
        kept: Exception = error if future.is_done else kafka_errors.KafkaTimeoutError(_NOT_ACKNOWLEDGED)
        return kept
    return None
