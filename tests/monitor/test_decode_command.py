"""`wattribute decode` and `wattribute rejected` on a real broker."""

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result
from kafka import KafkaProducer
from kafka_house import kafka_house
from servers.kafka import KafkaServer
from servers.server_process import server_port

from monitor.cli.main import cli
from monitor.config.output_sections import Kafka
from monitor.core.serving import Deployment
from monitor.log.codec import deployment_record
from monitor.log.kafka_writer import KafkaWriter
from monitor.log.protocol import DeadLetter

NOON = 1_780_000_000.0


@pytest.fixture
def house(kafka: KafkaServer) -> Kafka:
    return kafka_house(kafka)


def wattribute(*words: object) -> Result:
    """The command, in this process."""
    return CliRunner().invoke(cli, [str(word) for word in words])


def configured(folder: Path, house: Kafka) -> Path:
    file = folder / "config.toml"
    file.write_text(
        f'[data]\ndirectory = "{folder}"\n'
        f'[kafka]\nbootstrap_servers = ["{house.bootstrap_servers[0]}"]\n'
        f'[kafka.topics]\nfacts = "{house.topics.facts}"\ndead_letters = "{house.topics.dead_letters}"\n'
        f'[[sources]]\nname = "gateway"\nkind = "kafka"\nnamespace = "gw"\ntopics = ["{house.group}"]\n'
    )
    return file


def put(kafka: KafkaServer, topic: str, values: Sequence[bytes | None]) -> None:
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    for number, value in enumerate(values):
        producer.send(topic, value, key=b"k", partition=number % 2, timestamp_ms=round((NOON + number) * 1_000))
    producer.flush()
    producer.close()


def event(request_id: str, **fields: object) -> bytes:
    told = {"request_id": request_id, "model": "m", "start": NOON, "end": NOON + 2.5, "input_tokens": 7}
    return msgspec.json.encode(told | fields)


def test_decode(kafka: KafkaServer, house: Kafka, tmp_path: Path) -> None:
    """The newest messages, oldest first: where each would go by the facts, or why it would not be used."""
    kafka.create_topic(house.group, 2, message_timestamp_type="CreateTime", retention_ms=-1)
    writer = KafkaWriter(house)
    writer.append([deployment_record(Deployment(name="chat", model="m", hosts=("a", "b"), devices=("GPU-1",)))], NOON)
    writer.close()
    put(kafka, house.group, [event("old"), event("r1", team="t"), event("r2", host="c"), None, event("r4", end=1)])
    shown = wattribute("decode", "--topic", house.group, "--sample", 4, "--config", configured(tmp_path, house))
    assert shown.stdout.splitlines() == [
        "1/0  2026-05-28T20:26:41.000Z  gw/r1: m, team t, 7 in, unknown out, 2.500 s",
        "    on a (GPU-1), weight 0.5, deployment chat",
        "    on b (GPU-1), weight 0.5, deployment chat",
        "0/1  2026-05-28T20:26:42.000Z  gw/r2: m, team unknown, 7 in, unknown out, 2.500 s",
        "    on c (devices unknown)",
        "1/1  2026-05-28T20:26:43.000Z  refused: no_value: a tombstone: key and no value",
        "0/2  2026-05-28T20:26:44.000Z  refused: time_out_of_range: end is 1.0, not unix seconds between the years 2000"
        " and 2100",
        "4 events in 4 messages: 2 would not be used",
    ], shown.stderr
    assert shown.exit_code == 1
    whole = wattribute("decode", "--topic", house.group, "--json", "--config", tmp_path / "config.toml")
    assert [json.loads(line).get("refused") for line in whole.stdout.splitlines()] == [
        None,
        None,
        None,
        "no_value",
        "time_out_of_range",
    ]


def test_decode_a_missing_topic(house: Kafka, tmp_path: Path) -> None:
    """It is named, and nothing is made."""
    shown = wattribute("decode", "--topic", "nowhere", "--config", configured(tmp_path, house))
    assert shown.exit_code == 3
    assert "there is no topic nowhere; correct its name" in shown.stderr


def test_rejected_lists_the_dead_letter_topic(house: Kafka, tmp_path: Path) -> None:
    """Letters of the topic are counted once each, however often they were sent, and listed newest first."""
    writer = KafkaWriter(house)
    letters = [
        DeadLetter(source="llm", position=f"0/{number}", reason=reason, detail="d", sha256="0", at=NOON + number)
        for number, reason in enumerate(["empty", "future", "empty"])
    ]
    writer.reject([*letters, letters[0]])
    writer.close()
    shown = wattribute("rejected", "--json", "--config", configured(tmp_path, house))
    told = json.loads(shown.stdout)
    assert told["rejected"] == {"empty": 2, "future": 1}
    assert [entry["position"] for entry in told["entries"]] == ["0/2", "0/1", "0/0"]


def test_without_a_broker_nobody_waits_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address is named, and the command ends."""
    monkeypatch.setattr("monitor.log.kafka_client.PATIENCE_SECONDS", 1.0)
    nowhere = Kafka(bootstrap_servers=(f"127.0.0.1:{server_port()}",))
    for command in (("decode", "--topic", "llm"), ("rejected",)):
        shown = wattribute(*command, "--config", configured(tmp_path, nowhere))
        assert shown.exit_code == 3
        assert f"Kafka at {nowhere.bootstrap_servers[0]}: no broker can be reached" in shown.stderr
