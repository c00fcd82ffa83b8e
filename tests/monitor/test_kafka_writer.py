"""Into Kafka: what the writer says is stored is stored, with its key, schema and stamp, and refusals stop nothing."""

import base64
import threading
from collections.abc import Iterator
from hashlib import sha256

import msgspec
import pytest
import structlog
from daemon_process import wait_for
from kafka_house import all_of, kafka_house
from servers.kafka import KafkaServer

from monitor.config.output_sections import Kafka, KafkaTopics
from monitor.log.codec import tick_record
from monitor.log.kafka_writer import KafkaWriter, LetterRecord
from monitor.log.protocol import Append, DeadLetter, LogUnavailable

NOON = 1_780_000_000.0
LETTER = DeadLetter(source="gateway", position="3/17", reason="undecodable", detail="no JSON", sha256="ab", at=NOON)


@pytest.fixture
def house(kafka: KafkaServer) -> Kafka:
    """Topics of its own for each test, with four partitions."""
    return kafka_house(kafka)


@pytest.fixture
def writer(house: Kafka) -> Iterator[KafkaWriter]:
    writer = KafkaWriter(house)
    yield writer
    writer.close()


def usage(key: str, body: bytes, stamp: float | None = None) -> Append:
    return Append(stream="usage", key=key, schema="usage.v1", body=body, stamp=stamp)


def test_key_schema_body_and_stamp(kafka: KafkaServer, house: Kafka, writer: KafkaWriter) -> None:
    """A record has its host as key, its schema as header, its body unchanged, and its own stamp where it has one."""
    writer.append([usage("gpu-ü", b"\x00\xff", NOON + 0.25), usage("gpu-ü", b"second")], NOON + 1)
    first, second = all_of(kafka, house.topics.usage)
    assert (first.key.decode(), first.headers, first.value) == ("gpu-ü", [("schema", b"usage.v1")], b"\x00\xff")
    assert (first.timestamp, second.timestamp) == (1_780_000_000_250, 1_780_000_001_000)
    assert writer.acknowledged == 2


def test_broker_stamps_in_live_use(kafka: KafkaServer, house: Kafka) -> None:
    """With clock = "broker" the writer's own stamp goes nowhere: log time is the broker's alone."""
    live = KafkaWriter(msgspec.structs.replace(house, clock="broker"))
    live.append([usage("gpu-1", b"1", stamp=12.0)], 12.0)
    live.close()
    (record,) = all_of(kafka, house.topics.usage)
    assert record.timestamp > 1_700_000_000_000


def test_order_and_partition(kafka: KafkaServer, house: Kafka, writer: KafkaWriter) -> None:
    """Records of one host stay in order in one partition; a tick goes to the partition that is named."""
    writer.send([usage(f"gpu-{number % 7}", str(number).encode()) for number in range(700)], NOON)
    writer.send([tick_record("", stamp=NOON)], NOON, partition=3)
    writer.flush(NOON)
    records = all_of(kafka, house.topics.usage)
    for host in range(7):
        mine = [record for record in records if record.key == f"gpu-{host}".encode()]
        assert [int(record.value) for record in mine] == list(range(host, 700, 7))
        assert len({record.partition for record in mine}) == 1
    assert [record.partition for record in records if record.headers == [("schema", b"tick.v1")]] == [3]


def test_too_large_becomes_a_dead_letter(kafka: KafkaServer, house: Kafka, writer: KafkaWriter) -> None:
    """A record over the client's limit is a dead letter `refused` with its digest; those around it are stored."""
    large = b"x" * 2_000_000
    writer.append([usage("a", b"before"), usage("a", large), usage("a", b"behind")], NOON)
    assert [record.value for record in all_of(kafka, house.topics.usage)] == [b"before", b"behind"]
    (record,) = all_of(kafka, house.topics.dead_letters)
    letter = msgspec.json.decode(record.value, type=LetterRecord)
    assert (letter.source, letter.reason, letter.sha256) == (house.topics.usage, "refused", sha256(large).hexdigest())
    assert "MessageSizeTooLarge" in letter.detail
    assert writer.refused == 1


def test_refused_by_the_broker(kafka: KafkaServer, house: Kafka, writer: KafkaWriter) -> None:
    """One record that the broker refuses in a batch of many costs no other, and the writer writes on afterwards."""
    far = NOON + 50 * 365 * 86_400
    writer.append([usage("a", str(number).encode(), far if number == 40 else NOON) for number in range(100)], NOON)
    writer.append([usage("a", b"later")], NOON)
    values = {record.value for record in all_of(kafka, house.topics.usage)}
    assert values == {str(number).encode() for number in range(100) if number != 40} | {b"later"}
    (record,) = all_of(kafka, house.topics.dead_letters)
    assert "InvalidTimestamp" in msgspec.json.decode(record.value, type=LetterRecord).detail


def test_topic_with_a_smaller_limit(kafka: KafkaServer, house: Kafka, writer: KafkaWriter) -> None:
    """A batch that a topic takes only in parts is sent in parts; a record that it never takes is a dead letter."""
    small = kafka.create_topic(f"{house.topics.usage}.small", 1, max_message_bytes=10_000)
    topics = msgspec.structs.replace(house.topics, usage=small)
    narrow = KafkaWriter(msgspec.structs.replace(house, topics=topics, clock="broker"))
    noise = sha256(b"noise").digest() * 100
    bodies = [number.to_bytes(2, "big") + noise[number:] for number in range(30)]
    incompressible = b"".join(sha256(bytes([number % 256, number // 256])).digest() for number in range(2_000))
    narrow.append([usage("a", body) for body in [*bodies, incompressible, b"last"]], NOON)
    narrow.close()
    assert [record.value for record in all_of(kafka, small)] == [*bodies, b"last"]
    assert narrow.refused == 1


def test_dead_letters(kafka: KafkaServer, house: Kafka) -> None:
    """A dead letter is JSON without the body; with dead_letter_bodies the body goes along in base64."""
    for keeps in (False, True):
        writer = KafkaWriter(msgspec.structs.replace(house, dead_letter_bodies=keeps))
        writer.reject([LETTER], [b"{prompt"])
        writer.close()
    plain, whole = (msgspec.json.decode(record.value) for record in all_of(kafka, house.topics.dead_letters))
    assert plain == msgspec.to_builtins(LETTER)
    assert whole == plain | {"body": base64.b64encode(b"{prompt").decode()}


def test_a_body_too_large_to_be_kept(kafka: KafkaServer, house: Kafka) -> None:
    """Its letter is kept without it, with reason and digest, and says so; those around it have their bodies."""
    writer = KafkaWriter(msgspec.structs.replace(house, dead_letter_bodies=True))
    letters = [msgspec.structs.replace(LETTER, position=f"3/{number}") for number in range(3)]
    writer.reject(letters, [b"{one", b"x" * 800_000, b"{three"])
    writer.close()
    first, third, second = (msgspec.json.decode(record.value) for record in all_of(kafka, house.topics.dead_letters))
    assert [base64.b64decode(each["body"]) for each in (first, third)] == [b"{one", b"{three"]
    detail = second.pop("detail")
    assert detail.startswith("no JSON; its body of 800000 bytes is not kept: MessageSizeTooLarge")
    assert second == {name: value for name, value in msgspec.to_builtins(letters[1]).items() if name != "detail"}
    assert writer.refused == 0


def test_a_letter_that_no_broker_takes(house: Kafka) -> None:
    """Then it stands in the log of the daemon, whole, and is counted; nothing waits for it."""
    writer = KafkaWriter(house)
    with structlog.testing.capture_logs() as told:
        writer.reject([msgspec.structs.replace(LETTER, detail="x" * 2_000_000)])
    writer.close()
    (line,) = [each for each in told if "only in this line" in each["event"]]
    assert (line["source"], line["position"], line["sha256"]) == ("gateway", "3/17", "ab")
    assert writer.refused == 1


def test_one_threads_failure_is_not_anothers_loss(kafka: KafkaServer, house: Kafka) -> None:
    """What a thread has sent is stored when its flush returns, whatever fails for another thread in between.

    An append that fails lets go of everything that was not acknowledged; so a second thread is refused the writer.
    """
    topics = msgspec.structs.replace(house.topics, facts="nowhere")
    writer = KafkaWriter(msgspec.structs.replace(house, topics=topics))
    troubles: list[Exception] = []

    def other_role() -> None:
        fact = Append(stream="facts", key="z", schema="intensity.v1", body=b"1")
        for give in (lambda: writer.append([fact], NOON), lambda: writer.send_to("nowhere", "k", "s", b"1", NOON)):
            try:
                give()
            except (LogUnavailable, RuntimeError) as error:
                troubles.append(error)

    writer.send([usage("a", str(number).encode()) for number in range(50)], NOON)
    thread = threading.Thread(target=other_role, name="other")
    thread.start()
    thread.join()
    writer.flush(NOON)
    assert [record.value for record in all_of(kafka, house.topics.usage)] == [b"%d" % number for number in range(50)]
    assert [type(error) for error in troubles] == [RuntimeError, RuntimeError]
    writer.close()


def test_nothing_to_store_asks_no_broker() -> None:
    """Without records or letters there is nothing to wait for, so a role that has none is not held up."""
    writer = KafkaWriter(Kafka(bootstrap_servers=("127.0.0.1:9",)))
    writer.append([], NOON)
    writer.reject([])
    thread = threading.Thread(target=lambda: writer.append([], NOON))
    thread.start()
    thread.join()
    writer.close()


def test_closed_under_a_call() -> None:
    """A close waits little for a call under way, which then lets go of the connections itself; later ones are told."""
    writer = KafkaWriter(Kafka(bootstrap_servers=("127.0.0.1:9",)))
    told: list[str] = []

    def role() -> None:
        for _ in range(2):
            try:
                writer.append([usage("a", b"1")], NOON)
            except LogUnavailable as error:
                told.append(str(error))

    thread = threading.Thread(target=role)
    thread.start()
    wait_for("the call to begin", writer._in_use.locked)
    writer.close()
    thread.join()
    assert "cannot write to topic" in told[0]
    assert told[1] == "the writer into Kafka is closed: its role has ended"
    assert writer._sender._producer is None


def test_no_broker() -> None:
    """Without brokers the writer is made all the same, and each append says who does not answer and what to do."""
    writer = KafkaWriter(Kafka(bootstrap_servers=("127.0.0.1:9",)))
    with pytest.raises(LogUnavailable, match=r"Kafka at 127.0.0.1:9: cannot write to topic wattribute.usage.*check"):
        writer.append([usage("a", b"1")], NOON)
    writer.close()


def test_missing_topic(kafka: KafkaServer) -> None:
    """A topic that is not there is not made in passing, with whatever settings: it is named."""
    writer = KafkaWriter(Kafka(bootstrap_servers=(kafka.bootstrap,), topics=KafkaTopics(usage="nowhere")))
    with pytest.raises(LogUnavailable, match=r"topic nowhere.*wattribute topics check"):
        writer.append([usage("a", b"1")], NOON)
    writer.close()
