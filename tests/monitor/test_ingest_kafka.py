"""Role ingest over Kafka, on a real broker: every event becomes usage that can be read, and nothing stops it."""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec
import pytest
from kafka import KafkaProducer, TopicPartition
from kafka_house import all_of, kafka_house, usages_of
from servers.kafka import KafkaServer

from collectors.clock import SystemClock
from monitor.config.input_sections import Source
from monitor.config.output_sections import Kafka
from monitor.config.sections import Config
from monitor.core.serving import Deployment as Stated
from monitor.core.serving import FoundServer, HostServers
from monitor.log.codec import deployment_record, servers_record
from monitor.log.kafka_client import admin
from monitor.log.kafka_writer import KafkaWriter, LetterRecord
from monitor.log.protocol import Append, LogUnavailable
from monitor.roles.ingest_kafka import KafkaIngest

NOON = 1_780_000_000.0


@pytest.fixture
def house(kafka: KafkaServer) -> Kafka:
    house = kafka_house(kafka)
    kafka.create_topic(topic_of(house), 3, message_timestamp_type="CreateTime", retention_ms=-1)
    return house


@pytest.fixture
def producer(kafka: KafkaServer) -> Iterator[KafkaProducer]:
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    yield producer
    producer.close()


@pytest.fixture
def writer(house: Kafka) -> Iterator[KafkaWriter]:
    writer = KafkaWriter(house)
    yield writer
    writer.close()


@pytest.fixture
def ingest(house: Kafka, writer: KafkaWriter) -> Iterator[KafkaIngest]:
    ingest = ingest_of(house, writer)
    yield ingest
    ingest.close()


def topic_of(house: Kafka) -> str:
    return f"{house.group}.events"


def ingest_of(house: Kafka, writer: KafkaWriter, **changes: object) -> KafkaIngest:
    source = Source(name="gateway", kind="kafka", namespace="gw", topics=(topic_of(house),))
    config = Config(kafka=house, sources=(source,), **changes)  # type: ignore[arg-type]
    return KafkaIngest(config, writer, clock=SystemClock())


def event(number: int, **fields: object) -> dict[str, object]:
    start = NOON + number / 10
    return {
        "request_id": f"r{number:04d}",
        "model": "m",
        "host": f"gpu-{number % 3}",
        "start": start,
        "end": start + 2.0,
        "input_tokens": 100,
        "output_tokens": 20,
    } | fields


def put(
    producer: KafkaProducer, house: Kafka, value: bytes | None, part: int = 0, at: float = NOON, **more: object
) -> None:
    key = b"any" if value is None else None
    producer.send(topic_of(house), value, key=key, partition=part, timestamp_ms=round(at * 1_000), **more)


def drain(ingest: KafkaIngest, events: int) -> None:
    """Steps until so many events were taken or refused; the test's own time limit is the patience."""
    while sum(ingest.counts.accepted.values()) + sum(ingest.counts.rejected.values()) < events:
        ingest.step()


def ids(found: list[tuple[str, str, float]]) -> list[str]:
    return [request_id for request_id, _, _ in found]


def test_events_of_all_partitions_once_each(
    kafka: KafkaServer, house: Kafka, producer: KafkaProducer, ingest: KafkaIngest
) -> None:
    """Objects, arrays and lines of events, in any partition under any key, become usage keyed by their hosts."""
    for number in range(300):
        put(producer, house, msgspec.json.encode(event(number)), number % 3, NOON + number / 10)
    put(producer, house, msgspec.json.encode([event(number) for number in range(300, 350)]))
    put(producer, house, b"\n".join(msgspec.json.encode(event(number)) for number in range(350, 400)) + b"\n")
    put(producer, house, msgspec.json.format(msgspec.json.encode(event(400)), indent=2))
    producer.flush()
    drain(ingest, 401)
    found = usages_of(kafka, house)
    assert found == [(f"r{number:04d}", f"gpu-{number % 3}", 1.0) for number in range(401)]
    assert ingest.counts.accepted == Counter(gateway=401)
    assert [each.messages for each in ingest.lag()] == [0, 0, 0]


def test_usage_is_keyed_by_host_and_many_to_a_record(
    kafka: KafkaServer, house: Kafka, producer: KafkaProducer, ingest: KafkaIngest
) -> None:
    """Events of one poll share a record per host; its key is the host, its stamp the log time of its events."""
    for number in range(90):
        put(producer, house, msgspec.json.encode(event(number)), 0, NOON + number / 10)
    producer.flush()
    drain(ingest, 90)
    records = all_of(kafka, house.topics.usage)
    assert {record.key for record in records} == {b"gpu-0", b"gpu-1", b"gpu-2"}
    assert len(records) <= 30
    assert max(record.timestamp for record in records) == round((NOON + 8.9) * 1_000)


def test_bad_messages_stop_nothing(
    kafka: KafkaServer, house: Kafka, producer: KafkaProducer, ingest: KafkaIngest
) -> None:
    """Whatever stands in a topic: what cannot be used is a dead letter with its place, and the rest is read."""
    good = msgspec.json.encode(event(1))
    bad: list[tuple[bytes | None, str]] = [
        (None, "no_value"),
        (b"", "empty"),
        (b"\xff\xfe{", "not_utf8"),
        (good[:-5], "truncated"),
        (b"\x1f\x8b\x08\x00\x00", "not_utf8"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "too_deep"),
        (b"[" * 10_000 + b"]" * 10_000, "too_deep"),
        (b'"text"', "not_object"),
        (msgspec.json.encode(event(2, start=float(2**40))), "wrong_time_unit"),
        (good.replace(b'"input_tokens":100', b'"input_tokens":NaN'), "not_finite"),
        (msgspec.json.encode(event(3, end=NOON - 5.0)), "end_before_start"),
        (msgspec.json.encode(event(4, start=NOON + 9e6, end=NOON + 9e6)), "future"),
        (msgspec.json.encode(event(5, input_tokens=-1)), "tokens_negative"),
        (msgspec.json.encode(event(6, schema="wattribute.request.v2")), "schema_version"),
        (msgspec.json.encode(event(7, request_id="x" * 1_000)), "text_too_long"),
        (msgspec.json.encode(event(8, host=None, model="nobody's")), "unplaced"),
    ]
    for value, _ in bad:
        put(producer, house, value)
        put(producer, house, good, headers=[("foreign", b"\xff"), ("schema", b"other")])
    producer.flush()
    drain(ingest, 2 * len(bad))
    letters = [
        msgspec.json.decode(record.value, type=LetterRecord) for record in all_of(kafka, house.topics.dead_letters)
    ]
    assert [(letter.position, letter.reason) for letter in letters] == [
        (f"0/{2 * number}", reason) for number, (_, reason) in enumerate(bad)
    ]
    assert {letter.source for letter in letters} == {topic_of(house)}
    assert ingest.counts.unplaced_tokens == Counter({("gateway", "input"): 100, ("gateway", "output"): 20})
    assert ids(usages_of(kafka, house)) == ["r0001"] * len(bad)


def test_one_bad_event_of_many(kafka: KafkaServer, house: Kafka, producer: KafkaProducer, ingest: KafkaIngest) -> None:
    """Of an array or of lines only the bad event is refused, and named by its index."""
    put(producer, house, msgspec.json.encode([event(1), event(2, end=0), event(3)]))
    put(producer, house, b"\n".join([msgspec.json.encode(event(4)), b"{oops}", msgspec.json.encode(event(5))]))
    producer.flush()
    drain(ingest, 6)
    letters = [
        msgspec.json.decode(record.value, type=LetterRecord) for record in all_of(kafka, house.topics.dead_letters)
    ]
    assert [letter.position for letter in letters] == ["0/0/1", "0/1/1"]
    assert ids(usages_of(kafka, house)) == ["r0001", "r0003", "r0004", "r0005"]


def test_placed_by_facts(kafka: KafkaServer, house: Kafka, producer: KafkaProducer, writer: KafkaWriter) -> None:
    """An event without a host goes where the facts in force at its start say: deployments first, then servers found."""
    chat = Stated(name="chat", model="m", hosts=("a", "b"))
    writer.append(
        [
            deployment_record(chat, stamp=NOON - 1_000),
            servers_record(
                HostServers(host="c", servers=(FoundServer(name="vllm", models=("found",), devices=("GPU-1",)),)),
                stamp=NOON - 1_000,
            ),
            deployment_record(Stated(name="chat", model="m", hosts=("a",)), stamp=NOON + 40),
        ],
        NOON,
    )
    ingest = ingest_of(house, writer)
    put(producer, house, msgspec.json.encode(event(1, host=None)), at=NOON)
    put(producer, house, msgspec.json.encode(event(2, host=None, model="other", deployment="chat")), at=NOON)
    put(producer, house, msgspec.json.encode(event(3, host=None, model="found")), at=NOON)
    put(producer, house, msgspec.json.encode(event(1_000, host=None)), at=NOON + 100)  # starts at NOON + 100
    producer.flush()
    drain(ingest, 4)
    ingest.close()
    assert usages_of(kafka, house) == [
        ("r0001", "a", 0.5),
        ("r0001", "b", 0.5),
        ("r0002", "a", 0.5),
        ("r0002", "b", 0.5),
        ("r0003", "c", 1.0),
        ("r1000", "a", 1.0),
    ]


def test_an_unreachable_log_repeats_and_loses_nothing(
    kafka: KafkaServer, house: Kafka, producer: KafkaProducer, writer: KafkaWriter
) -> None:
    """What could not be stored is read again from memory; a new member of the group finds nothing more to do."""

    class Unreachable(KafkaWriter):
        down = 2

        def flush(self, now: float, timeout_seconds: float = 30.0) -> Sequence[Append]:
            if self.down:
                self.down -= 1
                raise LogUnavailable("away")
            return super().flush(now, timeout_seconds)

    flaky = Unreachable(house)
    ingest = ingest_of(house, flaky)
    for number in range(50):
        put(producer, house, msgspec.json.encode(event(number)), number % 3)
    producer.flush()
    failures = 0
    while ingest.counts.accepted["gateway"] < 50:
        try:
            ingest.step()
        except LogUnavailable:
            failures += 1
    ingest.close()
    flaky.close()
    assert failures == 2
    assert set(ids(usages_of(kafka, house))) == {f"r{number:04d}" for number in range(50)}
    stored = len(usages_of(kafka, house))
    other = ingest_of(house, writer)
    put(producer, house, msgspec.json.encode(event(99)))
    producer.flush()
    drain(other, 1)
    other.close()
    assert len(usages_of(kafka, house)) == stored + 1


def test_a_second_member_takes_over(
    kafka: KafkaServer, house: Kafka, producer: KafkaProducer, writer: KafkaWriter
) -> None:
    """Two members share the partitions; when one leaves the other goes on where it stopped, and no event is missing."""
    first, second = ingest_of(house, writer), ingest_of(house, writer)
    taken = 0
    for round_ in range(20):
        for number in range(round_ * 30, round_ * 30 + 30):
            put(producer, house, msgspec.json.encode(event(number)), number % 3)
        producer.flush()
        first.step()
        if round_ < 12:
            second.step()
        if round_ == 12:
            taken = second.counts.accepted["gateway"]
            second.close()
    while first.counts.accepted["gateway"] + taken < 600 or len(set(ids(usages_of(kafka, house)))) < 600:
        first.step()
    first.close()
    found = ids(usages_of(kafka, house))
    assert sorted(set(found)) == [f"r{number:04d}" for number in range(600)]
    assert taken > 0
    assert len(found) - 600 <= 60  # read twice: at most what was under way when partitions changed hands


def test_a_step_that_outlasts_the_close_leaves_the_group_when_it_ends(
    house: Kafka, producer: KafkaProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a reload the process lives on: its old reader must not keep the partitions from the new one."""
    under_way, may_end = threading.Event(), threading.Event()

    class Slow(KafkaWriter):
        def flush(self, now: float, timeout_seconds: float = 30.0) -> None:
            under_way.set()
            assert may_end.wait(30.0)
            super().flush(now, timeout_seconds)

    def state() -> str:
        with admin(house) as client:
            return str(client.describe_groups([group])[group]["group_state"])

    def read() -> None:
        while not under_way.is_set():
            ingest.step()

    monkeypatch.setattr("monitor.roles.ingest_kafka.CLOSE_SECONDS", 0.1)
    group, slow = f"{house.group}-ingest", Slow(house)
    ingest = ingest_of(house, slow)
    put(producer, house, msgspec.json.encode(event(1)))
    producer.flush()
    loop = threading.Thread(target=read)
    loop.start()
    assert under_way.wait(30.0)
    ingest.close()
    assert state() == "Stable"
    may_end.set()
    loop.join()
    slow.close()
    assert state() == "Empty"


def test_what_is_lost_is_told_of_its_source(kafka: KafkaServer, house: Kafka, producer: KafkaProducer) -> None:
    """Two sources in one process: retention passed one of them, and the other one's line says nothing of it."""
    writer, topics = KafkaWriter(house), {name: f"{house.group}.{name}" for name in ("lossy", "whole")}
    for topic in topics.values():
        kafka.create_topic(topic, 1, message_timestamp_type="CreateTime", retention_ms=-1)
    sources = tuple(Source(name=name, kind="kafka", topics=(topic,)) for name, topic in topics.items())
    config = Config(kafka=house, sources=sources)

    def read(numbers: range, wanted: int) -> KafkaIngest:
        for topic in topics.values():
            for number in numbers:
                producer.send(topic, msgspec.json.encode(event(number)), timestamp_ms=round(NOON * 1_000))
        producer.flush()
        if numbers.start:
            with admin(house) as client:
                client.delete_records({TopicPartition(topics["lossy"], 0): 5})
        ingest = KafkaIngest(config, writer, clock=SystemClock())
        drain(ingest, wanted)
        ingest.close()
        return ingest

    read(range(2), 4)
    ingest = read(range(2, 8), 9)
    writer.close()
    details = {source.name: source.detail for source in ingest.snapshots()}
    assert details == {"lossy": "3 messages were gone before they were read", "whole": ""}
