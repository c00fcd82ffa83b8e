"""The NVML meter: GPUs read by a child process, because a driver call may hang for ever and nothing can end it.

    main lane    one child with every GPU that answers
    aside        a GPU (or the driver itself) that did not: its child is killed and left, the main lane starts again
                 without it, and once that child is gone a probe asks it again, 30 s to 5 min later
A GPU that comes back tells by its counter what it used meanwhile.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from collectors.boot_id import boot_id
from collectors.clock import Clock, boot_seconds, monotonic
from collectors.errors import Broken, Gone, RetryLater
from collectors.meter import DeviceHealth, DeviceState, Measured, MeterHealth
from collectors.nvml_aside import Aside
from collectors.nvml_driver import listed_gpus, mend, refusal
from collectors.nvml_gpu import MeteredGpu
from collectors.nvml_lane import Lane
from collectors.nvml_samples import (
    REOPEN,
    Done,
    Frame,
    GpuRead,
    Opened,
    Plan,
    Refused,
)
from collectors.readings import CounterMark, Device

DRIVER: Final = ""
"""The token under which the driver itself is set aside: it hangs, or refuses, before any GPU is reached."""
CLOSE_SECONDS: Final = 0.5
"""So long close() looks after killed children; one inside a hung driver call goes when that call ends."""


class NvmlMeter:
    """A Meter of all NVIDIA GPUs of this host. Used by one thread that outlives it; `health` by any.

    `is_server` tells whether a pid is a known model server: the others are counted as other processes. A read ends
    within `deadline_seconds`. `backoff_seconds` are the first and the longest wait before a GPU is asked again.
    """

    name = "nvml"

    def __init__(
        self,
        *,
        clock: Clock,
        is_server: Callable[[int], bool],
        interval_seconds: float = 1.0,
        deadline_seconds: float = 2.0,
        open_seconds: float = 10.0,
        slow_seconds: float = 10.0,
        backoff_seconds: tuple[float, float] = (15.0, 60.0),
        procfs: Path = Path("/proc"),
        ticks: Callable[[], float] = boot_seconds,
    ) -> None:
        self.interval_seconds = interval_seconds
        self._clock, self._ticks, self._is_server, self._procfs = clock, ticks, is_server, procfs
        self._deadline_seconds, self._open_seconds, self._slow_seconds = deadline_seconds, open_seconds, slow_seconds
        self._first_backoff, self._longest_backoff = backoff_seconds
        self._main: Lane | None = None
        self._leaving: list[Lane] = []
        self._corpses: list[Lane] = []
        self._aside: dict[str, Aside] = {}
        self._gpus: dict[str, MeteredGpu] = {}
        self._given_marks: dict[str, CounterMark] = {}
        self._pcis: dict[str, str] = {}  # token of the main lane -> PCI bus id
        self._count = 0
        self._listed: tuple[str, ...] = ()
        self._unopened: dict[str, DeviceHealth] = {}
        self._events: Counter[tuple[str, str]] = Counter()
        self._slow_at = 0.0
        self._reopen_wanted = False
        self._reopen_at, self._reopen_backoff = 0.0, interval_seconds
        self._health = MeterHealth()

    @property
    def devices(self) -> Sequence[Device]:
        """Every GPU seen since the start, in the order of their UUIDs, each module before its GPU."""
        return tuple(device for _, gpu in sorted(self._gpus.items()) for device in gpu.devices)

    @property
    def marks(self) -> Sequence[CounterMark]:
        """Also of those that do not answer now: their energy is recovered from there."""
        return tuple(mark for _, gpu in sorted(self._gpus.items()) for mark in gpu.marks)

    @property
    def processes(self) -> Sequence[tuple[str, int, float]]:
        """Those with memory on a GPU at the last slow read: (device, pid, bytes). Being there is not being busy."""
        return tuple((uuid, pid, size) for uuid, gpu in sorted(self._gpus.items()) for pid, size in gpu.slow.processes)

    def resume(self, marks: Sequence[CounterMark]) -> None:
        """Kept until their GPU is found."""
        self._given_marks = {mark.device: mark for mark in marks}

    def health(self) -> MeterHealth:
        """As of the end of the last read."""
        return self._health

    def open(self) -> None:
        """Raises Gone without driver or GPU, Broken where NVML or every GPU refuses, RetryLater where it hangs."""
        self._bury()
        if self._corpses:
            raise RetryLater("nvml: a child still hangs in the driver; no other one is started before it is gone")
        while True:
            lane = Lane(self._plan())
            result = lane.wait_opened(monotonic() + self._open_seconds)
            if isinstance(result, Opened):
                break
            token = lane.standing_at
            self._discard(lane)
            if isinstance(result, Refused):
                raise refusal(result)
            if token == DRIVER or token in self._aside:
                raise RetryLater(f"nvml: the driver did not answer in {self._open_seconds:g} s")
            self._set_aside(token, lane, f"it did not open within {self._open_seconds:g} s")
        self._main = lane
        self._opened(result)
        self._publish()
        if not self._gpus and not self._aside:
            self.close()
            if result.unopened:
                raise Broken(f"nvml: no GPU can be opened: {result.unopened[0].text}; {mend(result.unopened[0].code)}")
            raise Gone("nvml: the driver has no GPU")

    def read(self) -> Sequence[Measured]:
        """Waits at most the deadline, and gives what there is of those that answer; RetryLater where none does."""
        until = monotonic() + self._deadline_seconds
        self._bury()
        self._ensure_main()
        self._start_probes()
        slow = monotonic() >= self._slow_at
        measured: list[Measured] = []
        answers = 0
        for frame in self._main_frames(until, slow=slow):
            answers += isinstance(frame, GpuRead)
            measured += self._take(frame)
        for token in list(self._aside):
            frames = self._probed(token)
            answers += sum(isinstance(frame, GpuRead) for frame in frames)
            for frame in frames:
                measured += self._take(frame, is_main=token == DRIVER)
        self._reopen_if_wanted(slow=slow)
        self._publish()
        if not answers:
            raise RetryLater(f"nvml: no GPU answered within {self._deadline_seconds:g} s")
        return measured

    def _main_frames(self, until: float, *, slow: bool) -> Iterator[Frame]:
        """What the main child says; where it stands still, the one that takes its place is asked in the same read."""
        while (lane := self._main) is not None:
            if lane.ask(slow=slow) and slow:
                self._slow_at = monotonic() + self._slow_seconds
            yield from lane.collect(min(until, monotonic() + self._deadline_seconds / 2.0))
            self._judge_main()
            if monotonic() >= until or (self._main is lane and not lane.is_asked):
                return

    def close(self) -> None:
        """Kills what there is, hung or not, and looks after it for half a second."""
        for lane in (self._main, *self._leaving, *(aside.probe for aside in self._aside.values())):
            if lane is not None:
                self._discard(lane)
        self._main, self._leaving = None, []
        self._aside.clear()
        until = monotonic() + CLOSE_SECONDS
        for lane in self._corpses:
            lane.wait_reaped(until)
        self._bury()

    def _plan(self) -> Plan:
        """All GPUs; with one aside only those known to answer, as looking for others may touch it."""
        aside = [token for token in self._aside if token != DRIVER]
        if any(not token.startswith("#") for token in aside):
            pcis = sorted(gpu.facts.pci for gpu in self._gpus.values() if not gpu.is_gone)
            return Plan(only=tuple(pci for pci in pcis if pci not in aside))
        return Plan(skip=tuple(aside))

    def _ensure_main(self) -> None:
        """A child that died while nothing was asked of it is replaced at once."""
        if self._main is not None and self._main.is_reaped() and not self._main.is_asked:
            self._events["nvml", "reader_died"] += 1
            self._discard(self._main)
            self._main = None
        if self._main is None and DRIVER not in self._aside:
            self._start_main()

    def _start_main(self) -> None:
        plan = self._plan()
        if plan.only or not any(not token.startswith("#") for token in self._aside):
            self._listed = listed_gpus(self._procfs)
            self._main = Lane(plan)
            self._slow_at = 0.0

    def _restart_main(self) -> None:
        """The old child keeps the driver loaded until the new one has opened it: without persistence mode a driver
        that nobody holds unloads, and its counters begin at 0."""
        if self._main is not None:
            self._leaving.append(self._main)
        self._main = None
        self._start_main()

    def _start_probes(self) -> None:
        for token, aside in self._aside.items():
            if aside.is_due():
                aside.probe = Lane(self._plan() if token == DRIVER else Plan(only=(token,)))
                aside.probe.ask(slow=True)

    def _judge_main(self) -> None:
        """Sets aside what the main child stands at, where it died or has stood too long."""
        lane = self._main
        if lane is None:
            return
        token, stood = lane.standing_at, lane.stands_since()
        if lane.state == "ended":
            why = f"the reader died while asking it ({lane.how_it_ended()})"
        elif lane.state == "opening" and stood >= self._open_seconds:
            why = f"it did not open within {self._open_seconds:g} s"
        elif lane.state == "asked" and stood >= self._deadline_seconds / 2.0:
            why = f"no answer from the driver for {stood:.1f} s"
        else:
            return
        self._main = None
        self._set_aside(self._pci(token), lane, why)
        self._ensure_main()

    def _set_aside(self, token: str, lane: Lane, why: str, first_seconds: float | None = None) -> None:
        self._events[self._name(token), "timeout"] += 1
        aside = self._aside.setdefault(token, Aside(self._first_backoff if first_seconds is None else first_seconds))
        aside.failed(lane, why, self._longest_backoff)
        self._corpses.append(lane)
        for old in self._leaving:
            self._discard(old)
        self._leaving = []

    def _probed(self, token: str) -> list[Frame]:
        """What a probe has said, without waiting for it; one that answers ends the being aside."""
        aside = self._aside[token]
        probe = aside.probe
        if probe is None:
            return []
        frames = probe.collect(monotonic())
        refused = next((frame for frame in frames if isinstance(frame, Refused)), None)
        if any(isinstance(frame, Opened) for frame in frames) and token == DRIVER:
            del self._aside[token]
            self._main = probe
        elif any(isinstance(frame, Done) for frame in frames):
            del self._aside[token]
            self._discard(probe)
            self._restart_main()
        elif probe.state == "ended":
            self._again_aside(token, probe, refused.text if refused else f"the reader died ({probe.how_it_ended()})")
        elif probe.stands_since() >= (self._open_seconds if probe.state == "opening" else self._deadline_seconds):
            self._again_aside(token, probe, "no answer from the driver")
        return [frame for frame in frames if not isinstance(frame, Refused | Done)]

    def _again_aside(self, token: str, probe: Lane, why: str) -> None:
        self._aside[token].failed(probe, why, self._longest_backoff)
        self._corpses.append(probe)

    def _take(self, frame: Frame, *, is_main: bool = True) -> list[Measured]:
        match frame:
            case Opened():
                self._opened(frame, is_main=is_main)
            case Refused():
                self._refused(frame)
            case GpuRead():
                return self._sampled(frame)
            case Done(count=count):
                self._reopen_wanted |= count is not None and count != self._count
        return []

    def _opened(self, opened: Opened, *, is_main: bool = True) -> None:
        life = f"{boot_id(self._procfs)}/{opened.driver}"
        for facts in opened.gpus:
            if facts.uuid in self._gpus:
                self._gpus[facts.uuid].found_again(facts, life)
            else:
                self._gpus[facts.uuid] = MeteredGpu(facts, boot_id=life, marks=self._given_marks)
        if not is_main:
            return
        for lane in self._leaving:
            self._discard(lane)
        self._leaving = []
        self._count = opened.count
        self._pcis = {facts.token: facts.pci for facts in opened.gpus}
        self._unopened = {}
        for gpu in opened.unopened:
            detail = f"it cannot be opened: {gpu.text}; {mend(gpu.code)}"
            self._unopened[gpu.token] = DeviceHealth(device=self._name(gpu.token), state="broken", detail=detail)
        self._reopen_wanted |= any(gpu.code in REOPEN for gpu in opened.unopened)
        here = {facts.uuid for facts in opened.gpus}
        for uuid, known in self._gpus.items():
            if uuid not in here and known.facts.pci not in self._aside:
                known.mark_state(*self._missing(opened))

    def _missing(self, opened: Opened) -> tuple[DeviceState, str]:
        """Why a GPU that was there is not among those opened: lost ones are counted and refused, removed ones not."""
        if opened.unopened:
            return "broken", f"it cannot be opened any more: {opened.unopened[0].text}; {mend(opened.unopened[0].code)}"
        if any(token.startswith("#") for token in self._aside):
            return "not_responding", "a GPU did not open in time"
        return "gone", "the driver does not list it any more"

    def _refused(self, refused: Refused) -> None:
        """A driver that is being replaced refuses for moments or minutes: asked soon, then less and less often."""
        lane, self._main = self._main, None
        if lane is not None:
            self._set_aside(DRIVER, lane, str(refusal(refused)), self.interval_seconds)

    def _sampled(self, read: GpuRead) -> list[Measured]:
        """The child's tick is the same clock as boot_seconds(): what the frame waited in the pipe is taken off."""
        gpu = self._gpus.get(read.uuid)
        if gpu is None:
            return []
        age = max(0.0, boot_seconds() - read.tick)
        self._reopen_wanted |= read.code in REOPEN
        return gpu.take(read, self._clock.now() - age, self._ticks() - age, self._is_server)

    def _reopen_if_wanted(self, *, slow: bool) -> None:
        """A lost GPU, a reloaded driver, one plugged in: a new child sees them. Soon, then less and less often."""
        if slow and listed_gpus(self._procfs) != self._listed:
            self._reopen_wanted = True
        if self._main is None or self._main.state != "idle":
            return
        if not self._reopen_wanted:
            self._reopen_backoff = self.interval_seconds if monotonic() >= self._reopen_at else self._reopen_backoff
        elif monotonic() >= self._reopen_at:
            self._reopen_wanted = False
            self._reopen_at = monotonic() + self._reopen_backoff
            self._reopen_backoff = min(2.0 * self._reopen_backoff, self._longest_backoff)
            self._events["nvml", "reopened"] += 1
            self._restart_main()

    def _pci(self, token: str) -> str:
        return self._pcis.get(token, token)

    def _name(self, token: str) -> str:
        """What a person knows it by: its UUID where it has been read, else its place."""
        if token == DRIVER:
            return "nvml"
        return next((uuid for uuid, gpu in self._gpus.items() if gpu.facts.pci == token), f"gpu {token}")

    def _discard(self, lane: Lane) -> None:
        lane.kill()
        self._corpses.append(lane)

    def _bury(self) -> None:
        self._corpses = [lane for lane in self._corpses if not lane.is_reaped()]

    def _publish(self) -> None:
        told = dict(self._unopened)
        for token, aside in self._aside.items():
            detail = f"{aside.why}; it is asked again later, and its counter tells what it uses until then"
            for gpu in self._gpus.values():
                if token in (DRIVER, gpu.facts.pci):
                    gpu.mark_state("not_responding", detail)
            if self._name(token) not in self._gpus:
                told[token] = DeviceHealth(device=self._name(token), state="not_responding", detail=detail)
        healths = [health for _, gpu in sorted(self._gpus.items()) for health in gpu.health]
        events = Counter(self._events)
        for gpu in self._gpus.values():
            events.update(gpu.events)
        self._health = MeterHealth(devices=(*healths, *told.values()), events=dict(events))
