"""One partition of the fleet's log: `readings` and `usage` of the same number, read in step. A PartitionLog.

    readings[p] --> KafkaFeed --\\
                                 > in step by log time --> Ledger
    usage[p] -----> KafkaFeed --/

Each stream has a log time of its own, the running maximum of its stamps. A record is given when the other stream has
come as far; on a quiet stream ticks see to that. What was accounted stands in the consumer group's commits: an offset
for each stream, and in its metadata the watermark, the mark, the log time there and the number of partitions.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import msgspec
from kafka import TopicPartition
from msgspec.structs import replace

from collectors.clock import Clock, monotonic
from collectors.units import UnixSeconds
from monitor.config.output_sections import Kafka
from monitor.log.kafka_claims import Claim, claim_in, highest, parts_of, refuse_other_count
from monitor.log.kafka_feed import KafkaFeed, OffsetsGone
from monitor.log.protocol import Commit, DeadLetter, Hole, LogRecord, LogUnavailable, Stream

AHEAD_SECONDS: Final = 600.0
"""A log that is stamped so far ahead of this host's clock has a broker with a wrong one; it is waited for."""
SILENT_SECONDS: Final = 30.0
_STREAMS: Final[tuple[Stream, Stream]] = ("readings", "usage")
_MINUS_INFINITY: Final = float("-inf")


class Commits(Protocol):
    """Where a consumer group's offsets are kept. Raises LogUnavailable, also when the partition is no longer ours."""

    def commit(self, offsets: Mapping[TopicPartition, tuple[int, str]]) -> None:
        """Stores offset and metadata for each."""
        ...

    def committed(self, parts: Sequence[TopicPartition]) -> Mapping[TopicPartition, tuple[int, str] | None]:
        """The newest of each."""
        ...


class KafkaPartition:
    """Partition `number` of `partitions`. One thread owns it, the one that owns the feed.

    `patience_seconds` is how long `read` waits for a record where there may be one; a process with many partitions
    fills its feed itself and waits for none.
    """

    def __init__(
        self,
        kafka: Kafka,
        number: int,
        partitions: int,
        *,
        feed: KafkaFeed,
        spare: Callable[[], KafkaFeed],
        commits: Commits,
        reject: Callable[[Sequence[DeadLetter]], None],
        clock: Clock,
        patience_seconds: float = 0.0,
    ) -> None:
        self._kafka, self._number, self._partitions = kafka, number, partitions
        self._feed, self._spare, self._commits, self._reject = feed, spare, commits, reject
        self._clock, self._patience_seconds = clock, patience_seconds
        self._parts = parts_of(kafka, number)
        self._next: dict[Stream, int] = {}
        self._floors: dict[Stream, UnixSeconds] = dict.fromkeys(_STREAMS, _MINUS_INFINITY)
        self._goes_on: dict[Stream, tuple[int, int]] = {}
        """Of a stream whose records are known to be gone: who asks for the first offset is given what is at the
        second. `start` and `hole` have told the asker of it."""

    def read(self, positions: Mapping[str, int], limit: int) -> list[LogRecord]:
        """The next records at or behind `positions`, in step; without patience those alone that were fetched.

        Raises OffsetsGone where they are not there, and neither `start` nor `hole` has said so.
        """
        for stream in _STREAMS:
            if self._next.get(stream) != positions.get(stream, 0):
                self._place(stream, positions.get(stream, 0))
        deadline = monotonic() + self._patience_seconds
        found = self._taken(limit)
        while not found and not self.caught_up() and monotonic() < deadline:
            if self._feed.fill(0.2):
                deadline = monotonic() + self._patience_seconds
            found = self._taken(limit)
        if not found and self._patience_seconds and not self.caught_up():
            topics = ", ".join(part.topic for part in self._parts.values())
            raise LogUnavailable(
                f"{topics}, partition {self._number}: no record came within {self._patience_seconds:.0f} s"
            )
        return found

    def caught_up(self) -> bool:
        """Whether everything that both topics hold now was fetched, and nothing of it can be given."""
        return all(self._feed.at_end(part) for part in self._parts.values()) and self._next_stream() is None

    def again(self) -> "KafkaPartition":
        """A reader of the same partition with a feed of its own. It waits for records rather than giving none."""
        return KafkaPartition(
            self._kafka,
            self._number,
            self._partitions,
            feed=self._spare(),
            spare=self._spare,
            commits=self._commits,
            reject=self._reject,
            clock=self._clock,
            patience_seconds=SILENT_SECONDS,
        )

    def log_time(self) -> UnixSeconds | None:
        """The log time that both streams have come to, a second too early at most; None where one has no record."""
        stamps = [self._feed.last_stamp(part, self._floors[stream]) for stream, part in self._parts.items()]
        return None if None in stamps else min(stamp for stamp in stamps if stamp is not None)

    def position_at(self, stream: Stream, log_time: UnixSeconds) -> int:
        """The first offset of the stream that stands at that log time or later; past its end if none does."""
        part = self._parts[stream]
        found = self._feed.first_from(part, log_time)
        if found is not None:
            self._floors[stream] = log_time
            return found[0]
        return self._feed.ends([part])[part]

    def start(self) -> tuple[UnixSeconds, bool] | None:
        """The log time from which on both streams are whole, and whether records before it are gone."""
        beginnings = self._feed.beginnings(self._parts.values())
        self._goes_on = {stream: (0, beginnings[part]) for stream, part in self._parts.items()}
        firsts = {stream: self._feed.first_from(part, _MINUS_INFINITY) for stream, part in self._parts.items()}
        stamps = {stream: found[1] for stream, found in firsts.items() if found is not None}
        if not stamps:
            return None
        cut = [stamp for stream, stamp in stamps.items() if beginnings[self._parts[stream]] > 0]
        return (max(cut), True) if cut else (min(stamps.values()), False)

    def hole(self) -> Hole | None:
        """What the newest commit needs and a topic no longer has: cut off by its retention, or made anew."""
        claim, silent = self._claim()
        if claim is None:
            return None
        since = _or_minus_infinity(claim.log_time)
        beginnings, ends = (ask(self._parts.values()) for ask in (self._feed.beginnings, self._feed.ends))
        lost: dict[str, UnixSeconds | None] = {}
        for stream, part in self._parts.items():
            found, position = self._feed.first_from(part, _MINUS_INFINITY), claim.positions[stream]
            first = None if found is None else found[1]
            # A deleted topic took its commit along; that of a new one is missing where the first pair was torn.
            moved = stream in silent and (self._feed.first_from(part, since) or (ends[part],))[0] != position
            known, now = claim.topics.get(stream), self._feed.topic_id(part)
            if position > ends[part] or moved or (known and now and known != now):
                lost[f"{part.topic} was made anew"] = first
            elif position < beginnings[part]:
                lost[f"retention of {part.topic} passed the committed offset {position}"] = first
            else:
                continue
            self._goes_on[stream] = (position, beginnings[part])
        if not lost:
            return None
        why = f"partition {self._number}: {'; '.join(sorted(lost))}"
        return Hole(start=since, end=max(self._known(each, why) for each in lost.values()), why=why)

    def _known(self, first: UnixSeconds | None, why: str) -> UnixSeconds:
        """Where a stream goes on. One that holds nothing yet goes on now at the earliest, by the brokers' clock."""
        if first is None and self._kafka.clock == "records":
            raise LogUnavailable(f"{why}, and holds nothing: its first record will tell how far the hole reaches")
        return self._clock.now() if first is None else first

    def commit(self, commit: Commit) -> None:
        """Commits both streams' offsets, with what is claimed in their metadata."""
        claim = Claim(
            n=self._partitions,
            positions={stream: commit.positions[stream] for stream in _STREAMS},
            watermark=_or_none(commit.watermark),
            mark=_or_none(commit.mark),
            log_time=_or_none(commit.log_time),
            beginning=_or_none(commit.beginning),
            topics={stream: found for stream, part in self._parts.items() if (found := self._feed.placed_in(part))},
            moved=commit.moved,
            lessons=dict(commit.lessons),
            unit_lessons=commit.unit_lessons,
        )
        metadata = msgspec.json.encode(claim).decode()
        self._commits.commit({self._parts[stream]: (commit.positions[stream], metadata) for stream in _STREAMS})

    def committed(self) -> Commit | None:
        """What is claimed. Of two commits that were torn apart the higher one holds: only what is stored is claimed.

        Raises LogUnavailable where it was made with another number of partitions.
        """
        claim, _ = self._claim()
        if claim is None:
            return None
        log_time = _or_minus_infinity(claim.log_time)
        self._floors = dict.fromkeys(_STREAMS, log_time)
        return Commit(
            positions=claim.positions,
            watermark=_or_minus_infinity(claim.watermark),
            mark=_or_minus_infinity(claim.mark),
            log_time=log_time,
            beginning=_or_minus_infinity(claim.beginning),
            moved=claim.moved,
            lessons=claim.lessons,
            unit_lessons=claim.unit_lessons,
            partitions=self._partitions,
        )

    def reject(self, letters: Sequence[DeadLetter]) -> None:
        """Keeps dead letters in their topic, with the partition before the offset: that alone names no record."""
        if letters:
            self._reject([replace(letter, position=f"{self._number}/{letter.position}") for letter in letters])

    def close(self) -> None:
        """Reads no more."""
        self._feed.drop(self._parts.values())
        self._next.clear()

    def _place(self, stream: Stream, offset: int) -> None:
        part = self._parts[stream]
        beginning, end = self._feed.beginnings([part])[part], self._feed.ends([part])[part]
        asked, instead = self._goes_on.get(stream, (offset, offset))
        begin = instead if offset == asked else offset
        if not beginning <= begin <= end:
            raise OffsetsGone([part], f"offset {begin} was to be read next, and offsets {beginning} to {end} are there")
        self._feed.place(part, stream, begin, self._floors[stream])
        self._next[stream] = offset

    def _taken(self, limit: int) -> list[LogRecord]:
        found: list[LogRecord] = []
        latest = self._clock.now() + AHEAD_SECONDS if self._kafka.clock == "broker" else float("inf")
        while len(found) < limit and (stream := self._next_stream()) is not None:
            head = self._feed.head(self._parts[stream])
            assert head is not None, "it was just chosen"
            if head.stamp > latest:
                if found:
                    break
                raise LogUnavailable(
                    f"{self._parts[stream].topic}, partition {self._number}: the log is stamped"
                    f" {head.stamp - self._clock.now():.0f} s ahead of this host's clock at offset {head.offset};"
                    " set the clocks of brokers and aggregators (NTP); it goes on by itself when they agree"
                )
            record = self._feed.take(self._parts[stream])
            self._next[stream] = record.offset + 1
            found.append(record)
        return found

    def _next_stream(self) -> Stream | None:
        """The stream whose next record stands first, if nothing of the other one can stand before it any more."""
        heads = {stream: self._feed.head(part) for stream, part in self._parts.items()}
        reached = {
            stream: self._feed.log_time(self._parts[stream]) if head is None else head.stamp
            for stream, head in heads.items()
        }
        first: Stream = min(_STREAMS, key=lambda stream: reached[stream])
        if heads[first] is not None:
            return first
        other: Stream = "usage" if first == "readings" else "readings"
        return other if heads[other] is not None and reached[other] <= reached[first] else None

    def _claim(self) -> tuple[Claim | None, set[Stream]]:
        """The highest claim, and the streams that have none. LogUnavailable for one of another number of partitions."""
        committed = self._commits.committed(list(self._parts.values()))
        claims = [claim_in(found[1], part) for part in self._parts.values() if (found := committed[part]) is not None]
        refuse_other_count(self._kafka, claims, self._partitions)
        return highest(claims), {stream for stream, part in self._parts.items() if committed[part] is None}


def _or_none(moment: UnixSeconds) -> UnixSeconds | None:
    return None if moment == _MINUS_INFINITY else moment


def _or_minus_infinity(moment: UnixSeconds | None) -> UnixSeconds:
    return _MINUS_INFINITY if moment is None else moment
