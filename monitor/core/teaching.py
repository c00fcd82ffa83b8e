"""What one window teaches of a board's type: its joules above idle, and the work that its servers told. Pure.

Work that is no token is learned from the requests themselves: unit_teaching.py.
"""

from collections.abc import Iterable, Sequence
from math import fsum
from typing import Final

from collectors.readings import OTHER_PROCESSES, ActivityReading, Device, EngineReading, HostProfile
from collectors.units import UnixSeconds
from monitor.core.attribution.hardware import Hardware, hardware_of
from monitor.core.attribution.learning import FitSums, sums_of
from monitor.core.attribution.models import token_cost
from monitor.core.attribution.work import LEAST_COVERED, work_told
from monitor.core.readings import Piece

_HELD_BACK: Final = frozenset({"power_capped", "hardware_slowdown", "thermal_throttled", "power_brake"})


_ANY: Final = Hardware(
    name="any board",
    peak_flops_per_second=1e16,
    peak_bytes_per_second=3e13,
    idle_watts=0.0,
    power_limit_watts=3_000.0,
)
"""What no board that is not in the table exceeds either, for some years to come."""


def lesson_in(
    device: Device,
    pieces: Sequence[Piece],
    engines: Iterable[EngineReading],
    activities: Iterable[ActivityReading],
    *,
    profile: HostProfile,
    interval: tuple[UnixSeconds, UnixSeconds],
) -> FitSums | None:
    """What the window says of a board, None where it says nothing or something is doubtful.

    Doubtful: its joules; servers that do not tell their work, or none, or more than any such board can do: one such
    window would outweigh a day.
    """
    start, end = interval
    joules = joules_above_idle(device, pieces, activities, interval)
    if joules is None:
        return None
    facts = {model.name: model for model in profile.models}
    work = work_told(engines, lambda model: token_cost(model, facts.get(model)), start, end)
    if work is None or work.bytes <= 0.0:
        return None
    most, length = hardware_of(device.hardware) or _ANY, end - start
    if not (work.flops <= most.peak_flops_per_second * length and work.bytes <= most.peak_bytes_per_second * length):
        return None
    return sums_of(work, joules)


def joules_above_idle(
    device: Device,
    pieces: Sequence[Piece],
    activities: Iterable[ActivityReading],
    interval: tuple[UnixSeconds, UnixSeconds],
) -> float | None:
    """What the board used in the window above idle power, None where that is not above 0, or doubtful.

    Doubtful: a board whose idle power was neither observed nor configured, that was not metered all the time, or was
    held back (power cap, heat) or used by other processes; more than it can draw.
    """
    start, end = interval
    if device.idle_watts is None or device.idle_source == "table" or not device.hardware:
        return None
    covered = fsum(piece.end - piece.start for piece in pieces)
    if covered < LEAST_COVERED * (end - start) or any(each.method in {"recovered", "modelled"} for each in pieces):
        return None
    if any(each.device == device.id and _doubtful(each) for each in activities):
        return None
    joules = fsum(piece.energy_joules for piece in pieces) - device.idle_watts * covered
    most = hardware_of(device.hardware) or _ANY
    return joules if 0.0 < joules <= most.power_limit_watts * (end - start) else None


def _doubtful(activity: ActivityReading) -> bool:
    foreign = activity.consumer == OTHER_PROCESSES and activity.busy_seconds > 0.0
    return foreign or not _HELD_BACK.isdisjoint(activity.state)
