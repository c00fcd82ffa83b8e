"""Faults on the way into Kafka: a broker that is killed and comes back, records gone before they were read."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from conftest import served
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka_house import all_of, kafka_house, usages_of
from servers.kafka import KafkaServer

from collectors.clock import SystemClock
from monitor.config.input_sections import Source
from monitor.config.sections import Config
from monitor.log.kafka_writer import KafkaWriter
from monitor.log.protocol import Append, LogUnavailable
from monitor.roles.ingest_kafka import KafkaIngest

NOON = 1_780_000_000.0


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[KafkaServer]:
    """A broker that a test may kill."""
    yield from served(KafkaServer, tmp_path / "kafka")


def usage(number: int) -> Append:
    body = number.to_bytes(4, "big")
    return Append(stream="usage", key=f"gpu-{number % 5}", schema="usage.v1", body=body, stamp=NOON + number)


def test_a_broker_killed_while_records_are_sent(own_kafka: KafkaServer) -> None:
    """What was stored without an error is there when the broker is back; what was not is given again, and then is."""
    house = kafka_house(own_kafka)
    writer = KafkaWriter(house)
    writer.append([usage(number) for number in range(100)], NOON)
    own_kafka.kill()
    writer.send([usage(number) for number in range(100, 200)], NOON)
    with pytest.raises(LogUnavailable):
        writer.flush(NOON, timeout_seconds=2.0)
    own_kafka.start()
    while True:
        try:
            writer.append([usage(number) for number in range(100, 300)], NOON)
            break
        except LogUnavailable:
            continue
    writer.close()
    found = {int.from_bytes(record.value, "big") for record in all_of(own_kafka, house.topics.usage)}
    assert found == set(range(300))


def test_retention_passed_the_committed_offset(kafka: KafkaServer) -> None:
    """Messages deleted before they were read are counted; reading goes on at the oldest that is there."""
    house = kafka_house(kafka)
    topic = kafka.create_topic(f"{house.group}.events", 1, message_timestamp_type="CreateTime")
    config = Config(kafka=house, sources=(Source(name="gateway", kind="kafka", topics=(topic,)),))
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    writer = KafkaWriter(house)

    def put(numbers: range) -> None:
        for number in numbers:
            told = {"request_id": f"r{number}", "model": "m", "host": "a", "start": NOON, "end": NOON + 1}
            producer.send(topic, msgspec.json.encode(told), timestamp_ms=round(NOON * 1_000))
        producer.flush()

    def take(events: int) -> KafkaIngest:
        ingest = KafkaIngest(config, writer, clock=SystemClock())
        while ingest.counts.accepted["gateway"] < events:
            ingest.step()
        ingest.close()
        return ingest

    put(range(10))
    assert take(10).lost_messages.total() == 0
    put(range(10, 30))
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    admin.delete_records({TopicPartition(topic, 0): 25})
    admin.close()
    assert take(5).lost_messages == Counter(gateway=15)
    producer.close()
    writer.close()
    ids = sorted(int(request_id[1:]) for request_id, _, _ in usages_of(kafka, house))
    assert ids == [*range(10), *range(25, 30)]
