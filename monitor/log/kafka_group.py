"""Membership of a consumer group: which partitions are ours, until when, and the commits of the group. In: topics.

The member fetches nothing: what it is assigned is read by a KafkaFeed, at offsets of the reader's own. Its thread only
keeps the session alive and takes part in rebalances, so that a long account or a store that is down costs no
partition. Commits go through it, with its generation: the group refuses those of a member that lost its partitions.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import structlog
from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.structs import OffsetAndMetadata

from collectors.clock import monotonic
from monitor.config.output_sections import Kafka
from monitor.log.kafka_client import client_settings, told, trouble_of, unavailable
from monitor.log.protocol import LogUnavailable

LEASE_RATIO: Final = 0.6
"""Of the session: so long after the last answered heartbeat a member still writes. The rest is for a write."""
OUTSIDE_SECONDS: Final = 600.0
_MS: Final = 1_000
_POLL_MS: Final = 200
_RETRY_SECONDS: Final = 2.0
logger = structlog.get_logger()


class Outside:
    """How long a client has waited for its place in its group.

    kafka-python 3.0.12 was seen to wait for ever, with no error: what it had asked the brokers was lost. Nothing but a
    new client ends that. A rebalance lasts as long as its slowest member may take: up to 5 min.
    """

    def __init__(self) -> None:
        self._since = monotonic()

    def too_long(self, consumer: Any) -> bool:
        """Whether it is time to begin again with a new client. It is asked now and then."""
        if consumer._coordinator.generation_if_stable() is not None:  # no public name for it
            self._since = monotonic()
        return monotonic() - self._since > OUTSIDE_SECONDS


class GroupMember:
    """One member of `group`, subscribed to topics of equal partition counts. `partitions` is any thread's to read."""

    def __init__(self, kafka: Kafka, group: str, topics: Sequence[str]) -> None:
        self._settings, self._group, self._topics = client_settings(kafka), group, tuple(topics)
        self._session_seconds = kafka.session_seconds
        self._consumer: Any = None
        self._outside = Outside()
        self._stop = threading.Event()
        self._assigned: frozenset[int] = frozenset()
        self._thread = threading.Thread(target=self._run, name=f"group {group}", daemon=True)
        self.trouble = ""
        self.generation = 0
        """Rises with every rebalance: what was begun under another one is not ours any more."""

    def start(self) -> None:
        """Joins, as soon as a broker is there."""
        self._thread.start()

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """Leaves the group, so that the others need not wait for the session to end."""
        self._stop.set()
        if self._thread.ident is not None:  # it was started
            self._thread.join(timeout_seconds)

    @property
    def alive(self) -> bool:
        """False once its thread has ended: by an error that nobody foresaw, it is never ours again."""
        return self._thread.ident is None or self._thread.is_alive()

    @property
    def partitions(self) -> frozenset[int]:
        """Numbers of the partitions that are ours, of all topics alike; none without a lease."""
        return self._assigned if self.lease_seconds() > 0 else frozenset()

    @property
    def waits_for(self) -> str:
        """What keeps it from being a member, and what to do; "" while nothing is known to."""
        return self.trouble or trouble_of(self._settings) or ""

    def lease_seconds(self) -> float:
        """How long what is ours surely stays ours, counted from the last answered heartbeat; 0 or less: stop writing.

        The session ends later, by the part that is kept for a write under way.
        """
        consumer = self._consumer
        if consumer is None or not self._assigned:
            return 0.0
        heartbeat = consumer._coordinator.heartbeat  # no public name for it in kafka-python 3.0
        answered = max(heartbeat.last_receive, heartbeat.last_reset)
        return float(answered) + LEASE_RATIO * self._session_seconds - monotonic()

    def partition_counts(self) -> Mapping[str, int]:
        """How many partitions each topic has, as the client knows it; nothing of a topic while it knows none."""
        consumer = self._consumer
        if consumer is None:
            return {}
        cluster = consumer._cluster  # its public way asks, and waits
        return {topic: len(found) for topic in self._topics if (found := cluster.partitions_for_topic(topic))}

    def commit(self, offsets: Mapping[TopicPartition, tuple[int, str]]) -> None:
        """Commits for partitions that are ours."""
        wanted = {part: OffsetAndMetadata(offset, metadata, -1) for part, (offset, metadata) in offsets.items()}
        consumer = self._consumer
        if consumer is None:
            raise LogUnavailable(f"group {self._group}: not a member yet")
        try:
            consumer.commit(wanted, timeout_ms=10 * _MS)
        except kafka_errors.KafkaError as error:
            raise unavailable(self._settings, f"cannot commit for group {self._group}", error) from error

    def committed(self, parts: Sequence[TopicPartition]) -> Mapping[TopicPartition, tuple[int, str] | None]:
        """The group's newest commits."""
        consumer = self._consumer
        if consumer is None:
            raise LogUnavailable(f"group {self._group}: not a member yet")
        try:
            found = {part: consumer.committed(part, metadata=True, timeout_ms=10 * _MS) for part in parts}
        except kafka_errors.KafkaError as error:
            raise unavailable(self._settings, f"cannot read the commits of group {self._group}", error) from error
        return {part: None if each is None else (each.offset, each.metadata) for part, each in found.items()}

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                try:
                    self._poll()
                except kafka_errors.KafkaError as error:
                    self._say(told(self._settings, error))
                    self._stop.wait(_RETRY_SECONDS)
        finally:
            self._assigned = frozenset()
            if self._consumer is not None:
                self._consumer.close(timeout_ms=2 * _MS)

    def _poll(self) -> None:
        if self._consumer is None:
            consumer = KafkaConsumer(
                **self._settings,
                group_id=self._group,
                enable_auto_commit=False,
                auto_offset_reset="latest",
                partition_assignment_strategy=[RangePartitionAssignor()],
                session_timeout_ms=int(self._session_seconds * _MS),
                heartbeat_interval_ms=int(min(3.0, self._session_seconds / 6) * _MS),
                max_partition_fetch_bytes=1,
                metrics_enabled=False,
            )
            consumer.subscribe(self._topics, listener=_Rebalances(self))
            self._consumer, self._outside = consumer, Outside()
        self._consumer.poll(_POLL_MS)
        if self._outside.too_long(self._consumer):
            logger.warning("no place in the consumer group for too long; begun again", group=self._group)
            self.release()  # the new client's lease is for what it is given itself
            self._consumer.close(timeout_ms=2 * _MS)
            self._consumer = None
            return
        for part in self._consumer.assignment() - self._consumer.paused():
            self._consumer.pause(part)
        if self._assigned:
            self._say("")

    def take(self, parts: Iterable[TopicPartition]) -> None:
        """A rebalance has given these; a partition is ours when it is in all topics."""
        numbers = [frozenset(part.partition for part in parts if part.topic == topic) for topic in self._topics]
        self._assigned = frozenset.intersection(*numbers)
        self.generation += 1
        logger.info("partitions assigned", group=self._group, partitions=sorted(self._assigned))

    def release(self) -> None:
        """A rebalance begins, or the session was lost: nothing is ours until it gives partitions anew."""
        self._assigned = frozenset()
        self.generation += 1

    def _say(self, why: str) -> None:
        if why and why != self.trouble:
            logger.warning("not in the consumer group; it is tried again", group=self._group, why=why)
        self.trouble = why


class _Rebalances(AsyncConsumerRebalanceListener):  # type: ignore[misc]
    """Runs on the client's own thread, so it only notes what happened."""

    def __init__(self, member: GroupMember) -> None:
        self._member = member

    async def on_partitions_revoked(self, revoked: Any) -> None:
        self._member.release()

    async def on_partitions_lost(self, lost: Any) -> None:
        self._member.release()

    async def on_partitions_assigned(self, assigned: Any) -> None:
        self._member.take(assigned)
