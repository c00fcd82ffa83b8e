"""The vocabulary of an allocation: what may be asked, and what its lines and totals hold. Pure records.

The words are OpenCost's (opencost.io/docs/integrations/api): idle is a line of its own, `__idle__`, or is shared among
the lines of its host or of the fleet in proportion to what they used, or goes to the team that owns the device. Idle
that nobody can be charged with stays `__idle__`.
"""

import json
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from collectors.units import UnixSeconds
from monitor.core.band import Gains, Tier
from monitor.core.points import Account

ShareIdle = Literal["false", "host", "fleet", "owner"]
IDLE_KEY: Final = "__idle__"
UNATTRIBUTED_KEY: Final = "__unattributed__"
NONE_KEY: Final = "__none__"
LABEL: Final = "label:"
DIMENSIONS: Final = ("model", "team", "deployment", "host", "device", "kind")
REASONS: Final = ("unknown_device", "other_process", "gap", "unreported")


class AllocationRules(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked. `by` and the keys of `filters` are of DIMENSIONS, or "label:KEY".

    `filters` choose among the finished lines' rows and change no share. `owners` maps (host, device) to a team,
    (host, "") for the devices that are not named. `gains` are what meters may be off.
    """

    by: tuple[str, ...]
    include_idle: bool = True
    include_unattributed: bool = True
    share_idle: ShareIdle = "false"
    owners: Mapping[tuple[str, str], str] = {}
    filters: Mapping[str, frozenset[str]] = {}
    gains: Gains = Gains()


class AllocationLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line. `key` is in the order of `by`; `account` tells an idle line of a host from its attributed one.

    `energy_joules` is what it used itself and `idle_share_joules` what idle was added. Grams are of the energy with a
    known factor, None where there is none; `factorless_joules` is the energy without (of a roll-up in which a factor
    was known for a part only: all of it), shared idle included. `low_joules` to `high_joules` is the band of
    `energy_joules` (band.py), None where it is not known, `tier` is what most of it rests on. The other joules, and
    `measured_ratio`, are parts of it. What usage cannot say (a device's requests) is None, as are tokens nobody told,
    and what rows of an older version do not hold (points.WHOLE_OR_NOT).
    """

    key: tuple[str, ...]
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


class AllocationTotals(msgspec.Struct, frozen=True, kw_only=True):
    """The books of all rows given, whatever the lines show: measured = attributed + idle + unattributed.

    `measured_joules` is of the meters that no other contains; as sensors are off it may truly be from
    `measured_low_joules` to `measured_high_joules`. `covered_device_seconds` is how long those meters were read, added
    up over them: 0 joules in 0 seconds is not known, in 3 600 it is nothing. `imbalance_joules` is what is left of the
    equation.
    """

    measured_joules: float
    measured_low_joules: float | None
    measured_high_joules: float | None
    covered_device_seconds: float
    attributed_joules: float
    idle_joules: float
    unattributed_joules: float
    imbalance_joules: float
    measured_ratio: float | None
    provisional_joules: float
    recovered_joules: float
    meter_disagreement_joules: float
    emissions_grams: float | None
    factorless_joules: float
    unattributed_reasons: dict[str, float]


class IdleDevice(msgspec.Struct, frozen=True, kw_only=True):
    """What one device used with nothing running, and where its idle power is known from ("configured", "quiet" ..)."""

    host: str
    device: str
    kind: str
    energy_joules: float
    idle_sources: tuple[str, ...]


class Allocation(msgspec.Struct, frozen=True, kw_only=True):
    """Lines by account and key, the totals, idle by device, the factors met, the times of the first and last row."""

    lines: tuple[AllocationLine, ...]
    totals: AllocationTotals
    idle_devices: tuple[IdleDevice, ...]
    factors: tuple[str, ...]
    first: UnixSeconds | None
    last: UnixSeconds | None


def label_value(labels: str, key: str) -> str:
    """The value of one label in a row's canonical JSON; NONE_KEY where it has none."""
    found = json.loads(labels).get(key) if labels else None
    return NONE_KEY if found is None else str(found)


def is_dimension(name: str) -> bool:
    """Whether lines can be made, or chosen, by it."""
    return name in DIMENSIONS or (name.startswith(LABEL) and len(name) > len(LABEL))
