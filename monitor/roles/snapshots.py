"""Role control's leader: once a day a snapshot of the facts, so that a start reads days of them and not years.

facts topic --> what is still needed (core/still_needed.py) --> facts topic
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import structlog

from collectors.errors import Rejected
from collectors.units import SECONDS_PER_DAY, UnixSeconds
from monitor.config.output_sections import Kafka
from monitor.core.facts import Fact
from monitor.core.still_needed import still_needed
from monitor.log.codec import Decoder
from monitor.log.kafka_facts import KafkaFacts
from monitor.log.protocol import LogRecord, LogWriter
from monitor.log.snapshots import Snapshot, is_snapshot, snapshot_records

EVERY_SECONDS: Final = SECONDS_PER_DAY
LOOK_SECONDS: Final = 3_600.0
"""How long after a look whether one is due the next comes: a leader that came newly looks at once."""
RETRY_SECONDS: Final = 60.0
_NOT_OURS_TO_JUDGE: Final = ("unknown_schema", "schema_version")
logger = structlog.get_logger()


class Snapshots:
    """`step` for whoever leads. Two that believe they lead both write, which harms nobody. Raises LogUnavailable."""

    def __init__(self, kafka: Kafka, writer: LogWriter) -> None:
        self._kafka, self._writer = kafka, writer
        self._look_at = float("-inf")

    def step(self, now: UnixSeconds) -> bool:
        """Writes one if the newest that is whole is a day old, or none is there; returns whether it did."""
        if now < self._look_at:
            return False
        self._look_at = now + RETRY_SECONDS
        facts = KafkaFacts(self._kafka)
        try:
            newest = facts.snapshot(now)
            due = newest is None or now - newest.taken_at >= EVERY_SECONDS
            written = due and self._write(newest, facts, now)
        finally:
            facts.close()
        self._look_at = now + LOOK_SECONDS
        return written

    def _write(self, newest: Snapshot | None, facts: KafkaFacts, now: UnixSeconds) -> bool:
        behind = facts.facts(0 if newest is None else newest.through)
        snapshot = snapshot_of([*(newest.records if newest else ()), *behind])
        if snapshot is None:
            return False
        parts = snapshot_records(snapshot)
        told = {"facts": len(snapshot.records), "parts": len(parts)}
        if refused := self._writer.append(parts, now):
            logger.error("a snapshot of the facts was refused, and is not whole", refused=len(refused), **told)
            return False
        logger.info("a snapshot of the facts was written", **told)
        return True


def snapshot_of(records: Sequence[LogRecord]) -> Snapshot | None:
    """What stays of the facts of a log, read to its end or begun at an earlier snapshot; None where there are none.

    What only another version can read stays as it is; what this one finds broken does not.
    """
    decoder = Decoder()
    read: list[tuple[LogRecord, Fact | None]] = []
    for record in records:
        if is_snapshot(record):
            continue
        try:
            fact = decoder.decode(record)
        except Rejected as rejected:
            if rejected.reason in _NOT_OURS_TO_JUDGE:
                read.append((record, None))
        else:
            if isinstance(fact, Fact):
                read.append((record, fact))
    if not read:
        return None
    taken_at, through = records[-1].stamp, records[-1].offset
    stay = still_needed([(record.stamp, fact) for record, fact in read], taken_at)
    kept = tuple(msgspec.structs.replace(read[place][0], offset=through) for place in stay)
    return Snapshot(taken_at=taken_at, through=through, records=kept)
