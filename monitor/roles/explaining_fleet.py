"""A request of a fleet, computed again from Kafka and held against the books in the store.

bucket of requests, else usage[p] of its host, else request-energy --> the request and its windows
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

from collectors.clock import SystemClock
from collectors.units import UnixSeconds
from monitor.config.output_sections import Kafka
from monitor.config.sections import Config
from monitor.core.band import Gains
from monitor.core.facts import Facts
from monitor.core.points import ENERGY, REQUEST_ENERGY, Row
from monitor.core.window import window_start, windows_of
from monitor.ledger.restating import Source
from monitor.log.kafka_facts import KafkaFacts
from monitor.log.kafka_feed import KafkaFeed
from monitor.log.kafka_partition import KafkaPartition
from monitor.log.protocol import DeadLetter, LogUnavailable
from monitor.roles.aggregate_group import partition_of
from monitor.roles.asked_in_kafka import Found, in_request_energy, in_usage_stream
from monitor.roles.control import FactsReader
from monitor.roles.embedded import gains_of
from monitor.roles.explaining import Explained, asked_of, computed_again, explained_of, source_of, terms_of
from monitor.roles.request_energy import keeps_requests
from monitor.store.protocol import Store

RELATIVE: Final = 1e-9
_REVISION: Final = ENERGY.fields.index("revision")
_REQUEST_REVISION: Final = REQUEST_ENERGY.fields.index("revision")


class NotFindable(Exception):
    """Nothing that is kept leads to the request; says what is needed."""


def explain_in_fleet(
    config: Config,
    store: Store,
    request_id: str,
    start: UnixSeconds,
    end: UnixSeconds,
    *,
    host: str | None,
    bounded: bool = True,
) -> list[Explained]:
    """All requests of that id that ended in [start, end), in their order; of that host alone where one is named.

    Found by the rows of requests where the store keeps them, else in the usage stream of the host, else, if the time is
    `bounded`, in the topic of request energy, which holds those of all hosts. Raises NotFindable, LogUnavailable,
    StoreUnavailable, or TermsChanged for books of a method that this version does not know.
    """
    if not keeps_requests(config) and host is None and not (bounded and config.kafka.request_energy):
        raise NotFindable(
            "in a fleet the books hold no rows of requests: name the --host that it ran on, and --at which time"
            + (" (or --at alone, which reads two hours of all hosts' entries)" if config.kafka.request_energy else "")
            + ", or keep requests from now on ([influxdb] requests = true)"
        )
    facts = _facts(config.kafka)
    terms, between = terms_of(facts), (start, end)
    found = _by_rows(store, request_id, between, host) if keeps_requests(config) else []
    if not found and host is not None:
        found = in_usage_stream(config.kafka, terms, host, request_id, between)
    elif not found and bounded and config.kafka.request_energy:
        found = in_request_energy(config.kafka, terms, request_id, between)
    explained = []
    for each in found:
        with _partition(config.kafka, each.asked.host) as log:
            explained.append(_explained(source_of(log, facts, host=each.asked.host), store, each, gains_of(config)))
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


def _by_rows(store: Store, request_id: str, between: tuple[UnixSeconds, UnixSeconds], host: str | None) -> list[Found]:
    where = {"request_id": {request_id}} | ({} if host is None else {"host": {host}})
    return [
        Found(asked_of([row]), int(row.fields[_REQUEST_REVISION] or 0))
        for row in store.read(REQUEST_ENERGY, *between, where=where)
    ]


def _explained(source: Source, store: Store, found: Found, gains: Gains) -> Explained:
    """A figure that was booked before its windows were restated says nothing of the books as they are now."""
    asked, length = found.asked, source.terms.window_seconds
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
    if found.revision != max(revisions.values(), default=0):
        asked = replace(asked, booked_joules=None)
    parts, computed = computed_again(source, asked, revisions)
    return replace(
        explained_of(asked, source.terms, parts, computed, gains),
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
