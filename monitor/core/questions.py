"""Questions to the gate and their answers: who asks, what, and what comes back. Pure records."""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from collectors.units import UnixSeconds
from monitor.core.allocation_lines import AllocationLine, AllocationTotals, IdleDevice, ShareIdle
from monitor.core.request_sums import RequestLine

MOST_LINES: Final = 10_000
"""The longest page, and the most steps of one answer."""


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks. `admin` and `read` see everything here; `team` sees the lines and requests of its teams alone."""

    name: str
    role: Literal["admin", "read", "team"]
    teams: frozenset[str] = frozenset()


class Denied(Exception):
    """This principal may not see that."""


class BadQuery(ValueError):
    """The question cannot be answered as it stands; `field` names what to change."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class AllocationQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Who used what in [start, end), by these dimensions, for the whole or for each step of that many seconds.

    A filter on `host` narrows the books themselves; on anything else it chooses lines and changes no share. `after` is
    the `next` of the page before.
    """

    start: UnixSeconds
    end: UnixSeconds
    by: tuple[str, ...] = ("model", "team")
    filters: Mapping[str, frozenset[str]] = {}
    include_idle: bool = True
    include_unattributed: bool = True
    include_provisional: bool = True
    share_idle: ShareIdle = "false"
    step: float | None = None
    limit: int = MOST_LINES
    after: str | None = None


class StepLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line of one step [start, end); without a step, of the whole."""

    start: UnixSeconds
    end: UnixSeconds
    line: AllocationLine


class AllocationPage(msgspec.Struct, frozen=True, kw_only=True):
    """Lines in the order of step, account and key.

    `totals` and `idle_devices` are of the whole interval; None for a team, as they tell what others used.
    `final_until` is the start of the newest window that is final on every host; None where nothing is.
    """

    query: AllocationQuery
    lines: tuple[StepLine, ...]
    totals: AllocationTotals | None
    idle_devices: tuple[IdleDevice, ...] | None
    factors: tuple[str, ...]
    final_until: UnixSeconds | None
    next: str | None


class WindowsQuery(msgspec.Struct, frozen=True, kw_only=True):
    """The books of each host and window in [start, end)."""

    start: UnixSeconds
    end: UnixSeconds
    hosts: frozenset[str] = frozenset()
    include_provisional: bool = True
    limit: int = MOST_LINES
    after: str | None = None


class WindowBooks(msgspec.Struct, frozen=True, kw_only=True):
    """One host's window.

    `imbalance_ratio` is |measured - attributed - idle - unattributed| / measured; of nothing measured 0, or 1 where
    there is something on the other side.
    """

    time: UnixSeconds
    host: str
    measured_joules: float
    attributed_joules: float
    idle_joules: float
    unattributed_joules: float
    imbalance_ratio: float
    provisional: bool


class WindowsPage(msgspec.Struct, frozen=True, kw_only=True):
    """In the order of time and host."""

    windows: tuple[WindowBooks, ...]
    next: str | None


class MeterWindow(msgspec.Struct, frozen=True, kw_only=True):
    """What one device's meter told of one window; its mean power is energy / covered seconds.

    `parent` is the device whose meter contains this one, "" for none. None is what the meter did not tell.
    """

    time: UnixSeconds
    host: str
    device: str
    kind: str
    parent: str
    energy_joules: float | None
    metered_joules: float | None
    covered_seconds: float | None
    provisional: bool


class MetersPage(msgspec.Struct, frozen=True, kw_only=True):
    """In the order of time, host, device and kind."""

    meters: tuple[MeterWindow, ...]
    next: str | None


class RequestsQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that used energy in [start, end); filters on the tags of `request_energy`."""

    start: UnixSeconds
    end: UnixSeconds
    filters: Mapping[str, frozenset[str]] = {}
    limit: int = 1_000
    after: str | None = None


class RequestsPage(msgspec.Struct, frozen=True, kw_only=True):
    """In the order of their first window in the interval."""

    requests: tuple[RequestLine, ...]
    next: str | None


class Restatement(msgspec.Struct, frozen=True, kw_only=True):
    """A mark at which final windows of a host were restated, why, and by how much."""

    mark: UnixSeconds
    host: str
    reason: str | None
    windows: float | None
    late_readings: float | None
    late_requests: float | None
    late_controls: float | None
    old_energy_joules: float | None
    new_energy_joules: float | None
    first_window: float | None
    last_window: float | None


class TooLate(msgspec.Struct, frozen=True, kw_only=True):
    """What came for windows that the log can no longer recompute: listed, in no sum."""

    mark: UnixSeconds
    host: str
    reason: str | None
    windows: float | None
    late_readings: float | None
    late_requests: float | None
    late_energy_joules: float | None
    first_window: float | None
    last_window: float | None


class Missing(msgspec.Struct, frozen=True, kw_only=True):
    """Windows of a host in [start, end) that are not in the books: the log lost their records before that."""

    host: str
    start: UnixSeconds
    end: UnixSeconds
    reason: str


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """How far the books are. Times are the starts of windows, by host. None: a team is not shown what others sent.

    `holes` are all that the books have, in the order of start and host.
    """

    spans: dict[str, tuple[UnixSeconds, UnixSeconds]]
    final_until: dict[str, UnixSeconds]
    provisional_until: dict[str, UnixSeconds]
    rejected: dict[str, int] | None
    restatements: tuple[Restatement, ...] | None
    too_late: tuple[TooLate, ...] | None
    holes: tuple[Missing, ...] = ()
