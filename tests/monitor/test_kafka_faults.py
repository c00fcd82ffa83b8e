"""What a broker and a network do to a writer and a reader: whatever was said to be stored is there, and both go on.

The broker of these tests is reached through toxiproxy: the address that it tells clients is the proxy's.
"""

import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from conftest import served
from daemon_process import wait_for
from kafka import KafkaConsumer
from servers.kafka import KafkaServer
from servers.toxiproxy import Proxy, Toxiproxy

from monitor.config.output_sections import Kafka, KafkaTopics
from monitor.log.kafka_client import client_settings
from monitor.log.kafka_writer import KafkaWriter
from monitor.log.protocol import Append, LogUnavailable

NOON = 1_780_000_000.0
HOSTS = 5


class Linked(KafkaServer):
    """A broker with a listener behind a proxy."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, listeners={"LINK": "PLAINTEXT"})


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory, toxiproxy: Toxiproxy) -> Iterator[tuple[KafkaServer, Proxy]]:
    folder = tmp_path_factory.mktemp("linked-kafka")
    made: list[Proxy] = []

    def linked(where: Path) -> KafkaServer:
        server = Linked(where)
        made.append(toxiproxy.proxy(server.ports["LINK"]))
        server.advertise("LINK", made[0].port)
        return server

    for server in served(linked, folder):
        yield server, made[0]


@pytest.fixture
def server(broker: tuple[KafkaServer, Proxy]) -> KafkaServer:
    return broker[0]


@pytest.fixture
def link(broker: tuple[KafkaServer, Proxy]) -> Iterator[Proxy]:
    """The network between clients and the broker, whole again after each test."""
    yield broker[1]
    broker[1].clear()


@pytest.fixture
def house(server: KafkaServer, link: Proxy) -> Kafka:
    """[kafka] of clients on the other side of the link, with a topic of their own."""
    topic = server.create_topic(uuid.uuid4().hex, 2)
    return Kafka(bootstrap_servers=(link.address,), topics=KafkaTopics(usage=topic))


class Writing:
    """A thread that appends batch after batch, each until it is said to be stored, as the roles do; until the end."""

    def __init__(self, house: Kafka) -> None:
        self._writer = KafkaWriter(house)
        self.stored: list[bytes] = []
        self.troubles: list[str] = []
        self._ended = False
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Writing":
        self._thread.start()
        self.goes_on()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._thread.join(60)
        self._writer.close()
        assert not self._thread.is_alive()

    def goes_on(self) -> None:
        """Returns once ten more batches are stored than now."""
        enough = len(self.stored) + 200
        wait_for("more records", lambda: len(self.stored) >= enough)

    def _run(self) -> None:
        number = 0
        while not self._ended:
            bodies = [f"{number:06d}-{each}".encode() for each in range(20)]
            records = [
                Append(stream="usage", key=f"gpu-{each % HOSTS}", schema="usage.v1", body=body)
                for each, body in enumerate(bodies)
            ]
            try:
                self._writer.append(records, NOON)
            except LogUnavailable as error:
                self.troubles.append(str(error))
            else:
                self.stored += bodies
                number += 1


def reading(house: Kafka) -> KafkaConsumer:
    consumer = KafkaConsumer(
        **client_settings(house), group_id=house.topics.usage, auto_offset_reset="earliest", request_timeout_ms=10_000
    )
    consumer.subscribe([house.topics.usage])
    return consumer


def read_until(consumer: KafkaConsumer, wanted: list[bytes]) -> list[tuple[bytes, bytes]]:
    """(key, body) of all that comes until everything wanted has come; an assertion if it never does."""
    got: list[tuple[bytes, bytes]] = []
    missing = set(wanted)

    def everything() -> bool:
        for records in consumer.poll(500).values():
            got.extend((record.key, record.value) for record in records)
            missing.difference_update(record.value for record in records)
        return not missing

    try:
        wait_for("all records", everything)
    finally:
        consumer.close(timeout_ms=2_000)
    return got


def assert_all_there_in_order(consumer: KafkaConsumer, stored: list[bytes]) -> None:
    """Each stored body is read; of each host, the first of each stand in the order in which they were written."""
    got = read_until(consumer, stored)
    known = set(stored)
    for host in range(HOSTS):
        first = list(dict.fromkeys(body for key, body in got if key == f"gpu-{host}".encode() and body in known))
        assert first == [body for body in stored if int(body.split(b"-")[1]) % HOSTS == host]


LINK_FAULTS: list[tuple[str, str, dict[str, Any]]] = [
    ("latency", "downstream", {"latency": 200, "jitter": 150}),
    ("bandwidth", "upstream", {"rate": 4}),
    ("slicer", "upstream", {"average_size": 40, "size_variation": 30, "delay": 500}),
    ("slow_close", "downstream", {"delay": 1_000}),
    ("reset_peer", "upstream", {"timeout": 100}),
    ("reset_peer", "downstream", {"timeout": 50}),  # the record is stored, its acknowledgement lost
    ("limit_data", "upstream", {"bytes": 3_000}),
    ("limit_data", "downstream", {"bytes": 700}),
    ("timeout", "upstream", {"timeout": 500}),
    ("timeout", "downstream", {"timeout": 500}),
]


@pytest.mark.parametrize(("kind", "stream", "attributes"), LINK_FAULTS)
def test_a_bad_link_costs_no_record(
    house: Kafka, link: Proxy, kind: str, stream: Any, attributes: dict[str, int]
) -> None:
    """Slow, cut, reset or silent for two seconds in one direction, in the middle of writing; then all is read back."""
    consumer = reading(house)
    with Writing(house) as writing:
        link.add(kind, stream, **attributes)
        time.sleep(2.0)
        link.clear()
        writing.goes_on()
    assert_all_there_in_order(consumer, writing.stored)


def test_a_reader_comes_through_a_bad_link(house: Kafka, link: Proxy) -> None:
    """The link goes down once a second while it reads: it gets on from where it was, and misses nothing."""
    with Writing(house) as writing:
        writing.goes_on()
    consumer = reading(house)
    ended = threading.Event()

    def flapping() -> None:
        while not ended.wait(1.0):
            link.down()
            link.up()

    thread = threading.Thread(target=flapping)
    thread.start()
    try:
        assert_all_there_in_order(consumer, writing.stored)
    finally:
        ended.set()
        thread.join()


def test_a_link_that_is_cut_and_restored(house: Kafka, link: Proxy) -> None:
    """Connections are closed and new ones refused, three times; both sides come back by themselves."""
    consumer = reading(house)
    with Writing(house) as writing:
        for _ in range(3):
            link.down()
            time.sleep(0.5)
            link.up()
            writing.goes_on()
    assert_all_there_in_order(consumer, writing.stored)


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_broker_that_goes_and_comes_back_under_writing(house: Kafka, server: KafkaServer, how: str) -> None:
    """kill -9 and an orderly stop: what was acknowledged is there, though the broker has forgotten its producers."""
    consumer = reading(house)
    with Writing(house) as writing:
        getattr(server, how)()
        server.start()
        writing.goes_on()
    assert_all_there_in_order(consumer, writing.stored)


def test_a_broker_that_stands_still(house: Kafka, server: KafkaServer) -> None:
    """SIGSTOP for twelve seconds, longer than a request may take, then SIGCONT: late, not lost."""
    consumer = reading(house)
    with Writing(house) as writing:
        server.freeze()
        time.sleep(12.0)
        server.thaw()
        writing.goes_on()
    assert_all_there_in_order(consumer, writing.stored)


def test_all_brokers_are_down_when_the_writer_comes_to_be(house: Kafka, server: KafkaServer) -> None:
    """It says who does not answer; the first append after they are up is stored."""
    server.stop()
    writer = KafkaWriter(house)
    record = Append(stream="usage", key="gpu-1", schema="usage.v1", body=b"first")
    try:
        with pytest.raises(LogUnavailable, match=rf"Kafka at {house.bootstrap_servers[0]}: cannot write to topic"):
            writer.append([record], NOON)
        server.start()
        writer.append([msgspec.structs.replace(record, body=b"second")], NOON)
    finally:
        writer.close()
    assert read_until(reading(house), [b"second"])[-1] == (b"gpu-1", b"second")
