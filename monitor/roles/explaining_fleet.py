"""A request of a fleet, computed again from Kafka and held against the books in the store.

bucket of requests, else usage[p] of its host --> the request and its windows
readings[p], usage[p], facts -----------------> accounts of these windows, watched --> Explained
store: rows of the books of these windows ----> the same, or which windows differ --^

Reads one partition only, without a group: nothing that the aggregators see changes. What is read is the time in which
records of the request's windows can stand: for one of a minute about three hours of the log.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, NoReturn

from kafka import TopicPartition
from msgspec.structs import replace

from collectors.clock import SystemClock, monotonic
from collectors.errors import Rejected
from collectors.units import UnixSeconds
from monitor.config.output_sections import Kafka
from monitor.config.sections import Config
from monitor.core.facts import Facts
from monitor.core.points import ENERGY, REQUEST_ENERGY, Row
from monitor.core.usage import Usage
from monitor.core.window import window_start, windows_of
from monitor.ledger.restating import Source
from monitor.log.codec import Decoder
from monitor.log.kafka_facts import KafkaFacts
from monitor.log.kafka_feed import KafkaFeed
from monitor.log.kafka_partition import SILENT_SECONDS, KafkaPartition
from monitor.log.protocol import DeadLetter, LogUnavailable
from monitor.log.usage_wire import UsageBatch
from monitor.roles.aggregate_group import partition_of
from monitor.roles.control import FactsReader
from monitor.roles.explaining import Asked, Explained, asked_of, computed_again, explained_of, source_of, terms_of
from monitor.roles.request_energy import keeps_requests
from monitor.store.protocol import Store

RELATIVE: Final = 1e-9
_REVISION: Final = ENERGY.fields.index("revision")


class NotFindable(Exception):
    """Neither a bucket of requests nor a host is there to find the request by; says what is needed."""


def explain_in_fleet(
    config: Config, store: Store, request_id: str, start: UnixSeconds, end: UnixSeconds, *, host: str | None
) -> list[Explained]:
    """All requests of that id that ended in [start, end), in their order; of that host alone where one is named.

    Found by the rows of requests where the store keeps them, else in the usage stream of the host. Raises NotFindable,
    LogUnavailable, StoreUnavailable, or TermsChanged for books of a method that this version does not know.
    """
    if not keeps_requests(config) and host is None:
        raise NotFindable(
            "in a fleet the books hold no rows of requests: name the --host that it ran on, and --at which time, or"
            " keep requests from now on ([influxdb] requests = true)"
        )
    facts = _facts(config.kafka)
    found = _by_rows(store, request_id, start, end, host) if keeps_requests(config) else []
    if not found and host is not None:
        found = _in_usage_stream(config.kafka, host, request_id, (start, end), terms_of(facts).horizon_seconds)
    explained = []
    for asked in found:
        with _partition(config.kafka, asked.host) as log:
            explained.append(_explained(source_of(log, facts, host=asked.host), store, asked))
    return explained


def _facts(kafka: Kafka) -> Facts:
    """All that the books are computed by. Raises LogUnavailable for a fleet that keeps none yet."""
    log = KafkaFacts(kafka)
    try:
        facts = FactsReader(log)()
    finally:
        log.close()
    if facts.accounting() is None:
        raise LogUnavailable(f"topic {kafka.topics.facts} states no terms: this fleet has kept no books yet")
    return facts


def _by_rows(store: Store, request_id: str, start: UnixSeconds, end: UnixSeconds, host: str | None) -> list[Asked]:
    where = {"request_id": {request_id}} | ({} if host is None else {"host": {host}})
    return [asked_of([row]) for row in store.read(REQUEST_ENERGY, start, end, where=where)]


def _in_usage_stream(
    kafka: Kafka, host: str, request_id: str, between: tuple[UnixSeconds, UnixSeconds], horizon: float
) -> list[Asked]:
    """Those of that id which ended in between, as they stand in the host's stream up to a horizon behind it.

    Events that came later stand later: whoever looks for one names a later end.
    """
    start, end = between
    part = TopicPartition(kafka.topics.usage, partition_of(host, kafka.topics.partitions))
    feed, decoder, found = KafkaFeed(kafka), Decoder(), dict[tuple[object, ...], Asked]()
    try:
        first = feed.first_from(part, start - horizon)
        if first is None:
            return []
        feed.place(part, "usage", first[0], first[1])
        deadline = monotonic() + SILENT_SECONDS
        while True:
            if feed.fill(0.2):
                deadline = monotonic() + SILENT_SECONDS
            while (head := feed.head(part)) is not None:
                record = feed.take(part)
                if head.stamp >= end + horizon:
                    return list(found.values())
                if record.key != host:
                    continue
                try:
                    batch = decoder.decode(record)
                except Rejected:  # a dead letter is in no account
                    continue
                for usage in _of(batch, request_id):
                    if start <= usage.end < end:
                        found.setdefault((*usage.identity, usage.start), _asked(usage))
            if feed.at_end(part):
                return list(found.values())
            if monotonic() > deadline:
                raise LogUnavailable(f"{part.topic}, partition {part.partition}: no record came")
    finally:
        feed.close()


def _of(record: object, request_id: str) -> Iterator[Usage]:
    """What a record says of a request; nearly all say nothing of it."""
    if isinstance(record, UsageBatch) and request_id in record.request_ids:
        yield from (usage for usage in record.usages() if usage.request_id == request_id)


def _asked(usage: Usage) -> Asked:
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
        booked_joules=None,
    )


def _explained(source: Source, store: Store, asked: Asked) -> Explained:
    length = source.terms.window_seconds
    touched = windows_of(asked.start, asked.end, length)
    begin, stop = window_start(touched.start, length), window_start(touched.stop, length)
    stored: dict[UnixSeconds, list[Row]] = {}
    for row in store.read(ENERGY, begin, stop, where={"host": {asked.host}}):
        stored.setdefault(row.time, []).append(row)
    starts = {window: window_start(window, length) for window in touched}
    revisions = {
        window: max((int(row.fields[_REVISION] or 0) for row in stored.get(at, ())), default=0)
        for window, at in starts.items()
    }
    parts, computed = computed_again(source, asked, revisions)
    return replace(
        explained_of(asked, source.terms, parts),
        unbooked=tuple(at for at in starts.values() if at not in stored),
        differing=tuple(
            at for window, at in starts.items() if at in stored and not _same(stored[at], computed[window])
        ),
    )


def _same(stored: Sequence[Row], computed: Sequence[Row]) -> bool:
    """Whether each account of each device has the joules that are computed; what is stored alone must hold none."""
    booked, now = _joules(stored), _joules(computed)
    return all(
        abs(booked.get(tags, 0.0) - now.get(tags, 0.0)) <= RELATIVE * max(booked.get(tags, 0.0), 1.0)
        for tags in booked.keys() | now.keys()
    )


def _joules(rows: Sequence[Row]) -> Mapping[tuple[str, ...], float]:
    return {row.tags: float(row.fields[0] or 0.0) for row in rows if row.measurement == ENERGY.name}


class _ReadOnly:
    """Commits of nobody: the log is read beside its aggregators."""

    def commit(self, offsets: Mapping[TopicPartition, tuple[int, str]]) -> NoReturn:
        raise AssertionError("nothing is committed where a request is explained")

    def committed(self, parts: Sequence[TopicPartition]) -> Mapping[TopicPartition, tuple[int, str] | None]:
        return dict.fromkeys(parts)


def _reject(_letters: Sequence[DeadLetter]) -> None:
    """The aggregator has done so."""


@contextmanager
def _partition(kafka: Kafka, host: str) -> Iterator[KafkaPartition]:
    """That of the host, to be read again."""
    feed, count = KafkaFeed(kafka), kafka.topics.partitions
    try:
        there = feed.partition_count(kafka.topics.readings)
        if there != count:
            raise LogUnavailable(
                f"{kafka.topics.readings} has {there} partitions, not {count} ([kafka.topics] partitions): which one"
                " held the host is not known; docs/fleet.md, 'More partitions'"
            )
        yield KafkaPartition(
            kafka,
            partition_of(host, count),
            count,
            feed=feed,
            spare=lambda: feed,
            commits=_ReadOnly(),
            reject=_reject,
            clock=SystemClock(),
        )
    finally:
        feed.close()
