"""A snapshot of the facts, as records among them. In: the facts that are still needed. Out: parts, and whole again.

Whoever will not ask about earlier moments begins there instead of at the first fact. Each fact is the very record that
stands in the log, with its log time, because when it is in force depends on that. A snapshot is in parts, so that none
is too long a record, and counts only when all of them stand there: its writer may have died between two. Its id is the
digest of what it says, so that two writers of the same one write one.
"""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import pairwise
from typing import Final

import msgspec

from collectors.errors import Rejected
from collectors.units import UnixSeconds
from monitor.log.protocol import Append, LogRecord

SNAPSHOT_SCHEMA: Final = "snapshot.v1"
PART_BYTES: Final = 256 * 2**10
"""About what a part holds; a topic of the house takes 1 MiB."""
_MOST_OPEN: Final = 4
"""Snapshots of which parts are missing that are waited for."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The facts before the offset behind `through` that any moment from `taken_at` on needs, in their order.

    `taken_at` is the log time at `through`, the running maximum that whoever goes on behind it goes on with. The
    records carry the offset `through`: where they once stood matters no more.
    """

    taken_at: UnixSeconds
    through: int
    records: tuple[LogRecord, ...]


class _Fact(msgspec.Struct, frozen=True, array_like=True):
    stamp: UnixSeconds
    key: str
    schema: str
    body: bytes


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    taken_at: UnixSeconds
    through: int
    part: int
    parts: int
    facts: tuple[_Fact, ...]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Part)


def is_snapshot(record: LogRecord) -> bool:
    """Whether it is a part of one, of any version: no fact of its own."""
    return record.schema.startswith("snapshot.v")


def snapshot_records(snapshot: Snapshot) -> list[Append]:
    """Its parts, one at least, in the order in which they are to be written."""
    facts = [_Fact(each.stamp, each.key, each.schema, each.body) for each in snapshot.records]
    identity = _identity(snapshot.taken_at, snapshot.through, facts)
    parts = list(_cut(facts)) or [()]
    return [
        Append(
            stream="facts",
            key="snapshot",
            schema=SNAPSHOT_SCHEMA,
            body=_encoder.encode(
                _Part(
                    id=identity,
                    taken_at=snapshot.taken_at,
                    through=snapshot.through,
                    part=number,
                    parts=len(parts),
                    facts=part,
                )
            ),
        )
        for number, part in enumerate(parts)
    ]


class Assembly:
    """Puts parts together as they come."""

    def __init__(self) -> None:
        self._open: dict[str, dict[int, _Part]] = {}

    def add(self, offset: int, body: bytes) -> Snapshot | None:
        """The snapshot that this part, which stands at that offset, makes whole, if it does. Raises Rejected."""
        try:
            part = _decoder.decode(body)
        except (msgspec.DecodeError, OverflowError, RecursionError) as error:
            raise Rejected("undecodable", f"{SNAPSHOT_SCHEMA} at offset {offset}: {error}") from error
        if not (0 <= part.part < part.parts and 0 < part.through < offset):
            raise Rejected("bad_value", f"{SNAPSHOT_SCHEMA} at offset {offset}: part or through is out of range")
        mine = self._open.pop(part.id, {})
        self._open[part.id] = mine
        mine.setdefault(part.part, part)
        if len(mine) < part.parts:
            if len(self._open) > _MOST_OPEN:
                del self._open[next(iter(self._open))]
            return None
        del self._open[part.id]
        return _whole([mine[number] for number in sorted(mine)], offset)


def _whole(parts: Sequence[_Part], offset: int) -> Snapshot:
    taken_at, through = parts[0].taken_at, parts[0].through
    facts = [fact for part in parts for fact in part.facts]
    # Against the infinities too: every comparison with a NaN is false.
    stamps = [float("-inf"), *(fact.stamp for fact in facts), taken_at, float("inf")]
    in_order = all(before <= after for before, after in pairwise(stamps)) and abs(taken_at) < float("inf")
    if not in_order or _identity(taken_at, through, facts) != parts[0].id:
        raise Rejected("bad_value", f"{SNAPSHOT_SCHEMA} that ends at offset {offset}: it is not what its id says")
    records = tuple(
        LogRecord(stream="facts", offset=through, stamp=fact.stamp, key=fact.key, schema=fact.schema, body=fact.body)
        for fact in facts
    )
    return Snapshot(taken_at=taken_at, through=through, records=records)


def _identity(taken_at: UnixSeconds, through: int, facts: Iterable[_Fact]) -> str:
    digest = sha256(_encoder.encode((taken_at, through)))
    for fact in facts:
        digest.update(_encoder.encode(fact))
    return digest.hexdigest()


def _cut(facts: Iterable[_Fact]) -> Iterator[tuple[_Fact, ...]]:
    part: list[_Fact] = []
    size = 0
    for fact in facts:
        length = len(fact.body) + 4 * (len(fact.key) + len(fact.schema)) + 32
        if part and size + length > PART_BYTES:
            yield tuple(part)
            part, size = [], 0
        part.append(fact)
        size += length
    if part:
        yield tuple(part)
