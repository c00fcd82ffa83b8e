"""Role ingest over Kafka: from the messages of gateways' topics to usage in the log.

topics --> TopicReader --> decode --> place (facts) --> batches by host --> KafkaWriter (usage), dead letters
                                                                     \\--> offsets committed

At least once: offsets are committed when what they stand for is acknowledged, so a crash anywhere only repeats, and
what comes twice counts once. A message that cannot be used is a dead letter, and never stops its partition.
"""

import threading
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final

import structlog

from collectors.clock import Clock
from collectors.requests.event import RequestEvent
from collectors.units import UnixSeconds
from monitor.config.sections import Config
from monitor.log.kafka_facts import KafkaFacts
from monitor.log.kafka_writer import KafkaWriter
from monitor.log.protocol import Append, LogUnavailable
from monitor.log.usage_wire import UsageBatch
from monitor.roles.control import FactsReader
from monitor.roles.ingest_counts import IngestCounts
from monitor.roles.join_kafka import KafkaJoin
from monitor.roles.placement import FACTS_BEFORE_SECONDS, Placer
from monitor.roles.topic_events import AsTheyAre, Refusals, SourceTopic
from monitor.roles.topic_reader import PartitionLag, TopicReader
from monitor.roles.usage_batches import Gathered
from monitor.selfmetrics import SourceSnapshot

GROUP_SUFFIX: Final = "-ingest"
GATHER_SECONDS: Final = 0.2
"""Between polls while little comes: one record of 200 requests costs what a record of one does."""
CLOSE_SECONDS: Final = 5.0
_MANY: Final = 2_000
_TIMESTAMP: Final = attrgetter("timestamp")

logger = structlog.get_logger()


def source_topics(config: Config) -> Mapping[str, SourceTopic]:
    """Every topic that [[sources]] of kind "kafka" name; of a topic that two name, the first one's word holds."""
    found: dict[str, SourceTopic] = {}
    for source in config.sources:
        for topic in source.topics if source.kind == "kafka" else ():
            found.setdefault(topic, SourceTopic(source, config))
    return found


class KafkaIngest:
    """One member of the group that reads the gateways' topics. `step` for a Loop; raises LogUnavailable.

    `this_host` is where requests ran of which nobody says it, "" where this process meters no host.
    """

    def __init__(self, config: Config, writer: KafkaWriter, *, clock: Clock, this_host: str = "") -> None:
        self._topics = source_topics(config)
        self._writer, self._clock, self._this_host = writer, clock, this_host
        self._by_records = config.kafka.clock == "records"
        self._facts_log = KafkaFacts(config.kafka)
        self._facts = FactsReader(self._facts_log, lambda: self._facts_log.snapshot(clock.now() - FACTS_BEFORE_SECONDS))
        self._reader = TopicReader(config.kafka, self._topics, config.kafka.group + GROUP_SUFFIX)
        joins = any(topic.part is not None for topic in self._topics.values())
        self._join = KafkaJoin(config, writer, clock=clock) if joins else None
        self.counts = IngestCounts()
        self._waiting: Counter[str] = Counter()
        self._in_step = threading.Lock()
        self._closed = False
        self._told = ""

    @property
    def lost_messages(self) -> Counter[str]:
        """Messages that their topics no longer had when their turn came, by source."""
        found: Counter[str] = Counter()
        for topic, count in list(self._reader.lost.items()):
            found[self._topics[topic].source] += count
        return found

    def lag(self) -> Sequence[PartitionLag]:
        """What waits in the partitions of this member."""
        return self._reader.lag()

    def snapshots(self) -> tuple[SourceSnapshot, ...]:
        """What came from each source since the start, and how much of its topics waits."""
        counts, trouble = self.counts, self._reader.trouble
        names = dict.fromkeys(topic.source for topic in self._topics.values())
        return tuple(
            SourceSnapshot(
                name=name,
                kind="kafka",
                state="retrying" if trouble else "ok" if counts.accepted[name] else "waiting",
                detail=trouble or self._detail(name),
                accepted=counts.accepted[name],
                rejected={reason: count for (source, reason), count in list(counts.rejected.items()) if source == name},
                last_event_at=counts.last_at.get(name),
            )
            for name in names
        )

    def _detail(self, source: str) -> str:
        """What waits, what was lost or came too late, in words; "" where nothing is."""
        unplaced = sum(count for (name, _), count in list(self.counts.unplaced_tokens.items()) if name == source)
        told = (
            (self._waiting[source], "messages wait"),
            (self.lost_messages[source], "messages were gone before they were read"),
            (self._unjoined_of(source), "halves of requests came too late to be joined"),
            (unplaced, "tokens are of requests that nothing places"),
        )
        return "; ".join(f"{count} {what}" for count, what in told if count)

    def step(self) -> float:
        """Reads, places, stores and commits what has come; returns the seconds to wait before the next time."""
        with self._in_step:
            try:
                return CLOSE_SECONDS if self._closed else self._step()
            finally:
                if self._closed:
                    self._let_go()

    def close(self) -> None:
        """Leaves the group and lets go of the connections; the writer is its maker's. From any thread.

        A step that the brokers keep from ending leaves when it ends: after a reload the process lives on, and its
        heartbeats would keep the partitions for a reader that reads no more.
        """
        self._closed = True
        if self._in_step.acquire(timeout=CLOSE_SECONDS):
            self._let_go()
            self._in_step.release()

    @property
    def unjoined(self) -> int:
        """Halves that came when their request had gone alone."""
        return 0 if self._join is None else self._join.unjoined.total()

    def _unjoined_of(self, source: str) -> int:
        """Its halves among them. One that names a source of its own counts for every source of its side."""
        sides = {topic.source: topic.part for topic in self._topics.values()}
        unjoined = {} if self._join is None else self._join.unjoined
        return sum(
            count
            for (side, said), count in list(unjoined.items())
            if side == sides[source] and (said == source or sides.get(said) != side)
        )

    def _let_go(self) -> None:
        self._reader.close()
        if self._join is not None:
            self._join.close()
        self._facts_log.close()

    def _say(self, trouble: str) -> None:
        """What keeps topics from being read, once in the log: `status` has it as long as it lasts."""
        if trouble and trouble != self._told:
            logger.error("sources wait; nothing is lost", why=trouble)
        self._told = trouble

    def _step(self) -> float:
        if self._join is not None:
            self.counts.passed_by("joined", self._join.step(Placer(self._facts(), self._this_host)))
        found = self._reader.poll()
        self._say(self._reader.trouble)
        if not found:
            return 0.0
        try:
            taken = self._take(found)
        except LogUnavailable:
            self._reader.rewind()
            raise
        self._reader.settle()
        waiting: Counter[str] = Counter()
        for part in self.lag():
            waiting[self._topics[part.topic].source] += part.messages
        self._waiting = waiting
        return 0.0 if taken >= _MANY or self._reader.has_more else GATHER_SECONDS

    def _take(self, found: Mapping[Any, Sequence[Any]]) -> int:
        placer = Placer(self._facts(), self._this_host)
        now = self._clock.now()
        log_time = float("-inf")
        placed = Gathered()
        came: list[tuple[str, int, Refusals, range]] = []
        for part, messages in found.items():
            topic, refused = self._topics[part.topic], Refusals()
            time = max(self._reader.log_time(part), max(map(_TIMESTAMP, messages)) / 1_000)
            log_time = max(log_time, time)
            came_at = time if self._by_records else now
            begin = len(placed)
            if topic.part is not None and self._join is not None:
                halves: list[RequestEvent] = []
                count = topic.read(messages, AsTheyAre(), came_at, halves, refused)
                self._join.send(halves, topic.part, time)
            else:
                count = topic.read(messages, placer, came_at, placed, refused)
            came.append((topic.source, count, refused, range(begin, len(placed))))
        for _, _, refused, _ in came:
            self._writer.send_letters(refused.letters, refused.bodies)
        records = list(placed.records(log_time if self._by_records else None))
        self._writer.send([record for record, _, _ in records], now)
        never = _never_stored(self._writer.flush(now), records)
        for source, count, refused, places in came:
            lost = {never[place] for place in places if place in never} if never else ()
            self._tell(source, count, refused, len(lost), now)
        return sum(count for _, count, _, _ in came)

    def _tell(self, source: str, count: int, refused: Refusals, lost: int, now: UnixSeconds) -> None:
        self.counts.took(source, count - lost, refused.letters, now, refused=lost)
        self.counts.passed_by(source, refused.unplaced_tokens)
        if refused.letters:
            first = refused.letters[0]
            logger.warning("events rejected", source=source, count=len(refused.letters), first=first.reason)


def _never_stored(
    refused: Collection[Append], records: Iterable[tuple[Append, UsageBatch, Sequence[int]]]
) -> Mapping[int, tuple[str, str, int]]:
    """Who stands in the records that the brokers will never take, by number: a request may have parts in several."""
    return {
        number: name
        for record, batch, numbers in records
        if refused and record in refused
        for number, name in zip(numbers, batch.names(), strict=True)
    }
