"""A fleet's aggregator against the brokers: what it does when they, or the client in between, fail it."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from daemon_process import wait_for
from daemon_snapshots import healthy
from kafka import KafkaConsumer
from kafka.errors import KafkaTimeoutError
from kafka.structs import OffsetAndMetadata
from servers.kafka import KafkaServer
from servers.server_process import server_port
from taught import BYTE, FLOP, taught_for_50_minutes

from collectors.clock import SystemClock, monotonic
from collectors.units import SECONDS_PER_DAY
from monitor.config.books_sections import Store
from monitor.config.output_sections import Alert, InfluxDb, Kafka, KafkaTopics, Web
from monitor.config.sections import Config
from monitor.core.attribution.learning import fitted, total
from monitor.core.attribution.priors import PRIOR
from monitor.core.lessons import PERIOD_SECONDS, Lesson
from monitor.log.codec import Decoder, tick_record
from monitor.log.kafka_claims import Claim, parts_of
from monitor.log.kafka_client import admin
from monitor.log.kafka_facts import KafkaFacts
from monitor.log.kafka_topics import create_topics
from monitor.log.kafka_writer import KafkaWriter
from monitor.log.protocol import Append, LogUnavailable
from monitor.roles.aggregate_group import GroupAggregate, partition_of
from monitor.roles.fleet import FleetHouse
from monitor.store.open import open_store

PARTITIONS = 4


@pytest.fixture
def config(kafka: KafkaServer) -> Config:
    """Of books that nobody else keeps, with their topics."""
    return made(kafka, "records")


def made(kafka: KafkaServer, clock: Literal["broker", "records"]) -> Config:
    """Topics of names that nobody has yet, and their configuration."""
    name = f"g-{uuid.uuid4().hex[:8]}"
    topics = KafkaTopics(
        readings=f"{name}.readings",
        usage=f"{name}.usage",
        facts=f"{name}.facts",
        requests=f"{name}.requests",
        request_energy=f"{name}.request-energy",
        dead_letters=f"{name}.letters",
        partitions=PARTITIONS,
        replication=1,
    )
    house = Kafka(bootstrap_servers=(kafka.bootstrap,), topics=topics, group=name, clock=clock)
    config = Config(kafka=house, roles=("aggregate", "control"))
    create_topics(config)
    return config


@pytest.fixture
def aggregate(config: Config, tmp_path: Path) -> Iterator[GroupAggregate]:
    """It has all partitions."""
    store = open_store(config, tmp_path / "store.db")
    aggregate = GroupAggregate(config, store, clock=SystemClock())
    try:
        wait_for("all partitions", lambda: aggregate.step() is None or len(aggregate.partitions) == PARTITIONS)
        yield aggregate
    finally:
        aggregate.close()
        store.close()


def test_facts_that_cannot_be_read_cost_no_ledger(aggregate: GroupAggregate, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are asked for once, whatever the number of partitions, and every ledger goes on where it was."""
    asked = []

    class Silent(KafkaConsumer):  # type: ignore[misc]
        def end_offsets(self, *_arguments: Any, **_more: Any) -> Any:
            asked.append(monotonic())
            raise KafkaTimeoutError("the facts' broker is away")

    ledgers = dict(aggregate._ledgers)
    with monkeypatch.context() as away:
        away.setattr("monitor.log.kafka_facts.KafkaConsumer", Silent)
        aggregate._facts_log.close()  # as a connection that is lost
        with pytest.raises(LogUnavailable, match="the facts' broker is away"):
            aggregate.step()
    assert len(asked) == 1
    aggregate.step()
    assert aggregate._ledgers == ledgers
    assert aggregate.trouble == {}


def test_a_rebalance_before_a_ledger_has_read_anything_stops_nothing(kafka: KafkaServer, tmp_path: Path) -> None:
    """The feed does not know that partition then, and the quiet ones' log time is moved on without it."""
    config = made(kafka, "broker")
    store = open_store(config, tmp_path / "store.db")
    aggregate = GroupAggregate(config, store, clock=SystemClock())
    try:
        wait_for("all partitions", lambda: aggregate.step() is None or len(aggregate.partitions) == PARTITIONS)
        aggregate._feed.drop(parts_of(config.kafka, 0).values())
        aggregate._tick()
        assert sorted(aggregate.partitions) == list(range(PARTITIONS))
    finally:
        aggregate.close()
        store.close()


def test_partitions_that_are_added_behind_its_back_are_refused(config: Config, aggregate: GroupAggregate) -> None:
    """Neither the new ones, which no commit speaks of, nor those that it has: hosts have moved between them."""
    topics = config.kafka.topics
    with admin(config.kafka) as client:
        client.create_partitions({topics.readings: 6, topics.usage: 6})
    aggregate.member._consumer._cluster.request_update()  # by itself it looks every 30 s
    wait_for("a refusal", lambda: aggregate.step() and "has 6 partitions" in aggregate.waits_for)
    wait_for("the rebalance", lambda: aggregate.step() and aggregate.member.partitions == set(range(6)))
    aggregate.step()
    assert not aggregate.partitions
    assert aggregate.waits_for == (
        f"partitions 0, 1, 2, 3, 4, 5: {topics.readings} has 6 partitions and {topics.usage} has 6 partitions, but the"
        " books are kept with 4 ([kafka.topics] partitions): hosts have moved between partitions, so none is accounted;"
        " docs/fleet.md, 'More partitions', has the procedure"
    )


def test_books_of_another_number_of_partitions_are_refused_as_a_whole(
    config: Config, aggregate: GroupAggregate, tmp_path: Path
) -> None:
    """Partitions are added, and the configuration is made to agree: the new ones have no commit that refuses them."""
    topics, group = config.kafka.topics, f"{config.kafka.group}-aggregate"
    claim = Claim(n=PARTITIONS, positions={"readings": 0, "usage": 0}, watermark=0.0)
    offset = OffsetAndMetadata(0, msgspec.json.encode(claim).decode(), -1)
    aggregate.close()
    with admin(config.kafka) as client:
        client.alter_group_offsets(group, dict.fromkeys(parts_of(config.kafka, 0).values(), offset))
        client.create_partitions({topics.readings: 6, topics.usage: 6})
    six = msgspec.structs.replace(topics, partitions=6)
    wider = msgspec.structs.replace(config, kafka=msgspec.structs.replace(config.kafka, topics=six))
    store = open_store(wider, tmp_path / "store.db")
    other = GroupAggregate(wider, store, clock=SystemClock())
    try:
        with pytest.raises(LogUnavailable, match="have 6 partitions, but the books were kept with 4"):
            wait_for("a ledger", lambda: other.step() is None or other.partitions)
        assert not other.partitions
    finally:
        other.close()
        store.close()


def test_what_engines_teach_stands_among_the_facts(config: Config, tmp_path: Path) -> None:
    """Each period once, from whichever life of the aggregator, and as one that was never interrupted would say."""
    begin = 20_000 * SECONDS_PER_DAY
    hosts = ["h-0", "h-1", "h-2"]
    halves: list[list[Append]] = [[], []]
    for host in hosts:
        for record in taught_for_50_minutes(begin, host):
            stamp = record.stamp or 0.0
            halves[stamp > begin + 2_200].extend([record, tick_record(host, stamp)])
    writer, facts = KafkaWriter(config.kafka), KafkaFacts(config.kafka)
    for records in halves:
        writer.append(sorted(records, key=lambda each: each.stamp or 0.0), begin)
        ends = max(each.stamp or 0.0 for each in records) - 900.0 - 20.0
        store = open_store(config, tmp_path / "store.db")
        aggregate = GroupAggregate(config, store, clock=SystemClock())
        try:
            wait_for("the half", lambda: aggregate.step() is None or _final(aggregate, hosts) >= ends)  # noqa: B023
        finally:
            aggregate.close()
            store.close()
    told = [Decoder().decode(record) for record in facts.facts()]
    facts.close()
    writer.close()
    lessons = {(each.partition, each.start): each.sums for each in told if isinstance(each, Lesson)}
    partitions = {f"{partition_of(host, PARTITIONS)}/{PARTITIONS}" for host in hosts}
    assert lessons.keys() == {(each, begin + PERIOD_SECONDS * period) for each in partitions for period in range(5)}
    of_one_host = min(sums.windows for sums in lessons.values())
    assert of_one_host == 60
    assert sum(sums.windows for sums in lessons.values()) == len(hosts) * 300
    fit = fitted(total(lessons[key] for key in sorted(lessons)))
    assert fit.found.joules_per_flop / PRIOR.joules_per_flop == pytest.approx(FLOP, rel=0.03)
    assert fit.found.joules_per_byte / PRIOR.joules_per_byte == pytest.approx(BYTE, rel=0.03)


def _final(aggregate: GroupAggregate, hosts: list[str]) -> float:
    """Until when the books of all of them are final."""
    ledgers = [aggregate._ledgers.get(partition_of(host, PARTITIONS)) for host in hosts]
    return min(float("-inf") if ledger is None else ledger.watermark for ledger in ledgers)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_place_in_the_group_that_is_lost_for_good_ends_the_process(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the client itself breaks no partition ever comes again, and nobody leads: a restart mends it."""

    class Broken(KafkaConsumer):  # type: ignore[misc]
        def poll(self, *_arguments: Any, **_more: Any) -> Any:
            raise RuntimeError("NetworkSelector closed!")

    monkeypatch.setattr("monitor.log.kafka_group.KafkaConsumer", Broken)
    with FleetHouse(tmp_path, config) as house:
        roles = house.begin(config, host="h", clock=SystemClock(), snapshot=healthy)
        roles.start()
        try:
            told = [f"{name} has left its consumer group by an error" for name in ("aggregate", "control")]
            wait_for("both to be told", lambda: roles.troubles() == told)
        finally:
            roles.stop()


def test_who_cannot_read_the_store_takes_no_part(config: Config, tmp_path: Path) -> None:
    """A store that does not answer: no partition and no lead, which others could serve; each role says why."""
    nobody = InfluxDb(url=f"http://127.0.0.1:{server_port()}")
    blind = msgspec.structs.replace(
        config,
        roles=("aggregate", "control", "web"),
        store=Store(kind="influxdb"),
        influxdb=nobody,
        web=Web(listen=f"127.0.0.1:{server_port()}"),
        alerts=(Alert(name="hot", measure="power_watts", above=1.0, webhook_url_file=tmp_path / "url"),),
    )
    with FleetHouse(tmp_path, blind) as house:
        roles = house.begin(blind, host="h1", clock=SystemClock(), snapshot=healthy)
        roles.start()
        try:
            wait_for("all to say why", lambda: roles.waits().keys() == {"aggregate", "control", "web"})
            assert all(nobody.url.removeprefix("http://") in why for why in roles.waits().values()), roles.waits()
            assert roles.partitions() == ()
            with admin(config.kafka) as client:
                groups = list(map(str, client.list_groups()))
            assert not [each for each in groups if config.kafka.group in each], groups
        finally:
            roles.stop()
