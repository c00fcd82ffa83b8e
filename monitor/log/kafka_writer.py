"""The writing side of a log in Kafka. In: Append records and dead letters. Out: records in the topics of the house.

A stream is a topic: key = host as UTF-8, header `schema`, value = the very bytes that an embedded log holds. Facts have
one partition. Stamps are the broker's (LogAppendTime) unless [kafka] clock = "records", for replays and tests.
"""

import base64
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Final

import msgspec
import structlog

from collectors.units import UnixSeconds
from monitor.config.output_sections import Kafka
from monitor.log.kafka_client import client_settings
from monitor.log.kafka_producer import ACK_SECONDS, Outgoing, Refused, Sender
from monitor.log.protocol import Append, DeadLetter, LogUnavailable, Stream

SCHEMA_HEADER: Final = "schema"
LETTER_SCHEMA: Final = "dead-letter.v1"
_FACTS_PARTITION: Final = 0
_CLOSE_SECONDS: Final = 2.0
_SHOWN_CHARACTERS: Final = 300

logger = structlog.get_logger()


class LetterRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A dead letter as JSON in its topic. `body` is base64, there with [kafka] dead_letter_bodies alone, if it fits."""

    source: str
    position: str
    reason: str
    detail: str
    sha256: str
    at: UnixSeconds
    body: str | None = None


class KafkaWriter:
    """Appends to the streams of the house, for the one thread that first uses it; any thread may close it.

    Opens nothing until it is first used, so a role starts while the brokers are down. Every method may raise
    LogUnavailable, which names the brokers, the topic and what to do; then nothing since the last `flush` counts as
    stored, though it may be: given again it changes nothing in the books. That is why threads share none: one would be
    told of a failure that let go of what another had sent, whose `flush` would then find nothing left to wait for. What
    the brokers refuse for its own sake (too large, a stamp out of range) becomes a dead letter, `refused`, and never
    stops what comes behind it.
    """

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._topics: dict[Stream, str] = {
            "readings": kafka.topics.readings,
            "usage": kafka.topics.usage,
            "facts": kafka.topics.facts,
        }
        self._sender = Sender(client_settings(kafka))
        self._in_use = threading.Lock()
        self._owner: threading.Thread | None = None
        self._closed = False
        self.refused = 0

    @property
    def acknowledged(self) -> int:
        """Records stored since the start, those sent twice counted twice."""
        return self._sender.acknowledged

    @property
    def sent_again(self) -> int:
        """Records that had to be given to a second producer."""
        return self._sender.sent_again

    def append(self, records: Sequence[Append], now: UnixSeconds, *, partition: int | None = None) -> Sequence[Append]:
        """Stores them, in order per key, and returns once all replicas in sync have them; no records at once.

        Returns those that the brokers refused. `partition` is for what speaks for a partition and not for a host: its
        ticks.
        """
        if not records:
            return ()
        with self._used():
            self._send(records, now, partition)
            return self._flush(now, ACK_SECONDS)

    def send(self, records: Sequence[Append], now: UnixSeconds, *, partition: int | None = None) -> None:
        """Gives them on without waiting, as long as not too much waits; `flush` tells whether they are stored."""
        with self._used():
            self._send(records, now, partition)

    def flush(self, now: UnixSeconds, timeout_seconds: float = ACK_SECONDS) -> Sequence[Append]:
        """Returns once everything that was sent is acknowledged: what of it the brokers refused."""
        with self._used():
            return self._flush(now, timeout_seconds)

    def send_to(self, topic: str, key: str, schema: str, body: bytes, stamp: UnixSeconds) -> None:
        """A record of a topic of the house that is no stream, without waiting; `stamp` counts as with `send`."""
        timestamp_ms = round(stamp * 1_000) if self._kafka.clock == "records" else None
        headers = ((SCHEMA_HEADER, schema.encode()),)
        with self._used():
            self._sender.send(
                Outgoing(topic=topic, key=key.encode(), value=body, headers=headers, timestamp_ms=timestamp_ms)
            )

    def reject(self, letters: Sequence[DeadLetter], bodies: Sequence[bytes] = ()) -> None:
        """Keeps dead letters, with the bodies they speak of, one each, if the configuration wants them kept."""
        if not letters:
            return
        with self._used():
            self._send_letters(letters, bodies)
            self._flush(letters[-1].at, ACK_SECONDS)

    def send_letters(self, letters: Sequence[DeadLetter], bodies: Sequence[bytes] = ()) -> None:
        """The same without waiting."""
        with self._used():
            self._send_letters(letters, bodies)

    def close(self) -> None:
        """Lets go of the connections, at the latest when the call under way ends; what is not flushed may be lost."""
        self._closed = True
        if self._in_use.acquire(timeout=_CLOSE_SECONDS):
            self._sender.close()
            self._in_use.release()

    @contextmanager
    def _used(self) -> Iterator[None]:
        """Raises RuntimeError for a second thread, and LogUnavailable once it is closed."""
        thread = threading.current_thread()
        with self._in_use:
            if self._closed:
                raise LogUnavailable("the writer into Kafka is closed: its role has ended")
            self._owner = self._owner or thread
            if self._owner is not thread:
                raise RuntimeError(f"the writer of thread {self._owner.name} is used by {thread.name}: give it its own")
            try:
                yield
            finally:
                if self._closed:
                    self._sender.close()

    def _send(self, records: Sequence[Append], now: UnixSeconds, partition: int | None) -> None:
        for record in records:
            self._sender.send(self._outgoing(record, now, partition))

    def _outgoing(self, record: Append, now: UnixSeconds, partition: int | None) -> Outgoing:
        stamp = now if record.stamp is None else record.stamp
        return Outgoing(
            topic=self._topics[record.stream],
            key=record.key.encode(),
            value=record.body,
            headers=((SCHEMA_HEADER, record.schema.encode()),),
            partition=_FACTS_PARTITION if record.stream == "facts" else partition,
            timestamp_ms=round(stamp * 1_000) if self._kafka.clock == "records" else None,
            append=record,
        )

    def _send_letters(self, letters: Sequence[DeadLetter], bodies: Sequence[bytes]) -> None:
        for index, letter in enumerate(letters):
            kept = self._kafka.dead_letter_bodies and index < len(bodies)
            body = base64.b64encode(bodies[index]).decode() if kept else None
            self._send_letter(LetterRecord(**msgspec.structs.asdict(letter), body=body))

    def _send_letter(self, letter: LetterRecord) -> None:
        self._sender.send(
            Outgoing(
                topic=self._kafka.topics.dead_letters,
                key=letter.source.encode(),
                value=msgspec.json.encode(letter),
                headers=((SCHEMA_HEADER, LETTER_SCHEMA.encode()),),
                timestamp_ms=round(letter.at * 1_000) if self._kafka.clock == "records" else None,
            )
        )

    def _flush(self, now: UnixSeconds, timeout_seconds: float) -> Sequence[Append]:
        refused = self._sender.flush(timeout_seconds)
        if not refused:
            return ()
        logger.error("records refused by Kafka", count=len(refused), topic=refused[0].record.topic, why=refused[0].why)
        letters = [self._letter_of(each, now) for each in refused]
        for letter in filter(None, letters):
            self._send_letter(letter)
        lost = [each for each, letter in zip(refused, letters, strict=True) if letter is None]
        for each in [*lost, *self._sender.flush(timeout_seconds)]:
            logger.error("a dead letter is refused by Kafka too; it is only in this line", **_told(each))
        self.refused += sum(each.record.topic != self._kafka.topics.dead_letters for each in refused) + len(lost)
        return [each.record.append for each in refused if each.record.append is not None]

    def _letter_of(self, refused: Refused, now: UnixSeconds) -> LetterRecord | None:
        """What is written instead: of a dead letter the same without its body, None where it had none."""
        if refused.record.topic != self._kafka.topics.dead_letters:
            return LetterRecord(**msgspec.structs.asdict(_letter(refused, now)))
        letter = msgspec.json.decode(refused.record.value, type=LetterRecord)
        if letter.body is None:
            return None
        told = f"its body of {len(base64.b64decode(letter.body))} bytes is not kept: {refused.why[:_SHOWN_CHARACTERS]}"
        return msgspec.structs.replace(letter, body=None, detail="; ".join(filter(None, [letter.detail, told])))


def _told(refused: Refused) -> dict[str, str]:
    letter = msgspec.json.decode(refused.record.value, type=LetterRecord)
    place = {"source": letter.source, "position": letter.position, "sha256": letter.sha256}
    return place | {"reason": letter.reason, "detail": letter.detail[:_SHOWN_CHARACTERS], "why": refused.why}


def _letter(refused: Refused, now: UnixSeconds) -> DeadLetter:
    """Its position is its content: a record that never got an offset has no other name."""
    record = refused.record
    digest = sha256(record.value).hexdigest()
    return DeadLetter(
        source=record.topic,
        position=f"{record.key.decode(errors='replace')}/{digest[:16]}",
        reason="refused",
        detail=f"{refused.why[:_SHOWN_CHARACTERS]}; {len(record.value)} bytes",
        sha256=digest,
        at=now,
    )
