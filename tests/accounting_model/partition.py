"""One partition as brokers hold it, in memory: two streams with offsets and log times of their own, and commits.

A member reaches it through a `MemoryLog`, which reads in step and knows the log time where it begins only from the
metadata of the commit, as any reader of Kafka does.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite

import msgspec

from monitor.log.protocol import Append, Commit, DeadLetter, LogRecord, LogUnavailable, Stream

PARTS: tuple[Stream, Stream] = ("readings", "usage")


@dataclass(slots=True)
class Topic:
    """One stream: records with their stamps as they came, and beside them the running maximum, the log time."""

    stream: Stream
    stamps: list[float] = field(default_factory=list)
    log_times: list[float] = field(default_factory=list)
    records: list[LogRecord] = field(default_factory=list)

    def append(self, record: Append, now: float) -> None:
        """The record behind all others."""
        stamp = now if record.stamp is None else record.stamp
        if not isfinite(stamp):
            raise ValueError(f"a record's stamp is {stamp}")
        log_time = max(self.log_times[-1], stamp) if self.log_times else stamp + 0.0
        offset = len(self.records)
        made = LogRecord(
            stream=self.stream, offset=offset, stamp=log_time, key=record.key, schema=record.schema, body=record.body
        )
        self.stamps.append(stamp)
        self.log_times.append(log_time)
        self.records.append(made)


class Partition:
    """What outlives every member. `floors` are the log times at the committed positions, out of their metadata."""

    def __init__(self) -> None:
        self.topics: dict[Stream, Topic] = {stream: Topic(stream) for stream in (*PARTS, "facts")}
        self.commits: dict[Stream, Commit] = {}
        self.floors: dict[Stream, float] = {}
        self.claims: dict[Stream, tuple[int, str]] = {}
        self.letters: dict[tuple[str, str], DeadLetter] = {}
        self.generation = 0
        self.torn: Stream | None = None

    def append(self, records: Sequence[Append], now: float) -> None:
        """All of them or none, each behind its stream."""
        if all(isfinite(now if record.stamp is None else record.stamp) for record in records):
            for record in records:
                self.topics[record.stream].append(record, now)
        else:
            raise ValueError("a record's stamp is not finite")

    def keep(self, letters: Sequence[DeadLetter]) -> None:
        """The first of an identity stays."""
        for letter in letters:
            self.letters.setdefault((letter.source, letter.position), letter)

    def lets(self, generation: int) -> Sequence[Stream]:
        """Which streams a member may commit now. LogUnavailable for one of an older generation, as in a real group."""
        if generation != self.generation:
            raise LogUnavailable("the partition is another member's by now")
        return PARTS if self.torn is None else (self.torn,)


class MemoryLog:
    """A member's hand on a partition: a Log. It is a member as long as no newer one joined the group."""

    def __init__(self, partition: Partition) -> None:
        self._partition = partition
        self._generation = partition.generation
        self._next: dict[Stream, int] = {}
        self._time: dict[Stream, float] = {}
        self._whole = True

    def append(self, records: Sequence[Append], now: float) -> Sequence[Append]:
        """All of them or none."""
        self._partition.append(records, now)
        return ()

    def read(self, positions: Mapping[str, int], limit: int) -> list[LogRecord]:
        """In step: a record is given once the other stream is known to have reached its log time."""
        readings, usage = (_Cursor(self._partition.topics[stream], *self._begin(stream, positions)) for stream in PARTS)
        found: list[LogRecord] = []
        while len(found) < limit:
            cursor = readings if readings.log_time <= usage.log_time else usage
            other = usage if cursor is readings else readings
            if cursor.log_time == inf or (other.log_time == inf and other.reached < cursor.log_time):
                break
            found.append(cursor.take())
        self._whole = len(found) < limit
        for cursor in (readings, usage):
            self._next[cursor.stream], self._time[cursor.stream] = cursor.offset, cursor.reached
        return found

    def caught_up(self) -> bool:
        """Whether the last reading left nothing that could be read."""
        return self._whole

    def again(self) -> "MemoryLog":
        """A reader with positions of its own."""
        return MemoryLog(self._partition)

    def _begin(self, stream: Stream, positions: Mapping[str, int]) -> tuple[int, float]:
        """Where it begins and the log time before: as it left off, else as the commit says, else not known."""
        offset = positions.get(stream, 0)
        if self._next.get(stream) == offset:
            return offset, self._time[stream]
        commit = self._partition.commits.get(stream)
        if commit is not None and commit.positions[stream] == offset:
            return offset, self._partition.floors[stream]
        return offset, -inf

    def facts(self, after: int = -1) -> list[LogRecord]:
        """All facts behind that offset."""
        return self._partition.topics["facts"].records[after + 1 :]

    def last(self, stream: Stream, key: str, schema: str | None = None) -> LogRecord | None:
        """The newest record of a key."""
        records = reversed(self._partition.topics[stream].records)
        return next((each for each in records if each.key == key and schema in (None, each.schema)), None)

    def log_time(self) -> float | None:
        """The newest stamp of all."""
        return max((topic.log_times[-1] for topic in self._partition.topics.values() if topic.records), default=None)

    def position_at(self, stream: Stream, log_time: float) -> int:
        """The first record stamped then or later: there the running maximum gets so far."""
        return bisect_left(self._partition.topics[stream].log_times, log_time)

    def start(self) -> tuple[float, bool] | None:
        """The oldest stamp; nothing is ever cut off here."""
        stamps = [
            self._partition.topics[stream].log_times[0] for stream in PARTS if self._partition.topics[stream].records
        ]
        return (min(stamps), False) if stamps else None

    def hole(self) -> None:
        """Nothing is ever lost here."""

    def trim(self, before: float) -> int:
        """Brokers cut off, not we."""
        return 0

    def commit(self, commit: Commit) -> None:
        """To both streams, or to one where the pair is torn."""
        self.commit_streams(commit, self._partition.lets(self._generation))

    def commit_streams(self, commit: Commit, streams: Sequence[Stream]) -> None:
        """To these."""
        for stream in streams:
            self._partition.commits[stream] = commit
            self._partition.floors[stream] = commit.log_time

    def committed(self) -> Commit | None:
        """Both streams' commits as one: each stream's own position, and of the rest the one that claims more."""
        commits = self._partition.commits
        if not commits:
            return None
        newest = max(commits.values(), key=lambda commit: (commit.watermark, commit.mark, commit.log_time))
        positions = {stream: commits[stream].positions[stream] if stream in commits else 0 for stream in PARTS}
        return msgspec.structs.replace(newest, positions=positions)

    def reject(self, letters: Sequence[DeadLetter]) -> None:
        """The first of an identity stays."""
        self._partition.keep(letters)

    def rejected(self) -> dict[str, int]:
        """Counts by reason."""
        reasons = sorted(letter.reason for letter in self._partition.letters.values())
        return {reason: reasons.count(reason) for reason in reasons}

    def rejections(self, limit: int = 100, after: int = 0) -> list[tuple[int, DeadLetter]]:
        """In the order they came."""
        return list(enumerate(self._partition.letters.values(), 1))[after : after + limit]

    def close(self) -> None:
        """Nothing to let go of."""


class _Cursor:
    """A place in a stream, with the log time that a reader who came here knows."""

    def __init__(self, topic: Topic, offset: int, reached: float) -> None:
        self._topic, self.stream = topic, topic.stream
        self.offset, self.reached = offset, reached
        self._look()

    def take(self) -> LogRecord:
        """The next record, stamped with the log time known here."""
        record = self._topic.records[self.offset]
        if record.stamp != self.log_time:
            record = msgspec.structs.replace(record, stamp=self.log_time)
        self.reached = self.log_time
        self.offset += 1
        self._look()
        return record

    def _look(self) -> None:
        """`log_time` is the next record's; infinity where none stands there yet."""
        stamps = self._topic.stamps
        self.log_time = max(self.reached, stamps[self.offset]) if self.offset < len(stamps) else inf
