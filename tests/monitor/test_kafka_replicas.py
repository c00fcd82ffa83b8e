"""Three brokers: a record counts as stored once two have it, and a leader that dies is no loss."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import served
from daemon_process import wait_for
from kafka import KafkaConsumer, TopicPartition
from servers.kafka_cluster import KafkaCluster

from monitor.config.output_sections import Kafka, KafkaTopics
from monitor.config.sections import Config
from monitor.log.kafka_client import client_settings
from monitor.log.kafka_topics import check_topics, create_topics
from monitor.log.kafka_writer import KafkaWriter
from monitor.log.protocol import Append, LogUnavailable

NOON = 1_780_000_000.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    yield from served(KafkaCluster, tmp_path_factory.mktemp("cluster"))


@pytest.fixture
def config(cluster: KafkaCluster) -> Config:
    """Topics with the default of three replicas, one partition each, made by the command's own code."""
    mark = uuid.uuid4().hex[:8]
    keys = ("readings", "usage", "facts", "requests", "request_energy", "dead_letters")
    names: dict[str, Any] = {key: f"{mark}.{key}" for key in keys}
    config = Config(kafka=Kafka(bootstrap_servers=cluster.bootstrap, topics=KafkaTopics(partitions=1, **names)))
    create_topics(config)
    return config


def usage(body: bytes) -> list[Append]:
    return [Append(stream="usage", key="gpu-1", schema="usage.v1", body=body)]


def bodies(config: Config) -> list[bytes]:
    """What stands in the usage topic."""
    partition = TopicPartition(config.kafka.topics.usage, 0)
    consumer = KafkaConsumer(**client_settings(config.kafka), auto_offset_reset="earliest")
    found: list[bytes] = []

    def everything() -> bool:
        found.extend(record.value for records in consumer.poll(500).values() for record in records)
        return bool(consumer.position(partition) == consumer.end_offsets([partition])[partition])

    try:
        consumer.assign([partition])
        wait_for("the end of the topic", everything)
    finally:
        consumer.close(timeout_ms=1000)
    return found


def test_topics_of_three_replicas_keep_two_in_sync(config: Config) -> None:
    """The default configuration fits a cluster of three: nothing to correct."""
    assert config.kafka.topics.replication == 3
    assert check_topics(config) == []


def test_the_leader_dies_under_writing(cluster: KafkaCluster, config: Config) -> None:
    """kill -9 of the broker that leads the partition: another leads, and what was said to be stored is there."""
    leader = cluster.lead(config.kafka.topics.usage, 2)
    writer = KafkaWriter(config.kafka)
    stored = []
    try:
        for number in range(300):
            body = b"%d" % number
            if number == 100:
                leader.kill()
            writer.append(usage(body), NOON)
            stored.append(body)
        leader.start()
    finally:
        writer.close()
    assert list(dict.fromkeys(bodies(config))) == stored


def test_one_broker_alone_takes_no_record(cluster: KafkaCluster, config: Config) -> None:
    """With two of three dead a record would stand on one disk: it is not stored, and is once a second is back.

    kafka-python tries a refusal for too few replicas again by itself and keeps it to itself; what is said in the end is
    which broker is missed, where the client tried to reach it, or what may be amiss.
    """
    missed = r"ECONNREFUSED.*other brokers are reached, and what needs"
    unsaid = r"not acknowledged in time; too few replicas may be in sync.*check that the brokers run"
    writer = KafkaWriter(config.kafka)
    _, second, third = cluster.nodes
    try:
        writer.append(usage(b"before"), NOON)
        second.kill()
        writer.append(usage(b"with two"), NOON)
        third.kill()
        with pytest.raises(LogUnavailable, match=f"{missed}|{unsaid}"):
            writer.append(usage(b"with one"), NOON)
        second.start()
        wait_for("a second replica", lambda: stores(writer, b"again with two"))
        third.start()
    finally:
        writer.close()
    found = list(dict.fromkeys(bodies(config)))
    assert found[:2] == [b"before", b"with two"]
    assert found[-1] == b"again with two"


def stores(writer: KafkaWriter, body: bytes) -> bool:
    try:
        writer.append(usage(body), NOON)
    except LogUnavailable:
        return False
    return True
