"""`wattribute explain` in a fleet: a request out of Kafka, held against the books of a real aggregator, by hand."""

import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from math import fsum
from pathlib import Path

import pytest
from click.testing import CliRunner
from daemon_process import wait_for
from msgspec.structs import replace
from servers.kafka import KafkaServer

from collectors.clock import SystemClock
from collectors.readings import Device, EnergyReading, HostProfile
from collectors.units import SECONDS_PER_DAY
from monitor.cli.explain import explain as command
from monitor.config.books_sections import Store as StoreSection
from monitor.config.output_sections import Kafka, KafkaTopics
from monitor.config.sections import Config
from monitor.core.points import ENERGY
from monitor.core.usage import Usage
from monitor.log.codec import ReadingBatch, readings_record, tick_record, usage_record
from monitor.log.kafka_topics import create_topics
from monitor.log.kafka_writer import KafkaWriter
from monitor.log.protocol import Append, LogUnavailable
from monitor.roles.aggregate_group import GroupAggregate, partition_of
from monitor.roles.explaining import Explained
from monitor.roles.explaining_fleet import NotFindable, explain_in_fleet
from monitor.store.open import open_store

T = 20_000 * SECONDS_PER_DAY
GPU = Device(id="g0", kind="gpu", idle_watts=50.0)
PARTITIONS = 2


def request(request_id: str, start: float, end: float, host: str = "h") -> Usage:
    """Of a model that nobody knows: it pays equal parts alone."""
    return Usage(
        request_id=request_id,
        model="x",
        start=T + start,
        end=T + end,
        namespace="n",
        team=f"team-{request_id}",
        host=host,
        devices=("g0",),
        input_tokens=10,
    )


def metered(host: str = "h") -> list[Append]:
    """30 s at 300 W, a reading for each window."""
    batches = []
    for at in (0.0, 10.0, 20.0):
        reading = EnergyReading(device="g0", start=T + at, end=T + at + 10.0, energy_joules=3_000.0, method="counter")
        batch = ReadingBatch(profile=HostProfile(host=host, devices=(GPU,)), readings=(reading,))
        batches.append(readings_record(batch, T + at + 11.0))
    return batches


def ticks(at: float, host: str = "h") -> list[Append]:
    """Both streams of the host's partition have come so far."""
    return [tick_record(host, T + at), tick_record(host, T + at, stream="readings")]


class House:
    """A fleet of one broker; the books are in a file, so that nothing but Kafka has to run."""

    def __init__(self, kafka: KafkaServer, folder: Path) -> None:
        name = f"x-{uuid.uuid4().hex[:8]}"
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
        section = Kafka(bootstrap_servers=(kafka.bootstrap,), topics=topics, group=name, clock="records")
        self.config = Config(kafka=section, roles=("aggregate", "control"))
        self.without_rows = replace(self.config, store=StoreSection(kind="influxdb"))
        self.store_file = folder / "store.db"
        create_topics(self.config)
        open_store(self.config, self.store_file).close()

    def write(self, records: list[Append]) -> None:
        with closing(KafkaWriter(self.config.kafka)) as writer:
            writer.append(sorted(records, key=lambda each: each.stamp or 0.0), T)

    def account(self, until: float, host: str = "h") -> None:
        """Returns when everything of the host before that is final, and every mark carried out."""
        with closing(open_store(self.config, self.store_file)) as store:
            aggregate = GroupAggregate(self.config, store, clock=SystemClock())

            def is_there() -> bool:
                aggregate.step()
                ledger = aggregate._ledgers.get(partition_of(host, PARTITIONS))
                return ledger is not None and ledger.watermark >= T + until

            try:
                wait_for("the accounts", is_there)
            finally:
                aggregate.close()

    def explained(
        self, request_id: str, *, host: str | None = None, by_rows: bool = False, bounded: bool = True
    ) -> list[Explained]:
        """Found by the rows of requests, or in the log of the host, or without one by the topic of request energy."""
        config = self.config if by_rows else self.without_rows
        with closing(open_store(self.config, self.store_file, read_only=True)) as store:
            return explain_in_fleet(config, store, request_id, T, T + 3_600.0, host=host, bounded=bounded)

    @contextmanager
    def books(self) -> Iterator[None]:
        """Doubles what the books hold of request A's team in its first window, and puts it back."""
        with closing(open_store(self.config, self.store_file)) as store:
            (row,) = store.read(ENERGY, T, T + 10.0, where={"team": {"team-A"}})
            store.write([replace(row, fields=(2.0 * float(row.fields[0] or 0.0), *row.fields[1:]))])
            try:
                yield
            finally:
                store.write([row])


def joules(each: Explained) -> list[tuple[float, float, float]]:
    """(window, measured, its own) of each part, in seconds from T and joules."""
    return [(part.start - T, part.measured_joules, part.energy_joules) for part in each.parts]


def test_a_request_of_a_fleet_is_computed_again_and_held_against_the_books(kafka: KafkaServer, tmp_path: Path) -> None:
    """A over [0, 4) and B over [2, 6) of 300 W: 900 J each; C over [12, 28) is alone: 2 400 J in each of two windows.

    Then D, over [0, 4) too, comes when that window is final: A is 2 s x 150 W + 2 s x 100 W = 500 J from the mark on.
    """
    house = House(kafka, tmp_path)
    a, b, c = request("A", 0.0, 4.0), request("B", 2.0, 6.0), request("C", 12.0, 28.0)
    house.write([*metered(), usage_record("h", [a, b, c], T + 29.0), *ticks(1_000.0)])
    house.account(30.0)

    (told,) = house.explained("A", host="h")
    assert joules(told) == [(0.0, 3_000.0, pytest.approx(900.0, rel=1e-9))]
    assert (told.parts[0].others_joules, told.parts[0].idle_joules) == (pytest.approx(900.0), pytest.approx(200.0))
    assert (told.booked_joules, told.unbooked, told.differing) == (None, (), ())
    assert (told.team, told.input_tokens, told.start - T, told.end - T) == ("team-A", 10.0, 0.0, 4.0)
    for by_rows in (True, False):
        (told,) = house.explained("C", by_rows=by_rows)
        assert joules(told) == [(10.0, 3_000.0, pytest.approx(2_400.0)), (20.0, 3_000.0, pytest.approx(2_400.0))]
        assert told.booked_joules == pytest.approx(4_800.0, rel=1e-9)
        assert (told.team, told.input_tokens, told.unbooked, told.differing) == ("team-C", 10.0, (), ())

    with house.books():
        (told,) = house.explained("A", host="h")
        assert told.differing == (T,)
        assert house.explained("C", host="h")[0].differing == (), "its windows are another"

    house.write([usage_record("h", [request("D", 0.0, 4.0)], T + 1_500.0), *ticks(2_000.0)])
    house.account(1_000.0)
    five_hundred = pytest.approx(500.0, rel=1e-9)
    for host, by_rows, booked in (("h", False, None), ("h", True, five_hundred), (None, False, five_hundred)):
        (told,) = house.explained("A", host=host, by_rows=by_rows)
        assert fsum(part.energy_joules for part in told.parts) == pytest.approx(500.0, rel=1e-9)
        assert (told.booked_joules, told.unbooked, told.differing) == (booked, (), ())


def test_what_is_not_there_is_said(kafka: KafkaServer, tmp_path: Path) -> None:
    """No such id, another host's id, and a request of which nothing is final yet."""
    house = House(kafka, tmp_path)
    records = [*metered(), *metered("other"), usage_record("h", [request("A", 0.0, 4.0)], T + 29.0)]
    house.write([*records, *ticks(500.0), *ticks(500.0, "other")])
    with pytest.raises(LogUnavailable, match="states no terms"):
        house.explained("A", host="h")
    house.account(-500.0)
    assert house.explained("B", host="h") == []
    assert house.explained("A", host="other") == []
    (told,) = house.explained("A", host="h")
    assert told.unbooked == (T,)
    assert joules(told) == [(0.0, 3_000.0, pytest.approx(1_200.0))], "computed from what stands in the log so far"
    assert house.explained("A") == [], "it has no entry yet"
    with pytest.raises(NotFindable, match="--at alone"):
        house.explained("A", bounded=False)
    house.without_rows = replace(house.without_rows, kafka=replace(house.config.kafka, request_energy=False))
    with pytest.raises(NotFindable, match="--at which time, or keep requests"):
        house.explained("A")
    four = replace(house.config.kafka, topics=replace(house.config.kafka.topics, partitions=4))
    house.without_rows = replace(house.without_rows, kafka=four)
    with pytest.raises(LogUnavailable, match="has 2 partitions, not 4"):
        house.explained("A", host="h")


def test_the_command_says_what_it_needs(tmp_path: Path) -> None:
    """In a fleet without rows of requests a host has to be named; no server is asked before that."""
    config = tmp_path / "config.toml"
    (tmp_path / "token").write_text("t")
    config.write_text(
        '[kafka]\nbootstrap_servers = ["127.0.0.1:9"]\n[store]\nkind = "influxdb"\n'
        f'[influxdb]\nurl = "http://127.0.0.1:9"\ntoken_file = "{tmp_path / "token"}"\n'
    )
    result = CliRunner().invoke(command, ["A", "--config", str(config)])
    assert result.exit_code == 2
    assert "name the --host that it ran on, and --at which time" in result.stderr
