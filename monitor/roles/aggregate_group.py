"""Role aggregate in a fleet: the partitions that its consumer group gives it, each with a ledger of its own.

GroupMember: which partitions --> Ledger for each --> PatientStore --> store
KafkaFeed: readings, usage -----> KafkaPartition --^
KafkaFacts: terms, intensities --------------------^
KafkaWriter <-- ticks where a partition is quiet, dead letters, the energy of finished requests

It keeps nothing: killed anywhere and started elsewhere, the same rows are written again. One thread steps it; another
one keeps its place in the group.
"""

import threading
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Final

import structlog
from kafka import TopicPartition
from kafka.partitioner.default import murmur2

from collectors.clock import Clock, monotonic
from collectors.replay import TICK_SECONDS
from collectors.units import SECONDS_PER_DAY, UnixSeconds
from monitor.config.sections import Config
from monitor.core.membership import Accounting
from monitor.core.questions import Missing
from monitor.freed_memory import keep_freed_memory
from monitor.garbage import look_seldom
from monitor.ledger.ledger import Ledger, Progress
from monitor.log.codec import tick_record
from monitor.log.kafka_claims import claims_of, parts_of, refuse_other_count
from monitor.log.kafka_client import admin
from monitor.log.kafka_facts import KafkaFacts
from monitor.log.kafka_feed import KafkaFeed, OffsetsGone
from monitor.log.kafka_group import GroupMember
from monitor.log.kafka_partition import KafkaPartition
from monitor.log.kafka_topics import check_topics
from monitor.log.kafka_writer import KafkaWriter
from monitor.log.protocol import LogUnavailable
from monitor.roles.control import FactsReader, FreshFacts, TermsChanged, accounting_of, agree_on_terms
from monitor.roles.known_holes import KnownHoles
from monitor.roles.request_energy import RequestEnergySink, wants_requests
from monitor.roles.store_probe import probe
from monitor.roles.teacher import Teacher
from monitor.store.patient import NotOurs, PatientStore
from monitor.store.protocol import Store

FILL_SECONDS: Final = 0.2
FACTS_BEFORE_SECONDS: Final = 2 * SECONDS_PER_DAY
"""Before what may still be restated: rows are read back and mended for a day, and a day is to spare."""
IDLE_SECONDS: Final = 0.5
RETRY_SECONDS: Final = 5.0
SHOWN_PARTITIONS: Final = 8
STEP_RECORDS: Final = 500
"""Batches, each of up to hundreds of requests: enough at once, and the other partitions wait little."""
logger = structlog.get_logger()


class GroupAggregate:
    """Steps all its ledgers; `trouble` maps partitions that cannot be accounted to the reason."""

    def __init__(
        self,
        config: Config,
        store: Store,
        *,
        clock: Clock,
        waiting: Callable[[str], None] = lambda _why: None,
    ) -> None:
        self._config, self._kafka, self._store, self._clock = config, config.kafka, store, clock
        topics = config.kafka.topics
        self._group = f"{config.kafka.group}-aggregate"
        self.member = GroupMember(config.kafka, self._group, (topics.readings, topics.usage))
        self._feed, self._spare = KafkaFeed(config.kafka), KafkaFeed(config.kafka)
        self._writer = KafkaWriter(config.kafka)
        self._facts_log = KafkaFacts(config.kafka)
        back_seconds = config.log.restate_within_seconds + FACTS_BEFORE_SECONDS
        self._reader = FactsReader(self._facts_log, lambda: self._facts_log.snapshot(self._now() - back_seconds))
        self._facts = FreshFacts(self._reader)
        self._waiting = waiting
        self._stop = threading.Event()
        self._terms: Accounting | None = None
        self._books_fit = False
        self._ledgers: dict[int, Ledger] = {}
        self._generation = 0
        self._retry_at: dict[int, float] = {}
        self._ticked_at: dict[TopicPartition, float] = {}
        self._past = Progress()
        self._known_holes = KnownHoles(store)
        self._lag: int | None = None
        self.trouble: dict[int, str] = {}
        look_seldom()
        keep_freed_memory()

    def stop(self) -> None:
        """Ends what waits for the store. What is not committed is read again by whoever comes next."""
        self._stop.set()

    def close(self) -> None:
        """Leaves the group and lets go of the connections; after the last `step`."""
        self._stop.set()
        self.member.stop()
        self._feed.close()
        self._spare.close()
        self._writer.close()
        self._facts_log.close()

    @property
    def progress(self) -> Progress:
        """What all ledgers since the start have done."""
        return _sum([self._past, *(ledger.progress for ledger in list(self._ledgers.values()))])

    @property
    def partitions(self) -> Mapping[int, UnixSeconds]:
        """Its partitions, each with the moment before which everything is final."""
        return {number: ledger.watermark for number, ledger in sorted(self._ledgers.items())}

    @property
    def numbers(self) -> tuple[int, ...]:
        """The partitions that are its own, those included that it cannot account yet."""
        return tuple(sorted({*self._ledgers, *self.member.partitions}))

    @property
    def final_until(self) -> UnixSeconds | None:
        """Everything before it is final in all of its partitions that hold anything; None while nothing is."""
        ends = [end for end in self.partitions.values() if end > float("-inf")]
        return min(ends, default=None)

    @property
    def holes(self) -> tuple[Missing, ...]:
        """What is missing in the books, of all partitions."""
        return self._known_holes.holes

    @property
    def waits_for(self) -> str:
        """What cannot be accounted, and why; "" where nothing is known to be."""
        whys: dict[str, list[int]] = {}
        for number, why in sorted(dict(self.trouble).items()):
            whys.setdefault(why, []).append(number)
        told = [f"{_numbers(numbers)}: {why}" for why, numbers in whys.items()]
        if not self.member.partitions and self.member.waits_for:
            told.append(self.member.waits_for)
        return "; ".join(told)

    @property
    def refused_records(self) -> int:
        """Ticks, dead letters and energies of requests that Kafka will never take, since the start."""
        return self._writer.refused

    def lag(self) -> int | None:
        """Records in Kafka that were not fetched yet when it last came round; None while nobody knows. Any thread's."""
        return self._lag

    def step(self) -> float:
        """Accounts what has come to any of its partitions; returns how many seconds to wait before the next.

        Raises LogUnavailable when no broker answers; what concerns one partition alone is in `trouble`.
        """
        terms = self._agreed_terms()
        self._facts.look()
        self._follow_the_group(terms)
        if not self._ledgers:
            self._lag = None
            return IDLE_SECONDS
        try:
            self._feed.fill(FILL_SECONDS)
        except OffsetsGone as gone:
            self._begin_anew({part.partition for part in gone.parts}, str(gone))
        if self._kafka.clock == "records":  # log time runs as fast as it is read, and passes a fact within the second
            self._facts.look(max_age_seconds=0.0)
        # A commit that no broker answers takes 10 s: when the lease is over the next ledgers are not made to wait too.
        taken = sum(
            self._step_one(number, ledger) for number, ledger in sorted(self._ledgers.items()) if self._is_ours(number)
        )
        self._tick()
        self._known_holes.look(self.progress.holes)
        self._lag = self._feed.lag()
        return 0.0 if taken or self._lag else FILL_SECONDS

    def _agreed_terms(self) -> Accounting:
        if self._terms is None:
            if differences := check_topics(self._config):
                raise LogUnavailable(f"the topics cannot hold the books: {'; '.join(differences)}")
            wanted = accounting_of(self._config)
            try:
                terms = agree_on_terms(self._reader, self._writer, wanted, self._now())
            except TermsChanged as error:
                raise LogUnavailable(str(error)) from error
            # Not before: whoever may not account, or cannot store what it does, must hold no partition.
            probe(self._store, self._clock)
            self._terms = terms
            self.member.start()
        return self._terms

    def _follow_the_group(self, terms: Accounting) -> None:
        """Ledgers for what is ours now. One that stayed ours through a single rebalance goes on where it is."""
        generation, ours = self.member.generation, self.member.partitions
        kept = ours if generation - self._generation <= 2 else frozenset()
        for number in [number for number in self._ledgers if number not in kept]:
            self._forget(number)
        self._generation = generation
        for number in self.trouble.keys() - ours:
            del self.trouble[number]
        counts = self.member.partition_counts()
        if why := self._other_count(counts):
            for number in ours:
                self._put_aside(number, why)
            return
        if ours and not self._books_fit:
            with admin(self._kafka) as client:
                claims = claims_of(client, self._kafka, self._group, self._kafka.topics.partitions)
            # Also the new ones, of which no commit speaks: what they hold of a host is a part of its windows.
            refuse_other_count(self._kafka, claims.values(), self._kafka.topics.partitions)
            self._books_fit = True
        if len(counts) < len(parts_of(self._kafka, 0)):
            return  # what a topic is like is not known yet
        for number in sorted(ours - self._ledgers.keys()):
            if monotonic() >= self._retry_at.get(number, 0.0):
                self._begin(number, terms)

    def _other_count(self, counts: Mapping[str, int]) -> str:
        """Why nothing is accounted while the topics are not those of the books; "" while they are.

        A partition that somebody has added has no commit that would refuse it, and a host that moved into it in the
        middle of a window would be accounted twice under one name.
        """
        wanted = self._kafka.topics.partitions
        if all(count == wanted for count in counts.values()):
            return ""
        found = " and ".join(f"{topic} has {count} partitions" for topic, count in counts.items())
        return (
            f"{found}, but the books are kept with {wanted} ([kafka.topics] partitions): hosts have moved between"
            " partitions, so none is accounted; docs/fleet.md, 'More partitions', has the procedure"
        )

    def _begin(self, number: int, terms: Accounting) -> None:
        count = self._kafka.topics.partitions
        log = KafkaPartition(
            self._kafka,
            number,
            count,
            feed=self._feed,
            spare=lambda: self._spare,
            commits=self.member,
            reject=self._writer.reject,
            clock=self._clock,
        )
        store = PatientStore(
            self._store, may_go_on=lambda: self._is_ours(number), waiting=self._waiting, stop=self._stop
        )
        try:
            self._ledgers[number] = Ledger(
                log,
                store,
                terms,
                lambda: self._facts.latest,  # looked at once for all of them
                owns=lambda host: partition_of(host, count) == number,
                request_rows=False,
                teach=Teacher(self._writer, f"{number}/{count}", self._facts.look_anew),
                finished=RequestEnergySink(self._config, self._writer, store) if wants_requests(self._config) else None,
            )
        except (LogUnavailable, NotOurs) as error:
            self._put_aside(number, str(error))
        else:
            self.trouble.pop(number, None)

    def _step_one(self, number: int, ledger: Ledger) -> int:
        try:
            return ledger.step(STEP_RECORDS)
        except NotOurs as error:
            logger.info("partition let go", partition=number, why=str(error))
            self._forget(number)
        except OffsetsGone as gone:
            self._begin_anew({number}, str(gone))
        except LogUnavailable as error:
            self._put_aside(number, str(error))
        return 0

    def _begin_anew(self, numbers: Collection[int], why: str) -> None:
        """At their last commit, where what is lost becomes a hole with a name."""
        for number in self._ledgers.keys() & set(numbers):
            logger.error("what a partition was to read next is gone", partition=number, why=why)
            self._forget(number)
            self._retry_at[number] = monotonic() + FILL_SECONDS

    def _put_aside(self, number: int, why: str) -> None:
        """Tried again from its last commit in a while; the other partitions go on."""
        if self.trouble.get(number) != why:
            logger.error("partition waits; nothing is lost", partition=number, why=why)
        self._forget(number)
        self.trouble[number] = why
        self._retry_at[number] = monotonic() + RETRY_SECONDS

    def _forget(self, number: int) -> None:
        ledger = self._ledgers.pop(number, None)
        if ledger is not None:
            self._past = _sum([self._past, ledger.progress])
        self.trouble.pop(number, None)
        self._feed.drop(parts_of(self._kafka, number).values())

    def _is_ours(self, number: int) -> bool:
        same = self.member.generation == self._generation
        return not self._stop.is_set() and same and number in self.member.partitions

    def _tick(self) -> None:
        """Moves log time on in the quiet streams of partitions that hold anything: a quiet night is final too."""
        if self._kafka.clock == "records":
            return
        now, ticks = self._now(), 0
        for number in self._ledgers:
            parts = parts_of(self._kafka, number)
            if not all(map(self._feed.reads, parts.values())):
                continue  # the group took the partition before its ledger read anything
            if all(self._feed.log_time(part) == float("-inf") for part in parts.values()):
                continue
            for stream, part in parts.items():
                quiet = now - self._feed.log_time(part) >= TICK_SECONDS and self._feed.at_end(part)
                if quiet and monotonic() - self._ticked_at.get(part, float("-inf")) >= TICK_SECONDS:
                    self._writer.send([tick_record("", stream=stream)], now, partition=number)
                    self._ticked_at[part] = monotonic()
                    ticks += 1
        if ticks:
            self._writer.flush(now)

    def _now(self) -> UnixSeconds:
        return self._clock.now()


@lru_cache(maxsize=65_536)
def partition_of(host: str, partitions: int) -> int:
    """Where Kafka's default partitioner puts a host's records."""
    return int(murmur2(host.encode()) & 0x7FFFFFFF) % partitions


def _sum(parts: list[Progress]) -> Progress:
    worst = [part.worst_imbalance_ratio for part in parts if part.worst_imbalance_ratio is not None]
    return Progress(
        records=sum(part.records for part in parts),
        finals=sum(part.finals for part in parts),
        restated=sum(part.restated for part in parts),
        reread_records=sum(part.reread_records for part in parts),
        reread_seconds=max(part.reread_seconds for part in parts),
        holes=sum(part.holes for part in parts),
        mended=sum(part.mended for part in parts),
        worst_imbalance_ratio=max(worst, default=None),
    )


def _numbers(partitions: list[int]) -> str:
    shown = ", ".join(map(str, partitions[:SHOWN_PARTITIONS]))
    more = len(partitions) - SHOWN_PARTITIONS
    return f"partition{'s' * (len(partitions) > 1)} {shown}" + (f" and {more} more" if more > 0 else "")
