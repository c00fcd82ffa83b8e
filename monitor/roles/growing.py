"""More partitions for `readings` and `usage`, while nobody writes or reads them. In: how many. Out: topics and commits.

A host's partition follows from their number, so hosts move. What windows that are not final yet need of a moved host is
copied to its new partition, under the log time of now: there it is late, and the next mark makes those windows of it,
whole. What is older stays behind; the commits say from which window on each partition is whole.

Nothing is kept of an attempt that was cut off: a record in a partition that is not its host's by the old number is a
copy of it. It stays, is made once more, and counts once.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from kafka import TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import KafkaAdminClient
from kafka.structs import OffsetAndMetadata

from collectors.clock import monotonic
from collectors.errors import Rejected
from collectors.units import UnixSeconds
from monitor.config.sections import Config
from monitor.core.membership import Accounting
from monitor.core.readings import PARENT_REACH_SECONDS
from monitor.core.window import window_at, window_start
from monitor.ledger.restating import STREAMS, earliest
from monitor.log.codec import Decoder, ReadingBatch
from monitor.log.kafka_claims import Claim, claims_of, parts_of
from monitor.log.kafka_client import admin
from monitor.log.kafka_facts import KafkaFacts
from monitor.log.kafka_feed import KafkaFeed
from monitor.log.kafka_writer import KafkaWriter
from monitor.log.protocol import Append, LogRecord, LogUnavailable, Moved, Stream
from monitor.log.usage_reading import columns_of_batches
from monitor.log.usage_wire import UsageBatch
from monitor.roles.aggregate_group import partition_of
from monitor.roles.control import FactsReader
from monitor.roles.ingest_kafka import GROUP_SUFFIX as INGEST

QUIET_SECONDS: Final = 15.0
"""Nobody may have written for so long: a collector ships every ten seconds at the latest."""
_SILENT_SECONDS: Final = 30.0
_CREATION_MS: Final = 30_000
_AT_ONCE: Final = 500
_EMPTY: Final = ("Empty", "Dead")


class NotReady(Exception):
    """It cannot be done now; says why and what to wait for or to do. Nothing was changed."""


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done: from `before` partitions to `after`; `whole_from` is the first window that stays whole."""

    before: int
    after: int
    whole_from: UnixSeconds
    log_time: UnixSeconds
    claims: Mapping[int, Claim]
    ends: Mapping[TopicPartition, int]


class Growing:
    """One attempt. Raises NotReady, and LogUnavailable where no broker answers or one refuses."""

    def __init__(self, config: Config, *, quiet_seconds: float = QUIET_SECONDS) -> None:
        self._config, self._kafka, self._quiet_seconds = config, config.kafka, quiet_seconds
        self._group = f"{config.kafka.group}-aggregate"
        self._decoder = Decoder()

    def plan(self, partitions: int, *, aggregators_run: bool) -> Growth:
        """What would be done; with `aggregators_run` it tells only whether all else is ready."""
        began = monotonic()
        terms = self._terms()
        with admin(self._kafka) as client:
            self._refuse_members(client, f"{self._kafka.group}{INGEST}", "stop every process of role ingest")
            if not aggregators_run:
                self._refuse_members(client, self._group, "stop every process of role aggregate")
            there = self._counts(client)
            claims = claims_of(client, self._kafka, self._group, max(there.values()))
        before = min((claim.n for claim in claims.values()), default=0)
        if not before:
            raise NotReady("nothing is accounted yet: delete readings and usage, and make them with more partitions")
        if set(there.values()) == {partitions} == {before}:
            raise NotReady(f"nothing is left to do: the topics have {before} partitions, and so have the books")
        if partitions <= before or any(before < count != partitions for count in there.values()):
            found = ", ".join(f"{topic} has {count}" for topic, count in there.items())
            raise NotReady(f"{found} partitions, and the books were kept with {before}; say more than that, or finish")
        claims = {number: claim for number, claim in claims.items() if number < before}
        feed = KafkaFeed(self._kafka)
        try:
            return self._examined(feed, terms, claims, (before, partitions), began)
        finally:
            feed.close()

    def carry_out(self, growth: Growth, say: Callable[[str], None]) -> None:
        """Makes the partitions, copies and commits. Cut off halfway it is done again from its start, at no harm."""
        terms = self._terms()
        if self._ends(growth.ends) != growth.ends:
            raise NotReady("somebody has written just now: stop every process of roles collect, ingest and aggregate")
        with admin(self._kafka) as client:
            self._create(client, growth)
        say(f"{self._kafka.topics.readings} and {self._kafka.topics.usage} have {growth.after} partitions")
        feed, writer = KafkaFeed(self._kafka), KafkaWriter(self._kafka)
        try:
            copied = sum(self._copy(feed, writer, growth, terms, number) for number in range(growth.before))
        finally:
            writer.close()
            feed.close()
        say(f"{copied} records were copied to the new partitions of their hosts")
        ends = self._ends([part for number in range(growth.after) for part in parts_of(self._kafka, number).values()])
        with admin(self._kafka) as client:
            self._commit(client, growth, ends)

    def _ends(self, parts: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        """By a client of its own: one that was there before would not know of new partitions."""
        feed = KafkaFeed(self._kafka)
        try:
            return feed.ends(parts)
        finally:
            feed.close()

    def _terms(self) -> Accounting:
        facts = KafkaFacts(self._kafka)
        try:
            terms = FactsReader(facts)().accounting()
        finally:
            facts.close()
        if terms is None:
            raise NotReady("the facts tell no terms of the books: nothing is accounted yet")
        return terms

    def _refuse_members(self, client: KafkaAdminClient, group: str, what: str) -> None:
        try:
            found = client.describe_groups([group])[group]
        except kafka_errors.GroupIdNotFoundError:
            return
        state = found["group_state"]
        if state not in _EMPTY:
            raise NotReady(f"consumer group {group} has members (it is {state}): {what}")

    def _counts(self, client: KafkaAdminClient) -> dict[str, int]:
        names = [self._kafka.topics.readings, self._kafka.topics.usage]
        found = {topic["name"]: len(topic["partitions"]) for topic in client.describe_topics(names)}
        if missing := [name for name in names if not found.get(name)]:
            raise NotReady(f"topic {', '.join(missing)} is not there")
        return found

    def _examined(
        self,
        feed: KafkaFeed,
        terms: Accounting,
        claims: Mapping[int, Claim],
        counts: tuple[int, int],
        began: float,
    ) -> Growth:
        before, after = counts
        ends = feed.ends([part for number in range(before) for part in parts_of(self._kafka, number).values()])
        threading.Event().wait(max(0.0, self._quiet_seconds - (monotonic() - began)))
        later = feed.ends(list(ends))
        watermarks = [claim.watermark for claim in claims.values()]
        if not watermarks or None in watermarks:
            raise NotReady("no window is final yet in some partition: wait until the aggregators have made some final")
        first = window_at(min(each or 0.0 for each in watermarks) - terms.horizon_seconds, terms.window_seconds)
        log_time = float("-inf")
        for number in range(before):
            for stream, part in parts_of(self._kafka, number).items():
                since = min(earliest(terms, first), (claims[number].log_time or 0.0) if number in claims else 0.0)
                newest = float("-inf")
                for record in self._records(feed, part, stream, since, later[part]):
                    log_time = max(log_time, record.stamp)
                    if self._says_something(record):
                        if _is_at_home(record, number, before):
                            newest = record.stamp
                        if record.offset >= ends[part]:
                            raise NotReady(
                                f"{part.topic}, partition {number}, was written within the last"
                                f" {self._quiet_seconds:.0f} s: stop every process of roles collect and ingest"
                            )
                self._refuse_unfinished(part, claims.get(number), newest)
        return Growth(
            before=before,
            after=after,
            whole_from=window_start(first, terms.window_seconds),
            log_time=max([log_time, *(claim.mark or 0.0 for claim in claims.values())]),
            claims=claims,
            ends=later,
        )

    def _refuse_unfinished(self, part: TopicPartition, claim: Claim | None, newest: UnixSeconds) -> None:
        """Every record must have been in the account of a mark, so that nothing of an old window is still to come."""
        carried_out = float("-inf") if claim is None or claim.mark is None else claim.mark
        if newest >= carried_out and newest > float("-inf"):
            raise NotReady(
                f"{part.topic}, partition {part.partition}: the newest record stands at {newest:.0f}, and marks are"
                f" carried out up to {carried_out:.0f}: let the aggregators run until the next mark, a mark interval"
                " at most"
            )

    def _create(self, client: KafkaAdminClient, growth: Growth) -> None:
        wanted = {topic: growth.after for topic, count in self._counts(client).items() if count < growth.after}
        if wanted:
            client.create_partitions(wanted, timeout_ms=_CREATION_MS)
        deadline = monotonic() + _CREATION_MS / 1_000
        while set(self._counts(client).values()) != {growth.after}:
            if monotonic() > deadline:
                raise LogUnavailable("the new partitions do not come up: run it again")
            threading.Event().wait(0.2)

    def _copy(self, feed: KafkaFeed, writer: KafkaWriter, growth: Growth, terms: Accounting, number: int) -> int:
        """What one partition holds of hosts that leave it, as far as windows from `whole_from` on need it."""
        count = 0
        needed_since = earliest(terms, window_at(growth.whole_from, terms.window_seconds))
        for stream, part in parts_of(self._kafka, number).items():
            waiting: list[LogRecord] = []
            for record in self._records(feed, part, stream, needed_since, growth.ends[part]):
                if self._leaves(record, number, growth) and self._is_needed(record, growth.whole_from, terms):
                    waiting.append(record)
                    count += 1
                if len(waiting) >= _AT_ONCE:
                    self._append(writer, waiting, growth)
                    waiting = []
            self._append(writer, waiting, growth)
        return count

    def _append(self, writer: KafkaWriter, records: Sequence[LogRecord], growth: Growth) -> None:
        for record in records:
            again = Append(
                stream=record.stream,
                key=record.key,
                schema=record.schema,
                body=record.body,
                stamp=growth.log_time,
            )
            writer.send([again], growth.log_time, partition=partition_of(record.key, growth.after))
        writer.flush(growth.log_time)

    def _leaves(self, record: LogRecord, number: int, growth: Growth) -> bool:
        moves = number != partition_of(record.key, growth.after)
        return moves and bool(record.key) and _is_at_home(record, number, growth.before)

    def _says_something(self, record: LogRecord) -> bool:
        try:
            content = self._decoder.decode(record)
        except Rejected:
            return False
        return bool(record.key) and content is not None

    def _is_needed(self, record: LogRecord, whole_from: UnixSeconds, terms: Accounting) -> bool:
        """Whether a window needs it, or the judgement of what one needs: which of two that contradict came first."""
        try:
            content = self._decoder.decode(record)
        except Rejected:
            return False  # a dead letter already
        if isinstance(content, ReadingBatch):
            reach = whole_from - PARENT_REACH_SECONDS - terms.window_seconds
            touches = any(reading.end > reach for reading in content.readings)
        elif isinstance(content, UsageBatch):
            touches = bool((columns_of_batches([content]).end >= whole_from).any())
        else:
            return False  # orders are carried out
        return touches or record.stamp >= whole_from - terms.horizon_seconds

    def _records(self, feed: KafkaFeed, part: TopicPartition, stream: Stream, since: UnixSeconds, end: int) -> Any:
        """The records of one partition from a log time up to an offset."""
        found = feed.first_from(part, since)
        offset = end if found is None else found[0]
        if offset >= end:
            return
        feed.place(part, stream, offset, since)
        heard_at = monotonic()
        try:
            while offset < end:
                if feed.fill(0.2):
                    heard_at = monotonic()
                elif monotonic() - heard_at > _SILENT_SECONDS:
                    raise LogUnavailable(f"{part.topic}, partition {part.partition}: no record came")
                while feed.head(part) is not None:
                    record = feed.take(part)
                    offset = record.offset + 1
                    if record.offset < end:
                        yield record
                if feed.at_end(part):
                    return
        finally:
            feed.drop([part])

    def _commit(self, client: KafkaAdminClient, growth: Growth, ends: Mapping[TopicPartition, int]) -> None:
        """Kept partitions go on where they were, new ones begin at their start.

        The new ones' first: as long as a kept one has the old number, this can be done again.
        """
        marks = [claim.mark for claim in growth.claims.values() if claim.mark is not None]
        watermark = min(claim.watermark or 0.0 for claim in growth.claims.values())
        topics = next(iter(growth.claims.values())).topics
        offsets = {}
        for number in range(growth.after):
            parts = parts_of(self._kafka, number)
            fresh = Claim(
                n=growth.after,
                positions=dict.fromkeys(STREAMS, 0),
                watermark=watermark,
                mark=min(marks, default=None),
                log_time=growth.whole_from,
                topics=topics,
            )
            moved = Moved(whole_from=growth.whole_from, ends={stream: ends[part] for stream, part in parts.items()})
            claim = msgspec.structs.replace(growth.claims.get(number, fresh), n=growth.after, moved=moved)
            metadata = msgspec.json.encode(claim).decode()
            for stream, part in parts.items():
                offsets[part] = OffsetAndMetadata(claim.positions[stream], metadata, -1)
        for is_new in (True, False):
            some = {part: each for part, each in offsets.items() if (part.partition >= growth.before) is is_new}
            for part, error in client.alter_group_offsets(self._group, some).items():
                if error is not kafka_errors.NoError:
                    said = f"group {self._group}: cannot commit for {part.topic}, partition {part.partition}"
                    raise LogUnavailable(f"{said}: {error.__name__}; run it again before anything is started")


def _is_at_home(record: LogRecord, number: int, partitions: int) -> bool:
    """Whether its host's records are written to that partition while there are so many."""
    return partition_of(record.key, partitions) == number
