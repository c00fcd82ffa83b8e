"""What a log is to the rest of the house: append-only, in partitions, with a time of its own.

Two streams flow through a partition in step: `readings` and `usage`, keyed by host. The third, `facts`, has one
partition and is read to its end first. The log time of a stream is the running maximum of its records' stamps; it alone
decides which window's account a record belongs to (core/membership.py), so the log must give every reader the same
records with the same stamps in the same order.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from collectors.units import UnixSeconds
from monitor.core.attribution.learning import FitSums
from monitor.core.lessons import TaughtUnit

Stream = Literal["readings", "usage", "facts"]


class Append(msgspec.Struct, frozen=True, kw_only=True):
    """A record on its way into the log. `schema` is name and version ("readings.v1"), `key` the host.

    `stamp` is the record's own stamp where its writer drives the log's clock (a replay); else `append`'s `now` counts.
    """

    stream: Stream
    key: str
    schema: str
    body: bytes
    stamp: UnixSeconds | None = None


class LogRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A record as it stands in the log. Offsets rise within a stream and are never used twice.

    `stamp` is the stream's log time at the record: the running maximum up to and with it, so it never steps back.
    """

    stream: Stream
    offset: int
    stamp: UnixSeconds
    key: str
    schema: str
    body: bytes


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """Hosts came here from other partitions, when there were made to be more of these.

    Windows that begin before `whole_from` cannot be computed from this partition any more: records of theirs stayed
    behind. What stands before `ends` says nothing new of those, it is there to make later windows whole.
    """

    whole_from: UnixSeconds
    ends: Mapping[str, int]


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """How far a partition's account is stored for good, and where a new reader has to begin.

    `positions` are the first offsets that a later window or mark may need. Everything before `watermark` is final,
    every mark up to `mark` is carried out, `log_time` is the log time at `positions`, `partitions` the number when it
    was made. Where the log lost records `beginning` is the log time from which on it is whole: windows that reach back
    further can no longer be computed from it. `lessons` are what the windows before `watermark` taught of each GPU
    type, as far as they lie in the same period as it (core/lessons.py), `unit_lessons` of work that makes no tokens.
    """

    positions: Mapping[str, int]
    watermark: UnixSeconds
    mark: UnixSeconds
    log_time: UnixSeconds
    partitions: int = 1
    beginning: UnixSeconds = float("-inf")
    moved: Moved | None = None
    lessons: Mapping[str, FitSums] = {}
    unit_lessons: tuple[TaughtUnit, ...] = ()


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """An input that was not used. Identity is (source, position): seen again after a crash, it is counted once.

    `sha256` is the digest of the raw bytes; the bytes themselves are not kept, they may hold a prompt.
    """

    source: str
    position: str
    reason: str
    detail: str
    sha256: str
    at: UnixSeconds


class Hole(msgspec.Struct, frozen=True, kw_only=True):
    """Records that a reader still needed and that the log no longer has: of log times in [start, end)."""

    start: UnixSeconds
    end: UnixSeconds
    why: str


class LogWriter(Protocol):
    """Where records are appended. Raises LogUnavailable when it takes none."""

    def append(self, records: Sequence[Append], now: UnixSeconds) -> Sequence[Append]:
        """Stores them in order; returns once they are durable. In the embedded log: all of them or none.

        What is returned is not stored and never will be: the brokers refused it, and it is a dead letter. A record is
        stamped max(last stamp, its own stamp or else `now`). ValueError for one that is not finite.
        """
        ...

    def reject(self, letters: Sequence[DeadLetter]) -> None:
        """Keeps dead letters; one that is there already stays as it is."""
        ...


class FactsLog(Protocol):
    """The stream of facts, which has one partition."""

    def facts(self, after: int = 0) -> list[LogRecord]:
        """All records of the facts stream behind that offset, to its end."""
        ...


class PartitionLog(Protocol):
    """One partition as its reader sees it: `readings` and `usage` in step. Raises LogUnavailable."""

    def read(self, positions: Mapping[str, int], limit: int) -> list[LogRecord]:
        """The next records of readings and usage at or behind `positions` (0 where absent), in step by log time.

        In step: a record stands in the answer only when everything of the other stream that stands at an earlier log
        time is in it, or in an earlier answer, too.
        """
        ...

    def caught_up(self) -> bool:
        """Whether the last `read` gave all that there is right now."""
        ...

    def again(self) -> "PartitionLog":
        """Another reader of the same records, whose positions disturb nobody's; whoever asked for it closes it."""
        ...

    def log_time(self) -> UnixSeconds | None:
        """The newest stamp; None in an empty log."""
        ...

    def position_at(self, stream: Stream, log_time: UnixSeconds) -> int:
        """The first offset of the stream that stands at that log time or later; one past its end if none does."""
        ...

    def start(self) -> tuple[UnixSeconds, bool] | None:
        """The stamp of the oldest record of readings and usage, and whether records before it were trimmed away.

        None where neither stream holds a record.
        """
        ...

    def hole(self) -> Hole | None:
        """What the newest commit still needs and the log has lost (retention, a topic made anew); None: nothing."""
        ...

    def commit(self, commit: Commit) -> None:
        """Stores the commit; the newest one counts."""
        ...

    def committed(self) -> Commit | None:
        """The newest commit, or None."""
        ...

    def reject(self, letters: Sequence[DeadLetter]) -> None:
        """Keeps dead letters; one that is there already stays as it is."""
        ...

    def close(self) -> None:
        """Lets go of files and connections."""
        ...


class Log(LogWriter, FactsLog, PartitionLog, Protocol):
    """A whole log of one partition, append-only and durable, with the dead letters beside it."""

    def last(self, stream: Stream, key: str, schema: str | None = None) -> LogRecord | None:
        """The newest record with that key, and that schema if given: where a collector goes on after a restart."""
        ...

    def trim(self, before: UnixSeconds) -> int:
        """Deletes records stamped before that; returns how many.

        Never what stands at or behind the committed positions (nothing at all before a first commit), never a fact.
        """
        ...

    def rejected(self) -> dict[str, int]:
        """How many dead letters there are for each reason."""
        ...

    def rejections(self, limit: int = 100, after: int = 0) -> list[tuple[int, DeadLetter]]:
        """Dead letters in the order they came, numbered, for paging."""
        ...


class LogUnavailable(Exception):
    """The log cannot be read or written; names the file or broker, what happened, and what to do."""
