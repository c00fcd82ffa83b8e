"""The account of one host and one window: from what stands in the log to the rows of the books.

    readings -> meter row, own part -> split among the requests -> attributed, idle, unattributed, usage, request rows

Pure: the same records give the same bits, whoever computes. Sums run in a fixed order.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import fsum
from operator import attrgetter
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from collectors.readings import ActivityReading, Device, HostProfile
from collectors.units import Energy, UnixSeconds
from monitor.core import points
from monitor.core.attribution.hardware import hardware_of
from monitor.core.attribution.pieces import Column
from monitor.core.attribution.virtual_energy import Foreign, Quiet, Split, split
from monitor.core.demand import Demand, Index, demand_of, requests_on
from monitor.core.emissions.factors import Intensity, factor_label, location_grams
from monitor.core.family import Family, family_of
from monitor.core.foreign import foreign_of
from monitor.core.points import Row
from monitor.core.readings import Nearby, Piece, Told, disjoint, meter_of, own_pieces
from monitor.core.usage import Usage, canonical_labels

IntensityAt = Callable[[str, UnixSeconds], Intensity | None]
Key = tuple[str, str, str, str]
"""model, team, deployment, labels"""
RequestsAs = Literal["rows", "shares", "neither"]
"""What an account makes of each request's own energy: rows of the window, shares to be summed, or nothing."""


class Share(NamedTuple):
    """What one request used in one window, over all devices of the host.

    Where no meter of its devices told anything it is not `measured`: the joules are not known, and stand at 0.
    """

    usage: Usage
    energy_joules: float
    marginal_joules: float
    metered_joules: float
    recovered_joules: float
    exact_joules: float
    location_grams: float | None
    factor: str
    measured: bool


class Account(msgspec.Struct, frozen=True):
    """The rows of a host's window, and readings that overlap others and were left out.

    `shares` in the order (start, end, identity), where they were asked for.
    """

    rows: list[Row]
    overlaps: list[Told]
    shares: list[Share]


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


def account(
    host: str,
    start: UnixSeconds,
    end: UnixSeconds,
    *,
    readings: Iterable[Told],
    usages: Iterable[Usage],
    activities: Iterable[ActivityReading] = (),
    nearby: Nearby,
    intensity_at: IntensityAt,
    revision: int,
    requests: RequestsAs = "rows",
) -> Account:
    """The books of `host` in the window [start, end). `readings`, `usages` and
    `activities` are those that touch it, in any order.
    """
    ordered = _in_order(usages)
    demand = demand_of(ordered, start)
    keys = [(usage.model, usage.team, usage.deployment, canonical_labels(usage.labels)) for usage in ordered]
    by_device: dict[str, list[Told]] = {}
    for told in readings:
        by_device.setdefault(told.reading.device, []).append(told)
    shares = None if requests == "neither" else _RequestShares(len(ordered))
    rows: list[Row] = []
    overlaps: list[Told] = []
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
        work = _Work(demand, keys, end - start, family, shares, active)
        for device in family.devices.values():
            rows.append(_meter_row(terms, device, _meter_of(device.id, family, own)))
            rows += work.rows(terms, device, own[device.id])
    rows += _usage_rows(host, (start, end), ordered, keys, revision)
    each = shares.each(ordered) if shares else []
    if requests == "rows":
        rows += _request_rows(host, start, each, keys, revision)
        each = []
    return Account(rows, overlaps, each)


def _in_order(usages: Iterable[Usage]) -> list[Usage]:
    """By start, end, identity and content; the costly rest is asked only of those that start and end together."""
    when = attrgetter("start", "end")
    ordered = sorted(usages, key=when)
    found: list[Usage] = []
    for _, together in groupby(ordered, key=when):
        run = list(together)
        found += run if len(run) == 1 else sorted(run, key=lambda each: (each.identity, msgspec.msgpack.encode(each)))
    return found


def _terms(host: str, start: UnixSeconds, revision: int, profile: HostProfile, intensity: Intensity | None) -> _Terms:
    label = factor_label(intensity, profile.pue)
    return _Terms(host=host, start=start, revision=revision, pue=profile.pue, intensity=intensity, label=label)


@dataclass(frozen=True, slots=True)
class _Work:
    """The window's requests, and where their shares are gathered."""

    demand: Demand
    keys: Sequence[Key]
    length_seconds: float
    family: Family
    shares: "_RequestShares | None"
    activities: Sequence[ActivityReading]

    def rows(self, terms: _Terms, device: Device, pieces: Sequence[Piece]) -> list[Row]:
        """Attributed, idle and unattributed: the device's own part, split among the requests."""
        idle_watts, idle_source = idle_power(device)
        chosen = self.demand.on(device)
        shared = split(
            meter_of(pieces, terms.start),
            requests_on(self.demand, chosen, device, self.family.profile, idle_watts),
            length_seconds=self.length_seconds,
            idle_watts=idle_watts,
            shares_idle=device.kind == "gpu",
            elsewhere=self.demand.elsewhere() if device.kind == "gpu" else (np.empty(0), np.empty(0)),
            foreign=self._foreign(device, terms.start),
        )
        if self.shares is not None:
            self.shares.add(chosen, shared, terms, measured=bool(pieces))
        return [
            *_attributed_rows(terms, device, [self.keys[i] for i in chosen], shared),
            _idle_row(terms, device, shared.idle, idle_source, _resident(self.family.profile, device)),
            _unattributed_row(terms, device, shared),
        ]

    def _foreign(self, device: Device, start: UnixSeconds) -> Foreign:
        cpus = frozenset(each.id for each in self.family.known.values() if each.kind == "cpu")
        return foreign_of(self.activities, device, cpus, start, start + self.length_seconds)


def idle_power(device: Device) -> tuple[float | None, str]:
    """A device's idle watts and where they come from: configured, quiet (observed), table, or unknown (None)."""
    if device.idle_watts is not None:
        return device.idle_watts, "configured" if device.idle_source == "unknown" else device.idle_source
    hardware = hardware_of(device.hardware) if device.kind == "gpu" else None
    return (hardware.idle_watts, "table") if hardware else (None, "unknown")


def _resident(profile: HostProfile, device: Device) -> str:
    return ",".join(sorted(model.name for model in profile.models if device.id in model.devices))


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


def _attributed_rows(terms: _Terms, device: Device, keys: Sequence[Key], shared: Split) -> list[Row]:
    """One row for each model, team, deployment and labels with a request active on the device."""
    groups = {key: group for group, key in enumerate(sorted(set(keys)))}
    member = np.array([groups[key] for key in keys], dtype=np.intp)
    columns = [
        np.bincount(member, values, len(groups)).tolist()
        for values in (shared.energy, shared.marginal, shared.metered, shared.recovered, shared.exact)
    ]
    rows = []
    for key, (energy, marginal, metered, recovered, exact) in zip(groups, zip(*columns, strict=True), strict=True):
        sums = (energy, marginal, metered, recovered, exact, terms.grams(energy), 0.0, 0.0, 0.0, 0.0)
        facts = ("", "", terms.label, terms.revision)
        rows.append(Row(points.ENERGY.name, terms.start, (*terms.tags(device), points.ATTRIBUTED, *key), sums + facts))
    return rows


def _idle_row(terms: _Terms, device: Device, idle: Quiet, idle_source: str, resident: str) -> Row:
    sums = (idle.energy, 0.0, idle.metered, idle.recovered, 0.0, terms.grams(idle.energy), 0.0, 0.0, 0.0, 0.0)
    facts = (idle_source, resident, terms.label, terms.revision)
    return Row(points.ENERGY.name, terms.start, (*terms.tags(device), points.IDLE, "", "", "", ""), sums + facts)


def _unattributed_row(terms: _Terms, device: Device, shared: Split) -> Row:
    reasons = (shared.unknown_device, shared.other_process, shared.gap, shared.unreported)
    energy = fsum(reason.energy for reason in reasons)
    metered, recovered = fsum(reason.metered for reason in reasons), fsum(reason.recovered for reason in reasons)
    each = (reason.energy for reason in reasons)
    sums = (energy, 0.0, metered, recovered, 0.0, terms.grams(energy), *each)
    return Row(
        points.ENERGY.name,
        terms.start,
        (*terms.tags(device), points.UNATTRIBUTED, "", "", "", ""),
        (*sums, "", "", terms.label, terms.revision),
    )


def _usage_rows(
    host: str, interval: tuple[UnixSeconds, UnixSeconds], usages: Sequence[Usage], keys: Sequence[Key], revision: int
) -> list[Row]:
    """Requests and tokens of what ended in the window."""
    start, end = interval
    groups: dict[tuple[str, ...], list[Usage]] = {}
    for usage, (model, team, deployment, labels) in zip(usages, keys, strict=True):
        if start <= usage.end < end:
            groups.setdefault((host, model, team, deployment, usage.status, labels), []).append(usage)
    return [
        Row(points.USAGE.name, start, tags, (*_usage_sums(ended), revision)) for tags, ended in sorted(groups.items())
    ]


def _usage_sums(ended: Sequence[Usage]) -> tuple[float, ...]:
    untold = [usage for usage in ended if usage.input_tokens is None and usage.output_tokens is None]
    return (
        fsum(usage.weight for usage in ended),
        fsum(usage.weight * (usage.input_tokens or 0) for usage in ended),
        fsum(usage.weight * (usage.cached_input_tokens or 0) for usage in ended),
        fsum(usage.weight * (usage.output_tokens or 0) for usage in ended),
        fsum(usage.weight * (usage.end - usage.active_start) for usage in ended),
        fsum(usage.weight for usage in untold),
    )


class _RequestShares:
    """Each request's joules over all devices of the host, in this window."""

    def __init__(self, requests: int) -> None:
        self._sums = np.zeros((5, requests))
        self._grams: Column | None = np.zeros(requests)
        self._label = ""
        self._labelled = np.zeros(requests, dtype=np.bool_)
        self._measured = np.zeros(requests, dtype=np.bool_)

    def add(self, chosen: Index, shared: Split, terms: _Terms, *, measured: bool) -> None:
        """Adds one device's split; `measured` tells whether a meter of it was read in this window.

        All devices of an account are on the same terms.
        """
        self._measured[chosen] |= measured
        for total, values in zip(
            self._sums, (shared.energy, shared.marginal, shared.metered, shared.recovered, shared.exact), strict=True
        ):
            total[chosen] += values
        more, self._label = terms.grams(shared.energy), terms.label
        if more is None or self._grams is None:
            self._grams = None
        else:
            self._grams[chosen] += more
        self._labelled[chosen] = bool(terms.label)

    def each(self, usages: Sequence[Usage]) -> list[Share]:
        """One share for each request that touches the window, also where it used nothing that was measured."""
        labelled = self._labelled.tolist()
        labels = [self._label if each else "" for each in labelled]
        # no meter, or no factor: not known, which is not 0
        known: Sequence[float | None] = [None] * len(usages) if self._grams is None else self._grams.tolist()
        grams = (one if each else None for one, each in zip(known, labelled, strict=True))
        columns = (*self._sums.tolist(), grams, labels, self._measured.tolist())
        return [Share(*each) for each in zip(usages, *columns, strict=True)]


def _request_rows(
    host: str, start: UnixSeconds, shares: Sequence[Share], keys: Sequence[Key], revision: int
) -> list[Row]:
    rows = []
    for share, key in zip(shares, keys, strict=True):
        usage = share.usage
        tags = (host, usage.namespace, usage.request_id, str(usage.attempt), *key)
        facts = (
            usage.start,
            usage.first_token,
            usage.end,
            usage.input_tokens,
            usage.cached_input_tokens,
            usage.output_tokens,
            usage.work.unit if usage.work else None,
            usage.work.amount if usage.work else None,
            usage.weight,
            usage.status,
            share.factor,
            revision,
        )
        rows.append(Row(points.REQUEST_ENERGY.name, start, tags, (*share[1:7], *facts)))
    return rows
