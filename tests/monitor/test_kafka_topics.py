"""The topics of a fleet on a real broker: made with what the books need, refused for each thing that is otherwise."""

import uuid
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from daemon_process import wait_for
from kafka.admin import ConfigResource
from servers.kafka import KafkaServer
from servers.server_process import server_port

from monitor.cli.main import cli
from monitor.config.books_sections import Accounting, Log
from monitor.config.output_sections import Kafka, KafkaTopics
from monitor.config.sections import Config
from monitor.log.kafka_client import admin
from monitor.log.kafka_topics import check_topics, create_topics, topic_warnings
from monitor.log.protocol import LogUnavailable

DAY_MS = 86_400_000
KEYS = ("readings", "usage", "facts", "requests", "request_energy", "dead_letters")


@pytest.fixture
def config(kafka: KafkaServer) -> Config:
    """A configuration whose topics have names of their own, so that a broker serves many tests."""
    return Config(kafka=Kafka(bootstrap_servers=(kafka.bootstrap,), topics=topics_of_this_test()))


def topics_of_this_test(**others: int) -> KafkaTopics:
    mark = uuid.uuid4().hex[:8]
    names = {key: f"{mark}.{key}" for key in KEYS}
    return KafkaTopics(**({"partitions": 2, "replication": 1} | others), **names)


def settings(config: Config, topic: str) -> dict[str, str]:
    with admin(config.kafka) as client:
        found = client.describe_configs([ConfigResource("TOPIC", topic)], config_filter="all")["topic"][topic]
    return {key: str(setting["value"]) for key, setting in found.items()}


def change(config: Config, topic: str, **values: str) -> None:
    changed = {key.replace("_", "."): value for key, value in values.items()}
    with admin(config.kafka) as client:
        client.alter_configs([ConfigResource("TOPIC", topic, changed)])
    # The controller has it at once, the broker that describes the topic a moment later.
    wait_for(f"{changed}", lambda: changed.items() <= settings(config, topic).items())


def run(tmp_path: Path, command: str, config: Config) -> Result:
    names = "".join(f'{key} = "{getattr(config.kafka.topics, key)}"\n' for key in KEYS)
    file = tmp_path / "config.toml"
    file.write_text(
        f'[kafka]\nbootstrap_servers = ["{config.kafka.bootstrap_servers[0]}"]\n'
        f"[kafka.topics]\npartitions = 2\nreplication = 1\n{names}"
    )
    return CliRunner().invoke(cli, ["topics", command, "--config", str(file)])


def test_topics_are_made_as_the_books_need_them(config: Config) -> None:
    """14 days kept by the broker's own time, for ever the facts in one partition; nothing compacted."""
    names = config.kafka.topics
    assert create_topics(config) == [
        f"{names.readings}: made, 2 partitions, 1 replicas",
        f"{names.usage}: made, 2 partitions, 1 replicas",
        f"{names.facts}: made, 1 partitions, 1 replicas",
        f"{names.requests}: made, 2 partitions, 1 replicas",
        f"{names.request_energy}: made, 2 partitions, 1 replicas",
        f"{names.dead_letters}: made, 1 partitions, 1 replicas",
    ]
    usage = settings(config, names.usage)
    assert usage["cleanup.policy"] == "delete"
    assert usage["message.timestamp.type"] == "LogAppendTime"
    assert usage["unclean.leader.election.enable"] == "false"
    assert usage["retention.ms"] == str(14 * DAY_MS)
    assert usage["min.insync.replicas"] == "1"
    assert settings(config, names.facts)["retention.ms"] == "-1"
    assert settings(config, names.request_energy)["retention.ms"] == str(7 * DAY_MS)
    assert check_topics(config) == []
    assert create_topics(config)[0] == f"{names.readings}: is there already"


def test_a_topic_that_is_not_there_is_named(config: Config) -> None:
    """On an empty cluster every topic is missing, and the command that makes them is said."""
    assert check_topics(config) == [
        f"{getattr(config.kafka.topics, key)}: is not there; make it with: wattribute topics create" for key in KEYS
    ]


@pytest.mark.parametrize(
    ("topic", "values", "told"),
    [
        ("usage", {"cleanup_policy": "compact"}, "cleanup.policy is compact, must be delete: compaction deletes what"),
        ("facts", {"cleanup_policy": "compact"}, "cleanup.policy is compact, must be delete: compaction deletes what"),
        (
            "readings",
            {"unclean_leader_election_enable": "true"},
            "unclean.leader.election.enable is true, must be false: an unclean election takes back",
        ),
        (
            "readings",
            {"message_timestamp_type": "CreateTime"},
            "message.timestamp.type is CreateTime, must be LogAppendTime: the log's time must be the broker's",
        ),
        (
            # 7 d of restating, a quarter of an hour each for horizon and mark, a day
            "usage",
            {"retention_ms": str(8 * DAY_MS)},
            "retention.ms is 691200000, must be at least 693000000: what may still be accounted or restated",
        ),
        ("facts", {"retention_ms": str(900 * DAY_MS)}, "retention.ms is 77760000000, must be -1: what may still be"),
        ("usage", {"retention_bytes": "1000000"}, "retention.bytes is 1000000, must be -1: a limit on the size"),
        ("usage", {"max_message_bytes": "1000"}, "max.message.bytes is 1000, must be at least 1048588: longer batches"),
    ],
)
def test_a_setting_that_the_books_cannot_do_with_is_refused(
    config: Config, topic: str, values: dict[str, str], told: str
) -> None:
    """One line: the topic, what is wrong, why it matters, and the command that mends it."""
    create_topics(config)
    name = getattr(config.kafka.topics, topic)
    change(config, name, **values)
    (line,) = check_topics(config)
    assert line.startswith(f"{name}: {told}")
    assert f"kafka-configs --alter --entity-type topics --entity-name {name} --add-config " in line


def test_a_retention_longer_than_needed_is_fine(config: Config) -> None:
    """It must reach as far back as restating reads; how much further is the operator's to say."""
    create_topics(config)
    for retention in (str(9 * DAY_MS), "-1"):
        change(config, config.kafka.topics.usage, retention_ms=retention)
        assert check_topics(config) == []


def test_shorter_restating_needs_a_shorter_retention(kafka: KafkaServer) -> None:
    """1 h of restating, 2 min each for horizon and mark, a day: 90 240 s."""
    config = Config(
        kafka=Kafka(bootstrap_servers=(kafka.bootstrap,), topics=topics_of_this_test()),
        log=Log(restate_within_seconds=3600.0, retention_seconds=90_240.0),
        accounting=Accounting(horizon_seconds=120.0, mark_interval_seconds=120.0),
    )
    create_topics(config)
    assert check_topics(config) == []
    change(config, config.kafka.topics.readings, retention_ms="90239999")
    assert "must be at least 90240000" in check_topics(config)[0]


def test_partitions_must_be_those_of_the_configuration_and_equal(config: Config, kafka: KafkaServer) -> None:
    """A third partition of usage and a second of facts: three lines, none of them proposes what would lose records."""
    create_topics(config)
    names = config.kafka.topics
    with admin(config.kafka) as client:
        client.create_partitions({names.usage: 3, names.facts: 2})
        wait_for("partitions", lambda: len(client.describe_topics([names.facts])[0]["partitions"]) == 2)
    usage, facts, step = check_topics(config)
    assert usage.startswith(
        f"{names.usage}: has 3 partitions, [kafka.topics] partitions says 2: correct that everywhere"
    )
    assert facts.startswith(f"{names.facts}: has 2 partitions; facts are read in their order, which needs exactly 1")
    assert step.startswith(f"{names.readings} has 2 partitions and {names.usage} 3: a host's records must stand in")


def test_replays_have_topics_by_the_records_own_time(kafka: KafkaServer) -> None:
    """Records of any year are taken and kept; a topic by the broker's time is refused for them."""
    records = Config(kafka=Kafka(bootstrap_servers=(kafka.bootstrap,), topics=topics_of_this_test(), clock="records"))
    create_topics(records)
    usage = settings(records, records.kafka.topics.usage)
    assert usage["message.timestamp.type"] == "CreateTime"
    assert usage["retention.ms"] == "-1"
    assert usage["message.timestamp.after.max.ms"] == usage["message.timestamp.before.max.ms"] == str(2**63 - 1)
    assert check_topics(records) == []
    assert any(line.startswith('[kafka] clock = "records" is for replays') for line in topic_warnings(records))
    change(records, records.kafka.topics.usage, message_timestamp_type="LogAppendTime")
    (line,) = check_topics(records)
    assert "must be CreateTime: the log's time must be the records' own" in line


def test_more_replicas_than_brokers_are_refused(kafka: KafkaServer) -> None:
    """The default of three on a cluster of one broker: said with what to do, and nothing is left half made."""
    config = Config(kafka=Kafka(bootstrap_servers=(kafka.bootstrap,), topics=topics_of_this_test(replication=3)))
    reason = r"only 1 broker.*set \[kafka.topics\] replication to how many there are"
    with pytest.raises(LogUnavailable, match=reason) as failed:
        create_topics(config)
    assert str(failed.value).count("cannot be made") == 1


def test_too_few_replicas_are_said(kafka: KafkaServer) -> None:
    """Topics with one replica do not satisfy a configuration that asks for three, of which two be in sync."""
    topics = topics_of_this_test()
    one = Config(kafka=Kafka(bootstrap_servers=(kafka.bootstrap,), topics=topics))
    create_topics(one)
    names = {key: getattr(topics, key) for key in KEYS}
    three = KafkaTopics(partitions=2, replication=3, **names)
    lines = check_topics(Config(kafka=Kafka(bootstrap_servers=(kafka.bootstrap,), topics=three)))
    assert len(lines) == 2 * len(KEYS)
    assert lines[0].startswith(f"{topics.readings}: has 1 replicas, [kafka.topics] replication says 3")
    assert lines[1].startswith(f"{topics.readings}: min.insync.replicas is 1, must be at least 2")


def test_command_creates_and_checks(config: Config, tmp_path: Path) -> None:
    """`topics check` fails before and succeeds after `topics create`; a difference is exit code 1, a warning is not."""
    before = run(tmp_path, "check", config)
    assert before.exit_code == 1
    assert len(before.stdout.splitlines()) == 6
    made = run(tmp_path, "create", config)
    assert made.exit_code == 0
    assert made.stdout.splitlines()[-1] == "topics: ok"
    assert made.stderr.startswith("warning: [kafka.topics] replication = 1")
    assert run(tmp_path, "check", config).exit_code == 0
    change(config, config.kafka.topics.usage, cleanup_policy="compact,delete")
    again = run(tmp_path, "create", config)
    assert again.exit_code == 1
    assert "cleanup.policy is compact,delete, must be delete" in again.stdout


def test_command_without_brokers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens: exit code 3 with the address; no [kafka] at all: wrong use, exit code 2."""
    monkeypatch.setattr("monitor.log.kafka_client.PATIENCE_SECONDS", 0.5)
    address = f"127.0.0.1:{server_port()}"
    config = Config(kafka=Kafka(bootstrap_servers=(address,), topics=topics_of_this_test()))
    result = run(tmp_path, "check", config)
    assert result.exit_code == 3
    assert f"topics: Kafka at {address}: no broker can be reached: {address}: KafkaConnectionError" in result.stderr
    (tmp_path / "config.toml").write_text("")
    result = CliRunner().invoke(cli, ["topics", "check", "--config", str(tmp_path / "config.toml")])
    assert result.exit_code == 2
    assert "[kafka] bootstrap_servers is missing" in result.stderr
