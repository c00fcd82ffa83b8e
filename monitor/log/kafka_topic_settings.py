"""The topics of a fleet as they ought to be: partitions, replicas, and the settings that the books need of them."""

from collections.abc import Mapping
from typing import Final

import msgspec

from monitor.config.books_sections import DAY_SECONDS
from monitor.config.sections import Config

EVER: Final = -1
_MOST: Final = 2**63 - 1
_LONGEST_RECORD_BYTES: Final = 1_048_588
"""The MiB that a writer may send, with what Kafka puts around it: its own default."""
_REPLICAS_FOR_TWO_IN_SYNC: Final = 3
"""From three on, one broker may be down and every record still stands on two."""


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """One topic. `least_retention_ms` is set for those that the books are made from; EVER: nothing may be deleted."""

    name: str
    partitions: int
    replication: int
    settings: Mapping[str, str]
    least_retention_ms: int | None = None


def wanted_topics(config: Config) -> tuple[Topic, ...]:
    """All topics of the house: readings, usage and facts first, which the books are made from."""
    names, n = config.kafka.topics, config.kafka.topics.partitions
    kept = _milliseconds(config.log.retention_seconds)
    needed = _milliseconds(needed_seconds(config))
    if config.kafka.clock == "records":
        kept = needed = EVER  # the records may be of another year, and would be deleted at once

    def of_the_books(name: str, partitions: int, retention_ms: int, least_ms: int) -> Topic:
        settings = _settings(config, retention_ms) | _clock(config)
        return Topic(
            name=name,
            partitions=partitions,
            replication=names.replication,
            settings=settings,
            least_retention_ms=least_ms,
        )

    def beside(name: str, partitions: int, retention_seconds: float) -> Topic:
        settings = _settings(config, _milliseconds(retention_seconds))
        return Topic(name=name, partitions=partitions, replication=names.replication, settings=settings)

    return (
        of_the_books(names.readings, n, kept, needed),
        of_the_books(names.usage, n, kept, needed),
        of_the_books(names.facts, 1, EVER, EVER),
        beside(names.requests, n, config.log.retention_seconds),
        beside(names.request_energy, n, config.store.requests_retention_seconds),
        beside(names.dead_letters, 1, config.log.retention_seconds),
    )


def needed_seconds(config: Config) -> float:
    """How far back the aggregator may have to read: what is restated, what is not final or marked yet, and a day."""
    accounting = config.accounting
    open_seconds = accounting.horizon_seconds + accounting.mark_interval_seconds
    return config.log.restate_within_seconds + open_seconds + DAY_SECONDS


def _settings(config: Config, retention_ms: int) -> dict[str, str]:
    in_sync = "2" if config.kafka.topics.replication >= _REPLICAS_FOR_TWO_IN_SYNC else "1"
    return {
        "cleanup.policy": "delete",
        "unclean.leader.election.enable": "false",
        "min.insync.replicas": in_sync,
        "retention.ms": str(retention_ms),
        "retention.bytes": str(EVER),
        "max.message.bytes": str(_LONGEST_RECORD_BYTES),
    }


def _clock(config: Config) -> dict[str, str]:
    if config.kafka.clock == "broker":
        return {"message.timestamp.type": "LogAppendTime"}
    return {
        "message.timestamp.type": "CreateTime",
        "message.timestamp.before.max.ms": str(_MOST),
        "message.timestamp.after.max.ms": str(_MOST),
    }


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
