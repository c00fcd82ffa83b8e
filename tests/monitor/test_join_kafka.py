"""Gateway and engine tell of the same requests, on a real broker: one request each, killed and restarted or not."""

import msgspec
from daemon_process import wait_for
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka_house import all_of, kafka_house, log_record
from servers.kafka import KafkaServer

from collectors.clock import Clock, SystemClock
from monitor.config.input_sections import Source
from monitor.config.output_sections import Kafka
from monitor.config.sections import Config
from monitor.core.usage import Usage
from monitor.log.codec import Decoder
from monitor.log.kafka_writer import KafkaWriter
from monitor.log.usage_wire import UsageBatch
from monitor.roles.ingest_kafka import KafkaIngest

NOON = 1_780_000_000.0


def house_of(kafka: KafkaServer) -> Kafka:
    house = kafka_house(kafka, partitions=2)
    topics = msgspec.structs.replace(house.topics, requests=f"{house.group}.requests")
    for topic, partitions in ((topics.requests, 2), (f"{house.group}.gateway", 1), (f"{house.group}.engine", 1)):
        kafka.create_topic(topic, partitions, message_timestamp_type="CreateTime", retention_ms=-1)
    return msgspec.structs.replace(house, topics=topics)


def ingest_of(house: Kafka, writer: KafkaWriter, clock: Clock | None = None) -> KafkaIngest:
    sources = tuple(
        Source(name=part, kind="kafka", topics=(f"{house.group}.{part}",), part=part)  # type: ignore[arg-type]
        for part in ("gateway", "engine")
    )
    return KafkaIngest(Config(kafka=house, sources=sources), writer, clock=clock or SystemClock())


def put(producer: KafkaProducer, house: Kafka, part: str, number: int, at: float) -> None:
    said: dict[str, object] = {"request_id": f"r{number:03d}", "model": "m", "start": NOON, "end": NOON + 5}
    said |= {"team": "t", "input_tokens": 9} if part == "gateway" else {"host": "gpu-1", "start": NOON + 1}
    raw = msgspec.json.encode(said)
    producer.send(f"{house.group}.{part}", raw, timestamp_ms=round((NOON + at) * 1_000))


def usages(kafka: KafkaServer, house: Kafka) -> dict[str, set[tuple[str, str, int | None, float | None]]]:
    """(host, team, input tokens, scheduled) of every request; more than one is a request twice."""
    found: dict[str, set[tuple[str, str, int | None, float | None]]] = {}
    for message in all_of(kafka, house.topics.usage):
        batch = Decoder().decode(log_record(message))
        assert isinstance(batch, UsageBatch)
        for usage in batch.usages():
            found.setdefault(usage.request_id, set()).add(_told(usage))
    return found


def _told(usage: Usage) -> tuple[str, str, int | None, float | None]:
    return usage.host, usage.team, usage.input_tokens, usage.scheduled


def test_joined_alone_and_too_late(kafka: KafkaServer) -> None:
    """Two halves are one request; one that waited a minute goes alone, and what comes to it later is counted."""
    house = house_of(kafka)
    producer, writer = KafkaProducer(bootstrap_servers=kafka.bootstrap), KafkaWriter(house)
    for number in range(20):
        put(producer, house, "gateway", number, number / 10)
        put(producer, house, "engine", number, number / 10 + 1)
    put(producer, house, "engine", 100, 10.0)
    for number in range(200, 240):  # move log time on in both partitions, behind the wait of the one before
        put(producer, house, "engine", number, 100.0 + number)
        put(producer, house, "gateway", number, 100.0 + number)
    put(producer, house, "gateway", 100, 345.0)
    producer.flush()
    ingest = ingest_of(house, writer)
    while len(usages(kafka, house)) < 61 or ingest.unjoined < 1:
        ingest.step()
    ingest.close()
    details = {source.name: source.detail for source in ingest.snapshots()}
    assert details == {"gateway": "1 halves of requests came too late to be joined", "engine": ""}
    found = usages(kafka, house)
    assert found["r100"] == {("gpu-1", "unknown", None, None)}
    assert {each for number in range(20) for each in found[f"r{number:03d}"]} == {("gpu-1", "t", 9, NOON + 1)}
    assert ingest.unjoined == 1
    producer.close()
    writer.close()


def test_restarted_at_every_step(kafka: KafkaServer) -> None:
    """Ingest that is stopped after every few steps hands on each request once, joined, from what it had committed."""
    house = house_of(kafka)
    producer, writer = KafkaProducer(bootstrap_servers=kafka.bootstrap), KafkaWriter(house)
    seen = 0
    for round_ in range(5):
        for number in range(round_ * 10, round_ * 10 + 10):
            put(producer, house, "gateway", number, float(number))
            if number >= 3:
                put(producer, house, "engine", number - 3, float(number))
        producer.flush()
        ingest = ingest_of(house, writer)
        wanted = max(0, round_ * 10 + 7)
        while seen < wanted:
            ingest.step()
            seen = len(usages(kafka, house))
        ingest.close()
    assert usages(kafka, house) == {f"r{number:03d}": {("gpu-1", "t", 9, NOON + 1)} for number in range(47)}
    producer.close()
    writer.close()


class Later(SystemClock):
    """A clock that is ahead: it has waited already."""

    def now(self) -> float:
        return super().now() + 3_000.0


def test_a_half_that_waits_at_a_restart_is_let_go_without_another(kafka: KafkaServer) -> None:
    """On a quiet topic its wait is over by the clock, also in the hands of who read it again."""
    house = msgspec.structs.replace(house_of(kafka), clock="broker")
    producer, writer = KafkaProducer(bootstrap_servers=kafka.bootstrap), KafkaWriter(house)
    put(producer, house, "engine", 7, 0.0)
    producer.flush()
    ingest = ingest_of(house, writer)
    group = f"{house.group}-join"
    wait_for("the half to be committed", lambda: ingest.step() is None or _words(kafka, group, house.topics.requests))
    ingest.close()
    assert usages(kafka, house) == {}
    other = ingest_of(house, writer, Later())
    wait_for("the request", lambda: other.step() is None or usages(kafka, house))
    other.close()
    assert usages(kafka, house) == {"r007": {("gpu-1", "unknown", None, None)}}
    producer.close()
    writer.close()


def _words(kafka: KafkaServer, group: str, topic: str) -> list[str]:
    """What the group has committed beside its offsets."""
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap, group_id=group, enable_auto_commit=False)
    try:
        parts = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
        found = [consumer.committed(part, metadata=True) for part in parts]
        return [each.metadata for each in found if each is not None]
    finally:
        consumer.close()
