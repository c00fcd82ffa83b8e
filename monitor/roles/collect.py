"""Role collect: from the meters of this host to readings in the log.

Meter --> MeterThread --\\
Meter --> MeterThread ----> gathered, window by window --> log (readings, marks, activities, engines, profile)
Meter --> MeterThread --/

A batch is closed by the first reading that reaches the end of a window, at latest after 10 s: one write to disk for all
meters. Readings and the counters at their ends are stored together or not at all, so a process that was killed goes on
from the counters and no joule of theirs is lost.
"""

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog

from collectors.clock import Clock, monotonic
from collectors.meter import Measured, Meter
from collectors.readings import ActivityReading, CounterMark, Device, EnergyReading, EngineReading, ModelFacts
from collectors.units import UnixSeconds
from monitor.config.sections import Config
from monitor.core.window import window_at
from monitor.log.codec import READINGS_SCHEMA, Decoder, ReadingBatch, readings_record
from monitor.log.protocol import Append, Log, LogUnavailable
from monitor.roles.idle_facts import at_rest_now, with_residents
from monitor.roles.meter_thread import MeterThread
from monitor.roles.profile import profile_of

BATCH_SECONDS: Final = 10.0
MOST_WAITING: Final = 360
"""Batches kept in memory while the log cannot be written: an hour's. Beyond it the oldest go first, said aloud."""
LOUD_EVERY_SECONDS: Final = 60.0
logger = structlog.get_logger()


class CollectRole:
    """Meters this host. `beat` is the steady time at which its writer last went round.

    `residents` tells which models are on which device now, `models` what was found of the models that this host serves.
    Each is asked once for each batch, and must not wait for anything.
    """

    def __init__(
        self,
        log: Log,
        config: Config,
        meters: Sequence[Meter],
        *,
        host: str,
        clock: Clock,
        residents: Callable[[], Mapping[str, tuple[str, ...]]] = dict,
        models: Callable[[], Sequence[ModelFacts]] = tuple,
    ) -> None:
        self._log, self._config, self._host, self._clock = log, config, host, clock
        self._window_seconds = config.accounting.window_seconds
        self._lock = threading.Lock()
        self._due = threading.Event()
        self._stop = threading.Event()
        self._readings: list[EnergyReading] = []
        self._activities: list[ActivityReading] = []
        self._engines: list[EngineReading] = []
        last = last_batch(log, host)
        self._marks: dict[str, CounterMark] = {mark.device: mark for mark in last.marks} if last else {}
        self._rested = {device.id: device for device in last.profile.devices} if last else {}
        self._residents, self._models = residents, models
        self._window: int | None = None
        self._devices: dict[str, Device] = {}
        self._waiting: deque[Append] = deque()
        self._loud_at = float("-inf")
        self.batches = self.dropped = self.readings = 0
        self.last_watts: dict[str, tuple[UnixSeconds, float]] = {}
        self.beat = monotonic()
        for meter in meters:
            meter.resume(tuple(self._marks.values()))
        self.threads = [MeterThread(meter, self.take) for meter in meters]
        self._writer = threading.Thread(target=self._write_until_stopped, name="collect-writer", daemon=True)

    def start(self) -> None:
        """Begins to meter."""
        self._writer.start()
        for thread in self.threads:
            thread.start()

    def stop(self, timeout_seconds: float = 3.0) -> None:
        """Stops the meters, waiting for none longer than that in all, and stores what they told."""
        for thread in self.threads:
            thread.ask_to_stop()
        deadline = monotonic() + timeout_seconds
        for thread in self.threads:
            if not thread.join(max(0.0, deadline - monotonic())):
                logger.warning("a meter does not stop; left behind", meter=thread.meter.name)
        self._stop.set()
        self._due.set()
        self._writer.join(timeout_seconds)

    @property
    def alive(self) -> bool:
        """Whether what is read still reaches the log."""
        return self._writer.is_alive()

    def take(self, meter: Meter, measured: Sequence[Measured]) -> None:
        """Takes what a meter has read, together with the counters at its end."""
        with self._lock:
            for each in measured:
                if isinstance(each, EnergyReading):
                    self._readings.append(each)
                    self.last_watts[each.device] = each.end, each.energy_joules / (each.end - each.start)
                elif isinstance(each, ActivityReading):
                    self._activities.append(each)
                else:
                    self._engines.append(each)
            for mark in meter.marks:
                self._marks[mark.device] = mark
            ends = [each.end for each in measured if isinstance(each, EnergyReading)]
            if ends and self._reaches_an_end(max(ends)):
                self._due.set()

    def _reaches_an_end(self, moment: UnixSeconds) -> bool:
        window = window_at(moment, self._window_seconds)
        before, self._window = self._window, window
        return before is not None and window != before

    def _write_until_stopped(self) -> None:
        while not self._stop.is_set():
            self._due.wait(BATCH_SECONDS)
            self._due.clear()
            self._write()
            self.beat = monotonic()

    def _write(self) -> None:
        with self._lock:
            readings, self._readings = self._readings, []
            activities, self._activities = self._activities, []
            engines, self._engines = self._engines, []
            marks = tuple(self._marks[device] for device in sorted(self._marks))
        if readings or activities or engines:
            self.readings += len(readings)
            profile = profile_of(self._config, self._host, self._devices_of(readings), self._models())
            batch = ReadingBatch(
                profile=profile,
                readings=tuple(readings),
                marks=marks,
                activities=tuple(activities),
                engines=tuple(engines),
            )
            self._waiting.append(readings_record(batch))
        if not self._waiting:
            return
        try:
            self._log.append(list(self._waiting), self._clock.now())
        except LogUnavailable as error:
            self._keep_waiting(str(error))
            return
        self.batches += len(self._waiting)
        self._waiting.clear()

    def _devices_of(self, readings: Sequence[EnergyReading]) -> Sequence[Device]:
        """Those there are now, and those removed since they were read."""
        residents = self._residents()
        now = {
            device.id: with_residents(at_rest_now(device, self._rested.get(device.id)), residents)
            for thread in self.threads
            for device in thread.meter.devices
        }
        self._rested |= now
        read = {reading.device for reading in readings}
        gone = {each: device for each, device in self._devices.items() if each in read}
        self._devices = gone | now
        return tuple(self._devices.values())

    def _keep_waiting(self, why: str) -> None:
        while len(self._waiting) > MOST_WAITING:
            self._waiting.popleft()
            self.dropped += 1
        if monotonic() - self._loud_at > LOUD_EVERY_SECONDS:
            self._loud_at = monotonic()
            logger.error("readings wait in memory", why=why, batches=len(self._waiting), dropped=self.dropped)


def last_marks(log: Log, host: str) -> Sequence[CounterMark]:
    """The counters where the last run left off; none in a new log."""
    last = last_batch(log, host)
    return last.marks if last else ()


def last_batch(log: Log, host: str) -> ReadingBatch | None:
    """The last that was written of this host: counters and levels to go on from. None in a new log."""
    record = log.last("readings", host, READINGS_SCHEMA)
    batch = None if record is None else Decoder().decode(record)
    return batch if isinstance(batch, ReadingBatch) else None
