"""One meter in a thread of its own: read at absolute deadlines, its errors turned into a state that people can see.

Meter --> MeterThread --> take(meter, measured)
"""

import threading
from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec
import structlog

from collectors.clock import monotonic
from collectors.errors import Broken, Gone, RetryLater
from collectors.meter import Measured, Meter, MeterHealth
from monitor.selfmetrics import Spread

OPEN_AGAIN_SECONDS: Final = 60.0
"""A meter that this host does not have, or that a person has to mend, is tried again so often."""
RETRY_SECONDS: Final = 5.0

QUIET_WORDS: Final = frozenset({"wrap"})
"""Events of every day; all others are told in the log too."""

State = Literal["opening", "ok", "not_answering", "absent", "broken", "stopped"]
Take = Callable[[Meter, Sequence[Measured]], None]
logger = structlog.get_logger()


class MeterStats(msgspec.Struct):
    """How the reading goes. Written by the meter's thread alone, read by anyone."""

    state: State = "opening"
    detail: str = ""
    reads: int = 0
    errors: dict[str, int] = {}
    skipped: int = 0
    read: Spread = Spread()
    late: Spread = Spread()


class MeterThread:
    """Reads `meter` until it is stopped. A missed deadline is skipped and counted, never made up for."""

    def __init__(self, meter: Meter, take: Take) -> None:
        self.meter = meter
        self.stats = MeterStats()
        self._take = take
        self._states: dict[str, str] = {}
        self._events: dict[tuple[str, str], int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"meter-{meter.name}", daemon=True)

    def start(self) -> None:
        """Begins to read."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Returns at once; the read under way goes on to its own deadline."""
        self._stop.set()

    def join(self, timeout_seconds: float) -> bool:
        """Whether it has ended by then."""
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """False once it has ended, also by an error that nobody foresaw."""
        return self._thread.is_alive()

    def health(self) -> MeterHealth:
        """What the meter says of its devices."""
        return self.meter.health()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                pause = self._open_and_read()
                self._stop.wait(pause)
        finally:
            self.meter.close()
            self.stats.state = "stopped"

    def _open_and_read(self) -> float:
        """Reads until the meter has to be opened anew; returns how long to wait before that."""
        try:
            self.meter.open()
            self._set("ok", "")
            self._read_until_stopped()
        except RetryLater as error:
            self._count("retry_later")
            self._set("not_answering", str(error))
            self.meter.close()
            return RETRY_SECONDS
        except Gone as error:
            self._count("gone")
            self._set("absent", str(error))
        except Broken as error:
            self._count("broken")
            self._set("broken", str(error))
        self.meter.close()
        return OPEN_AGAIN_SECONDS

    def _read_until_stopped(self) -> None:
        deadline = monotonic()
        while not self._stop.wait(max(0.0, deadline - monotonic())):
            begun = monotonic()
            self._read(begun - deadline)
            interval = self.meter.interval_seconds
            missed = int((monotonic() - deadline) // interval)
            self.stats.skipped += missed
            deadline += (missed + 1) * interval

    def _read(self, late_seconds: float) -> None:
        stats, begun = self.stats, monotonic()
        stats.late = stats.late.plus(late_seconds)
        stats.reads += 1
        try:
            measured = self.meter.read()
        except RetryLater as error:
            self._count("retry_later")
            self._set("not_answering", str(error))
            return
        finally:
            stats.read = stats.read.plus(monotonic() - begun)
        self._set("ok", "")
        self._take(self.meter, measured)
        self._tell_devices()

    def _tell_devices(self) -> None:
        """A device that changes its state, and what happened to its counter, are told once each."""
        health = self.meter.health()
        for device in health.devices:
            before = self._states.get(device.device, "waiting")
            self._states[device.device] = device.state
            if device.state != before and {device.state, before} != {"ok", "waiting"}:
                tell = logger.info if device.state in ("ok", "waiting") else logger.warning
                why = {"why": device.detail} if device.detail else {}
                tell(f"device is {device.state.replace('_', ' ')}", meter=self.meter.name, device=device.device, **why)
        if health.events != self._events:
            for (device_id, word), count in health.events.items():
                new = count - self._events.get((device_id, word), 0)
                if new > 0 and word not in QUIET_WORDS:
                    logger.info(
                        f"counter: {word.replace('_', ' ')}", meter=self.meter.name, device=device_id, times=new
                    )
            self._events = dict(health.events)

    def _count(self, reaction: str) -> None:
        self.stats.errors = self.stats.errors | {reaction: self.stats.errors.get(reaction, 0) + 1}

    def _set(self, state: State, detail: str) -> None:
        """A change of state is told once."""
        if state != self.stats.state:
            tell = logger.info if state in ("ok", "absent") else logger.warning
            tell(f"meter is {state.replace('_', ' ')}", meter=self.meter.name, **({"why": detail} if detail else {}))
        self.stats.state, self.stats.detail = state, detail
