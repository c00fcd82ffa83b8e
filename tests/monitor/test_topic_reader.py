"""The reader of gateways' topics: in step by timestamps, whatever the partitions hold, and nothing lost on the way."""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
from daemon_process import wait_for
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaTimeoutError
from servers.kafka import KafkaServer
from servers.server_process import server_port

from collectors.clock import SystemClock
from monitor.config.output_sections import Kafka
from monitor.config.sections import Config
from monitor.log import kafka_group
from monitor.log.kafka_writer import KafkaWriter
from monitor.log.protocol import LogUnavailable
from monitor.roles.fleet_control import FleetControl
from monitor.roles.leader import Leader
from monitor.roles.topic_reader import AHEAD_SECONDS, TopicReader

NOON = 1_780_000_000.0


@pytest.fixture
def topic(kafka: KafkaServer) -> str:
    return kafka.create_topic(f"step-{uuid4().hex[:8]}", 4, message_timestamp_type="CreateTime", retention_ms=-1)


@pytest.fixture
def reader(kafka: KafkaServer, topic: str) -> Iterator[TopicReader]:
    reader = TopicReader(Kafka(bootstrap_servers=(kafka.bootstrap,)), [topic], topic)
    yield reader
    reader.close()


def put(kafka: KafkaServer, topic: str, moments: dict[int, list[float]]) -> None:
    """Messages of 200 bytes that compress to nothing, stamped at these moments, by partition."""
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap, linger_ms=20, batch_size=2**16, compression_type="lz4")
    for part, times in moments.items():
        for moment in times:
            producer.send(topic, b"x" * 200, partition=part, timestamp_ms=round((NOON + moment) * 1_000))
    producer.flush()
    producer.close()


def test_partitions_are_handed_on_in_step(kafka: KafkaServer, topic: str, reader: TopicReader) -> None:
    """Six hours in four partitions of unlike density: no message is a minute ahead of one that is still to come."""
    hours = 21_600
    moments = {
        0: [float(second) for second in range(0, hours, 1)],
        1: [float(second) for second in range(0, hours, 7)],
        2: [float(second) for second in range(hours // 2, hours, 2)],
        3: [],
    }
    put(kafka, topic, moments)
    given: list[tuple[int, int, float]] = []
    polls: list[list[float]] = []
    while len(given) < sum(map(len, moments.values())):
        found = reader.poll()
        now = [message.timestamp / 1_000 - NOON for messages in found.values() for message in messages]
        given += [(part.partition, message.offset, 0.0) for part, messages in found.items() for message in messages]
        if now:
            polls.append(now)
        reader.settle()
    assert sorted(given) == sorted((part, offset, 0.0) for part, all_ in moments.items() for offset in range(len(all_)))
    newest = float("-inf")
    for now in polls:
        assert newest <= min(now) + AHEAD_SECONDS + 1.0
        newest = max(newest, *now)
    assert [lag.messages for lag in reader.lag()] == [0, 0, 0, 0]


def test_again_after_a_rewind(kafka: KafkaServer, topic: str, reader: TopicReader) -> None:
    """What was not dealt with comes again, first and in order, before anything newer."""
    put(kafka, topic, {0: [float(second) for second in range(100)]})
    first: list[int] = []
    while not first:
        first = [message.offset for messages in reader.poll().values() for message in messages]
        reader.rewind()
    taken: list[int] = []
    while len(taken) < 100:
        taken += [message.offset for messages in reader.poll().values() for message in messages]
        reader.settle()
    assert taken == list(range(100))


def test_a_new_member_begins_where_the_group_stopped(kafka: KafkaServer, topic: str, reader: TopicReader) -> None:
    """Settled messages never come to the next member."""
    put(kafka, topic, {0: [0.0, 1.0]})
    count = 0
    while count < 2:
        count += sum(map(len, reader.poll().values()))
        reader.settle()
    reader.close()
    put(kafka, topic, {0: [2.0]})
    other = TopicReader(Kafka(bootstrap_servers=(kafka.bootstrap,)), [topic], topic)
    offsets: list[int] = []
    while not offsets:
        offsets = [message.offset for messages in other.poll().values() for message in messages]
        other.settle()
    other.close()
    assert offsets == [2]


def test_what_is_gone_is_counted_once(kafka: KafkaServer, topic: str, reader: TopicReader) -> None:
    """Also where the poll that joins the group is the one that finds its offset gone."""
    put(kafka, topic, {0: [0.0, 1.0]})
    while not reader.poll():
        pass
    reader.settle()
    reader.close()
    put(kafka, topic, {0: [float(second) for second in range(2, 20)]})
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    admin.delete_records({TopicPartition(topic, 0): 15})
    admin.close()
    other = TopicReader(Kafka(bootstrap_servers=(kafka.bootstrap,)), [topic], topic)
    offsets: list[int] = []
    while not offsets:
        offsets = [message.offset for messages in other.poll(10_000).values() for message in messages]
    other.close()
    assert (offsets, other.lost) == ([15, 16, 17, 18, 19], Counter({topic: 13}))


def test_why_nothing_comes_is_said(kafka: KafkaServer) -> None:
    """A topic that is not there, and a broker that is not; "" once the topic is made."""
    name, nowhere = f"later-{uuid4().hex[:8]}", f"127.0.0.1:{server_port()}"
    cases = {kafka.bootstrap: f"there is no topic {name}: make it", nowhere: f"{nowhere}: "}
    for bootstrap, words in cases.items():
        reader = TopicReader(Kafka(bootstrap_servers=(bootstrap,)), [name], name)
        try:
            assert reader.trouble == ""
            wait_for(words, lambda reader=reader: reader.poll() or reader.trouble)  # type: ignore[misc]
            assert reader.trouble.startswith(words)
            if bootstrap == kafka.bootstrap:
                kafka.create_topic(name)
                wait_for("the topic", lambda reader=reader: not reader.poll() and not reader.trouble)  # type: ignore[misc]
        finally:
            reader.close()


def why_not(control: FleetControl) -> str:
    """What keeps a step from being done; "" for nothing. Between two tries of the client no reason is known."""
    try:
        control.step()
    except LogUnavailable as error:
        return str(error)
    return ""


def test_who_cannot_be_elected_says_why() -> None:
    """Without a broker nobody leads, and role control names the address."""
    nowhere = Kafka(bootstrap_servers=(f"127.0.0.1:{server_port()}",))
    leader, writer = Leader(nowhere), KafkaWriter(nowhere)
    control = FleetControl(Config(kafka=nowhere), writer, leader, clock=SystemClock())
    try:
        said = wait_for("a reason", lambda: why_not(control))
        assert said.startswith(f"cannot stand for election: {nowhere.bootstrap_servers[0]}")
    finally:
        leader.stop()
        writer.close()


def test_who_waits_too_long_for_a_place_begins_again(
    kafka: KafkaServer, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a new client, as nothing else ends a wait for an answer that is lost; who has a place keeps his client."""
    monkeypatch.setattr(kafka_group, "OUTSIDE_SECONDS", 0.0)
    nowhere = TopicReader(Kafka(bootstrap_servers=(f"127.0.0.1:{server_port()}",)), [topic], topic)
    try:
        nowhere.poll(0)
        first = nowhere._consumer
        nowhere.poll(0)
        assert nowhere._consumer is not first
    finally:
        nowhere.close()
    monkeypatch.setattr(kafka_group, "OUTSIDE_SECONDS", 60.0)
    reader = TopicReader(Kafka(bootstrap_servers=(kafka.bootstrap,)), [topic], topic)
    try:
        wait_for("a place", lambda: not reader.poll() and len(reader._parts) == 4)
        first = reader._consumer
        monkeypatch.setattr(kafka_group, "OUTSIDE_SECONDS", 0.5)
        for _ in range(10):
            reader.poll()
        assert reader._consumer is first
    finally:
        reader.close()


def test_who_begins_again_holds_nothing_of_before(topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that has a new client has no partition until that is given one."""
    monkeypatch.setattr(kafka_group, "OUTSIDE_SECONDS", 0.0)
    member = kafka_group.GroupMember(Kafka(bootstrap_servers=(f"127.0.0.1:{server_port()}",)), topic, (topic,))
    member.take([TopicPartition(topic, 0)])
    generation = member.generation
    member._poll()
    assert (member._consumer, member.partitions, member.generation) == (None, frozenset(), generation + 1)
    monkeypatch.setattr(kafka_group, "OUTSIDE_SECONDS", 60.0)
    member._poll()
    assert member._consumer is not None
    assert member.partitions == frozenset()
    member._consumer.close(timeout_ms=0)


def test_what_was_not_dealt_with_survives_a_rebalance(kafka: KafkaServer, topic: str, reader: TopicReader) -> None:
    """A partition that stays through a rebalance begins again where the group has committed, not where it was read."""
    put(kafka, topic, {part: [float(second) for second in range(50)] for part in range(4)})
    here: set[tuple[int, int]] = set()
    while len(here) < 200:  # everything is here, and nothing of it is dealt with
        here |= {(part.partition, each.offset) for part, messages in reader.poll().items() for each in messages}
        reader.rewind()
    second = TopicReader(Kafka(bootstrap_servers=(kafka.bootstrap,)), [topic], topic)
    taken: set[tuple[int, int]] = set()
    try:
        wait_for("two partitions for each member", lambda: _shared(reader, second, taken))
        wait_for("every message", lambda: _shared(reader, second, taken) and len(taken) == 200)
    finally:
        second.close()
    assert taken == here


class _Moving:
    """A consumer whose group's coordinator is on its way to another broker: some of its answers do not come."""

    def __init__(self, consumer: KafkaConsumer, silent: TopicPartition, times: int) -> None:
        self._consumer, self._silent, self.times = consumer, silent, times

    def committed(self, part: TopicPartition, **more: Any) -> Any:
        if part == self._silent and self.times:
            self.times -= 1
            raise KafkaTimeoutError("coordinator not available")
        return self._consumer.committed(part, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)


def test_nothing_is_lost_while_the_group_does_not_answer(kafka: KafkaServer, topic: str, reader: TopicReader) -> None:
    """A rebalance whose partitions can be begun one by one: what the begun ones give meanwhile is kept."""
    put(kafka, topic, {part: [float(second) for second in range(50)] for part in range(4)})
    wait_for("the group", lambda: reader.poll() or len(reader._parts) == 4)
    reader.commit({TopicPartition(topic, part): (0, "") for part in range(4)})
    reader.close()
    reader._consumer = moving = _Moving(reader._opened(), TopicPartition(topic, 3), times=3)
    taken: list[tuple[int, int]] = []

    def all_came() -> bool:
        with suppress(LogUnavailable):
            found = reader.poll()
            taken.extend((part.partition, each.offset) for part, messages in found.items() for each in messages)
            reader.settle()
        return len(taken) == 200

    wait_for("every message", all_came)
    assert moving.times == 0
    assert sorted(taken) == [(part, offset) for part in range(4) for offset in range(50)]


def _shared(first: TopicReader, second: TopicReader, taken: set[tuple[int, int]]) -> bool:
    """Whether each of two members has two of the four partitions; what is given meanwhile is dealt with."""
    for reader in (second, first):
        found = reader.poll(200)
        if len(first._parts) == 2:  # not before the rebalance: the first reader must still hold everything in it
            taken |= {(part.partition, each.offset) for part, messages in found.items() for each in messages}
            reader.settle()
        else:
            reader.rewind()
    return len(first._parts) == len(second._parts) == 2
