"""What the daemon says about itself, as one frozen picture of a moment. Pure records.

The roles count in plain integers and in `Spread`s; when somebody asks, the service draws a DaemonSnapshot of them. It
is rendered for Prometheus by metrics_text.py and sent as JSON as it is. Moments are unix seconds; None is not known.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

from collectors.meter import DeviceState
from collectors.units import UnixSeconds

RoleState = Literal["running", "retrying", "broken"]
"""retrying: what it needs does not answer, and is asked again. broken: its thread has ended, or hangs."""
PartState = Literal["ok", "waiting", "retrying", "gone", "broken"]
"""Of a meter or a source. waiting: nothing came yet. retrying: no answer, asked again. broken: a person must act."""


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """How long something took, over all times it was done. A new one replaces the old: no reader sees half of it."""

    count: int = 0
    total_seconds: float = 0.0
    longest_seconds: float = 0.0

    def plus(self, duration_seconds: float) -> "Spread":
        """With one more: 2 s and then 3 s are 2 times, 5 s, 3 s at the longest."""
        return Spread(
            count=self.count + 1,
            total_seconds=self.total_seconds + duration_seconds,
            longest_seconds=max(self.longest_seconds, duration_seconds),
        )


class RoleSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A role of this process. `detail` says what is wrong and what mends it; "" where nothing is."""

    name: str
    state: RoleState
    detail: str = ""


class DeviceSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A device of a meter. `power_watts` is the mean of its last reading, which ended at `last_reading_at`.

    `counter_disagreement_ratio` is (counter - integral of power) / integral.
    """

    device: str
    kind: str
    state: DeviceState
    detail: str = ""
    power_watts: float | None = None
    last_reading_at: UnixSeconds | None = None
    counter_disagreement_ratio: float | None = None


class MeterSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A meter. `read_errors` counts by reaction (retry_later, gone, broken), `events` by device and then by word.

    `reads` are those asked for, failed ones included; `read` is how long they took, `late` how long after their
    deadlines they began. `skipped` are the deadlines that passed while a read was still under way.
    """

    name: str
    state: PartState
    detail: str = ""
    interval_seconds: float
    devices: tuple[DeviceSnapshot, ...] = ()
    reads: int = 0
    skipped: int = 0
    read_errors: Mapping[str, int] = {}
    events: Mapping[str, Mapping[str, int]] = {}
    read: Spread = Spread()
    late: Spread = Spread()


class SourceSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Where request events come from. `rejected` counts by reason."""

    name: str
    kind: str
    state: PartState
    detail: str = ""
    accepted: int = 0
    rejected: Mapping[str, int] = {}
    last_event_at: UnixSeconds | None = None


class HoleSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Windows of a host in [start, end) that the log lost before they were accounted."""

    host: str
    start: UnixSeconds
    end: UnixSeconds
    reason: str


class LedgerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """How far the books are. `final_until` is the end of the newest window that is final on every host.

    `log_time` is how far the log is. `worst_imbalance_ratio` is the largest of any window made final by this process.
    `holes` are those that the books had when this process started, and those found by it since. `partitions` are those
    that this process has of a fleet's log, None of a log that has none; `waiting_records` stand in them and are not
    fetched yet.
    """

    final_until: UnixSeconds | None = None
    log_time: UnixSeconds | None = None
    windows_final: int = 0
    worst_imbalance_ratio: float | None = None
    holes: tuple[HoleSnapshot, ...] = ()
    partitions: tuple[int, ...] | None = None
    waiting_records: int | None = None


class AlertInstance(msgspec.Struct, frozen=True, kw_only=True):
    """An alert that is not quiet, or whose value is known. `place` is by the names in the rule's `per`.

    `value` is the last known, from before `missing_since` where that is set. `since` is when its phase began.
    """

    place: Mapping[str, str]
    phase: Literal["inactive", "pending", "firing", "resolved"]
    value: float | None
    since: UnixSeconds | None = None
    missing_since: UnixSeconds | None = None


class AlertSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A rule, and how its receiver does. `detail` says why the last notice could not be sent, "" where it was.

    `sent` and `failed` count posts since the start. `judged_until` is how far the books were judged.
    """

    name: str
    measure: str
    above: float
    for_seconds: float
    judged_until: UnixSeconds | None = None
    instances: tuple[AlertInstance, ...] = ()
    sent: int = 0
    failed: int = 0
    detail: str = ""

    def count(self, phase: str) -> int:
        """How many are in that phase."""
        return sum(each.phase == phase for each in self.instances)


class AgentCost(msgspec.Struct, frozen=True, kw_only=True):
    """What the process and its children have used of the host; `memory_bytes` None where it cannot be told."""

    cpu_seconds: float
    memory_bytes: int | None
    processes: int


class ShipSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What a host of a fleet has at the brokers: records since the start, those that still wait, those that were lost.

    `until` is the log time up to which everything is there; None before the first record is.
    """

    shipped_records: int
    waiting_records: int
    lost_records: int
    until: UnixSeconds | None = None


class DaemonSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The process at the moment `at`. `ledger` is None where the role that keeps it runs elsewhere.

    `loop_age_seconds` is how long ago, on a clock that never steps, the main loop last came round. `ready` is whether
    a first good sample has passed; `reason` says what is missing while it is not. `config_refused` says why the last
    reload was not taken, "" where it was. `refused_records` are those that Kafka, `refused_rows`, by reason, those that
    InfluxDB will never take from these roles; None where they write none there. `ship` is None where no host's readings
    go to brokers from here.
    """

    version: str
    host: str
    pid: int
    at: UnixSeconds
    started_at: UnixSeconds
    loop_age_seconds: float
    ready: bool
    reason: str = ""
    config_file: str | None = None
    data_directory: str | None = None
    config_refused: str = ""
    roles: tuple[RoleSnapshot, ...] = ()
    meters: tuple[MeterSnapshot, ...] = ()
    sources: tuple[SourceSnapshot, ...] = ()
    ledger: LedgerSnapshot | None = None
    ship: ShipSnapshot | None = None
    refused_records: int | None = None
    refused_rows: Mapping[str, int] | None = None
    alerts: tuple[AlertSnapshot, ...] = ()
    cost: AgentCost | None = None


def nested(events: Mapping[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    """Counts by (device, word), as a meter's health tells them, by device and then by word."""
    found: dict[str, dict[str, int]] = {}
    for (device, word), count in events.items():
        found.setdefault(device, {})[word] = count
    return found
