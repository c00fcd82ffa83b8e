"""`wattribute topics grow` on a real broker: what it finds in the commits, and what it leaves when it is cut off.

The whole procedure, in the middle of a fleet's run, is in tests/test_grow_partitions.py.
"""

from collections.abc import Iterator
from contextlib import suppress

import msgspec
import pytest
from daemon_process import wait_for
from kafka import TopicPartition
from kafka.errors import NoError
from kafka.structs import OffsetAndMetadata
from kafka_house import kafka_house
from servers.kafka import KafkaServer

from monitor.config.output_sections import Kafka
from monitor.config.sections import Config
from monitor.core.membership import Accounting
from monitor.core.usage import Usage
from monitor.log.codec import accounting_record, tick_record, usage_record
from monitor.log.kafka_claims import Claim, parts_of
from monitor.log.kafka_client import admin
from monitor.log.kafka_writer import KafkaWriter
from monitor.log.protocol import LogUnavailable
from monitor.roles.growing import Growing

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
    records = [accounting_record(TERMS, NOON - 3_600.0)]
    for at in range(0, 180, 30):
        for host in HOSTS:
            start = NOON + at
            usage = Usage(f"{host}/{at}", "m", start, start + 5.0, namespace="n", team="t", host=host)
            records.append(usage_record(host, [usage], start + 6.0))
    writer.append(records, NOON)
    for number in range(BEFORE):
        for stream in parts_of(house, number):
            writer.append([tick_record("", NOON + 181.0, stream=stream)], NOON, partition=number)
    commit(house, {part: STAYED for number in range(BEFORE) for part in parts_of(house, number).values()})
    yield house
    writer.close()


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
