"""What a consumer group's commits claim of its partitions. In: commits as the brokers hold them. Out: a Claim for each.

A partition of the books is one of `readings` and one of `usage`, of the same number; each has a commit, and of two that
were torn apart the higher claim holds.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from collectors.units import UnixSeconds
from monitor.config.output_sections import Kafka
from monitor.core.attribution.learning import FitSums
from monitor.core.lessons import TaughtUnit
from monitor.log.protocol import LogUnavailable, Moved, Stream

_MINUS_INFINITY: Final = float("-inf")


class Claim(msgspec.Struct, frozen=True, omit_defaults=True):
    """The metadata of a commit, as JSON; None is -infinity. Well below the 4 096 bytes that a broker takes.

    Each of a pair says the positions of both: of a pair that was torn apart the higher one is whole by itself. `topics`
    are the ids of the topics that the positions are of: one that was made anew has another.
    """

    n: int
    positions: dict[str, int]
    watermark: UnixSeconds | None = None
    mark: UnixSeconds | None = None
    log_time: UnixSeconds | None = None
    beginning: UnixSeconds | None = None
    topics: dict[str, str] = {}
    moved: Moved | None = None
    lessons: dict[str, FitSums] = {}
    unit_lessons: tuple[TaughtUnit, ...] = ()


def parts_of(kafka: Kafka, number: int) -> dict[Stream, TopicPartition]:
    """The pair that partition `number` is read from."""
    return {
        "readings": TopicPartition(kafka.topics.readings, number),
        "usage": TopicPartition(kafka.topics.usage, number),
    }


def claim_in(metadata: str, part: TopicPartition) -> Claim:
    """What the commit of `part` claims. Raises LogUnavailable for one that is none of an aggregator's."""
    try:
        return msgspec.json.decode(metadata, type=Claim)
    except msgspec.DecodeError as error:
        raise LogUnavailable(
            f"{part.topic}, partition {part.partition}: the group's commit holds {metadata[:80]!r}, which is none of"
            " an aggregator's; give the aggregators a [kafka] group of their own"
        ) from error


def highest(claims: Iterable[Claim]) -> Claim | None:
    """The one of a pair that holds; None of none."""
    return max(claims, key=_height, default=None)


def claims_of(client: KafkaAdminClient, kafka: Kafka, group: str, count: int) -> Mapping[int, Claim]:
    """What the group claims of each of `count` partitions, where it has committed any."""
    parts = [part for number in range(count) for part in parts_of(kafka, number).values()]
    found = client.list_group_offsets({group: parts})[group]
    pairs: dict[int, list[Claim]] = {}
    for part, each in found.items():
        if each.offset >= 0:
            pairs.setdefault(part.partition, []).append(claim_in(each.metadata, part))
    return {number: claim for number, pair in pairs.items() if (claim := highest(pair)) is not None}


def refuse_other_count(kafka: Kafka, claims: Iterable[Claim], partitions: int) -> None:
    """Raises LogUnavailable where books were kept with another number of partitions."""
    for claim in claims:
        if claim.n != partitions:
            raise LogUnavailable(
                f"{kafka.topics.readings} and {kafka.topics.usage} have {partitions} partitions, but the books were"
                f" kept with {claim.n}: hosts have moved between partitions, so this partition is refused;"
                " docs/fleet.md, 'More partitions', has the procedure"
            )


def _height(claim: Claim) -> tuple[UnixSeconds, ...]:
    moments = (claim.watermark, claim.mark, claim.log_time)
    return tuple(_MINUS_INFINITY if moment is None else moment for moment in moments)
