"""`wattribute topics grow` on a real broker: what it finds in the commits, and what it leaves when it is cut off.

The whole procedure, in the middle of a fleet's run, is in tests/test_grow_partitions.py.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from daemon_process import wait_for
from kafka import KafkaAdminClient, TopicPartition
from kafka.errors import NoError
from kafka.structs import OffsetAndMetadata
from kafka_house import all_of, kafka_house, log_record
from servers.kafka import KafkaServer

from monitor.config.output_sections import Kafka
from monitor.config.sections import Config
from monitor.core.membership import Accounting
from monitor.core.usage import Usage
from monitor.log.codec import Decoder, accounting_record, tick_record, usage_record
from monitor.log.kafka_claims import Claim, claims_of, parts_of
from monitor.log.kafka_client import admin
from monitor.log.kafka_writer import KafkaWriter
from monitor.log.protocol import Append, LogUnavailable
from monitor.log.usage_wire import UsageBatch
from monitor.roles.aggregate_group import partition_of
from monitor.roles.growing import Growing, Growth, NotReady

NOON = 1_780_000_000.0 // 600 * 600
BEFORE, AFTER = 2, 5
TERMS = Accounting(horizon_seconds=60.0, mark_seconds=60.0)
HOSTS = [f"gpu-{number}" for number in range(12)]
STAYED = Claim(
    n=BEFORE,
    positions={"readings": 0, "usage": 0},
    watermark=NOON + 120.0,
    mark=NOON + 180.0,
    log_time=NOON,
)


@pytest.fixture
def house(kafka: KafkaServer) -> Iterator[Kafka]:
    """Books of twelve hosts in two partitions, with a request each in every half a minute, all in a mark's account."""
    house = kafka_house(kafka, BEFORE)
    writer = KafkaWriter(house)
    records = sorted((at, host, record) for host in HOSTS for at, record in requests(host))
    writer.append([accounting_record(TERMS, NOON - 3_600.0), *(record for _, _, record in records)], NOON)
    for number in range(BEFORE):
        for stream in parts_of(house, number):
            writer.append([tick_record("", NOON + 181.0, stream=stream)], NOON, partition=number)
    commit(house, {part: STAYED for number in range(BEFORE) for part in parts_of(house, number).values()})
    yield house
    writer.close()


def requests(host: str) -> list[tuple[int, Append]]:
    """One every half minute, as ingest writes them, with when."""
    found = []
    for at in range(0, 180, 30):
        start = NOON + at
        usage = Usage(f"{host}/{at}", "m", start, start + 5.0, namespace="n", team="t", host=host)
        found.append((at, usage_record(host, [usage], start + 6.0)))
    return found


def commit(house: Kafka, claims: dict[TopicPartition, Claim | str]) -> None:
    """As an aggregator does that has left its group."""
    offsets = {
        part: OffsetAndMetadata(0, claim if isinstance(claim, str) else msgspec.json.encode(claim).decode(), -1)
        for part, claim in claims.items()
    }

    def committed() -> bool:
        with suppress(LogUnavailable), admin(house) as client:  # the first group of a broker has no coordinator yet
            answers = client.alter_group_offsets(f"{house.group}-aggregate", offsets)
            return set(answers.values()) == {NoError}
        return False

    wait_for("the commit", committed)


def growing(house: Kafka) -> Growing:
    return Growing(Config(kafka=house), quiet_seconds=0.0)


def test_of_a_torn_pair_the_higher_claim_holds(house: Kafka) -> None:
    """Also where it is higher in the log time alone, as aggregators judge it."""
    parts = parts_of(house, 1)
    newer = msgspec.structs.replace(STAYED, log_time=NOON + 30.0, positions={"readings": 0, "usage": 7})
    for torn in parts.values():
        commit(house, dict.fromkeys(parts.values(), STAYED) | {torn: newer})
        growth = growing(house).plan(AFTER, aggregators_run=True)
        assert growth.claims == {0: STAYED, 1: newer}


def test_a_commit_of_another_program_is_named(house: Kafka) -> None:
    """In the words that an aggregator has for it."""
    commit(house, {parts_of(house, 1)["usage"]: "somebody's"})
    with pytest.raises(LogUnavailable, match=r"partition 1: the group's commit holds \"somebody's\", which is none of"):
        growing(house).plan(AFTER, aggregators_run=True)


class CutOff(Exception):
    """The end of a process."""


def stop_at(word: str) -> Callable[[str], None]:
    """Hears what is said, and ends where that is."""

    def say(said: str) -> None:
        if word in said:
            raise CutOff

    return say


def cut_off_when_made(house: Kafka, growth: Growth) -> None:
    """There are more partitions, and nothing is in them."""
    growing(house).carry_out(growth, stop_at(f"have {AFTER} partitions"))


def cut_off_while_copying(house: Kafka, growth: Growth) -> None:
    """Every other host's records are copied, also into a partition that was there before."""
    with suppress(CutOff):
        cut_off_when_made(house, growth)
    writer = KafkaWriter(house)
    for host in HOSTS[::2]:
        again = [record for at, record in requests(host) if at < 90]
        writer.append([msgspec.structs.replace(each, stamp=growth.log_time) for each in again], growth.log_time)
    writer.close()
    raise CutOff


def cut_off_when_copied(house: Kafka, growth: Growth) -> None:
    """Nothing is committed."""
    growing(house).carry_out(growth, stop_at("records were copied"))


def cut_off_while_committing(house: Kafka, growth: Growth) -> None:
    """The broker took one request, and no other."""

    class Dying(KafkaAdminClient):  # type: ignore[misc]
        asked = 0

        def alter_group_offsets(self, *arguments: Any, **more: Any) -> Any:
            self.asked += 1
            if self.asked == 2:
                raise CutOff
            return super().alter_group_offsets(*arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("monitor.log.kafka_client.KafkaAdminClient", Dying)
        growing(house).carry_out(growth, lambda _said: None)


@pytest.mark.parametrize(
    "cut_off", [cut_off_when_made, cut_off_while_copying, cut_off_when_copied, cut_off_while_committing]
)
def test_an_attempt_that_was_cut_off_is_done_again(
    kafka: KafkaServer, house: Kafka, cut_off: Callable[[Kafka, Growth], None]
) -> None:
    """From its start, with the same outcome; 2 and 5: some hosts move between partitions that were there before."""
    assert any(partition_of(host, BEFORE) != partition_of(host, AFTER) < BEFORE for host in HOSTS)
    first = growing(house).plan(AFTER, aggregators_run=False)
    with pytest.raises(CutOff):
        cut_off(house, first)
    again = growing(house).plan(AFTER, aggregators_run=False)
    assert (again.before, again.after, again.whole_from) == (BEFORE, AFTER, first.whole_from)
    growing(house).carry_out(again, lambda _said: None)
    with admin(house) as client:
        claims = claims_of(client, house, f"{house.group}-aggregate", AFTER)
    assert {number: claim.n for number, claim in claims.items()} == dict.fromkeys(range(AFTER), AFTER)
    for claim in claims.values():
        assert msgspec.structs.replace(claim, n=BEFORE, moved=None, log_time=NOON) == STAYED
        assert claim.moved is not None
        assert claim.moved.whole_from == first.whole_from
    there: dict[int, set[str]] = {number: set() for number in range(AFTER)}
    for message in all_of(kafka, house.topics.usage):
        content = Decoder().decode(log_record(message))
        if isinstance(content, UsageBatch):
            there[message.partition] |= {usage.request_id for usage in content.usages()}
    for host in HOSTS:
        assert {f"{host}/{at}" for at, _ in requests(host)} <= there[partition_of(host, AFTER)]
    with pytest.raises(NotReady, match="nothing is left to do: the topics have 5 partitions, and so have the books"):
        growing(house).plan(AFTER, aggregators_run=False)


def test_what_is_written_after_a_cut_off_attempt_is_no_copy_while_its_host_stays(house: Kafka) -> None:
    """Collectors that were started too early: what they wrote is in no mark's account."""
    with suppress(CutOff):
        cut_off_when_copied(house, growing(house).plan(AFTER, aggregators_run=False))
    host = next(host for host in HOSTS if partition_of(host, BEFORE) == partition_of(host, AFTER))
    writer = KafkaWriter(house)
    writer.append([tick_record(host, NOON + 200.0)], NOON)
    writer.close()
    with pytest.raises(NotReady, match="let the aggregators run until the next mark"):
        growing(house).plan(AFTER, aggregators_run=False)
