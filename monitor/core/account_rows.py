"""A device's rows of a window, from what was measured and how it was split: tags and fields of points.py. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum, isnan

import msgspec
import numpy as np

from collectors.readings import Device, HostProfile
from collectors.units import Energy, UnixSeconds
from monitor.core import points
from monitor.core.attribution.doubt import Doubts
from monitor.core.attribution.pieces import Column
from monitor.core.attribution.virtual_energy import Quiet, Split
from monitor.core.emissions.factors import Intensity, factor_label, location_grams
from monitor.core.family import Family
from monitor.core.points import Row
from monitor.core.readings import Piece
from monitor.core.usage_columns import Index, Key, UsageColumns

Sums = tuple[Sequence[Key], Sequence[Sequence[float]]]
"""Owners, and for each what its requests' columns sum to."""


class Terms(msgspec.Struct, frozen=True):
    """What the rows of a window have in common, and what turns its joules into grams."""

    host: str
    start: UnixSeconds
    revision: int
    pue: float
    intensity: Intensity | None
    label: str

    def tags(self, device: Device) -> tuple[str, str, str]:
        """Those of every row of a device."""
        return self.host, device.id, device.kind

    def grams(self, energy_joules: Energy) -> Energy | None:
        """CO2e, the place's PUE included; None where no intensity is known."""
        return location_grams(energy_joules, self.pue, self.intensity)


def terms_of(host: str, start: UnixSeconds, revision: int, profile: HostProfile, intensity: Intensity | None) -> Terms:
    """Of a host's window."""
    label = factor_label(intensity, profile.pue)
    return Terms(host=host, start=start, revision=revision, pue=profile.pue, intensity=intensity, label=label)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Metered:
    """A meter row in the making: what the meter holds, its children included, in joules."""

    energy: float
    metered: float
    recovered: float
    shortfall: float
    covered_seconds: float


def metered_of(device_id: str, family: Family, own: Mapping[str, Sequence[Piece]]) -> _Metered:
    """Its own part and its children's meters. Where it was not read, its children's meters are all that it holds.

    So the meters that no other contains hold what all accounts together hold, less what children claim beyond their
    parents: a node read over the first 5 s of a window, 500 J, its GPU over all 10 s at 60 W, is 500 J + 300 J.
    """
    pieces = own[device_id]
    children = [metered_of(child.id, family, own) for child in family.children(device_id) if child.id in own]
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


def meter_row(terms: Terms, device: Device, meter: _Metered) -> Row:
    """What the device's meter says, all that it contains included."""
    sums = (meter.energy, meter.metered, meter.recovered, meter.shortfall, meter.covered_seconds)
    return Row(points.METER.name, terms.start, terms.tags(device), (*sums, device.parent or "", terms.revision))


@dataclass(frozen=True, slots=True)
class Owners:
    """Whose the requests are: the keys in their order, and for each request the place of its own."""

    keys: Sequence[Key]
    owner: Index

    @classmethod
    def of(cls, usages: UsageColumns) -> "Owners":
        """Those of these requests."""
        of_routes = [route.key for route in usages.routes]
        keys = sorted(set(of_routes))
        places = {key: place for place, key in enumerate(keys)}
        return cls(keys, np.array([places[key] for key in of_routes], dtype=np.intp)[usages.route])

    def sums(self, chosen: Sequence[Index], columns: Sequence[tuple[Column, ...]]) -> list[Sums]:
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


def attributed_rows(terms: Terms, device: Device, sums: Sums) -> list[Row]:
    """One row for each model, team, deployment and labels with a request active on the device."""
    rows = []
    device_tags, facts = (*terms.tags(device), points.ATTRIBUTED), ("", "", terms.label, terms.revision)
    for key, (*joules, variance, estimated) in zip(*sums, strict=True):
        grams = terms.grams(joules[0])
        told = (*joules, None if isnan(variance) else variance, grams, 0.0, 0.0, 0.0, 0.0, estimated)
        rows.append(Row(points.ENERGY.name, terms.start, (*device_tags, *key), told + facts))
    return rows


def columns_of(shared: Split, doubts: Doubts) -> tuple[Column, ...]:
    """What a split says of each request, in the order of the rows and of `Shares.joules`."""
    told = (shared.energy, shared.marginal, shared.metered, shared.recovered, shared.exact)
    return (*told, *doubts.columns())


_NO_DOUBT = (0.0, 0.0, 0.0, 0.0, 0.0)
"""What nobody shares is measured: only the meter can be wrong."""


def idle_row(terms: Terms, device: Device, idle: Quiet, idle_source: str, resident: str) -> Row:
    """What it drew quiet while nobody was active, and the models that were on it."""
    joules = (idle.energy, 0.0, idle.metered, idle.recovered, 0.0)
    sums = (*joules, *_NO_DOUBT, terms.grams(idle.energy), 0.0, 0.0, 0.0, 0.0, 0.0)
    facts = (idle_source, resident, terms.label, terms.revision)
    return Row(points.ENERGY.name, terms.start, (*terms.tags(device), points.IDLE, "", "", "", ""), sums + facts)


def untaken(shared: Split) -> tuple[Quiet, ...]:
    """What is above idle and no request's, in the order of the row's fields."""
    return shared.unknown_device, shared.other_process, shared.gap, shared.unreported


def unattributed_row(terms: Terms, device: Device, shared: Split) -> Row:
    """What belongs to nobody, and what of it for which reason."""
    reasons = untaken(shared)
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
