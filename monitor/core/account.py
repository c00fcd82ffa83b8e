"""The account of one host and one window: from what stands in the log to the rows of the books.

    readings -> meter row, own part -> split among the requests -> attributed, idle, unattributed, usage, request rows

Pure: the same records give the same bits, whoever computes. Sums run in a fixed order.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import msgspec

from collectors.readings import ActivityReading, EngineReading
from collectors.units import UnixSeconds
from monitor.core.account_rows import Owners, terms_of
from monitor.core.account_usage import RequestShares, request_rows, usage_rows
from monitor.core.account_work import ScalarsAt, Watch, WindowWork
from monitor.core.attribution.learning import FitSums
from monitor.core.attribution.methods import DEFAULT_METHOD, METHODS
from monitor.core.attribution.priors import PRIOR, Scalars
from monitor.core.attribution.units import UnitSums
from monitor.core.demand import demand_of
from monitor.core.emissions.factors import Intensity
from monitor.core.family import family_of
from monitor.core.lessons import GpuUnit
from monitor.core.points import Row
from monitor.core.readings import Nearby, Told, disjoint, own_pieces
from monitor.core.shares import Shares
from monitor.core.usage_columns import UsageColumns
from monitor.core.usage_order import in_order

IntensityAt = Callable[[str, UnixSeconds], Intensity | None]
RequestsAs = Literal["rows", "shares", "neither"]
"""What an account makes of each request's own energy: rows of the window, shares to be summed, or nothing."""


class Account(msgspec.Struct, frozen=True, eq=False):
    """The rows of a host's window, and readings that overlap others and were left out.

    `shares` in the order (start, end, identity), where they were asked for. `lessons` are what the window teaches of
    each GPU type, `unit_lessons` what it teaches of work that makes no tokens, where that was asked for.
    """

    rows: list[Row]
    overlaps: list[Told]
    shares: Shares | None = None
    lessons: Mapping[str, FitSums] = {}
    unit_lessons: Mapping[GpuUnit, UnitSums] = {}

    def equals(self, other: "Account") -> bool:
        """Whether both say the same, also of each request."""
        if self.shares is None or other.shares is None:
            same = self.shares is other.shares
        else:
            same = self.shares.equals(other.shares)
        return same and self.rows == other.rows and self.overlaps == other.overlaps


def prior_everywhere(_gpu: str, _at: UnixSeconds) -> Scalars:
    """The priors, where nothing has been learned."""
    return PRIOR


def account(
    host: str,
    start: UnixSeconds,
    end: UnixSeconds,
    *,
    readings: Iterable[Told],
    usages: UsageColumns,
    activities: Iterable[ActivityReading] = (),
    engines: Iterable[EngineReading] = (),
    nearby: Nearby,
    intensity_at: IntensityAt,
    scalars_at: ScalarsAt = prior_everywhere,
    method: str = DEFAULT_METHOD,
    revision: int,
    requests: RequestsAs = "rows",
    watch: Watch | None = None,
    teach: bool = False,
) -> Account:
    """The books of `host` in the window [start, end). `readings`, `usages`,
    `activities` and `engines` are those that touch it, in any order. `teach`: with what the window teaches.
    """
    ordered = in_order(usages)
    demand = demand_of(ordered, start)
    owners = Owners.of(ordered)
    by_device: dict[str, list[Told]] = {}
    for told in readings:
        by_device.setdefault(told.reading.device, []).append(told)
    gathered = None if requests == "neither" else RequestShares(ordered)
    rows: list[Row] = []
    overlaps: list[Told] = []
    lessons: dict[str, FitSums] = {}
    unit_lessons: dict[GpuUnit, UnitSums] = {}
    if by_device:
        family = family_of(by_device)
        readings_of = {device_id: disjoint(by_device.get(device_id, ())) for device_id in family.devices}
        overlaps = [told for _, left_out in readings_of.values() for told in left_out]
        own = {
            device_id: own_pieces(kept, family.children(device_id), nearby, start, end)
            for device_id, (kept, _) in readings_of.items()
        }
        terms = terms_of(host, start, revision, family.profile, intensity_at(family.profile.zone, start))
        active = sorted(activities, key=lambda each: (each.start, each.end, each.device, each.consumer))
        served = tuple(sorted(engines, key=lambda each: (each.start, each.end, each.server, each.model)))
        work = WindowWork(
            demand,
            owners,
            end - start,
            family,
            gathered,
            active,
            served,
            scalars_at,
            teach,
            lessons,
            unit_lessons,
            METHODS[method],
            watch,
        )
        rows += work.rows(terms, own)
    rows += usage_rows(host, (start, end), ordered, revision)
    shares = gathered.shares() if gathered else None
    if requests == "rows" and shares is not None:
        rows += request_rows(host, start, shares, revision)
        shares = None
    return Account(rows, overlaps, shares, lessons, unit_lessons)
