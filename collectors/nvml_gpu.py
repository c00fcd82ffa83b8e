"""One GPU as the meter sees it, and its Grace Hopper module: raw reads of the child -> readings, activity, health."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from collectors.device_track import DeviceTrack, Sample
from collectors.idle_levels import IdleLevels
from collectors.meter import DeviceHealth, DeviceState, Measured
from collectors.nvml_driver import mend
from collectors.nvml_instances import InstanceTrack, slices_of, units_of
from collectors.nvml_samples import NO_PERMISSION, REOPEN, GpuFacts, GpuRead, SlowFacts
from collectors.readings import OTHER_PROCESSES, ActivityReading, CounterMark, Device, EnergyReading
from collectors.units import UnixSeconds

UNTOLD_LIMIT_WATTS: Final = 1500.0
"""Taken where a board tells no limit: above any single board sold so far (GB200: 1 200 W)."""
UNTOLD_MODULE_LIMIT_WATTS: Final = 3000.0
"""The same for a module: a GB200 superchip of two GPUs and a CPU is sold with 2 700 W."""

_STATES: Final = (  # NVML's clocks-event reasons (nvml.h nvmlClocksEventReason..); being idle is none
    (0x04, "power_capped"),
    (0x08, "hardware_slowdown"),
    (0x20 | 0x40, "thermal_throttled"),
    (0x80, "power_brake"),
)


def state_words(reasons: int) -> tuple[str, ...]:
    """0x24 (software power cap, software thermal slowdown) is ("power_capped", "thermal_throttled")."""
    return tuple(sorted(word for mask, word in _STATES if reasons & mask))


class MeteredGpu:
    """Keeps what is known of one GPU from read to read, whichever child read it. Not thread-safe."""

    def __init__(self, facts: GpuFacts, *, boot_id: str, marks: Mapping[str, CounterMark]) -> None:
        self.facts = facts
        self.slow = SlowFacts()
        self._boot_id = boot_id
        self._state: DeviceState = "waiting"
        self._detail = ""
        self._is_told = False  # whether an interval was ever closed
        self._past: Counter[tuple[str, str]] = Counter()
        self._track = DeviceTrack(
            facts.uuid, boot_id=boot_id, power_limit_watts=UNTOLD_LIMIT_WATTS, mark=marks.get(facts.uuid)
        )
        self._module: DeviceTrack | None = None
        self._module_mark = marks.get(self.module_id)
        self._seen: UnixSeconds | None = None
        self._seen_busy: UnixSeconds | None = None
        self._levels = IdleLevels()
        self._instances = InstanceTrack(facts.uuid)

    @property
    def module_id(self) -> str:
        """The device id of the module that contains it."""
        return f"{self.facts.uuid}/module"

    @property
    def is_gone(self) -> bool:
        """Whether the driver has stopped listing it."""
        return self._state == "gone"

    @property
    def _tracks(self) -> list[DeviceTrack]:
        return [self._track] if self._module is None else [self._module, self._track]

    @property
    def devices(self) -> list[Device]:
        """The GPU and, where there is one, the module that already contains it."""
        parent = None if self._module is None else self.module_id
        gpu = Device(
            id=self.facts.uuid,
            kind="gpu",
            hardware=self.facts.name,
            parent=parent,
            instances=tuple(each.uuid for each in self.slow.instances),
            instance_slices=slices_of(self.slow.instances),
            instance_units=units_of(self.slow.instances),
            loaded=self._levels.loaded,
            bare_watts=self._levels.bare_watts,
            loaded_watts=self._levels.loaded_watts,
        )
        if parent is None:
            return [gpu]
        return [Device(id=parent, kind="node", hardware=f"{self.facts.name} module"), gpu]

    @property
    def marks(self) -> list[CounterMark]:
        """Where its counters stood at the last reading."""
        return [track.mark for track in self._tracks if track.mark is not None]

    @property
    def events(self) -> Counter[tuple[str, str]]:
        """What happened to its counters, by (device, word)."""
        told = Counter(self._past)
        for track in self._tracks:
            told.update({(track.device, word): times for word, times in track.events.items() if times})
        return told

    @property
    def health(self) -> list[DeviceHealth]:
        """The GPU's, and its module's."""
        return [
            DeviceHealth(
                device=track.device,
                state=self._state,
                detail=self._detail,
                counter_disagreement=track.counter_disagreement,
            )
            for track in self._tracks
        ]

    def mark_state(self, state: DeviceState, detail: str) -> None:
        """Said of it by whoever could not ask it."""
        self._state, self._detail = state, detail

    def found_again(self, facts: GpuFacts, boot_id: str) -> None:
        """A new child has opened it; after another driver was loaded its counter has another life."""
        self.facts = facts
        if boot_id == self._boot_id:
            return
        self._boot_id = boot_id
        for track in self._tracks:
            self._past.update({(track.device, word): times for word, times in track.events.items()})
        if self._module is not None:
            self._module = self._renewed(self._module)
        self._track = self._renewed(self._track)

    def _renewed(self, track: DeviceTrack) -> DeviceTrack:
        limit = track.power_limit_watts
        return DeviceTrack(track.device, boot_id=self._boot_id, power_limit_watts=limit, mark=track.mark)

    def take(self, read: GpuRead, at: UnixSeconds, tick: float, is_server: Callable[[int], bool]) -> list[Measured]:
        """What one read gives. `at` and `tick` are when its energy was read."""
        if read.slow is not None:
            self._learn(read.slow)
        self._judge(read)
        measured: list[Measured] = []
        if read.energy_joules is not None or read.power_watts is not None:
            sample = Sample(at=at, tick=tick, energy_joules=read.energy_joules, power_watts=read.power_watts)
            used = self._track.take(sample)
            self._levels.note(used)
            measured += used
            self._is_told = self._is_told or bool(measured)
            if self._state == "ok" and not self._is_told:
                self.mark_state("waiting", "")
        measured += self._instances.take(read.active, read.tick, at, self.slow.instances)
        if read.slow is not None:
            self._look(read.slow, at)
        measured += self._module_readings(read, at, tick)
        measured += self._activity(read, at, is_server)
        return measured

    def _learn(self, slow: SlowFacts) -> None:
        """A limit that was lowered since must not make what was used before implausible, so the highest stays."""
        if slow.limit_watts is not None:
            known = self.slow.limit_watts or 0.0
            self._track.power_limit_watts = max(slow.limit_watts, known)
        if slow.module_limit_watts is not None and self._module is not None:
            self._module.power_limit_watts = slow.module_limit_watts
        self.slow = slow

    def _look(self, slow: SlowFacts, at: UnixSeconds) -> None:
        """A board with MIG is at rest where all its instances are; no instance's memory is the board's."""
        busiest = self._instances.look(at)
        self._levels.look(
            busy_ratio=busiest if slow.busy is None else sum(ratio for _, ratio in slow.busy),
            loaded=None if slow.instances else bool(slow.processes),
            limit_watts=self._track.power_limit_watts,
        )

    def _judge(self, read: GpuRead) -> None:
        if read.energy_joules is not None or read.power_watts is not None:
            self.mark_state("ok", "" if not read.code else f"{read.text} at one of the calls; the rest is read")
        elif read.code == NO_PERMISSION or read.code in REOPEN:
            self.mark_state("broken", f"{read.text}; {mend(read.code)}")
        elif read.code:
            self.mark_state("not_responding", f"{read.text} at every call")
        else:
            self.mark_state("broken", "this board tells neither energy nor power (N/A in nvidia-smi -q -d POWER)")

    def _module_readings(self, read: GpuRead, at: UnixSeconds, tick: float) -> list[EnergyReading]:
        energy, power = read.module_energy_joules, read.module_power_watts
        if energy is None and power is None:
            return []
        if self._module is None:
            self._module = DeviceTrack(
                self.module_id,
                boot_id=self._boot_id,
                power_limit_watts=self.slow.module_limit_watts or UNTOLD_MODULE_LIMIT_WATTS,
                mark=self._module_mark,
            )
        return self._module.take(Sample(at=at, tick=tick, energy_joules=energy, power_watts=power))

    def _activity(self, read: GpuRead, at: UnixSeconds, is_server: Callable[[int], bool]) -> list[ActivityReading]:
        told = []
        since, self._seen = self._seen, at
        words = state_words(read.reasons)
        if words and since is not None and at > since:
            told.append(ActivityReading(device=self.facts.uuid, start=since, end=at, state=words))
        if read.slow is None:
            return told
        since, self._seen_busy = self._seen_busy, at
        share = min(1.0, sum(ratio for pid, ratio in read.slow.busy or () if not is_server(pid)))
        if share > 0.0 and since is not None and at > since:
            told.append(
                ActivityReading(
                    device=self.facts.uuid,
                    start=since,
                    end=at,
                    consumer=OTHER_PROCESSES,
                    busy_seconds=share * (at - since),
                )
            )
        return told
