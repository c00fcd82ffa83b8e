"""The answers as records: what is sent, and what the OpenAPI document says is sent, are the same types.

Moments are RFC 3339 in UTC to the millisecond. null is what is not known or not told; 0 is a measured nothing.
"""

import msgspec

from monitor.core.allocation_lines import AllocationTotals, IdleDevice, ShareIdle
from monitor.core.band import Tier
from monitor.core.points import Account
from monitor.selfmetrics import DaemonSnapshot


class Answer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of an answer; every field is always there."""


class Span(Answer, frozen=True, kw_only=True):
    """The half-open interval [start, end)."""

    start: str
    end: str


class Line(Answer, frozen=True, kw_only=True):
    """A line of [start, end). `properties` are the dimensions asked for; `__idle__` and such are keys, not names.

    `energy_joules` is what it used itself, `idle_share_joules` what idle it was charged with. `low_joules` to
    `high_joules` is the band that holds what it truly used nine times in ten, null where nobody knows, and `tier` is
    what most of it rests on. Grams are of the energy with a known factor, `factorless_joules` the energy without.
    `measured_ratio` is the part of the energy that a meter told, 0 to 1; the rest is modelled. Marginal, exact, steps,
    learned, metered, recovered and provisional joules are parts of it, null where rows of an older version lack them.
    """

    start: str
    end: str
    properties: dict[str, str]
    account: Account
    energy_joules: float
    low_joules: float | None
    high_joules: float | None
    tier: Tier
    idle_share_joules: float
    emissions_grams: float | None
    idle_share_grams: float | None
    factorless_joules: float
    requests: float | None
    input_tokens: float | None
    output_tokens: float | None
    cached_input_tokens: float | None
    untold_requests: float | None
    scheduled_requests: float | None
    marginal_joules: float
    exact_joules: float
    steps_joules: float | None
    learned_joules: float | None
    estimated_start_joules: float | None
    metered_joules: float
    recovered_joules: float
    provisional_joules: float
    measured_ratio: float | None


class AllocationAnswer(Answer, frozen=True, kw_only=True):
    """Lines, and the books of the whole window: measured = attributed + idle + unattributed, whatever the lines show.

    `factors` are the emission factors met. `final_until` is the start of the newest window that is final on every host.
    `next` is the `after` of the next page.
    """

    window: Span
    aggregate: tuple[str, ...]
    step_seconds: float | None
    share_idle: ShareIdle
    lines: tuple[Line, ...]
    totals: AllocationTotals | None
    idle_devices: tuple[IdleDevice, ...] | None
    factors: tuple[str, ...]
    final_until: str | None
    next: str | None


class Window(Answer, frozen=True, kw_only=True):
    """One host's window. `imbalance_ratio` is |measured - attributed - idle - unattributed| / measured."""

    start: str
    host: str
    measured_joules: float
    attributed_joules: float
    idle_joules: float
    unattributed_joules: float
    imbalance_ratio: float
    provisional: bool


class WindowsAnswer(Answer, frozen=True, kw_only=True):
    """In the order of time and host. `next` is the `after` of the next page."""

    window: Span
    windows: tuple[Window, ...]
    next: str | None


class Request(Answer, frozen=True, kw_only=True):
    """What one request used in the window; `whole` tells whether all of it lies in there.

    Tokens and work are the whole request's, `labels` those it came with. Joules are null where no window of it was
    measured on its devices, and then there is no tier; or where rows of an older version do not hold them.
    `low_joules`, `high_joules` and `tier` are as those of a line.
    """

    namespace: str
    request_id: str
    attempt: int
    model: str
    team: str
    deployment: str
    labels: dict[str, str]
    hosts: tuple[str, ...]
    energy_joules: float | None
    marginal_joules: float | None
    metered_joules: float | None
    recovered_joules: float | None
    exact_joules: float | None
    steps_joules: float | None
    learned_joules: float | None
    low_joules: float | None
    high_joules: float | None
    tier: Tier | None
    emissions_grams: float | None
    measured_ratio: float | None
    start: str | None
    first_token: str | None
    end: str | None
    input_tokens: float | None
    cached_input_tokens: float | None
    output_tokens: float | None
    work_unit: str | None
    work_amount: float | None
    status: str | None
    factor: str | None
    whole: bool


class RequestsAnswer(Answer, frozen=True, kw_only=True):
    """In the order of their first window. `next` is the `after` of the next page."""

    window: Span
    requests: tuple[Request, ...]
    next: str | None


class Restated(Answer, frozen=True, kw_only=True):
    """Final windows of a host that were computed again, why, and by how much."""

    mark: str
    host: str
    reason: str | None
    windows: float | None
    late_readings: float | None
    late_requests: float | None
    late_controls: float | None
    old_energy_joules: float | None
    new_energy_joules: float | None
    first_window: str | None
    last_window: str | None


class CameTooLate(Answer, frozen=True, kw_only=True):
    """What came for windows that can no longer be computed again: listed, in no sum."""

    mark: str
    host: str
    reason: str | None
    windows: float | None
    late_readings: float | None
    late_requests: float | None
    late_energy_joules: float | None
    first_window: str | None
    last_window: str | None


class MissingWindows(Answer, frozen=True, kw_only=True):
    """Windows of a host that the log lost before they were accounted: in no sum, and not zero."""

    host: str
    window: Span
    reason: str


class Books(Answer, frozen=True, kw_only=True):
    """How far the books are, by host, as starts of windows; what was rejected, by reason since the beginning."""

    spans: dict[str, Span]
    final_until: dict[str, str]
    provisional_until: dict[str, str]
    rejected: dict[str, int] | None
    restatements: tuple[Restated, ...] | None
    too_late: tuple[CameTooLate, ...] | None
    holes: tuple[MissingWindows, ...]


class StatusAnswer(Answer, frozen=True, kw_only=True):
    """The daemon as it is now (what /status of its own server tells; moments there are unix seconds), and its books."""

    daemon: DaemonSnapshot | None
    books: Books


class Index(Answer, frozen=True, kw_only=True):
    """What is here."""

    name: str
    version: str
    addresses: dict[str, str]


class Failure(Answer, frozen=True, kw_only=True):
    """Why there is no answer. `field` names the parameter to change, null where none is to blame."""

    field: str | None
    reason: str


class ErrorAnswer(Answer, frozen=True, kw_only=True):
    """What comes with every status that is not 2xx."""

    error: Failure
