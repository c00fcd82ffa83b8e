"""Role collect in a fleet: from the host's own log to the brokers, in order, and only then released.

log (readings, facts found) --> Shipper --> KafkaWriter --> wattribute.readings, wattribute.facts
        ^------- positions, trimmed ------/

At least once: the position is stored when the brokers have acknowledged, so a crash in between sends some records
twice, which counts once. While the brokers are away the host's log grows up to [log] max_size, memory does not; beyond
it the oldest records are lost, counted, and said aloud.
"""

from collections.abc import Sequence
from typing import Final

import structlog

from collectors.clock import Clock, monotonic
from collectors.units import UnixSeconds
from monitor.log.codec import INTENSITY_SCHEMA, SERVERS_SCHEMA
from monitor.log.kafka_writer import KafkaWriter
from monitor.log.protocol import Append, Commit, LogRecord
from monitor.log.sqlite import SqliteLog
from monitor.roles.loop import Loop
from monitor.selfmetrics import ShipSnapshot

PAUSE_SECONDS: Final = 1.0
MOST_RECORDS: Final = 500
"""Of one batch; a record of readings is some kilobytes."""
HOUSEKEEPING_SECONDS: Final = 60.0
KEPT_SECONDS: Final = 3_600.0
"""Shipped records stay so long, for a person who looks what was sent."""
_FACTS: Final = "facts"
_SHIPPED_FACTS: Final = (SERVERS_SCHEMA, INTENSITY_SCHEMA)
"""What a host knows of itself: its servers, and the mix of the grid it hangs on."""
_PARTS: Final = ("readings", "usage")

logger = structlog.get_logger()


class Shipper:
    """A part with a thread of its own. `beat` is the steady time at which it last came round.

    `lost_records` are those that [log] max_size pushed out before the brokers had them, since the start.
    """

    def __init__(self, log: SqliteLog, writer: KafkaWriter, *, most_bytes: int, clock: Clock) -> None:
        self._log, self._writer, self._most_bytes, self._clock = log, writer, most_bytes, clock
        self._loop = Loop("ship", self.step)
        self._positions = self._stored_positions()
        self._housekept_at = float("-inf")
        self._shipped_until: UnixSeconds | None = None
        self.shipped_records = self.lost_records = 0

    def start(self) -> None:
        """Begins to ship."""
        self._loop.start()

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """Ends after the batch under way; what is left is shipped after the next start."""
        self._loop.stop(timeout_seconds)

    @property
    def name(self) -> str:
        """As it is named where a stuck loop is told."""
        return self._loop.name

    @property
    def beat(self) -> float:
        """When it last came round, on a clock that never steps."""
        return self._loop.beat

    @property
    def alive(self) -> bool:
        """False once it has ended."""
        return self._loop.alive

    @property
    def waits_for(self) -> str:
        """What keeps it from shipping, and what was lost by that; "" while nothing does, and nothing was."""
        lost = f"{self.lost_records} records of readings were lost: the log was over [log] max_size"
        return "; ".join([*filter(None, [self._loop.waits_for]), *([lost] if self.lost_records else [])])

    @property
    def shipped_until(self) -> UnixSeconds | None:
        """The host's log time up to which everything is at the brokers; None before the first record is."""
        return self._shipped_until

    def snapshot(self) -> ShipSnapshot:
        """How far it is. From any thread."""
        return ShipSnapshot(
            shipped_records=self.shipped_records,
            waiting_records=self._log.count_from(max(self._positions.get(part, 0) for part in _PARTS)),
            lost_records=self.lost_records,
            until=self._shipped_until,
        )

    def step(self) -> float:
        """Ships the next batch; returns how long to wait before the next. Raises LogUnavailable."""
        try:
            return self._ship_next()
        finally:
            self._keep_within_size()

    def _ship_next(self) -> float:
        records = self._log.read({part: self._positions.get(part, 0) for part in _PARTS}, MOST_RECORDS)
        facts = self._log.facts(self._positions.get(_FACTS, 0))
        if not records and not facts:
            return PAUSE_SECONDS
        self._ship(records, facts)
        return 0.0 if len(records) == MOST_RECORDS else PAUSE_SECONDS

    def _ship(self, records: Sequence[LogRecord], facts: Sequence[LogRecord]) -> None:
        now = self._clock.now()
        self._writer.send([_again(record) for record in facts if record.schema in _SHIPPED_FACTS], now)
        self._writer.send([_again(record) for record in records if record.stream == "readings"], now)
        self._writer.flush(now)
        positions = dict(self._positions)
        if records:  # offsets are of one sequence over all streams
            positions |= dict.fromkeys(_PARTS, records[-1].offset + 1)
            self._shipped_until = records[-1].stamp
        if facts:
            positions[_FACTS] = facts[-1].offset
        log_time = self._shipped_until or 0.0
        self._log.commit(Commit(positions=positions, watermark=log_time, mark=log_time, log_time=log_time))
        self._positions = positions
        self.shipped_records += len(records)

    def _keep_within_size(self) -> None:
        if monotonic() - self._housekept_at < HOUSEKEEPING_SECONDS:
            return
        self._housekept_at = monotonic()
        if self._shipped_until is not None:
            self._log.trim(self._shipped_until - KEPT_SECONDS)
        self._log.trim_to_size(self._most_bytes)
        dropped = self._log.drop_to_size(self._most_bytes)
        if dropped is not None:
            self.lost_records += dropped.records
            logger.error(
                "readings are lost: the log is over [log] max_size and the brokers do not take them",
                records=dropped.records,
                start=dropped.start,
                end=dropped.end,
                why=self._loop.waits_for,
            )

    def _stored_positions(self) -> dict[str, int]:
        commit = self._log.committed()
        return {} if commit is None else dict(commit.positions)


def _again(record: LogRecord) -> Append:
    """The record as it was appended, under the stamp that it has here."""
    return Append(stream=record.stream, key=record.key, schema=record.schema, body=record.body, stamp=record.stamp)
