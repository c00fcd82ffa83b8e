"""What brokers will never take, out of files, posts and topics: records fit, and what is refused is said to be."""

import base64
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import httpx2
import msgspec
import pytest
from daemon_process import wait_for
from kafka import KafkaProducer
from kafka_house import all_of, kafka_house, usages_of
from servers.kafka import KafkaServer

from collectors.clock import SystemClock
from monitor.config.input_sections import Source
from monitor.config.output_sections import Kafka
from monitor.config.sections import Config
from monitor.core.facts import Facts
from monitor.core.usage import Usage
from monitor.log.kafka_writer import KafkaWriter, LetterRecord
from monitor.log.protocol import Append, DeadLetter
from monitor.roles.ingest import FileIngest
from monitor.roles.ingest_group import GroupedAppends, _Entry
from monitor.roles.ingest_http import HttpIngest
from monitor.roles.ingest_kafka import KafkaIngest
from monitor.roles.placement import Placer

T = 1_712_043_380.0
MANY = 12_000
NARROW_BYTES = 700
"""Of a topic that takes a small request and not a large one."""


def line(request_id: str, **more: object) -> bytes:
    told = {"request_id": request_id, "model": "m", "team": "search", "host": "gpu-01", "start": T, "end": T + 2.5}
    return msgspec.json.encode(told | more) + b"\n"


def noise(name: str) -> str:
    """256 bytes that nothing makes shorter."""
    digests = b"".join(sha256(f"{name}{number}".encode()).digest() for number in range(6))
    return base64.b85encode(digests).decode().replace('"', "a").replace("\\", "b")[:240]


def large(request_id: str) -> bytes:
    return line(request_id, model=noise("m"), team=noise("t"), deployment=noise("d"), provider=noise("p"))


@pytest.fixture
def house(kafka: KafkaServer) -> Kafka:
    return msgspec.structs.replace(kafka_house(kafka), clock="broker")


@pytest.fixture
def narrow(kafka: KafkaServer, house: Kafka) -> Kafka:
    """The same with a topic of usage that takes small records alone."""
    small = kafka.create_topic(f"{house.topics.usage}.small", 1, max_message_bytes=NARROW_BYTES)
    return msgspec.structs.replace(house, topics=msgspec.structs.replace(house.topics, usage=small))


@pytest.fixture
def writer(narrow: Kafka) -> Iterator[KafkaWriter]:
    writer = KafkaWriter(narrow)
    yield writer
    writer.close()


def file_ingest(writer: KafkaWriter, folder: Path, content: bytes) -> FileIngest:
    path = folder / "events.jsonl"
    path.write_bytes(content)
    return FileIngest(writer, Config(), [Source(name="s", kind="file", path=path)], folder, Placer(Facts(())))


def post(ingest: HttpIngest, body: bytes) -> httpx2.Response:
    with httpx2.Client(trust_env=False, timeout=60.0) as client:
        url = f"http://127.0.0.1:{ingest.ports['s']}/v1/events"
        return client.post(url, content=body, headers={"content-type": "application/x-ndjson"})


def letters_of(kafka: KafkaServer, house: Kafka) -> list[LetterRecord]:
    return [msgspec.json.decode(each.value, type=LetterRecord) for each in all_of(kafka, house.topics.dead_letters)]


def test_a_long_file_of_one_host(kafka: KafkaServer, house: Kafka, tmp_path: Path) -> None:
    """12 000 requests of one host, met at once, are records that the brokers take: none is refused, none is missing."""
    writer = KafkaWriter(house)
    ingest = file_ingest(writer, tmp_path, b"".join(line(f"chatcmpl-{number:032x}") for number in range(MANY)))
    while ingest.read(T + 60.0):
        pass
    ingest.close()
    writer.close()
    assert (ingest.counts.accepted["s"], writer.refused) == (MANY, 0)
    assert len({request_id for request_id, _, _ in usages_of(kafka, house)}) == MANY
    assert max(len(record.value) for record in all_of(kafka, house.topics.usage)) <= 512 * 2**10


def test_many_posts_of_one_host(kafka: KafkaServer, house: Kafka) -> None:
    """The same for posts, which wait for each other and go out together."""
    writer = KafkaWriter(house)
    appends = GroupedAppends(writer, SystemClock())
    appends.start()
    part = Usage(request_id="", model="m", start=T, end=T, namespace="n", team="t", host="gpu-01")
    events = [[msgspec.structs.replace(part, request_id=f"chatcmpl-{number:032x}")] for number in range(MANY)]
    assert appends.store(events, []) == []
    appends.stop()
    writer.close()
    assert writer.refused == 0
    assert len({request_id for request_id, _, _ in usages_of(kafka, house)}) == MANY


def test_lines_that_the_brokers_never_take(
    kafka: KafkaServer, narrow: Kafka, writer: KafkaWriter, tmp_path: Path
) -> None:
    """A refused record's requests are rejected as `refused`, not accepted; the record is a dead letter."""
    ingest = file_ingest(writer, tmp_path, line("small", host="gpu-02") + large("large"))
    while ingest.read(T + 60.0):
        pass
    ingest.close()
    assert usages_of(kafka, narrow) == [("small", "gpu-02", 1.0)]
    assert (ingest.counts.accepted["s"], ingest.counts.rejected) == (1, {("s", "refused"): 1})
    assert [each.reason for each in letters_of(kafka, narrow)] == ["refused"]


def test_posts_that_the_brokers_never_take(kafka: KafkaServer, narrow: Kafka, writer: KafkaWriter) -> None:
    """The sender learns which of the events they are, and that it is of no use to send those again."""
    source = Source(name="s", kind="http", listen="127.0.0.1:0")
    ingest = HttpIngest(writer, Config(), [source], Placer(Facts(())), SystemClock())
    ingest.start()
    try:
        answer = post(ingest, b"no json\n" + line("small", host="gpu-02") + large("large") + line("b", host="gpu-03"))
    finally:
        ingest.stop()
    told = answer.json()
    assert (answer.status_code, told["accepted"], told["rejected_count"]) == (400, 2, 2)
    assert [(each["index"], each["reason"]) for each in told["rejected"]] == [(0, "not_json"), (2, "refused")]
    assert ingest.counts.accepted == {"s": 2}
    assert ingest.counts.rejected == {("s", "not_json"): 1, ("s", "refused"): 1}


def test_each_post_of_a_group_learns_of_its_own() -> None:
    """Of posts that are stored together each is told the index among its own events."""

    class Log:
        """Refuses every record of host "bad"."""

        def append(self, records: list[Append], now: float) -> list[Append]:
            return [record for record in records if record.key == "bad"]

        def reject(self, letters: list[DeadLetter]) -> None:
            pass

    def parts(*hosts: str) -> list[Usage]:
        part = Usage(request_id="r", model="m", start=T, end=T, namespace="n", team="t", host="h")
        return [msgspec.structs.replace(part, host=host) for host in hosts]

    appends = GroupedAppends(Log(), SystemClock())  # type: ignore[arg-type]
    group = [
        _Entry([parts("a"), parts("a", "bad")], []),
        _Entry([], []),
        _Entry([parts("bad"), parts("b"), parts("b", "bad")], []),
    ]
    appends._write(group)
    assert [entry.refused for entry in group] == [[1], [], [0, 2]]


def test_messages_that_the_brokers_never_take(kafka: KafkaServer, narrow: Kafka, writer: KafkaWriter) -> None:
    """Of a gateway's topic too; the messages behind are read on."""
    topic = kafka.create_topic(f"{narrow.group}.events", 1, message_timestamp_type="CreateTime", retention_ms=-1)
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    for value in (line("small", host="gpu-02"), large("large"), line("b", host="gpu-03")):
        producer.send(topic, value)
    producer.close()
    config = Config(kafka=narrow, sources=(Source(name="s", kind="kafka", topics=(topic,)),))
    ingest = KafkaIngest(config, writer, clock=SystemClock())

    def all_read() -> bool:
        ingest.step()
        return ingest.counts.accepted["s"] + sum(ingest.counts.rejected.values()) == 3

    wait_for("three messages", all_read)
    ingest.close()
    assert (ingest.counts.accepted["s"], ingest.counts.rejected) == (2, {("s", "refused"): 1})
    assert {request_id for request_id, _, _ in usages_of(kafka, narrow)} == {"small", "b"}
