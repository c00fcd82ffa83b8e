"""The topics of a fleet, made on the brokers and compared with what the books need of them.

In: the configuration. Out: topics, or a line for each difference with why it matters and what to do.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, KafkaAdminClient

from monitor.config.sections import Config
from monitor.log.kafka_client import admin
from monitor.log.kafka_topic_settings import EVER, Topic, wanted_topics
from monitor.log.protocol import LogUnavailable

_CREATION_MS: Final = 30_000


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """How a setting of a topic is compared with the wanted one, and what goes wrong with another."""

    key: str
    least: bool = False
    why: str


_RETENTION: Final = Rule(key="retention.ms", least=True, why="what may still be accounted or restated would be deleted")
_RULES: Final = (
    Rule(key="cleanup.policy", why="compaction deletes what shares a key, and a host's records all do"),
    Rule(key="unclean.leader.election.enable", why="an unclean election takes back records that were acknowledged"),
    Rule(key="message.timestamp.type", why="the log's time must be {clock}, or late and early mean something else"),
    Rule(key="message.timestamp.before.max.ms", least=True, why="a replay's older records are refused"),
    Rule(key="message.timestamp.after.max.ms", least=True, why="a replay's records ahead of the clock are refused"),
    Rule(key="min.insync.replicas", least=True, why="a record that one broker alone has is lost with it"),
    Rule(key="max.message.bytes", least=True, why="longer batches are refused"),
    Rule(key="retention.bytes", least=True, why="a limit on the size deletes records before their time is up"),
)


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One topic as it is. `least_replicas` is that of its worst partition."""

    partitions: int
    least_replicas: int
    settings: Mapping[str, str]


def create_topics(config: Config) -> list[str]:
    """Makes the topics that are not there and says so of each; those that are there stay as they are.

    Raises LogUnavailable when no broker is reached, or one refuses.
    """
    wanted = wanted_topics(config)
    with admin(config.kafka) as client:
        known = {topic["name"] for topic in _described(client, [topic.name for topic in wanted])}
        new = [topic for topic in wanted if topic.name not in known]
        if new:
            _create(config, client, new)
    return [f"{topic.name}: {'is there already' if topic.name in known else _made(topic)}" for topic in wanted]


def check_topics(config: Config) -> list[str]:
    """A line for each thing that the books cannot do with, and what to do about it; empty: all is well.

    Raises LogUnavailable when no broker is reached.
    """
    wanted = wanted_topics(config)
    with admin(config.kafka) as client:
        seen = _seen(config, client, wanted)
    lines = []
    for topic in wanted:
        if topic.name in seen:
            lines += [f"{topic.name}: {difference}" for difference in _differences(config, topic, seen[topic.name])]
        else:
            lines.append(f"{topic.name}: is not there; make it with: wattribute topics create")
    return lines + _not_in_step(config, seen)


def topics_not_there(config: Config, names: Collection[str]) -> list[str]:
    """Which of these are not there. Asks less than `check_topics`: whoever may use a topic may ask whether it is there.

    Raises LogUnavailable when no broker is reached, or it refuses.
    """
    with admin(config.kafka) as client:
        there = {topic["name"] for topic in _described(client, names)}
    return [name for name in names if name not in there]


def topic_warnings(config: Config) -> list[str]:
    """What can be lived with and ought to be known."""
    warnings = []
    if config.kafka.topics.replication == 1:
        warnings.append("[kafka.topics] replication = 1: what is not accounted yet is lost with the disk of its broker")
    if config.kafka.clock == "records":
        warnings.append('[kafka] clock = "records" is for replays: what is late is what the records say is late')
    return warnings


def _create(config: Config, client: KafkaAdminClient, topics: Sequence[Topic]) -> None:
    asked = {
        topic.name: {
            "num_partitions": topic.partitions,
            "replication_factor": topic.replication,
            "configs": dict(topic.settings),
        }
        for topic in topics
    }
    answers = client.create_topics(asked, timeout_ms=_CREATION_MS, raise_errors=False)["topics"]
    # Another process may have made one just now.
    refused = [answer for answer in answers if _error(answer) not in (None, kafka_errors.TopicAlreadyExistsError)]
    if refused:
        brokers = ", ".join(config.kafka.bootstrap_servers)
        whys: dict[str, list[str]] = {}
        for answer in refused:
            whys.setdefault(_refusal(config, answer), []).append(answer["name"])
        told = "; ".join(f"topic {', '.join(names)} cannot be made: {why}" for why, names in whys.items())
        raise LogUnavailable(f"Kafka at {brokers}: {told}")
    client.wait_for_topics([topic.name for topic in topics], timeout_ms=_CREATION_MS)


def _refusal(config: Config, answer: Mapping[str, Any]) -> str:
    said = str(answer["error_message"]).rstrip(".")
    match _error(answer):
        case kafka_errors.InvalidReplicationFactorError:
            return f"{said}; start the other brokers, or set [kafka.topics] replication to how many there are"
        case kafka_errors.TopicAuthorizationFailedError | kafka_errors.ClusterAuthorizationFailedError:
            return f"{said}; allow user {config.kafka.user!r} CREATE on the cluster (kafka-acls)"
    return said


def _made(topic: Topic) -> str:
    return f"made, {topic.partitions} partitions, {topic.replication} replicas"


def _seen(config: Config, client: KafkaAdminClient, wanted: Sequence[Topic]) -> dict[str, Seen]:
    topics = _described(client, [topic.name for topic in wanted])
    asked = [ConfigResource("TOPIC", topic["name"]) for topic in topics]
    settings = client.describe_configs(asked, config_filter="all")["topic"] if asked else {}
    hidden = [name for name, found in settings.items() if not found]  # refused, which kafka-python does not say
    if hidden:
        brokers, user = ", ".join(config.kafka.bootstrap_servers), config.kafka.user
        raise LogUnavailable(
            f"Kafka at {brokers}: the settings of topic {', '.join(hidden)} cannot be read; "
            f"allow user {user!r} DESCRIBE_CONFIGS on it (kafka-acls)"
        )
    return {
        topic["name"]: Seen(
            partitions=len(topic["partitions"]),
            least_replicas=min(len(partition["replica_nodes"]) for partition in topic["partitions"]),
            settings={key: setting["value"] for key, setting in settings[topic["name"]].items()},
        )
        for topic in topics
    }


def _described(client: KafkaAdminClient, names: Collection[str]) -> list[dict[str, Any]]:
    """Those of them that are there."""
    there = []
    for topic in client.describe_topics(list(names)):
        error = _error(topic)
        if error is None:
            there.append(topic)
        elif error is not kafka_errors.UnknownTopicOrPartitionError:
            raise error(topic["name"])
    return there


def _error(answer: Mapping[str, Any]) -> type[kafka_errors.KafkaError] | None:
    kind = kafka_errors.for_code(answer["error_code"])
    return None if kind is kafka_errors.NoError else kind


def _differences(config: Config, topic: Topic, seen: Seen) -> Iterator[str]:
    if topic.name == config.kafka.topics.facts and seen.partitions != 1:
        yield f"has {seen.partitions} partitions; facts are read in their order, which needs exactly 1: make it anew"
    elif topic.least_retention_ms is not None and seen.partitions != topic.partitions:
        yield (
            f"has {seen.partitions} partitions, [kafka.topics] partitions says {topic.partitions}: correct that "
            "everywhere (adding partitions moves hosts between them, and has a procedure of its own)"
        )
    if seen.least_replicas < topic.replication:
        yield (
            f"has {seen.least_replicas} replicas, [kafka.topics] replication says {topic.replication}: reassign it "
            "(kafka-reassign-partitions), or correct that"
        )
    for rule in _RULES:
        if rule.key in topic.settings:
            yield from _compared(config, topic, seen, rule, topic.settings[rule.key])
    if topic.least_retention_ms is not None:
        yield from _compared(config, topic, seen, _RETENTION, str(topic.least_retention_ms))


def _compared(config: Config, topic: Topic, seen: Seen, rule: Rule, wanted: str) -> Iterator[str]:
    value = seen.settings.get(rule.key)  # None: a broker that is too old to know it
    if value is None or value == wanted or (rule.least and _number(value) >= _number(wanted)):
        return
    least = "at least " if rule.least and wanted != str(EVER) else ""
    clock = "the broker's" if config.kafka.clock == "broker" else "the records' own"
    command = f"kafka-configs --alter --entity-type topics --entity-name {topic.name} --add-config {rule.key}="
    yield (
        f"{rule.key} is {value}, must be {least}{wanted}: {rule.why.format(clock=clock)}; "
        f"correct it with: {command}{topic.settings[rule.key]}"
    )


def _number(value: str) -> float:
    return float("inf") if int(value) == EVER else int(value)


def _not_in_step(config: Config, seen: Mapping[str, Seen]) -> list[str]:
    names = config.kafka.topics
    if names.readings not in seen or names.usage not in seen:
        return []
    readings, usage = seen[names.readings].partitions, seen[names.usage].partitions
    if readings == usage:
        return []
    return [
        f"{names.readings} has {readings} partitions and {names.usage} {usage}: a host's records must stand in the "
        "partition of the same number in both; make the one with fewer anew"
    ]
