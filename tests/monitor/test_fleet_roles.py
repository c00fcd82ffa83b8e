"""The roles of one process of a fleet beside each other, on a real broker."""

import socket
from collections import Counter
from pathlib import Path

import httpx2
import msgspec
import psutil
import pytest
from daemon_process import wait_for
from kafka_house import all_of, kafka_house, usages_of
from servers.kafka import KafkaServer
from servers.server_process import server_port

from collectors.clock import SystemClock
from collectors.errors import Broken, RetryLater
from collectors.requests.decoders.native import decode_event
from monitor.config.books_sections import Store
from monitor.config.input_sections import Deployment, Source
from monitor.config.output_sections import InfluxDb, Kafka, Web
from monitor.config.sections import Config, Role
from monitor.core.facts import Facts
from monitor.core.serving import Deployment as Stated
from monitor.core.serving import FoundServer, HostServers
from monitor.log import kafka_facts
from monitor.log.codec import deployment_record, servers_record
from monitor.log.kafka_producer import ACK_SECONDS
from monitor.log.kafka_writer import KafkaWriter
from monitor.roles import topic_reader
from monitor.roles.fleet import FleetHouse, FleetRoles
from monitor.roles.loop import RETRY_SECONDS
from monitor.roles.placement import OLD_SECONDS, PlacerByFacts
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


def post(port: int, body: bytes) -> httpx2.Response:
    with httpx2.Client(trust_env=False, timeout=60.0) as client:
        url = f"http://127.0.0.1:{port}/v1/events"
        return client.post(url, content=body, headers={"content-type": "application/x-ndjson"})


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
        body = b"".join(line(f"p{number}") for number in range(100))
        wait_for("a post that is taken", lambda: post(port, body).status_code == 202)
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
    files, topics = facts + 2 * ACK_SECONDS, facts + ACK_SECONDS + 2 * answer
    longest = {
        "ingest": files + 2 * topics,  # once for what is joined
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
        answers = [post(port, line("p"))]
        wait_for("the file's turn", roles.waits)
        answers.append(post(port, line("p")))
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


def test_files_and_posts_are_placed_by_facts(kafka: KafkaServer, kafka_section: Kafka, tmp_path: Path) -> None:
    """As messages are: by what control and collect have stated, also where this process's configuration has nothing.

    A model that nothing places is `unplaced`, and becomes placed when a fact comes.
    """
    path, port = tmp_path / "events.jsonl", server_port()
    path.write_bytes(line("f-found", host=None, model="found") + line("f-stated", host=None, model="stated"))
    config = Config(
        roles=("ingest",),
        kafka=kafka_section,
        sources=(
            Source(name="file", kind="file", path=path),
            Source(name="http", kind="http", listen=f"127.0.0.1:{port}"),
        ),
        deployments=(Deployment(name="stated", model="stated", hosts=("by-configuration",)),),
    )
    found = FoundServer(name="vllm", models=("found",), devices=("GPU-0",))
    facts = KafkaWriter(kafka_section)
    facts.append(
        [
            servers_record(HostServers(host="gpu-9", servers=(found,))),
            deployment_record(Stated(name="stated", model="stated", hosts=("a", "b"))),
        ],
        T,
    )
    roles = roles_of(tmp_path / "data", config)
    roles.start()
    try:
        wait_for("the first look at the facts", lambda: post(port, line("p", model="m")).status_code == 202)
        assert post(port, line("p-found", host=None, model="found")).status_code == 202
        assert [each["reason"] for each in post(port, line("late", host=None, model="late")).json()["rejected"]] == [
            "unplaced"
        ]
        facts.append([deployment_record(Stated(name="late", model="late", hosts=("c",)))], T)
        wait_for("the new fact", lambda: post(port, line("late", host=None, model="late")).status_code == 202)
        wait_for("the file", lambda: len(usages_of(kafka, kafka_section)) >= 6)
    finally:
        roles.stop()
        facts.close()
    assert set(usages_of(kafka, kafka_section)) == {
        ("f-found", "gpu-9", 1.0),
        ("f-stated", "a", 0.5),
        ("f-stated", "b", 0.5),
        ("p", "h1", 1.0),
        ("p-found", "gpu-9", 1.0),
        ("late", "c", 1.0),
    }


def test_old_facts_place_nothing() -> None:
    """What was read too long ago may lack a fact that is in force now: senders are told to come again."""
    placer = PlacerByFacts(lambda: Facts(()), "h1")
    event = decode_event(line("a", host=None), namespace="n", source="s", allowed_labels=())
    with pytest.raises(RetryLater, match="send it again"):
        placer.check_age()
    placer.refresh()
    placer.check_age()
    assert [usage.host for usage in placer.place(event, trust_team=True)] == ["h1"]
    placer._read_at -= OLD_SECONDS + 1.0
    with pytest.raises(RetryLater, match="send it again"):
        placer.check_age()


def test_a_reload_leaves_nothing_open(kafka: KafkaServer, kafka_section: Kafka, tmp_path: Path) -> None:
    """What roles have opened, files and connections, is closed when they have stopped: a reload makes them anew."""
    config = Config(
        roles=("ingest", "control", "aggregate"),
        kafka=kafka_section,
        sources=(Source(name="http", kind="http", listen=f"127.0.0.1:{server_port()}"),),
        deployments=(Deployment(name="pair", model="spread", hosts=("h1", "h2")),),
    )
    before = open_things(kafka)
    roles = roles_of(tmp_path / "data", config)
    roles.start()
    try:
        wait_for("the deployment", lambda: all_of(kafka, kafka_section.topics.facts))
        assert open_things(kafka) > before
    finally:
        roles.stop()
    wait_for("everything to be closed", lambda: open_things(kafka) <= before)


def open_things(kafka: KafkaServer) -> Counter[str]:
    """Of this process: connections to the broker, and files of stores."""
    process, port = psutil.Process(), int(kafka.bootstrap.rpartition(":")[2])
    found = Counter(Path(file.path).name for file in process.open_files() if "store.db" in file.path)
    found["connections"] = sum(bool(each.raddr) and each.raddr.port == port for each in process.net_connections())
    return found


def test_an_address_that_is_taken_ends_it_before_it_joins(kafka_section: Kafka, tmp_path: Path) -> None:
    """Those that listen are started first: the partitions of the others are not taken from them for nothing."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        web = Web(listen=f"127.0.0.1:{taken.getsockname()[1]}")
        every: tuple[Role, ...] = ("aggregate", "control", "ingest", "web")
        roles = roles_of(tmp_path, Config(roles=every, kafka=kafka_section, web=web))
        with pytest.raises(Broken, match="cannot listen"):
            roles.start()
        roles.stop()
        assert not any(loop.alive for loop in roles.loops)
