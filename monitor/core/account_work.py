"""The work of a window: what each device of a host was asked, measured and split, and what that teaches. Pure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum
from typing import NamedTuple

import msgspec
import numpy as np

from collectors.readings import ActivityReading, Device, EngineReading
from collectors.units import UnixSeconds
from monitor.core.account_rows import (
    Owners,
    Sums,
    Terms,
    attributed_rows,
    columns_of,
    idle_row,
    meter_row,
    metered_of,
    unattributed_row,
    untaken,
)
from monitor.core.account_usage import RequestShares
from monitor.core.asked import work_asked
from monitor.core.attribution.certainty import (
    PRIOR_CERTAINTY,
    ROUTING_ERROR_RATIO,
    UNTOLD_DRAFTS_ERROR_RATIO,
    Certainty,
)
from monitor.core.attribution.doubt import Doubts, doubts_of_each, late_seconds
from monitor.core.attribution.hardware import UNKNOWN_GPU, hardware_of
from monitor.core.attribution.learning import FitSums
from monitor.core.attribution.methods import Method
from monitor.core.attribution.pieces import Column, Flags
from monitor.core.attribution.priors import Scalars
from monitor.core.attribution.requests import Requests
from monitor.core.attribution.units import UnitSums
from monitor.core.attribution.virtual_energy import NOWHERE, Foreign, Meter, Split, Window, split_each
from monitor.core.attribution.work import tokens_per_step
from monitor.core.busy import busy_servers
from monitor.core.demand import Ask, Demand, requests_on_each
from monitor.core.family import Family
from monitor.core.foreign import foreign_of
from monitor.core.held import held_watts, told_capped
from monitor.core.instances import split_by_instance
from monitor.core.lessons import GpuUnit, from_requests
from monitor.core.phased import phase_on
from monitor.core.points import Row
from monitor.core.queueing import Seated, seated
from monitor.core.readings import Piece, meter_of
from monitor.core.routing import EXPONENTS, routed, saved
from monitor.core.shares import ENERGY
from monitor.core.teaching import cost_in, joules_above_idle, lesson_asked, lesson_in, tell_work
from monitor.core.unit_teaching import tells_units, unit_lesson_in
from monitor.core.usage_columns import Index, UsageColumns

ScalarsAt = Callable[[str, UnixSeconds], Scalars]
"""What the work of a GPU type (its maker's name) costs, as known at a moment."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What one device was asked to do in the window, and what its meter told."""

    device: Device
    demand: Demand
    """The window's, of requests with phases only what they asked of this device."""
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

    def perhaps(self) -> tuple[Column, Column]:
        """From when to when these may have been active already: from their coming to their estimated beginning."""
        estimated = self.ask.chosen[self.since.estimated[self.ask.chosen]]
        return self.demand.active[estimated], self.since.demand.active[estimated]


class _Told(NamedTuple):
    """What a device's requests did on it and what they get: each (`columns`, of each of the chosen), and each owner.

    `sums` are the places of owners with a request there, and of each column the sums of all owners.
    """

    requests: Requests
    shared: Split
    by_instance: bool
    doubts: Doubts
    columns: tuple[Column, ...]
    sums: Sums


@dataclass(frozen=True, slots=True)
class WindowWork:
    """The window's requests, and where their shares are gathered."""

    demand: Demand
    owners: Owners
    length_seconds: float
    family: Family
    shares: RequestShares | None
    activities: Sequence[ActivityReading]
    engines: tuple[EngineReading, ...]
    scalars_at: ScalarsAt
    teach: bool
    lessons: dict[str, FitSums]
    unit_lessons: dict[GpuUnit, UnitSums]
    method: Method
    watch: Watch | None

    def rows(self, terms: Terms, own: Mapping[str, Sequence[Piece]]) -> list[Row]:
        """Of each device its meter's row; attributed, idle and unattributed of its own part, split among the requests.

        GPUs are split together, and so is all else.
        """
        devices = list(self.family.devices.values())
        if self.demand.usages.phases is None:
            demands, chosen = [self.demand] * len(devices), self.demand.on_each(devices)
        else:
            demands = [phase_on(self.demand, device) for device in devices]
            chosen = [demand.on(device) for demand, device in zip(demands, devices, strict=True)]
        asked = {
            device.id: self._asked(terms, device, demand, own[device.id], its)
            for device, demand, its in zip(devices, demands, chosen, strict=True)
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
            rows.append(meter_row(terms, device, metered_of(device.id, self.family, own)))
            rows += self._rows(terms, asked[device.id], told[device.id], tells_units=units)
        return rows

    def _asked(self, terms: Terms, device: Device, demand: Demand, pieces: Sequence[Piece], chosen: Index) -> "_Asked":
        """What the chosen ask of a device, and what its meter told."""
        idle_watts, idle_source = idle_power(device)
        scalars = self.scalars_at(device.hardware, terms.start)
        if scalars.units and not (self.method.learns and device.kind == "gpu"):
            scalars = msgspec.structs.replace(scalars, units=())
        meter = meter_of(pieces, terms.start)
        engines = self._engines_on(device)
        since = self._seated(device, demand, chosen, terms.start)
        return _Asked(
            device=device,
            demand=demand,
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
        demands = [each.demand for each in asked]
        requests = requests_on_each(demands, [each.ask for each in asked], self.family.profile, self.method)
        if self.method.learns:
            requests = [self._by_servers(each, its) for each, its in zip(asked, requests, strict=True)]
        splits = split_each(
            [
                Window(
                    meter=each.meter,
                    requests=its,
                    idle_watts=each.ask.idle_watts,
                    elsewhere=each.demand.elsewhere() if shares_idle else NOWHERE,
                    perhaps=each.perhaps(),
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
        columns = [columns_of(*each) for each in zip(splits, doubts, strict=True)]
        summed = [(*told, each.estimated(told[ENERGY])) for each, told in zip(asked, columns, strict=True)]
        sums = self.owners.sums([each.ask.chosen for each in asked], summed)
        found = zip(requests, splits, (each is not None for each in by_instance), doubts, columns, sums, strict=True)
        return {each.device.id: _Told(*told) for each, told in zip(asked, found, strict=True)}

    def _rows(self, terms: Terms, asked: "_Asked", told: "_Told", *, tells_units: bool) -> list[Row]:
        """Attributed, idle and unattributed."""
        device, pieces, chosen = asked.device, asked.pieces, asked.ask.chosen
        since, shared = asked.since, told.shared
        if self.watch is not None:
            self.watch(
                Watched(
                    device=device,
                    pieces=pieces,
                    usages=asked.demand.usages,
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
            *attributed_rows(terms, device, told.sums),
            idle_row(terms, device, shared.idle, asked.idle_source, self._resident(device)),
            unattributed_row(terms, device, shared),
        ]

    def _by_instance(self, asked: "_Asked", requests: Requests) -> Split | None:
        """The split of a board whose MIG instances' activity is known; None for any other."""
        device, begin = asked.device, self.demand.begin
        if not device.instances:
            return None
        usages = asked.demand.usages
        return split_by_instance(
            device,
            self.activities,
            asked.meter,
            requests,
            [usages.routes[place].devices or () for place in usages.route[asked.ask.chosen].tolist()],
            start=begin,
            length_seconds=self.length_seconds,
            idle_watts=asked.ask.idle_watts,
            elsewhere=asked.demand.elsewhere(),
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
                output_tokens=np.concatenate(
                    [asked[place].demand.output_tokens[asked[place].ask.chosen] for place in places]
                ),
                certainty=certainty,
                prices=asked[places[0]].device.kind == "gpu",
                tested=tested,
                by_steps=by_steps,
                mixes=of_routes[self.demand.usages.route[chosen]] if of_routes.any() else None,
                unit_errors=self._unit_errors([asked[place].ask for place in places]),
                late=[late_seconds(asked[place].meter) for place in places],
                length_seconds=self.length_seconds,
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

    def _seated(self, device: Device, demand: Demand, chosen: Index, start: UnixSeconds) -> Seated:
        """What its requests ask, those that waited in an engine's queue from when they did not any more."""
        hardware = hardware_of(device.hardware) if device.kind == "gpu" else None
        return seated(
            demand,
            chosen,
            self._engines_on(device),
            cost_in(self.family.profile),
            hardware or UNKNOWN_GPU,
            window_begin=start,
            by_first_token=hardware is not None and not device.instances,
        )

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
            untaken_joules=fsum(reason.energy for reason in untaken(shared)),
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
        usages = asked.demand.usages
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
