"""Looks for a request in Kafka by its id, between two moments. In: topics of a fleet. Out: `Asked`.

usage[p] of a host           its event, as soon as it stands there: no figure of the books
request-energy, all hosts    its entry, once its windows are final: with what it was booked at, at which revision
"""

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Final, NamedTuple

import msgspec
from kafka import TopicPartition

from collectors.clock import monotonic
from collectors.errors import Rejected
from collectors.requests.event import Work
from collectors.units import UnixSeconds
from monitor.config.output_sections import Kafka
from monitor.core.membership import Accounting
from monitor.core.usage import Usage
from monitor.log.codec import Decoder
from monitor.log.kafka_feed import KafkaFeed
from monitor.log.kafka_partition import SILENT_SECONDS
from monitor.log.protocol import LogRecord, LogUnavailable
from monitor.log.usage_wire import UsageBatch
from monitor.roles.aggregate_group import partition_of
from monitor.roles.explaining import Asked
from monitor.roles.request_energy import REQUEST_ENERGY_SCHEMA

_FILL_SECONDS: Final = 0.2
Between = tuple[UnixSeconds, UnixSeconds]


class Found(NamedTuple):
    """A request, and the revision of the figure that it was booked at; None without such a figure."""

    asked: Asked
    revision: int | None = None


class _Entry(msgspec.Struct, frozen=True):
    """What of an entry (core/request_energy.py) tells who it is and what it was booked at."""

    namespace: str
    request_id: str
    attempt: int
    host: str
    model: str
    team: str
    start: UnixSeconds
    end: UnixSeconds
    input_tokens: int | None
    cached_input_tokens: int | None
    output_tokens: int | None
    work: Work | None
    energy_joules: float | None
    revision: int


def in_usage_stream(kafka: Kafka, terms: Accounting, host: str, request_id: str, between: Between) -> list[Found]:
    """Those of that id and host which ended in between, as they stand in its stream up to a horizon behind that.

    Events that came later stand later: whoever looks for one names a later end.
    """
    part = TopicPartition(kafka.topics.usage, partition_of(host, kafka.topics.partitions))
    decoder, found = Decoder(), dict[tuple[object, ...], Asked]()
    spread = between[0] - terms.horizon_seconds, between[1] + terms.horizon_seconds
    with closing(KafkaFeed(kafka)) as feed:
        for record in _records(feed, [part], spread):
            if record.key != host:
                continue
            try:
                batch = decoder.decode(record)
            except Rejected:  # a dead letter is in no account
                continue
            if not isinstance(batch, UsageBatch) or request_id not in batch.request_ids:
                continue
            for usage in batch.usages():
                if usage.request_id == request_id and between[0] <= usage.end < between[1]:
                    found.setdefault((*usage.identity, usage.start), _of_usage(usage))
    return [Found(asked) for asked in found.values()]


def in_request_energy(kafka: Kafka, terms: Accounting, request_id: str, between: Between) -> list[Found]:
    """Those of that id, of any host, that ended in between: the highest revision of each that was told up to two marks
    after it was first final.
    """
    parts = [TopicPartition(kafka.topics.request_energy, number) for number in range(kafka.topics.partitions)]
    behind = terms.horizon_seconds + 2.0 * terms.mark_seconds
    needle, decoder = msgspec.json.encode(request_id), msgspec.json.Decoder(list[_Entry])
    newest: dict[tuple[object, ...], _Entry] = {}
    with closing(KafkaFeed(kafka)) as feed:
        for record in _records(feed, parts, (between[0], between[1] + behind)):
            if record.schema != REQUEST_ENERGY_SCHEMA or needle not in record.body:  # decoding costs fifty times that
                continue
            try:
                entries = decoder.decode(record.body)
            except msgspec.DecodeError:  # not written by an aggregator
                continue
            for entry in entries:
                key = (entry.host, entry.namespace, entry.request_id, entry.attempt, entry.start)
                before = newest.get(key)
                if (
                    entry.request_id == request_id
                    and between[0] <= entry.end < between[1]
                    and (before is None or entry.revision >= before.revision)
                ):
                    newest[key] = entry
    return [_of_entry(newest[key]) for key in sorted(newest, key=str)]


def _records(feed: KafkaFeed, parts: Iterable[TopicPartition], between: Between) -> Iterator[LogRecord]:
    """All records of these partitions stamped in between, in the order of each partition."""
    open_parts = []
    for part in parts:
        first = feed.first_from(part, between[0])
        if first is not None:
            feed.place(part, "usage", first[0], first[1])
            open_parts.append(part)
    deadline = monotonic() + SILENT_SECONDS
    while open_parts:
        if feed.fill(_FILL_SECONDS):
            deadline = monotonic() + SILENT_SECONDS
        for part in list(open_parts):
            while (head := feed.head(part)) is not None and head.stamp < between[1]:
                yield feed.take(part)
            if head is not None or feed.at_end(part):
                open_parts.remove(part)
                feed.drop([part])
        if monotonic() > deadline:
            raise LogUnavailable(f"{open_parts[0].topic}: no record came within {SILENT_SECONDS:.0f} s")


def _of_usage(usage: Usage) -> Asked:
    return Asked(
        host=usage.host,
        namespace=usage.namespace,
        request_id=usage.request_id,
        attempt=usage.attempt,
        model=usage.model,
        team=usage.team,
        start=usage.start,
        end=usage.end,
        input_tokens=usage.input_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        output_tokens=usage.output_tokens,
        work_unit=None if usage.work is None else usage.work.unit,
        work_amount=None if usage.work is None else usage.work.amount,
        booked_joules=None,
    )


def _of_entry(entry: _Entry) -> Found:
    told, work = msgspec.structs.asdict(entry), entry.work
    del told["work"], told["energy_joules"], told["revision"]
    asked = Asked(
        **told,
        work_unit=None if work is None else work.unit,
        work_amount=None if work is None else work.amount,
        booked_joules=entry.energy_joules,
    )
    return Found(asked, entry.revision)
