"""CPU packages where no counter can be read: estimated from how busy they are. Every joule is "modelled".

    <procfs>/stat -> busy share u -> P = TDP x (0.1 + 0.9 u)         TDP: told, else by the name, else 3 W per thread

The line is methodology.md 2.3's fallback with u in place of its u^3, for two reasons. Measured sockets are not convex:
RAPL at half load showed 53 % of full load's power (two E5-2620 v3) and 94 % (EPYC 8024P), where u^3 says 21 % (runs
published by CodeCarbon, 2025-01-14); and of a line the energy of an interval is the sum of its parts', however it is
cut. On those runs (idle apart) it gave 0.7 to 2.1 times what RAPL showed: a factor of 2 is an honest band. Memory has
no figure that would be better than a guess, so it is missing.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from collectors.clock import Clock, SystemClock, boot_seconds
from collectors.counter import HOLE_SECONDS
from collectors.cpu_info import CpuInfo, read_cpu_info
from collectors.cpu_power import DEFAULT_WATTS_PER_THREAD, part_of
from collectors.cpu_time import CpuTimeFile
from collectors.device_track import STEP_SECONDS
from collectors.errors import Broken, RetryLater
from collectors.meter import DeviceHealth, DeviceState, Finding, Measured, MeterHealth
from collectors.readings import CounterMark, Device, EnergyReading

DEVICE: Final = "cpu"
IDLE_SHARE: Final = 0.1


class CpuPower(msgspec.Struct, frozen=True, kw_only=True):
    """What the processors of this host draw at most, all sockets together, and how that is known."""

    tdp_watts: float
    source: str

    @property
    def idle_watts(self) -> float:
        """With nothing running."""
        return power_watts(self.tdp_watts, 0.0)


class _Moment(msgspec.Struct, frozen=True, kw_only=True):
    at: float
    tick: float
    busy_seconds: float


def power_watts(tdp_watts: float, busy_ratio: float) -> float:
    """P = TDP x (0.1 + 0.9 u): two sockets of 350 W, a quarter busy, draw 700 x 0.325 = 227.5 W; idle 70 W."""
    return tdp_watts * (IDLE_SHARE + (1.0 - IDLE_SHARE) * busy_ratio)


def cpu_power(info: CpuInfo, *, tdp_watts: float | None = None) -> CpuPower:
    """The TDP of the host's processors; `tdp_watts` is what the operator says of all sockets together.

    A virtual machine has threads of a part, and as much of its TDP: 16 threads of an EPYC 9654 (360 W, 192 threads)
    are 30 W, however many sockets the hypervisor makes up.
    """
    if tdp_watts is not None:
        return CpuPower(tdp_watts=tdp_watts, source=f"the configuration ({tdp_watts:g} W)")
    part = part_of(info.model)
    if part is None:
        told = f'"{info.model}"' if info.model else "a processor without a name"
        source = f"{told} is not in the table: {info.threads} threads x {DEFAULT_WATTS_PER_THREAD:g} W"
        return CpuPower(tdp_watts=info.threads * DEFAULT_WATTS_PER_THREAD, source=source)
    if info.is_virtual:
        source = f"{info.threads} threads of an {info.model} ({part.tdp_watts:g} W, {part.threads} threads)"
        return CpuPower(tdp_watts=part.tdp_watts * info.threads / part.threads, source=source)
    return CpuPower(tdp_watts=part.tdp_watts * info.sockets, source=f"{info.sockets} x {info.model}")


class CpuModelMeter:
    """A Meter with one device, "cpu": all sockets together."""

    name = "cpu_model"

    def __init__(
        self,
        *,
        procfs: Path = Path("/proc"),
        tdp_watts: float | None = None,
        interval_seconds: float = 1.0,
        clock: Clock | None = None,
        boot_seconds: Callable[[], float] = boot_seconds,
    ) -> None:
        self.interval_seconds = interval_seconds
        self._procfs, self._tdp_watts = procfs, tdp_watts
        self._clock, self._boot_seconds = clock or SystemClock(), boot_seconds
        self._file = CpuTimeFile(procfs)
        self._power: CpuPower | None = None
        self._devices: tuple[Device, ...] = ()
        self._last: _Moment | None = None
        self._events: dict[tuple[str, str], int] = {}
        self._health = MeterHealth()

    @property
    def devices(self) -> Sequence[Device]:
        """One, once it is open."""
        return self._devices

    @property
    def marks(self) -> Sequence[CounterMark]:
        """None: what was modelled is not counted anywhere."""
        return ()

    def resume(self, marks: Sequence[CounterMark]) -> None:
        """Nothing to resume: how busy the processors were while nobody looked is not power that was measured."""

    def health(self) -> MeterHealth:
        """As of the last read."""
        return self._health

    def open(self) -> None:
        """Finds out what processors there are; raises Broken where /proc tells no processor time."""
        try:
            self._file.read()
        except RetryLater as error:
            raise Broken(f"{error}; the CPU cannot be modelled without it") from error
        info = read_cpu_info(self._procfs)
        self._power = power = cpu_power(info, tdp_watts=self._tdp_watts)
        idle_watts = power.idle_watts
        self._devices = (
            Device(id=DEVICE, kind="cpu", hardware=info.model, idle_watts=idle_watts, idle_source="table"),
        )
        self._tell("waiting")

    def read(self) -> Sequence[Measured]:
        """The energy since the last read. More than 30 s of it, or processors that came or went, are missing."""
        power = self._power
        if power is None:
            raise RetryLater("cpu_model is not open")
        time = self._file.read()
        moment = _Moment(at=self._clock.now(), tick=self._boot_seconds(), busy_seconds=time.busy_seconds)
        last, self._last = self._last, moment
        if last is None:
            return []
        elapsed, busy = moment.tick - last.tick, moment.busy_seconds - last.busy_seconds
        if elapsed > HOLE_SECONDS:
            return self._missing("power_gap")
        if busy < 0.0:  # a processor that went offline takes its time out of the sum on some kernels
            return self._missing("reset")
        if elapsed <= 0.0:
            return []
        watts = power_watts(power.tdp_watts, min(1.0, busy / (elapsed * time.threads)))
        self._tell("ok")
        return self._reading(last, moment, watts * elapsed)

    def _reading(self, last: _Moment, moment: _Moment, joules: float) -> list[Measured]:
        """Where the wall clock was set in between, the interval keeps its true length and ends now."""
        start, elapsed = last.at, moment.tick - last.tick
        if abs(moment.at - start - elapsed) > STEP_SECONDS:
            self._count("clock_step")
            start = moment.at - elapsed
        if not moment.at > start:
            return []
        return [EnergyReading(device=DEVICE, start=start, end=moment.at, energy_joules=joules, method="modelled")]

    def _missing(self, word: str) -> list[Measured]:
        self._count(word)
        return []

    def _count(self, word: str) -> None:
        self._events[DEVICE, word] = self._events.get((DEVICE, word), 0) + 1
        self._tell(self._health.devices[0].state)

    def _tell(self, state: DeviceState) -> None:
        detail = f"modelled, not measured: TDP from {self._power.source}" if self._power is not None else ""
        health = DeviceHealth(device=DEVICE, state=state, detail=detail)
        self._health = MeterHealth(devices=(health,), events=dict(self._events))

    def close(self) -> None:
        """Lets go of the file."""
        self._file.close()
        self._last = None


def diagnose(*, procfs: Path = Path("/proc"), tdp_watts: float | None = None) -> list[Finding]:
    """What `wattribute doctor` says of the model: its figures and where they come from."""
    meter = CpuModelMeter(procfs=procfs, tdp_watts=tdp_watts)
    try:
        meter.open()
    except Broken as error:
        return [Finding(area="cpu_model", subject=DEVICE, state="broken", what=str(error), mend=f"mount {procfs}")]
    meter.close()
    power = cpu_power(read_cpu_info(procfs), tdp_watts=tdp_watts)
    what = (
        f"can be modelled within a factor of 2, {power.idle_watts:.0f} W idle to {power.tdp_watts:.0f} W: "
        f"{power.source}; memory is not modelled"
    )
    if tdp_watts is None and part_of(read_cpu_info(procfs).model) is None:
        mend = "set tdp_watts of the CPU model to the processor's own"
        return [Finding(area="cpu_model", subject=DEVICE, state="warning", what=what, mend=mend)]
    return [Finding(area="cpu_model", subject=DEVICE, state="ok", what=what)]
