"""What a decoded record has to keep to. In: a record of the right types. Out: nothing, or Rejected as `bad_value`.

Of requests each is judged for itself (usage_reading.py), so that a bad one does not lose those beside it.

Comparisons are written so that NaN fails them.
"""

from collections.abc import Sequence
from math import inf, isfinite

from collectors.errors import Rejected
from collectors.readings import ActivityReading, CounterMark, EnergyReading, EngineReading, HostProfile
from collectors.units import UnixSeconds
from monitor.core.emissions.factors import Intensity
from monitor.core.lessons import Lesson, UnitLesson, period_of
from monitor.core.membership import Accounting
from monitor.core.serving import Deployment, HostServers

MOST_JOULES = 1e15
"""Of one reading: a gigawatt for eleven days. Far below where sums overflow."""
MOST_TOKENS = 2**53
"""What a float still holds exactly, and SQLite as an integer."""
LEAST_WEIGHT = 1e-9
_TOLD_BY_ENGINES = ("steps", "prefill_tokens", "cached_tokens", "decode_tokens", "running", "waiting", "kv_tokens")
MOST_HOSTS = 100_000
"""Of one deployment: its weights stay far above LEAST_WEIGHT."""
LONGEST_NAME = 128
"""Of a GPU type: names of several stand in a commit's metadata, which is small."""


def check_batch(host: str, key: str, readings: Sequence[EnergyReading], marks: Sequence[CounterMark]) -> None:
    """Energy in [0, MOST_JOULES], start < end, finite marks, and the record's key is the host."""
    _check(host == key, "profile.host", "is not the record's key")
    for index, reading in enumerate(readings):
        if not (0.0 <= reading.energy_joules <= MOST_JOULES and -inf < reading.start < reading.end < inf):
            _check(-inf < reading.start < reading.end < inf, f"readings[{index}].end", "is not behind start")
            raise Rejected("bad_value", f"readings[{index}].energy_joules is not in [0, {MOST_JOULES:g}]")
    for index, mark in enumerate(marks):
        _check(isfinite(mark.at), f"marks[{index}].at", "is not finite")
        _check(0.0 <= mark.raw_joules < inf, f"marks[{index}].raw_joules", "is not finite and >= 0")
        whole = mark.range_joules is None or 0.0 < mark.range_joules < inf
        _check(whole, f"marks[{index}].range_joules", "is not finite and > 0")


def check_activities(activities: Sequence[ActivityReading]) -> None:
    """start < end, busy seconds finite and >= 0."""
    for index, activity in enumerate(activities):
        _check(-inf < activity.start < activity.end < inf, f"activities[{index}].end", "is not behind start")
        _check(0.0 <= activity.busy_seconds < inf, f"activities[{index}].busy_seconds", "is not finite and >= 0")


def check_engines(engines: Sequence[EngineReading]) -> None:
    """start < end, a server with a name, devices with names, and what is told in [0, MOST_TOKENS]."""
    for index, engine in enumerate(engines):
        _check(-inf < engine.start < engine.end < inf, f"engines[{index}].end", "is not behind start")
        _check(bool(engine.server) and all(engine.devices), f"engines[{index}].server or devices", "has no name")
        for field in _TOLD_BY_ENGINES:
            value = getattr(engine, field)
            _check(value is None or 0.0 <= value <= MOST_TOKENS, f"engines[{index}].{field}", "is not in [0, 2^53]")


def check_profile(profile: HostProfile) -> None:
    """PUE in [1, 1000], power at rest finite and >= 0, every device's id once, no type with an endless name."""
    _check(1.0 <= profile.pue <= 1_000.0, "profile.pue", "is not in [1, 1000]")
    ids = {device.id for device in profile.devices}
    _check(len(ids) == len(profile.devices), "profile.devices", "name one id twice")
    for index, device in enumerate(profile.devices):
        _check(
            len(device.hardware) <= LONGEST_NAME, f"profile.devices[{index}].hardware", "is longer than 128 characters"
        )
        sizes = device.instance_slices
        _check(all(0.0 < size < inf for size in sizes), f"profile.devices[{index}].instance_slices", "are not > 0")
        for field in ("idle_watts", "bare_watts", "loaded_watts"):
            power = getattr(device, field)
            _check(power is None or 0.0 <= power < inf, f"profile.devices[{index}].{field}", "is not finite and >= 0")


def check_host(host: str, key: str) -> None:
    """The host of requests is the record's key."""
    _check(host == key, "usage.host", "is not the record's key")


def check_span(name: str, host: str, key: str, start: UnixSeconds, end: UnixSeconds) -> None:
    """A finite [start, end) that is not empty, of the host that is the key."""
    _check(host == key, f"{name}.host", "is not the record's key")
    _check(-inf < start < end < inf, f"{name}.end", "is not behind start")


def check_accounting(accounting: Accounting) -> None:
    """All lengths finite; windows and marks longer than 0."""
    _check(0.0 < accounting.window_seconds < inf, "accounting.window_seconds", "is not finite and > 0")
    _check(0.0 <= accounting.horizon_seconds < inf, "accounting.horizon_seconds", "is not finite and >= 0")
    _check(0.0 < accounting.mark_seconds < inf, "accounting.mark_seconds", "is not finite and > 0")
    _check(0.0 <= accounting.restate_seconds < inf, "accounting.restate_seconds", "is not finite and >= 0")


def check_intensity(intensity: Intensity) -> None:
    """Finite grams >= 0."""
    _check(0.0 <= intensity.grams_per_kwh < inf, "intensity.grams_per_kwh", "is not finite and >= 0")


def check_lesson(lesson: Lesson) -> None:
    """A GPU type, a period's start, sums that are finite, and squares that are not negative."""
    _check_taught(lesson)
    for name in ("flops_flops", "flops_bytes", "bytes_bytes", "flops_joules", "bytes_joules", "joules_joules"):
        _check(0.0 <= getattr(lesson.sums, name) < inf, f"lesson.sums.{name}", "is not finite and >= 0")


def check_unit_lesson(lesson: UnitLesson) -> None:
    """The same; a model and a unit may have an empty name."""
    _check_taught(lesson)
    for name in ("units_units", "units_joules", "units_seconds", "joules_joules"):
        _check(0.0 <= getattr(lesson.sums, name) < inf, f"lesson.sums.{name}", "is not finite and >= 0")


def _check_taught(lesson: Lesson | UnitLesson) -> None:
    _check(bool(lesson.gpu), "lesson.gpu", "is empty")
    _check(-inf < lesson.start < inf and lesson.start == period_of(lesson.start), "lesson.start", "begins no period")
    _check(-inf < lesson.taught_at < inf, "lesson.taught_at", "is not finite")
    _check(lesson.sums.windows >= 0, "lesson.sums.windows", "is negative")


def check_deployment(deployment: Deployment, key: str) -> None:
    """A name that is the record's key, a model, hosts each named once, and not too many."""
    _check(deployment.name == key, "deployment.name", "is not the record's key")
    _check(bool(deployment.name and deployment.model), "deployment.name or model", "is empty")
    _check(len(set(deployment.hosts)) == len(deployment.hosts) <= MOST_HOSTS, "deployment.hosts", "name one twice")
    _check(all(deployment.hosts) and all(deployment.devices), "deployment.hosts or devices", "name one without a name")


def check_servers(servers: HostServers, key: str) -> None:
    """The host is the record's key; servers, models and devices have names; tensor parallel over 1 device at least."""
    _check(bool(servers.host) and servers.host == key, "servers.host", "is not the record's key")
    for index, server in enumerate(servers.servers):
        named = bool(server.name) and all(server.models) and all(server.devices)
        _check(named, f"servers[{index}].name, models or devices", "has no name")
        _check(server.tensor_parallel_size >= 1, f"servers[{index}].tensor_parallel_size", "is below 1")


def _check(kept: bool, field: str, broken: str) -> None:
    if not kept:
        raise Rejected("bad_value", f"{field} {broken}")
