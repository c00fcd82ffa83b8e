"""Snapshots in a real topic of facts: who writes them, where a reader begins, and what is torn is passed by."""

from collections.abc import Iterator, Sequence
from uuid import uuid4

import msgspec
import pytest
import structlog
from daemon_process import wait_for
from kafka_house import all_of, kafka_house
from servers.kafka import KafkaServer

from collectors.clock import SystemClock
from collectors.units import SECONDS_PER_DAY
from monitor.config.input_sections import Deployment
from monitor.config.output_sections import Kafka
from monitor.config.sections import Config
from monitor.core.attribution.learning import sums_of
from monitor.core.attribution.work import Work
from monitor.core.emissions.factors import Intensity
from monitor.core.facts import Facts
from monitor.core.lessons import Lesson
from monitor.core.membership import Accounting
from monitor.log.codec import accounting_record, intensity_record, lesson_record
from monitor.log.kafka_facts import KafkaFacts
from monitor.log.kafka_writer import KafkaWriter
from monitor.log.protocol import Append
from monitor.log.snapshots import SNAPSHOT_SCHEMA, snapshot_records
from monitor.roles.control import FactsReader
from monitor.roles.fleet_control import FleetControl
from monitor.roles.leader import Leader
from monitor.roles.snapshots import Snapshots, snapshot_of

T = SECONDS_PER_DAY * 20_000.0
"""Midnight."""
DAY = SECONDS_PER_DAY
PERIODS = 144
"""Of ten minutes, a day."""


@pytest.fixture
def house(kafka: KafkaServer) -> Kafka:
    """Topics of its own for each test, stamped by their records."""
    return kafka_house(kafka)


@pytest.fixture
def writer(house: Kafka) -> Iterator[KafkaWriter]:
    writer = KafkaWriter(house)
    yield writer
    writer.close()


def lessons(begin: int, end: int) -> list[Append]:
    """Of so many periods after midnight, each standing there 25 minutes after its start, and a mix on top of each."""
    found = []
    for period in range(begin, end):
        at = T + 600.0 * period
        each = Lesson(
            gpu="L4", partition="0/2", start=at, taught_at=at + 1_500, sums=sums_of(Work(1e15, 1e12), 2_000.0 + period)
        )
        found.append(lesson_record(each, at + 1_500))
        found.append(intensity_record(Intensity(zone="DE", grams_per_kwh=float(period), source="s"), at + 1_500))
    return found


def answers(facts: Facts, moments: Sequence[float]) -> list[object]:
    return [
        (facts.accounting(), facts.intensity("DE", at), facts.learned.fit("L4", at), facts.scalars("L4", at))
        for at in moments
    ]


def all_facts(house: Kafka) -> Facts:
    topic = KafkaFacts(house)
    try:
        return FactsReader(topic)()
    finally:
        topic.close()


def test_a_reader_begins_at_the_newest_snapshot_and_answers_the_same(
    kafka: KafkaServer, house: Kafka, writer: KafkaWriter
) -> None:
    """Five days of facts, a snapshot after each of the first four: one who asks of day 4 on reads two days of them."""
    terms = Accounting(window_seconds=20.0)
    writer.append([accounting_record(terms, T)], T)
    for day in range(5):
        writer.append(lessons(PERIODS * day, PERIODS * (day + 1)), T)
        if day < 4:
            now = T + DAY * (day + 1) + 1_200.0
            assert Snapshots(house, writer).step(now)
            assert not Snapshots(house, writer).step(now + DAY - 1_200.0)
    records = all_of(kafka, house.topics.facts)
    assert len(records) == 1 + 5 * 2 * PERIODS + 4
    since = T + 3.5 * DAY
    topic = KafkaFacts(house)
    found = topic.snapshot(since)
    assert found is not None
    assert found.taken_at == T + 3 * DAY + 900.0
    # The terms; lessons since 0:10 of day 2, as 0:15 lies in the period of 0:10; the mix in force and one to come.
    assert len(found.records) == 1 + (PERIODS - 1) + 2
    behind = topic.facts(found.through)
    assert len(behind) == 2 * 2 * PERIODS + 2
    reader = FactsReader(topic, lambda: found)
    begun, everything = reader(), all_facts(house)
    moments = [T + 3.5 * DAY + 1_000.0 * step for step in range(200)]
    assert answers(begun, moments) == answers(everything, moments)
    assert begun.intensity("DE", T + DAY) == everything.intensity("DE", T + DAY)  # all facts are read for it
    writer.append(lessons(PERIODS * 5, PERIODS * 5 + 10), T)
    assert answers(reader(), moments) == answers(all_facts(house), moments)
    topic.close()


def test_a_reader_goes_on_where_it_was_when_its_connection_was_lost(house: Kafka, writer: KafkaWriter) -> None:
    """It begins at the snapshot again, and the log time is what it would have been."""
    early = intensity_record(Intensity(zone="FR", grams_per_kwh=7.0, source="s"), T + DAY - 500.0)
    writer.append(lessons(0, PERIODS), T)
    assert Snapshots(house, writer).step(T + DAY + 1_200.0)
    topic = KafkaFacts(house)
    found = topic.snapshot(T + DAY + 1_200.0)
    assert found is not None
    before = topic.facts(found.through)
    topic._let_go()
    writer.append([early], T)  # stamped before what stands there: its log time is that of what stands before it
    after = topic.facts(before[-1].offset)
    assert [record.stamp for record in [*before, *after]] == [T + DAY + 1_200.0] * 2
    topic.close()


def test_a_torn_one_and_a_strangers_are_passed_by(house: Kafka, writer: KafkaWriter) -> None:
    """The one before them counts; where there is none, everything is read."""
    writer.append(lessons(0, PERIODS), T)
    now = T + DAY + 1_200.0
    topic = KafkaFacts(house)
    assert topic.snapshot(now) is None
    assert Snapshots(house, writer).step(now)
    first = topic.snapshot(now)
    assert first is not None
    newer = snapshot_of(topic.facts())
    assert newer is not None
    (part,) = snapshot_records(newer)
    torn = msgspec.msgpack.encode(msgspec.msgpack.decode(part.body) | {"parts": 2})
    for body in (torn, b"no snapshot", torn[:-1]):
        writer.append([msgspec.structs.replace(part, body=body)], now + 60.0)
    with structlog.testing.capture_logs() as said:
        assert topic.snapshot(now + 120.0) == first
    assert [each["event"] for each in said] == ["a snapshot of the facts is passed by"] * 2
    writer.append([part], now + 60.0)
    assert topic.snapshot(now + 120.0) == newer
    assert topic.snapshot(now + 4 * DAY) is None
    topic.close()


def test_the_leader_of_a_fleet_writes_one(kafka: KafkaServer, house: Kafka) -> None:
    """By the brokers' clock, once what it states stands there; the facts' readers pass it by."""
    facts = kafka.create_topic(f"t-{uuid4().hex[:8]}.facts", message_timestamp_type="LogAppendTime", retention_ms=-1)
    live = msgspec.structs.replace(house, clock="broker", topics=msgspec.structs.replace(house.topics, facts=facts))
    config = Config(kafka=live, deployments=(Deployment(name="chat", model="m", hosts=("a",)),))
    writer, leader = KafkaWriter(live), Leader(live)
    control = FleetControl(config, writer, leader, clock=SystemClock())
    try:
        wait_for("a step of who leads", lambda: control.step() > 1.0)
    finally:
        control.close()
        leader.stop()
        writer.close()
    schemas = [dict(message.headers)["schema"].decode() for message in all_of(kafka, facts)]
    assert schemas == ["deployment.v1", SNAPSHOT_SCHEMA]
    topic = KafkaFacts(live)
    now = SystemClock().now()
    found = topic.snapshot(now)
    assert found is not None
    assert (found.through, [record.schema for record in found.records]) == (1, ["deployment.v1"])
    assert topic.snapshot(found.taken_at - 1.0) is None
    begun = FactsReader(topic, lambda: topic.snapshot(now))()
    assert [place.host for place in begun.places("m", "", now + 60.0)] == ["a"]
    topic.close()
