"""The shipper: what a host has read reaches the brokers, in order, whatever fails, and is then let go of."""

from pathlib import Path

import pytest
from kafka_house import all_of, kafka_house
from servers.kafka import KafkaServer

from collectors.clock import SystemClock
from monitor.config.output_sections import Kafka
from monitor.core.serving import FoundServer, HostServers
from monitor.log.codec import servers_record
from monitor.log.kafka_writer import KafkaWriter
from monitor.log.protocol import Append, LogUnavailable
from monitor.log.sqlite import SqliteLog
from monitor.roles import shipper as shipping
from monitor.roles.shipper import Shipper
from monitor.selfmetrics import ShipSnapshot

NOON = 1_780_000_000.0
NOBODY = Kafka(bootstrap_servers=("127.0.0.1:9",), clock="records")


def reading(number: int, size: int = 4) -> Append:
    body = number.to_bytes(size, "big")
    return Append(stream="readings", key="gpu-1", schema="readings.v1", body=body, stamp=NOON + number)


def shipper_of(log: SqliteLog, house: Kafka, most_bytes: int = 2**30) -> tuple[Shipper, KafkaWriter]:
    writer = KafkaWriter(house)
    return Shipper(log, writer, most_bytes=most_bytes, clock=SystemClock()), writer


def numbers(kafka: KafkaServer, house: Kafka) -> list[int]:
    return [int.from_bytes(record.value, "big") for record in all_of(kafka, house.topics.readings)]


def test_in_order_with_its_own_stamps(kafka: KafkaServer, tmp_path: Path) -> None:
    """Readings go out in the order in which they were read, under the stamps of the host's log; usage never does."""
    house, log = kafka_house(kafka), SqliteLog(tmp_path / "log.db")
    log.append([reading(number) for number in range(1_200)], NOON)
    log.append([Append(stream="usage", key="gpu-1", schema="usage.v1", body=b"not ours")], NOON)
    shipper, writer = shipper_of(log, house)
    assert [shipper.step() for _ in range(4)] == [0.0, 0.0, 1.0, 1.0]
    writer.close()
    assert numbers(kafka, house) == list(range(1_200))
    assert all_of(kafka, house.topics.usage) == []
    assert all_of(kafka, house.topics.readings)[7].timestamp == round((NOON + 7) * 1_000)
    assert shipper.shipped_until == NOON + 1_199
    log.close()


def test_goes_on_where_it_stopped(kafka: KafkaServer, tmp_path: Path) -> None:
    """After a restart only what is new is shipped; facts found on the host go along, each once."""
    house, log = kafka_house(kafka), SqliteLog(tmp_path / "log.db")
    log.append([reading(0), servers_record(HostServers(host="gpu-1", servers=(FoundServer(name="vllm"),)))], NOON)
    for number in (1, 2):
        shipper, writer = shipper_of(log, house)
        shipper.step()
        writer.close()
        log.append([reading(number)], NOON)
    shipper, writer = shipper_of(log, house)
    shipper.step()
    writer.close()
    assert numbers(kafka, house) == [0, 1, 2]
    assert [record.key for record in all_of(kafka, house.topics.facts)] == [b"gpu-1"]
    log.close()


def test_killed_between_acknowledgement_and_commit(
    kafka: KafkaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the batch is sent a second time, and nothing is missing."""
    house, log = kafka_house(kafka), SqliteLog(tmp_path / "log.db")
    log.append([reading(number) for number in range(10)], NOON)
    shipper, writer = shipper_of(log, house)

    class Killed(BaseException):
        pass

    def killed(_commit: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(log, "commit", killed)
        with pytest.raises(Killed):
            shipper.step()
    writer.close()
    shipper, writer = shipper_of(log, house)
    shipper.step()
    writer.close()
    assert numbers(kafka, house) == [*range(10), *range(10)]
    log.close()


def test_brokers_away(kafka: KafkaServer, tmp_path: Path) -> None:
    """While no broker answers everything stays in the host's log; when one does it is all shipped."""
    house, log = kafka_house(kafka), SqliteLog(tmp_path / "log.db")
    log.append([reading(number) for number in range(20)], NOON)
    shipper, writer = shipper_of(log, NOBODY)
    assert shipper.snapshot() == ShipSnapshot(shipped_records=0, waiting_records=20, lost_records=0)
    with pytest.raises(LogUnavailable, match=r"127.0.0.1:9"):
        shipper.step()
    writer.close()
    shipper, writer = shipper_of(log, house)
    shipper.step()
    writer.close()
    assert numbers(kafka, house) == list(range(20))
    told = ShipSnapshot(shipped_records=20, waiting_records=0, lost_records=0, until=shipper.shipped_until)
    assert shipper.snapshot() == told
    log.close()


def test_over_its_size_the_oldest_are_lost_and_counted(
    kafka: KafkaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond [log] max_size the oldest records go, said with their number; the newest stay and are shipped."""
    monkeypatch.setattr(shipping, "HOUSEKEEPING_SECONDS", 0.0)
    house, log = kafka_house(kafka), SqliteLog(tmp_path / "log.db")
    for number in range(400):
        log.append([reading(number, size=10_000)], NOON)
    shipper, writer = shipper_of(log, NOBODY, most_bytes=2_000_000)
    with pytest.raises(LogUnavailable):
        shipper.step()
    writer.close()
    assert 190 <= shipper.lost_records <= 230  # 400 records of 10 kB and a little into 2 MB
    assert shipper.waits_for == f"{shipper.lost_records} records of readings were lost: the log was over [log] max_size"
    last = log.last("readings", "gpu-1")
    assert last is not None
    assert int.from_bytes(last.body, "big") == 399
    lost = shipper.lost_records
    shipper, writer = shipper_of(log, house, most_bytes=2_000_000)
    shipper.step()
    writer.close()
    assert numbers(kafka, house) == list(range(lost, 400))
    log.close()


def test_what_is_shipped_is_released(kafka: KafkaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour behind what the brokers have records are deleted; the newest stays, with the counters to go on from."""
    monkeypatch.setattr(shipping, "HOUSEKEEPING_SECONDS", 0.0)
    house, log = kafka_house(kafka), SqliteLog(tmp_path / "log.db")
    log.append([reading(number * 1_000) for number in range(10)], NOON)
    shipper, writer = shipper_of(log, house)
    shipper.step()
    shipper.step()
    writer.close()
    kept = [int.from_bytes(record.body, "big") for record in log.read({}, 100)]
    assert kept == [6_000, 7_000, 8_000, 9_000]  # 3 600 s before the last
    assert numbers(kafka, house) == [number * 1_000 for number in range(10)]
    log.close()


def test_a_reading_too_large_stops_nothing(kafka: KafkaServer, tmp_path: Path) -> None:
    """What no broker takes is a dead letter, and what is behind it is shipped."""
    house, log = kafka_house(kafka), SqliteLog(tmp_path / "log.db")
    log.append([reading(1), reading(2, size=3_000_000), reading(3)], NOON)
    shipper, writer = shipper_of(log, house)
    shipper.step()
    shipper.step()
    writer.close()
    assert numbers(kafka, house) == [1, 3]
    assert len(all_of(kafka, house.topics.dead_letters)) == 1
    log.close()
