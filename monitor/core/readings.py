"""A device's readings made fit for one window: disjoint, clipped, and without what a child meter already holds."""

from collections.abc import Callable, Iterable, Sequence
from math import fsum

import msgspec
import numpy as np

from collectors.readings import Device, EnergyReading, HostProfile
from collectors.units import UnixSeconds
from monitor.core.attribution.virtual_energy import Meter
from monitor.core.window import part_within

PARENT_REACH_SECONDS = 300.0
"""A parent's reading is split into its children's part and the rest over its whole interval, up to this length."""


class Told(msgspec.Struct, frozen=True, gc=False):
    """A reading with the profile that came with it."""

    reading: EnergyReading
    profile: HostProfile


Nearby = Callable[[str, UnixSeconds, UnixSeconds], list[Told]]
"""The readings of a device (by id) that touch an interval, of the same account."""


class Piece(msgspec.Struct, frozen=True, gc=False):
    """What a device's own part used, evenly over [start, end) inside the window.

    `shortfall_joules` is what its children claim beyond it, `lasts_seconds` the length of the whole reading.
    """

    start: UnixSeconds
    end: UnixSeconds
    energy_joules: float
    shortfall_joules: float
    metered_joules: float
    method: str
    lasts_seconds: float


def disjoint(told: Iterable[Told]) -> tuple[list[Told], list[Told]]:
    """(readings that do not overlap, readings left out), the earlier start first; no instant is counted twice."""
    kept: list[Told] = []
    left_out: list[Told] = []
    for item in sorted(told, key=lambda told: (told.reading.start, told.reading.end, told.reading.energy_joules)):
        overlaps = bool(kept) and item.reading.start < kept[-1].reading.end
        (left_out if overlaps else kept).append(item)
    return kept, left_out


def energy_within(told: Iterable[Told], start: UnixSeconds, end: UnixSeconds) -> float:
    """Joules of these readings in [start, end), each in proportion of time."""
    return fsum(
        item.reading.energy_joules * part_within(item.reading.start, item.reading.end, start, end) for item in told
    )


def own_pieces(
    kept: Sequence[Told], children: Sequence[Device], nearby: Nearby, start: UnixSeconds, end: UnixSeconds
) -> list[Piece]:
    """What is left of each reading in the window [start, end) once its children's part is taken off.

    A node's 1 000 J over 10 s with GPUs of 600 J in the same 10 s leave 400 J of its own, 40 W throughout; with GPUs of
    1 100 J they leave none and a shortfall of 100 J. A parent's reading longer than PARENT_REACH_SECONDS has no part of
    its own: its children are not held that far back.
    """
    pieces = []
    for item in kept:
        reading = item.reading
        begins, ends = reading.start, reading.end
        within = start <= begins < ends <= end  # as nearly all are
        part = 1.0 if within else part_within(begins, ends, start, end)
        if part <= 0.0:
            continue
        whole = reading.energy_joules
        shortfall = 0.0
        if children:
            if reading.end - reading.start > PARENT_REACH_SECONDS:
                continue
            whole -= _energy_of(children, nearby, reading.start, reading.end)
            whole, shortfall = max(whole, 0.0), max(-whole, 0.0)
        energy = whole * part
        pieces.append(
            Piece(
                begins if within else max(begins, start),
                ends if within else min(ends, end),
                energy,
                shortfall * part,
                0.0 if reading.method == "modelled" else energy,
                reading.method,
                ends - begins,
            )
        )
    return pieces


def _energy_of(children: Sequence[Device], nearby: Nearby, start: UnixSeconds, end: UnixSeconds) -> float:
    return fsum(energy_within(disjoint(nearby(child.id, start, end))[0], start, end) for child in children)


def meter_of(pieces: Sequence[Piece], start: UnixSeconds) -> Meter:
    """The pieces as columns, in seconds from the window's start."""
    begin = np.array([piece.start for piece in pieces], dtype=np.float64)
    end = np.array([piece.end for piece in pieces], dtype=np.float64)
    energy = np.array([piece.energy_joules for piece in pieces], dtype=np.float64)
    return Meter(
        start=begin - start,
        end=end - start,
        watts=energy / (end - begin),
        lasts_seconds=np.array([piece.lasts_seconds for piece in pieces], dtype=np.float64),
        recovered=np.array([piece.method == "recovered" for piece in pieces], dtype=np.bool_),
        modelled=np.array([piece.method == "modelled" for piece in pieces], dtype=np.bool_),
    )
