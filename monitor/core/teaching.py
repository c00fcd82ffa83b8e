"""What one window teaches of a board's type: its joules above idle, and the work that its servers told, or, of servers
that tell none, the work that requests asked of it. Pure.

Work that is no token is learned from the requests themselves: unit_teaching.py.
"""

from collections.abc import Callable, Iterable, Sequence
from math import fsum
from typing import Final

from collectors.readings import OTHER_PROCESSES, ActivityReading, Device, EngineReading, HostProfile
from collectors.units import UnixSeconds
from monitor.core.asked import MOST_PER_STEP
from monitor.core.attribution.hardware import Hardware, hardware_of
from monitor.core.attribution.learning import FitSums, sums_of
from monitor.core.attribution.models import TokenCost, token_cost
from monitor.core.attribution.work import LEAST_COVERED, Work, work_told
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


MOST_UNTAKEN: Final = 0.1
"""A window of which more than this part of the joules above idle found no request has work that nobody told of."""


def lesson_in(
    device: Device,
    pieces: Sequence[Piece],
    engines: Iterable[EngineReading],
    activities: Iterable[ActivityReading],
    *,
    profile: HostProfile,
    routing_exponent: float = 1.0,
    interval: tuple[UnixSeconds, UnixSeconds],
) -> FitSums | None:
    """What the window says of a board by its servers' counters, None where it says nothing or something is doubtful.

    Doubtful: its joules; servers that do not tell their work, or none, or more than any such board can do: one such
    window would outweigh a day.
    """
    start, end = interval
    joules = joules_above_idle(device, pieces, activities, end - start)
    if joules is None:
        return None
    return _lesson(device, joules, work_told(engines, cost_in(profile, routing_exponent), start, end), end - start)


def lesson_asked(
    device: Device,
    pieces: Sequence[Piece],
    activities: Iterable[ActivityReading],
    asked: Callable[[], Work | None],
    *,
    untaken_joules: float,
    length_seconds: float,
) -> FitSums | None:
    """What the window says of a board by what requests `asked` of it (asked.py), None where that is doubtful.

    Doubtful is what is to `lesson_in`, and joules above idle that found no request: 210 of 2 000.
    """
    joules = joules_above_idle(device, pieces, activities, length_seconds)
    if joules is None or untaken_joules > MOST_UNTAKEN * joules:
        return None
    return _lesson(device, joules, asked(), length_seconds, MOST_PER_STEP)


def tell_work(engines: Iterable[EngineReading]) -> bool:
    """Whether any of these servers tells all that `lesson_in` needs: requests are not asked then."""
    return any(None not in (each.prefill_tokens, each.decode_tokens, each.steps, each.kv_tokens) for each in engines)


def cost_in(profile: HostProfile, routing_exponent: float = 1.0) -> Callable[[str], TokenCost]:
    """What a model's token costs, by the host's facts of it where there are any."""
    facts = {model.name: model for model in profile.models}
    return lambda model: token_cost(model, facts.get(model), routing_exponent)


def joules_above_idle(
    device: Device, pieces: Sequence[Piece], activities: Iterable[ActivityReading], length_seconds: float
) -> float | None:
    """What the board used in the window above idle power, None where that is not above 0, or doubtful.

    Doubtful: a board whose idle power was neither observed nor configured, that was not metered all the time, or was
    held back (power cap, heat) or used by other processes; more than it can draw.
    """
    if device.idle_watts is None or device.idle_source == "table" or not device.hardware:
        return None
    covered = fsum(piece.end - piece.start for piece in pieces)
    if covered < LEAST_COVERED * length_seconds or any(each.method in {"recovered", "modelled"} for each in pieces):
        return None
    if any(each.device == device.id and _doubtful(each) for each in activities):
        return None
    joules = fsum(piece.energy_joules for piece in pieces) - device.idle_watts * covered
    most = hardware_of(device.hardware) or _ANY
    return joules if 0.0 < joules <= most.power_limit_watts * length_seconds else None


def _lesson(
    device: Device, joules: float, work: Work | None, length_seconds: float, read_at_once: float = 1.0
) -> FitSums | None:
    """What joules and work say together. Bytes may be told so many times too often: once for each token of a step."""
    if work is None or work.bytes <= 0.0:
        return None
    most = hardware_of(device.hardware) or _ANY
    if not (
        work.flops <= most.peak_flops_per_second * length_seconds
        and work.bytes <= most.peak_bytes_per_second * length_seconds * read_at_once
    ):
        return None
    return sums_of(work, joules)


def _doubtful(activity: ActivityReading) -> bool:
    foreign = activity.consumer == OTHER_PROCESSES and activity.busy_seconds > 0.0
    return foreign or not _HELD_BACK.isdisjoint(activity.state)
