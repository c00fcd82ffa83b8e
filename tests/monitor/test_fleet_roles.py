"""The roles of one process of a fleet beside each other, on a real broker."""

from pathlib import Path

import httpx2
import msgspec
import pytest
from daemon_process import wait_for
from kafka_house import all_of, kafka_house, usages_of
from servers.kafka import KafkaServer
from servers.server_process import server_port

from collectors.clock import SystemClock
from monitor.config.books_sections import Store
from monitor.config.input_sections import Deployment, Source
from monitor.config.output_sections import InfluxDb, Kafka
from monitor.config.sections import Config
from monitor.log import kafka_facts
from monitor.log.kafka_producer import ACK_SECONDS
from monitor.roles import topic_reader
from monitor.roles.fleet import FleetHouse, FleetRoles
from monitor.roles.loop import RETRY_SECONDS
from monitor.roles.running import STALLED_SECONDS
from monitor.selfmetrics import DaemonSnapshot

T = 1_712_043_380.0


def snapshot() -> DaemonSnapshot:
    raise AssertionError("role web alone asks for it")


def roles_of(folder: Path, config: Config) -> FleetRoles:
    """Not started yet."""
    with FleetHouse(folder, config) as house:
        return house.begin(config, host="h1", clock=SystemClock(), snapshot=snapshot)


def line(request_id: str, **more: object) -> bytes:
    """A good event."""
    told = {"request_id": request_id, "model": "m", "host": "h1", "start": T, "end": T + 2.0, **more}
    return msgspec.json.encode(told) + b"\n"


@pytest.fixture
def kafka_section(kafka: KafkaServer) -> Kafka:
    return msgspec.structs.replace(kafka_house(kafka), clock="broker")


def test_every_role_writes_for_itself(kafka: KafkaServer, kafka_section: Kafka, tmp_path: Path) -> None:
    """Posts, files and control write in three threads: none of them uses another's writer, and all of it is stored."""
    path, port = tmp_path / "events.jsonl", server_port()
    path.write_bytes(b"".join(line(f"f{number}") for number in range(100)))
    config = Config(
        roles=("ingest", "control"),
        kafka=kafka_section,
        sources=(
            Source(name="file", kind="file", path=path),
            Source(name="http", kind="http", listen=f"127.0.0.1:{port}"),
        ),
        deployments=(Deployment(name="pair", model="spread", hosts=("h1", "h2")),),
    )
    roles = roles_of(tmp_path / "data", config)
    roles.start()
    try:
        url = f"http://127.0.0.1:{port}/v1/events"
        with httpx2.Client(trust_env=False, timeout=60.0) as client:
            body = b"".join(line(f"p{number}") for number in range(100))
            answer = client.post(url, content=body, headers={"content-type": "application/x-ndjson"})
        assert answer.status_code == 202
        wait_for("the deployment", lambda: all_of(kafka, kafka_section.topics.facts))
        wait_for("the file", lambda: len(usages_of(kafka, kafka_section)) == 200)
        assert roles.troubles() == []
        assert (roles.refused_records(), roles.refused_rows()) == (0, None)
    finally:
        roles.stop()
    stored = {request_id for request_id, _, _ in usages_of(kafka, kafka_section)}
    assert stored == {f"{kind}{number}" for kind in "fp" for number in range(100)}


def test_an_outage_of_the_brokers_ends_no_process() -> None:
    """A step that asks the brokers for all it can, each time nearly in vain, comes round before it counts as stuck."""
    facts, answer = kafka_facts.PATIENCE_SECONDS, topic_reader.ANSWER_MS / 1_000
    longest = {
        "ingest": 2 * (facts + ACK_SECONDS + 2 * answer),  # the join's half of the step, and that of the topics
        "ship": 2 * ACK_SECONDS,
        "control": facts + ACK_SECONDS,
    }
    assert {name: seconds for name, seconds in longest.items() if seconds + RETRY_SECONDS > STALLED_SECONDS[name]} == {}


def test_posts_without_brokers(tmp_path: Path) -> None:
    """Senders are told 503 and when to come again; the process runs, and says what it waits for."""
    path, port = tmp_path / "events.jsonl", server_port()
    path.write_bytes(line("f"))
    config = Config(
        roles=("ingest",),
        kafka=Kafka(bootstrap_servers=("127.0.0.1:9",)),
        sources=(
            Source(name="file", kind="file", path=path),
            Source(name="http", kind="http", listen=f"127.0.0.1:{port}"),
        ),
    )
    roles = roles_of(tmp_path / "data", config)
    roles.start()
    try:
        url = f"http://127.0.0.1:{port}/v1/events"
        with httpx2.Client(trust_env=False, timeout=60.0) as client:
            answers = [client.post(url, content=line("p"), headers={"content-type": "application/x-ndjson"})]
            wait_for("the file's turn", roles.waits)
            answers.append(client.post(url, content=line("p"), headers={"content-type": "application/x-ndjson"}))
        assert [(each.status_code, each.headers["retry-after"]) for each in answers] == [(503, "5")] * 2
        assert "127.0.0.1:9" in roles.waits()["ingest"]
        assert roles.troubles() == []
    finally:
        roles.stop()


def test_what_is_refused_for_good_is_counted(kafka: KafkaServer, kafka_section: Kafka, tmp_path: Path) -> None:
    """Records over all writers of the process; rows, where it writes into InfluxDB."""
    small = kafka.create_topic(f"{kafka_section.group}.small", 1, max_message_bytes=100)
    topics = msgspec.structs.replace(kafka_section.topics, usage=small)
    path = tmp_path / "events.jsonl"
    path.write_bytes(line("f"))
    config = Config(
        roles=("ingest", "aggregate"),
        kafka=msgspec.structs.replace(kafka_section, topics=topics),
        sources=(Source(name="file", kind="file", path=path),),
        store=Store(kind="influxdb"),
        influxdb=InfluxDb(url="http://127.0.0.1:9"),
    )
    roles = roles_of(tmp_path / "data", config)
    assert (roles.refused_records(), roles.refused_rows()) == (0, {"beyond retention": 0, "refused": 0})
    roles.start()
    try:
        wait_for("the refusal", roles.refused_records)
        assert roles.refused_records() == 1
    finally:
        roles.stop()
