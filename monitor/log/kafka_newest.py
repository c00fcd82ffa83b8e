"""The newest messages of a topic, for a person to look at. In: a topic. Out: Kafka's records, the oldest first."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors

from collectors.clock import monotonic
from monitor.config.output_sections import Kafka
from monitor.log.kafka_client import admin, client_settings, unavailable
from monitor.log.protocol import LogUnavailable

PATIENCE_SECONDS: Final = 20.0
_ANSWER_MS: Final = 10_000
_POLL_MS: Final = 200


def newest_messages(kafka: Kafka, topic: str, count: int) -> list[Any]:
    """At most so many ConsumerRecords, by timestamp, then by place. No group is joined, nothing is committed.

    Raises LogUnavailable where no broker answers or the topic is not there.
    """
    with admin(kafka):
        pass  # a broker answers; the consumer would wait for one without end
    settings = client_settings(kafka)
    consumer = KafkaConsumer(
        **settings,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        allow_auto_create_topics=False,
    )
    try:
        if numbers := consumer.partitions_for_topic(topic):
            return _newest(consumer, [TopicPartition(topic, number) for number in sorted(numbers)], count)
    except kafka_errors.KafkaError as error:
        raise unavailable(settings, f"cannot read topic {topic}", error) from error
    finally:
        consumer.close(timeout_ms=1_000)
    raise LogUnavailable(
        f"Kafka at {', '.join(kafka.bootstrap_servers)}: there is no topic {topic}; {_to_make(kafka, topic)}"
    )


def _to_make(kafka: Kafka, topic: str) -> str:
    ours = topic in msgspec.structs.astuple(kafka.topics)
    return "make it with: wattribute topics create" if ours else "correct its name, or make it: it is none of ours"


def _newest(consumer: Any, parts: Sequence[TopicPartition], count: int) -> list[Any]:
    deadline = monotonic() + PATIENCE_SECONDS
    consumer.assign(parts)
    oldest = consumer.beginning_offsets(parts, timeout_ms=_ANSWER_MS)
    ends = consumer.end_offsets(parts, timeout_ms=_ANSWER_MS)
    left = {part for part in parts if oldest[part] < ends[part]}
    for part in left:
        consumer.seek(part, max(oldest[part], ends[part] - count))
    if empty := set(parts) - left:
        consumer.pause(*empty)
    found: list[Any] = []
    while left:
        if monotonic() > deadline:
            raise kafka_errors.KafkaTimeoutError(f"not all partitions answered within {PATIENCE_SECONDS:.0f} s")
        for messages in consumer.poll(_POLL_MS).values():
            found += messages
        left = {part for part in left if consumer.position(part, timeout_ms=_ANSWER_MS) < ends[part]}
    found.sort(key=lambda message: (message.timestamp, message.partition, message.offset))
    return found[max(0, len(found) - count) :]
