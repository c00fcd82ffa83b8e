"""Topics of the house on the test broker, under names of their own, and what stands in them."""

import itertools
from uuid import uuid4

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from servers.kafka import KafkaServer

from monitor.config.output_sections import Kafka, KafkaTopics
from monitor.log.codec import Decoder
from monitor.log.protocol import LogRecord
from monitor.log.usage_wire import UsageBatch


def kafka_house(server: KafkaServer, partitions: int = 4) -> Kafka:
    """[kafka] with topics that nobody else uses, stamped by their records."""
    name = f"t-{uuid4().hex[:8]}"
    topics = KafkaTopics(
        readings=f"{name}.readings",
        usage=f"{name}.usage",
        facts=f"{name}.facts",
        dead_letters=f"{name}.letters",
        partitions=partitions,
    )
    one = (topics.facts, topics.dead_letters)
    for topic in (topics.readings, topics.usage, *one):
        server.create_topic(
            topic, 1 if topic in one else partitions, message_timestamp_type="CreateTime", retention_ms=-1
        )
    return Kafka(bootstrap_servers=(server.bootstrap,), topics=topics, group=name, clock="records")


def all_of(server: KafkaServer, topic: str) -> list[ConsumerRecord]:
    """Every record of the topic, partition by partition."""
    consumer = KafkaConsumer(bootstrap_servers=server.bootstrap, auto_offset_reset="earliest")
    try:
        parts = [TopicPartition(topic, part) for part in consumer.partitions_for_topic(topic)]
        consumer.assign(parts)
        ends = consumer.end_offsets(parts)
        records: list[ConsumerRecord] = []
        while any(consumer.position(part) < ends[part] for part in parts):
            records += itertools.chain.from_iterable(consumer.poll(200).values())
        return sorted(records, key=lambda record: (record.partition, record.offset))
    finally:
        consumer.close()


def log_record(message: ConsumerRecord) -> LogRecord:
    """The record of the usage stream that this message is."""
    return LogRecord(
        stream="usage",
        offset=message.offset,
        stamp=message.timestamp / 1_000,
        key=message.key.decode(),
        schema=dict(message.headers)["schema"].decode(),
        body=message.value,
    )


def usages_of(server: KafkaServer, house: Kafka) -> list[tuple[str, str, float]]:
    """(request id, host, weight) of every part in the usage stream, sorted; a part stored twice is there twice."""
    decoder = Decoder()
    found = []
    for message in all_of(server, house.topics.usage):
        batch = decoder.decode(log_record(message))
        assert isinstance(batch, UsageBatch)
        found += [(usage.request_id, usage.host, usage.weight) for usage in batch.usages()]
    return sorted(found)
