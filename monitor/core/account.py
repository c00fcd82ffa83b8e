"""The account of one host and one window: from what stands in the log to the rows of the books.

    readings -> meter row, own part -> split among the requests -> attributed, idle, unattributed, usage, request rows

Pure: the same records give the same bits, whoever computes. Sums run in a fixed order.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum, isnan
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from collectors.readings import ActivityReading, Device, EngineReading, HostProfile
from collectors.units import Energy, UnixSeconds
from monitor.core import points
from monitor.core.asked import work_asked
from monitor.core.attribution.certainty import (
    PRIOR_CERTAINTY,
    ROUTING_ERROR_RATIO,
    UNTOLD_DRAFTS_ERROR_RATIO,
    Certainty,
)
from monitor.core.attribution.doubt import Doubts, doubts_of_each
from monitor.core.attribution.hardware import UNKNOWN_GPU, hardware_of
from monitor.core.attribution.learning import FitSums
from monitor.core.attribution.methods import DEFAULT_METHOD, METHODS, Method
from monitor.core.attribution.pieces import Column, Flags
from monitor.core.attribution.priors import PRIOR, Scalars
from monitor.core.attribution.requests import Requests
from monitor.core.attribution.units import UnitSums
from monitor.core.attribution.virtual_energy import Foreign, Meter, Quiet, Split, Window, split_each
from monitor.core.attribution.work import tokens_per_step
from monitor.core.busy import busy_servers
from monitor.core.demand import Ask, Demand, demand_of, requests_on_each
from monitor.core.emissions.factors import Intensity, factor_label, location_grams
from monitor.core.family import Family, family_of
from monitor.core.foreign import foreign_of
from monitor.core.held import held_watts, told_capped
from monitor.core.instances import split_by_instance
from monitor.core.lessons import GpuUnit, from_requests
from monitor.core.phased import counted, phase_on
from monitor.core.points import Row
from monitor.core.queueing import Seated, seated
from monitor.core.readings import Nearby, Piece, Told, disjoint, meter_of, own_pieces
from monitor.core.routing import EXPONENTS, routed, saved
from monitor.core.shares import COLUMNS, ENERGY, VARIANCE, Shares
from monitor.core.teaching import cost_in, joules_above_idle, lesson_asked, lesson_in, tell_work
from monitor.core.unit_teaching import tells_units, unit_lesson_in
from monitor.core.usage_columns import Index, Key, UsageColumns, all_known, all_known_counts, told_or_nothing
from monitor.core.usage_order import in_order

IntensityAt = Callable[[str, UnixSeconds], Intensity | None]
ScalarsAt = Callable[[str, UnixSeconds], Scalars]
"""What the work of a GPU type (its maker's name) costs, as known at a moment."""
RequestsAs = Literal["rows", "shares", "neither"]
"""What an account makes of each request's own energy: rows of the window, shares to be summed, or nothing."""


MOST_EXACT = 2.0**53
"""Below it every whole number is a float."""
MOST_SMALL = 2**15


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One device's split in an account, for whoever wants to see how it came about.

    `requests`, `shared` and `chosen` (places in `usages`) are of equal length; `pieces` is what was measured.
    `estimated_start` tells of which requests it was estimated when an engine began (queueing.py).
    """

    device: Device
    pieces: Sequence[Piece]
    usages: UsageColumns
    chosen: Index
    requests: Requests
    estimated_start: Flags
    shared: Split
    idle_watts: float | None
    scalars: Scalars
    doubts: Doubts
    held_watts: float | None
    by_instance: bool = False
    """Whether the device was split by the activity of its MIG instances first."""


Watch = Callable[[Watched], None]


class _Terms(msgspec.Struct, frozen=True):
    """What the rows of a window have in common, and what turns its joules into grams."""

    host: str
    start: UnixSeconds
    revision: int
    pue: float
    intensity: Intensity | None
    label: str

    def tags(self, device: Device) -> tuple[str, str, str]:
        return self.host, device.id, device.kind

    def grams(self, energy_joules: Energy) -> Energy | None:
        return location_grams(energy_joules, self.pue, self.intensity)


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
    owners = _Owners.of(ordered)
    by_device: dict[str, list[Told]] = {}
    for told in readings:
        by_device.setdefault(told.reading.device, []).append(told)
    gathered = None if requests == "neither" else _RequestShares(ordered)
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
        terms = _terms(host, start, revision, family.profile, intensity_at(family.profile.zone, start))
        active = sorted(activities, key=lambda each: (each.start, each.end, each.device, each.consumer))
        served = tuple(sorted(engines, key=lambda each: (each.start, each.end, each.server, each.model)))
        work = _Work(
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
    rows += _usage_rows(host, (start, end), ordered, revision)
    shares = gathered.shares() if gathered else None
    if requests == "rows" and shares is not None:
        rows += _request_rows(host, start, shares, revision)
        shares = None
    return Account(rows, overlaps, shares, lessons, unit_lessons)


def _terms(host: str, start: UnixSeconds, revision: int, profile: HostProfile, intensity: Intensity | None) -> _Terms:
    label = factor_label(intensity, profile.pue)
    return _Terms(host=host, start=start, revision=revision, pue=profile.pue, intensity=intensity, label=label)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What one device was asked to do in the window, and what its meter told."""

    device: Device
    pieces: Sequence[Piece]
    meter: Meter
    engines: Sequence[EngineReading]
    since: Seated
    foreign: Foreign
    idle_source: str
    ask: Ask

    def estimated(self, joules: Column) -> Column:
        """Of each request's joules those of one of which it was estimated when an engine began."""
        return np.where(self.since.estimated[self.ask.chosen], joules, 0.0)


class _Told(NamedTuple):
    """What a device's requests did on it and what they get: each (`columns`, of each of the chosen), and each owner.

    `sums` are the places of owners with a request there, and of each column the sums of all owners.
    """

    requests: Requests
    shared: Split
    by_instance: bool
    doubts: Doubts
    columns: tuple[Column, ...]
    sums: "_Sums"


_Sums = tuple[Sequence[Key], Sequence[Sequence[float]]]
"""Owners, and for each what its requests' columns sum to."""


@dataclass(frozen=True, slots=True)
class _Work:
    """The window's requests, and where their shares are gathered."""

    demand: Demand
    owners: "_Owners"
    length_seconds: float
    family: Family
    shares: "_RequestShares | None"
    activities: Sequence[ActivityReading]
    engines: tuple[EngineReading, ...]
    scalars_at: ScalarsAt
    teach: bool
    lessons: dict[str, FitSums]
    unit_lessons: dict[GpuUnit, UnitSums]
    method: Method
    watch: Watch | None

    def rows(self, terms: _Terms, own: Mapping[str, Sequence[Piece]]) -> list[Row]:
        """Of each device its meter's row; attributed, idle and unattributed of its own part, split among the requests.

        GPUs are split together, and so is all else. Where requests have phases each device has a demand of its own.
        """
        devices = list(self.family.devices.values())
        if self.demand.usages.phases is None:
            return self._rows_of(terms, devices, own)
        alone = [(replace(self, demand=phase_on(self.demand, device)), device) for device in devices]
        return [row for work, device in alone for row in work._rows_of(terms, [device], own)]

    def _rows_of(self, terms: _Terms, devices: Sequence[Device], own: Mapping[str, Sequence[Piece]]) -> list[Row]:
        chosen = self.demand.on_each(devices)
        asked = {
            device.id: self._asked(terms, device, own[device.id], its)
            for device, its in zip(devices, chosen, strict=True)
        }
        told: dict[str, _Told] = {}
        for alike in (
            [each for each in devices if each.kind == "gpu"],
            [each for each in devices if each.kind != "gpu"],
        ):
            if alike:
                told |= self._told([asked[device.id] for device in alike], shares_idle=alike[0].kind == "gpu")
        units = self.teach and tells_units(self.demand)
        rows: list[Row] = []
        for device in devices:
            rows.append(_meter_row(terms, device, _meter_of(device.id, self.family, own)))
            rows += self._rows(terms, asked[device.id], told[device.id], tells_units=units)
        return rows

    def _asked(self, terms: _Terms, device: Device, pieces: Sequence[Piece], chosen: Index) -> "_Asked":
        """What the chosen ask of a device, and what its meter told."""
        idle_watts, idle_source = idle_power(device)
        scalars = self.scalars_at(device.hardware, terms.start)
        if scalars.units and not (self.method.learns and device.kind == "gpu"):
            scalars = msgspec.structs.replace(scalars, units=())
        meter = meter_of(pieces, terms.start)
        engines = self._engines_on(device)
        since = self._seated(device, chosen, terms.start)
        return _Asked(
            device=device,
            pieces=pieces,
            meter=meter,
            engines=engines,
            since=since,
            foreign=self._foreign(device, terms.start),
            idle_source=idle_source,
            ask=Ask(
                device,
                chosen,
                since.demand.active[chosen],
                idle_watts,
                scalars,
                tokens_per_step(engines),
                self._held_watts(device, meter, since.demand, chosen, start=terms.start),
                engines,
            ),
        )

    def _told(self, asked: Sequence["_Asked"], *, shares_idle: bool) -> "dict[str, _Told]":
        """What each of these devices' requests asked of it and what they get of its joules, by device."""
        requests = requests_on_each(self.demand, [each.ask for each in asked], self.family.profile, self.method)
        if self.method.learns:
            requests = [self._by_servers(each, its) for each, its in zip(asked, requests, strict=True)]
        elsewhere = self.demand.elsewhere() if shares_idle else (np.empty(0), np.empty(0))
        splits = split_each(
            [
                Window(
                    meter=each.meter,
                    requests=its,
                    idle_watts=each.ask.idle_watts,
                    elsewhere=elsewhere,
                    foreign=each.foreign,
                    limit_watts=_limit_watts(each.device),
                )
                for each, its in zip(asked, requests, strict=True)
            ],
            length_seconds=self.length_seconds,
            shares_idle=shares_idle,
            rest_equally=self.method.rest_equally,
        )
        by_instance = [self._by_instance(each, its) for each, its in zip(asked, requests, strict=True)]
        splits = [instead or shared for instead, shared in zip(by_instance, splits, strict=True)]
        doubts = self._doubts(asked, requests, splits, by_instance)
        columns = [_columns(*each) for each in zip(splits, doubts, strict=True)]
        summed = [(*told, each.estimated(told[ENERGY])) for each, told in zip(asked, columns, strict=True)]
        sums = self.owners.sums([each.ask.chosen for each in asked], summed)
        found = zip(requests, splits, (each is not None for each in by_instance), doubts, columns, sums, strict=True)
        return {each.device.id: _Told(*told) for each, told in zip(asked, found, strict=True)}

    def _rows(self, terms: _Terms, asked: "_Asked", told: "_Told", *, tells_units: bool) -> list[Row]:
        """Attributed, idle and unattributed."""
        device, pieces, chosen = asked.device, asked.pieces, asked.ask.chosen
        since, shared = asked.since, told.shared
        if self.watch is not None:
            self.watch(
                Watched(
                    device=device,
                    pieces=pieces,
                    usages=self.demand.usages,
                    chosen=chosen,
                    requests=told.requests,
                    estimated_start=since.estimated[chosen],
                    shared=shared,
                    idle_watts=asked.ask.idle_watts,
                    scalars=asked.ask.scalars,
                    held_watts=asked.ask.held_watts,
                    by_instance=told.by_instance,
                    doubts=told.doubts,
                )
            )
        if device.kind == "gpu" and self.teach:
            for name, lesson in self._lessons(device, pieces, since.demand, shared, terms.start):
                self.lessons[name] = self.lessons.get(name, FitSums()).plus(lesson)
            if tells_units:
                self._learn_unit(device, pieces, since.demand, chosen)
        if self.shares is not None:
            self.shares.add(chosen, told.columns, terms, measured=bool(pieces))
        return [
            *_attributed_rows(terms, device, told.sums),
            _idle_row(terms, device, shared.idle, asked.idle_source, self._resident(device)),
            _unattributed_row(terms, device, shared),
        ]

    def _by_instance(self, asked: "_Asked", requests: Requests) -> Split | None:
        """The split of a board whose MIG instances' activity is known; None for any other."""
        device, begin = asked.device, self.demand.begin
        if not device.instances:
            return None
        routes = self.demand.usages.routes
        return split_by_instance(
            device,
            self.activities,
            asked.meter,
            requests,
            [routes[place].devices or () for place in self.demand.usages.route[asked.ask.chosen].tolist()],
            start=begin,
            length_seconds=self.length_seconds,
            idle_watts=asked.ask.idle_watts,
            elsewhere=self.demand.elsewhere(),
            limit_watts=_limit_watts(device),
            rest_equally=self.method.rest_equally,
        )

    def _doubts(
        self,
        asked: Sequence["_Asked"],
        requests: Sequence[Requests],
        splits: Sequence[Split],
        by_instance: Sequence[Split | None],
    ) -> list[Doubts]:
        """How far each device's shares may be off; not known by methods that price nothing or all."""
        of_routes = self._mixes()
        alike: dict[tuple[Certainty, bool, bool], list[int]] = {}
        for place, each in enumerate(asked):
            mixes = bool(of_routes[self.demand.usages.route[each.ask.chosen]].any())
            tested = self.method.rest_equally and by_instance[place] is None
            by_steps = any(engine.steps is not None for engine in each.engines)
            alike.setdefault((self._certainty(each, mixes=mixes), tested, by_steps), []).append(place)
        found: dict[int, Doubts] = {}
        for (certainty, tested, by_steps), places in alike.items():
            chosen = np.concatenate([asked[place].ask.chosen for place in places])
            doubts = doubts_of_each(
                [splits[place] for place in places],
                [requests[place] for place in places],
                context_tokens=self.demand.context_tokens[chosen],
                output_tokens=self.demand.output_tokens[chosen],
                certainty=certainty,
                prices=asked[places[0]].device.kind == "gpu",
                tested=tested,
                by_steps=by_steps,
                mixes=of_routes[self.demand.usages.route[chosen]],
                unit_errors=self._unit_errors([asked[place].ask for place in places]),
            )
            found.update(zip(places, doubts, strict=True))
        return [found[place] for place in range(len(asked))]

    def _certainty(self, asked: "_Asked", *, mixes: bool) -> Certainty:
        """How well the scalars are known that price a device's requests; `mixes`: some are of mixtures of experts."""
        certainty = asked.ask.scalars.certainty if self.method.learns else PRIOR_CERTAINTY
        if certainty.learned and any(made > 1.0 for made in asked.ask.tokens_per_step.values()):
            certainty = certainty.widened(flop=UNTOLD_DRAFTS_ERROR_RATIO)
        if certainty.learned and mixes:
            certainty = certainty.widened(flop=0.0, byte=ROUTING_ERROR_RATIO)
        return certainty

    def _mixes(self) -> Flags:
        """Of each route whether its model is a mixture of experts."""
        routes, cost_of = self.demand.usages.routes, cost_in(self.family.profile)
        mixtures = {model for model in {route.model for route in routes} if cost_of(model).mixes}
        return np.array([route.model in mixtures for route in routes], dtype=np.bool_)

    def _unit_errors(self, asks: Sequence[Ask]) -> Column | None:
        """Of requests that pay what a unit of their work was learned to cost how far that may be off; 0 of others."""
        if not any(ask.scalars.units for ask in asks):
            return None
        usages, found = self.demand.usages, []
        for ask in asks:
            errors = {(each.model, each.unit): each.error_ratio for each in ask.scalars.units}
            of_routes = [errors.get((route.model, route.work_unit or ""), 0.0) for route in usages.routes]
            told = ~np.isnan(usages.work_amount[ask.chosen])
            found.append(np.where(told, np.array(of_routes, dtype=np.float64)[usages.route[ask.chosen]], 0.0))
        return np.concatenate(found)

    def _engines_on(self, device: Device) -> list[EngineReading]:
        """What the servers on a GPU told; on a host with one GPU those that do not say where they run too."""
        if not self.engines or device.kind != "gpu":
            return []
        alone = sum(each.kind == "gpu" for each in self.family.devices.values()) == 1
        parts = {device.id, *device.instances}
        return [each for each in self.engines if not parts.isdisjoint(each.devices) or (alone and not each.devices)]

    def _resident(self, device: Device) -> str:
        """The models on a device: those configured for it, those whose servers were found on it or told of it."""
        parts = {device.id, *device.instances}
        configured = {model.name for model in self.family.profile.models if not parts.isdisjoint(model.devices)}
        told = {engine.model for engine in self._engines_on(device)}
        return ",".join(sorted((configured | told | set(device.resident_models)) - {""}))

    def _seated(self, device: Device, chosen: Index, start: UnixSeconds) -> Seated:
        """What its requests ask, those that waited in an engine's queue from when they did not any more."""
        engines, hardware = self._engines_on(device), hardware_of(device.hardware) or UNKNOWN_GPU
        return seated(self.demand, chosen, engines, cost_in(self.family.profile), hardware, window_begin=start)

    def _lessons(
        self, device: Device, pieces: Sequence[Piece], demand: Demand, shared: Split, start: UnixSeconds
    ) -> Iterator[tuple[str, FitSums]]:
        """What the window teaches of the board's type, and under which name that is kept: also what fewer reads of
        experts would take off.
        """
        name, lesson = self._lesson(device, pieces, demand, shared, start=start, routing_exponent=1.0)
        if lesson is None:
            return
        yield name, lesson
        told = map(cost_in(self.family.profile), {each.model for each in self._engines_on(device)})
        if self._mixes().any() or any(cost.mixes for cost in told):
            for exponent in EXPONENTS:
                _, less = self._lesson(device, pieces, demand, shared, start=start, routing_exponent=exponent)
                if less is not None:
                    yield routed(name, exponent), saved(lesson, less)

    def _lesson(
        self,
        device: Device,
        pieces: Sequence[Piece],
        demand: Demand,
        shared: Split,
        *,
        start: UnixSeconds,
        routing_exponent: float,
    ) -> tuple[str, FitSums | None]:
        engines, profile, length = self._engines_on(device), self.family.profile, self.length_seconds
        if tell_work(engines):
            interval = start, start + length
            return device.hardware, lesson_in(
                device,
                pieces,
                engines,
                self.activities,
                profile=profile,
                routing_exponent=routing_exponent,
                interval=interval,
            )
        lesson = lesson_asked(
            device,
            pieces,
            self.activities,
            lambda: work_asked(
                demand,
                demand.on(device),
                cost_in(profile, routing_exponent),
                hardware_of(device.hardware) or UNKNOWN_GPU,
                length_seconds=length,
                tokens_per_step=tokens_per_step(engines),
            ),
            untaken_joules=fsum(reason.energy for reason in _untaken(shared)),
            length_seconds=length,
        )
        return from_requests(device.hardware), lesson

    def _held_watts(
        self, device: Device, meter: Meter, demand: Demand, chosen: Index, *, start: UnixSeconds
    ) -> float | None:
        """The power at which a limit held a GPU while it was busy."""
        if device.kind != "gpu":
            return None
        told = told_capped(self.activities, device, start, start + self.length_seconds)
        active, end = demand.active[chosen], demand.end[chosen]
        return held_watts(meter, active, end, _limit_watts(device), told=told)

    def _learn_unit(self, device: Device, pieces: Sequence[Piece], demand: Demand, chosen: Index) -> None:
        """What the window teaches of a unit of work, added to what the type's other boards taught."""
        engines, length = self._engines_on(device), self.length_seconds
        joules = joules_above_idle(device, pieces, self.activities, length)
        found = unit_lesson_in(demand, chosen, device, engines, joules=joules, length_seconds=length)
        if found is not None:
            (model, unit), sums = found
            of = GpuUnit(device.hardware, model, unit)
            self.unit_lessons[of] = self.unit_lessons.get(of, UnitSums()).plus(sums)

    def _foreign(self, device: Device, start: UnixSeconds) -> Foreign:
        return foreign_of(self.activities, device, self._cpus, start, start + self.length_seconds)

    def _by_servers(self, asked: "_Asked", requests: Requests) -> Requests:
        """Of a CPU or memory with how busy each server was for which there are requests, if there are several."""
        if asked.device.kind not in ("cpu", "dram") or not self.engines:
            return requests
        usages = self.demand.usages
        steps = busy_servers(
            usages.routes,
            usages.route[asked.ask.chosen],
            activities=self.activities,
            engines=self.engines,
            cpus=self._cpus,
            start=self.demand.begin,
            length_seconds=self.length_seconds,
        )
        return replace(requests, steps=steps)

    @property
    def _cpus(self) -> frozenset[str]:
        return frozenset(each.id for each in self.family.known.values() if each.kind == "cpu")


def idle_power(device: Device) -> tuple[float | None, str]:
    """A device's idle watts and where they come from: configured, quiet (observed), table, or unknown (None)."""
    if device.idle_watts is not None:
        return device.idle_watts, "configured" if device.idle_source == "unknown" else device.idle_source
    hardware = hardware_of(device.hardware) if device.kind == "gpu" else None
    return (hardware.idle_watts, "table") if hardware else (None, "unknown")


def _limit_watts(device: Device) -> float | None:
    if device.kind != "gpu":
        return None
    return (hardware_of(device.hardware) or UNKNOWN_GPU).power_limit_watts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Metered:
    """A meter row in the making: what the meter holds, its children included, in joules."""

    energy: float
    metered: float
    recovered: float
    shortfall: float
    covered_seconds: float


def _meter_of(device_id: str, family: Family, own: Mapping[str, Sequence[Piece]]) -> _Metered:
    """Its own part and its children's meters. Where it was not read, its children's meters are all that it holds.

    So the meters that no other contains hold what all accounts together hold, less what children claim beyond their
    parents: a node read over the first 5 s of a window, 500 J, its GPU over all 10 s at 60 W, is 500 J + 300 J.
    """
    pieces = own[device_id]
    children = [_meter_of(child.id, family, own) for child in family.children(device_id) if child.id in own]
    shortfall = fsum(piece.shortfall_joules for piece in pieces)
    energy = fsum([-shortfall, *(piece.energy_joules for piece in pieces), *(child.energy for child in children)])
    modelled = fsum(piece.energy_joules - piece.metered_joules for piece in pieces)
    return _Metered(
        energy=energy,
        metered=energy - modelled if pieces else fsum(child.metered for child in children),
        recovered=fsum(piece.energy_joules for piece in pieces if piece.method == "recovered"),
        shortfall=shortfall,
        covered_seconds=fsum(piece.end - piece.start for piece in pieces),
    )


def _meter_row(terms: _Terms, device: Device, meter: _Metered) -> Row:
    sums = (meter.energy, meter.metered, meter.recovered, meter.shortfall, meter.covered_seconds)
    return Row(points.METER.name, terms.start, terms.tags(device), (*sums, device.parent or "", terms.revision))


@dataclass(frozen=True, slots=True)
class _Owners:
    """Whose the requests are: the keys in their order, and for each request the place of its own."""

    keys: Sequence[Key]
    owner: Index

    @classmethod
    def of(cls, usages: UsageColumns) -> "_Owners":
        """Those of these requests."""
        of_routes = [route.key for route in usages.routes]
        keys = sorted(set(of_routes))
        places = {key: place for place, key in enumerate(keys)}
        return cls(keys, np.array([places[key] for key in of_routes], dtype=np.intp)[usages.route])

    def sums(self, chosen: Sequence[Index], columns: Sequence[tuple[Column, ...]]) -> list[_Sums]:
        """Of each device the owners of its chosen requests, and what each of those columns is for each owner."""
        devices, keys = len(chosen), len(self.keys)
        if not keys:
            return [((), ())] * devices
        counts = [len(each) for each in chosen]
        owner = self.owner[np.concatenate(chosen)] + np.repeat(np.arange(devices) * keys, counts)
        active = np.bincount(owner, minlength=devices * keys).reshape(devices, keys) > 0
        told = [
            np.bincount(owner, np.concatenate(values), devices * keys).reshape(devices, keys)
            for values in zip(*columns, strict=True)
        ]
        sums = np.stack(told, axis=2)
        return [
            ([self.keys[place] for place in mine.nonzero()[0].tolist()], of_keys[mine].tolist())
            for mine, of_keys in zip(active, sums, strict=True)
        ]


def _attributed_rows(terms: _Terms, device: Device, sums: _Sums) -> list[Row]:
    """One row for each model, team, deployment and labels with a request active on the device."""
    rows = []
    device_tags, facts = (*terms.tags(device), points.ATTRIBUTED), ("", "", terms.label, terms.revision)
    for key, (*joules, variance, estimated) in zip(*sums, strict=True):
        grams = terms.grams(joules[0])
        told = (*joules, None if isnan(variance) else variance, grams, 0.0, 0.0, 0.0, 0.0, estimated)
        rows.append(Row(points.ENERGY.name, terms.start, (*device_tags, *key), told + facts))
    return rows


def _columns(shared: Split, doubts: Doubts) -> tuple[Column, ...]:
    """What a split says of each request, in the order of the rows and of `Shares.joules`."""
    told = (shared.energy, shared.marginal, shared.metered, shared.recovered, shared.exact)
    return (*told, *doubts.columns())


_NO_DOUBT = (0.0, 0.0, 0.0, 0.0, 0.0)
"""What nobody shares is measured: only the meter can be wrong."""


def _idle_row(terms: _Terms, device: Device, idle: Quiet, idle_source: str, resident: str) -> Row:
    joules = (idle.energy, 0.0, idle.metered, idle.recovered, 0.0)
    sums = (*joules, *_NO_DOUBT, terms.grams(idle.energy), 0.0, 0.0, 0.0, 0.0, 0.0)
    facts = (idle_source, resident, terms.label, terms.revision)
    return Row(points.ENERGY.name, terms.start, (*terms.tags(device), points.IDLE, "", "", "", ""), sums + facts)


def _untaken(shared: Split) -> tuple[Quiet, ...]:
    """What is above idle and no request's, in the order of the row's fields."""
    return shared.unknown_device, shared.other_process, shared.gap, shared.unreported


def _unattributed_row(terms: _Terms, device: Device, shared: Split) -> Row:
    reasons = _untaken(shared)
    energy = fsum(reason.energy for reason in reasons)
    metered, recovered = fsum(reason.metered for reason in reasons), fsum(reason.recovered for reason in reasons)
    each = (reason.energy for reason in reasons)
    sums = (energy, 0.0, metered, recovered, 0.0, *_NO_DOUBT, terms.grams(energy), *each)
    return Row(
        points.ENERGY.name,
        terms.start,
        (*terms.tags(device), points.UNATTRIBUTED, "", "", "", ""),
        (*sums, 0.0, "", "", terms.label, terms.revision),
    )


def _usage_rows(host: str, interval: tuple[UnixSeconds, UnixSeconds], usages: UsageColumns, revision: int) -> list[Row]:
    """Requests and tokens of what ended in the window."""
    start, end = interval
    ended = np.flatnonzero((start <= usages.end) & (usages.end < end))
    if not len(ended):
        return []
    tags = [(host, route.model, route.team, route.deployment, route.status, route.key[3]) for route in usages.routes]
    groups = sorted(set(tags))
    places = {each: place for place, each in enumerate(groups)}
    group = np.array([places[each] for each in tags], dtype=np.intp)[usages.route[ended]]
    few = group.astype(np.int16) if len(groups) < MOST_SMALL else group  # small numbers are sorted by their digits
    order = np.argsort(few, kind="stable")
    group, ended = group[order], ended[order]
    begins = np.flatnonzero(np.concatenate(([True], group[1:] != group[:-1])))
    sums = [_exact_sums(column, begins) for column in _usage_columns(usages, ended)]
    return [
        Row(points.USAGE.name, start, groups[place], (*fields, revision))
        for place, *fields in zip(group[begins].tolist(), *sums, strict=True)
    ]


def _usage_columns(usages: UsageColumns, ended: Index) -> tuple[Column, ...]:
    """What each of those that ended adds to the sums of a usage row, in the order of its fields."""
    prompt, answer, active_seconds = (column[ended] for column in counted(usages))
    weight = usages.weight[ended]
    told, made = usages.input_tokens[ended], usages.output_tokens[ended]
    return (
        weight,
        prompt * told_or_nothing(told),
        prompt * told_or_nothing(usages.cached_input_tokens[ended]),
        answer * told_or_nothing(made),
        active_seconds,
        np.where(np.isnan(told) & np.isnan(made), weight, 0.0),
        np.where(usages.scheduled_told[ended], weight, 0.0),
    )


def _exact_sums(values: Column, begins: Index) -> list[float]:
    """The sums, rounded once, of values >= 0 from each place to the next. Of whole numbers any sum is, while small."""
    if (values == np.floor(values)).all() and (sums := np.add.reduceat(values, begins)).max() < MOST_EXACT:
        return list(sums.tolist())
    ends = [*begins[1:].tolist(), len(values)]
    told = values.tolist()
    return [fsum(told[begin:end]) for begin, end in zip(begins.tolist(), ends, strict=True)]


class _RequestShares:
    """Each request's joules over all devices of the host, in this window."""

    def __init__(self, usages: UsageColumns) -> None:
        self._usages = usages
        self._terms: _Terms | None = None
        self._chosen: list[Index] = []
        self._columns: list[tuple[Column, ...]] = []
        self._measured = np.zeros(len(usages), dtype=np.bool_)

    def add(self, chosen: Index, columns: tuple[Column, ...], terms: _Terms, *, measured: bool) -> None:
        """Adds one device's split; `measured` tells whether a meter of it was read in this window.

        All devices of an account are on the same terms.
        """
        self._terms = terms
        self._chosen.append(chosen)
        self._columns.append(columns)
        if measured:
            self._measured[chosen] = True

    def shares(self) -> Shares:
        """One share for each request that touches the window, also where it used nothing that was measured."""
        count, terms = len(self._usages), self._terms
        grams = np.full(count, np.nan)  # no meter, or no factor: not known, which is not 0
        factor = np.full(count, "", dtype=np.object_)
        if terms is None:
            return Shares(self._usages, np.zeros((COLUMNS, count)), grams, factor, self._measured)
        chosen = np.concatenate(self._chosen)
        told = [np.concatenate(values) for values in zip(*self._columns, strict=True)]
        joules = np.empty((COLUMNS, count))
        for sums, values in zip(joules, told, strict=True):
            sums[:] = np.bincount(chosen, values, count)  # of each request in the order of the devices
        if terms.label:
            factor[chosen] = terms.label
            if (told_grams := terms.grams(told[ENERGY])) is not None:
                known = np.bincount(chosen, told_grams, count)
                grams[chosen] = known[chosen]
        return Shares(self._usages, joules, grams, factor, self._measured)


def _request_rows(host: str, start: UnixSeconds, shares: Shares, revision: int) -> list[Row]:
    usages = shares.usages
    keys = [route.key for route in usages.routes]
    columns = zip(
        usages.route.tolist(),
        usages.request_id.tolist(),
        *shares.joules[:VARIANCE].tolist(),
        all_known(shares.joules[VARIANCE]),
        all_known(shares.grams),
        usages.start.tolist(),
        all_known(usages.first_token),
        usages.end.tolist(),
        all_known_counts(usages.input_tokens),
        all_known_counts(usages.cached_input_tokens),
        all_known_counts(usages.output_tokens),
        all_known(usages.work_amount),
        usages.weight.tolist(),
        shares.factor.tolist(),
        strict=True,
    )
    rows = []
    for place, request_id, *sums_and_facts in columns:
        route = usages.routes[place]
        *sums, amount, weight, factor = sums_and_facts
        tags = (host, route.namespace, request_id, str(route.attempt), *keys[place])
        fields = (*sums, route.work_unit, amount, weight, route.status, factor, revision)
        rows.append(Row(points.REQUEST_ENERGY.name, start, tags, fields))
    return rows
