"""CPU packages and memory by the kernel's RAPL counters. In: <sysfs>/class/powercap. Out: counted interval energy.

    find_zones -> a ZoneCounter each -> DeviceTrack -> EnergyReading        (collectors/rapl_zones.py, rapl_counter.py)

Needs read access to energy_uj and max_energy_range_uj, which the kernel gives to root alone since CVE-2020-8694; for
the same reason nothing is read more often than once a second.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from collectors.boot_id import boot_id
from collectors.clock import Clock, SystemClock, boot_seconds
from collectors.cpu_info import read_cpu_info
from collectors.errors import Broken, Gone
from collectors.meter import Finding, Measured, MeterHealth
from collectors.rapl_counter import GRANT_READ, ZoneCounter
from collectors.rapl_zones import Zone, find_zones, may_mirror, powercap_folder, sockets_of_topology
from collectors.readings import CounterMark, Device, DeviceKind

LEAST_INTERVAL_SECONDS: Final = 1.0
"""A faster feed of these counters lets others infer what the processor computes (PLATYPUS, CVE-2020-8694)."""
EARLY_SECONDS: Final = 0.5
"""A late read may be followed by one in time; one that comes sooner than this after the last is not done."""
LOOK_AGAIN_SECONDS: Final = 10.0
"""How often a zone that went away is looked for."""

_KINDS: Final[dict[str, DeviceKind]] = {"package": "cpu", "dram": "dram", "psys": "node"}


class RaplMeter:
    """A Meter: "cpu-0" per package, "dram-0" beside it, or "psys" (a node) where there is no package.

    Dies with counters of their own are "cpu-0-die-1"; zones that show another's counter are left out.
    """

    name = "rapl"

    def __init__(
        self,
        *,
        sysfs: Path = Path("/sys"),
        procfs: Path = Path("/proc"),
        interval_seconds: float = LEAST_INTERVAL_SECONDS,
        clock: Clock | None = None,
        boot_seconds: Callable[[], float] = boot_seconds,
    ) -> None:
        if interval_seconds < LEAST_INTERVAL_SECONDS:
            raise ValueError(f"RAPL is read once a second at most, not every {interval_seconds} s")
        self.interval_seconds = interval_seconds
        self._sysfs, self._procfs = sysfs, procfs
        self._clock, self._boot_seconds = clock or SystemClock(), boot_seconds
        self._marks: dict[str, CounterMark] = {}
        self._counters: dict[str, ZoneCounter] = {}
        self._health = MeterHealth()
        self._hardware = self._boot_id = ""
        self._sockets: frozenset[int] = frozenset()
        self._last_tick = self._looked_tick = float("-inf")

    @property
    def devices(self) -> Sequence[Device]:
        """What is there and not another's mirror; a zone that may not be read is there."""
        return tuple(
            Device(id=zone.device, kind=_KINDS[zone.kind], hardware=self._hardware if zone.kind == "package" else "")
            for zone in (counter.zone for counter in self._own() if counter.state != "gone")
        )

    @property
    def marks(self) -> Sequence[CounterMark]:
        """Where the counters stand."""
        return tuple(mark for counter in self._counters.values() if (mark := counter.mark) is not None)

    @property
    def counters(self) -> Sequence[ZoneCounter]:
        """Every zone that is watched, mirrors too."""
        return tuple(self._counters.values())

    def resume(self, marks: Sequence[CounterMark]) -> None:
        """Where the last run left off; used for the zones that `open` finds."""
        self._marks = {mark.device: mark for mark in marks}

    def health(self) -> MeterHealth:
        """As of the last read."""
        return self._health

    def open(self) -> None:
        """Finds the zones. Raises Gone where there is no RAPL, Broken where not one zone can be read."""
        zones = find_zones(self._sysfs)
        if not zones:
            raise Gone(
                f"{powercap_folder(self._sysfs)} has no RAPL zone: a virtual machine, a container that hides it, or "
                "the intel_rapl_msr module is not loaded; the CPU can only be modelled"
            )
        self._hardware = read_cpu_info(self._procfs).model
        self._boot_id = boot_id(self._procfs)
        self._sockets = sockets_of_topology(self._sysfs)
        self._counters = {zone.device: self._counter(zone) for zone in zones}
        self._sweep()
        self._refresh_health()
        if all(counter.state in {"broken", "gone", "not_responding"} for counter in self._counters.values()):
            first = next(iter(self._counters.values())).detail
            self.close()
            raise Broken(f"none of {len(zones)} RAPL zones can be read: {first}")

    def _counter(self, zone: Zone) -> ZoneCounter:
        # Without a boot id a reboot in between would not be told from a wrap: the mark is of no use.
        mark = self._marks.pop(zone.device, None) if self._boot_id else None
        return ZoneCounter(zone, boot_id=self._boot_id, mark=mark)

    def read(self) -> Sequence[Measured]:
        """One look at every zone. One that fails is told in `health` and keeps nobody else."""
        tick = self._boot_seconds()
        if tick - self._last_tick < EARLY_SECONDS:
            return []
        self._last_tick = tick
        self._look_for_gone(tick)
        values = self._sweep()
        at, tick = self._clock.now(), self._boot_seconds()
        readings: list[Measured] = []
        for counter, raw_joules in values:
            readings.extend(counter.take(raw_joules, at=at, tick=tick))
        self._refresh_health()
        return readings

    def _sweep(self) -> list[tuple[ZoneCounter, float]]:
        """The counters that are read now, with their values; mirrors are checked and give none."""
        values = []
        for counter in self._counters.values():
            if counter.state == "gone":
                continue
            if counter.mirror_of is not None:
                counter.check_mirror()
                continue
            raw_joules = counter.raw_joules()
            if raw_joules is None:
                continue
            if not counter.compared:
                self._compare(counter)
            if counter.mirror_of is None:
                values.append((counter, raw_joules))
        return values

    def _compare(self, counter: ZoneCounter) -> None:
        """A counter that is read for the first time: is it one of those already read, shown again?"""
        counter.compared = True
        for other in self._own():
            known = other is not counter and other.compared and may_mirror(counter.zone, other.zone, self._sockets)
            if known and counter.mirrors(other):
                counter.begin_mirror(other)
                return

    def _own(self) -> list[ZoneCounter]:
        return [counter for counter in self._counters.values() if counter.mirror_of is None]

    def _look_for_gone(self, tick: float) -> None:
        """Zones that went away may be back, in a folder of another number."""
        gone = {device: counter for device, counter in self._counters.items() if counter.state == "gone"}
        if not gone or tick - self._looked_tick < LOOK_AGAIN_SECONDS:
            return
        self._looked_tick = tick
        for zone in find_zones(self._sysfs):
            if zone.device in gone:
                gone[zone.device].move_to(zone)

    def _refresh_health(self) -> None:
        counters = self._counters.values()
        self._health = MeterHealth(
            devices=tuple(counter.health for counter in counters if counter.mirror_of is None),
            events={
                (counter.zone.device, word): count for counter in counters for word, count in counter.events.items()
            },
        )

    def close(self) -> None:
        """Lets go of the files."""
        for counter in self._counters.values():
            counter.close()


def diagnose(*, sysfs: Path = Path("/sys"), procfs: Path = Path("/proc")) -> list[Finding]:
    """What `wattribute doctor` says of RAPL: a line per zone, or one that says that there is none."""
    meter = RaplMeter(sysfs=sysfs, procfs=procfs)
    try:
        meter.open()
    except Gone as error:
        return [Finding(area="rapl", subject="rapl", state="missing", what=str(error), mend="modprobe intel_rapl_msr")]
    except Broken:
        pass  # the zones say it, one by one
    findings = [_finding(counter) for counter in meter.counters]
    meter.close()
    return findings


def _finding(counter: ZoneCounter) -> Finding:
    zone, health = counter.zone, counter.health
    if counter.mirror_of is not None:
        what = f"{zone.folder.name} shows the counter of {counter.mirror_of.zone.device} and is not added"
        return Finding(area="rapl", subject=zone.device, state="ok", what=what)
    if health.state in {"broken", "gone", "not_responding"}:
        mend = GRANT_READ if health.state == "broken" else ""
        return Finding(area="rapl", subject=zone.device, state="broken", what=health.detail, mend=mend)
    if zone.range_joules is None:
        return Finding(area="rapl", subject=zone.device, state="warning", what=health.detail, mend=GRANT_READ)
    what = (
        f"{zone.folder.name} counts to {zone.range_joules:.0f} J, at most {zone.power_limit_watts:.0f} W are believed"
    )
    return Finding(area="rapl", subject=zone.device, state="ok", what=what)
