"""The board's management controller as the node's meter: power at the input of the power supplies, integrated.

NodePower (redfish.py, ipmi.py) asks the controller; this follows what it says. The controller averages over 1-60 s
itself, so asking more often than each 10 s brings nothing but load on a slow processor.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from collectors.clock import Clock, boot_seconds
from collectors.counter import HOLE_SECONDS, LIMIT_HEADROOM
from collectors.device_track import DeviceTrack, Sample
from collectors.errors import Broken, CollectorError, RetryLater
from collectors.meter import DeviceHealth, DeviceState, Finding, Measured, MeterHealth
from collectors.readings import CounterMark, Device

NODE: Final = "node"
MOST_WATTS: Final = 30_000.0
"""No node draws more (8 GPUs: 10.2 kW rated); controllers that do not know say 0, 65 535 or 2^31."""
HOLE_INTERVALS: Final = 3.0
"""Power is integrated over two missed answers, not over three."""


class NodePower(Protocol):
    """A way to ask for the node's power."""

    def open(self) -> None:
        """Finds where to ask; raises RetryLater or Broken."""
        ...

    def read(self) -> "NodeReading":
        """What the controller says now; raises RetryLater or Broken."""
        ...

    def close(self) -> None:
        """Lets go of everything; never raises."""
        ...

    @property
    def described(self) -> str:
        """Where it asks, for people: "IPMI DCMI"; complete once it is open."""
        ...

    @property
    def hardware(self) -> str:
        """The node's type as its maker names it; "" where the controller does not tell."""
        ...

    @property
    def mend(self) -> str:
        """The command or setting to try where it cannot be opened."""
        ...


class NodeReading(msgspec.Struct, frozen=True, kw_only=True):
    """What a controller said; None where it did not tell. `energy_joules` is a raw counter, fine enough to be one."""

    power_watts: float | None = None
    energy_joules: float | None = None


class BmcMeter:
    """A Meter of one device, "node". `tick` is a steady clock in seconds."""

    name = "bmc"

    def __init__(
        self,
        source: NodePower,
        *,
        interval_seconds: float,
        clock: Clock,
        tick: Callable[[], float] = boot_seconds,
    ) -> None:
        self._source, self._interval, self._clock, self._tick = source, interval_seconds, clock, tick
        self._track = self._track_from(None)
        self._state: tuple[DeviceState, str] = ("waiting", "")
        self._events: dict[tuple[str, str], int] = {}

    @property
    def interval_seconds(self) -> float:
        return self._interval

    @property
    def devices(self) -> Sequence[Device]:
        return (Device(id=NODE, kind="node", hardware=self._source.hardware),)

    @property
    def marks(self) -> Sequence[CounterMark]:
        return () if self._track.mark is None else (self._track.mark,)

    def resume(self, marks: Sequence[CounterMark]) -> None:
        """A controller's counter outlives the host's boots."""
        self._track = self._track_from(next((mark for mark in marks if mark.device == NODE), None))

    def _track_from(self, mark: CounterMark | None) -> DeviceTrack:
        return DeviceTrack(
            NODE,
            boot_id=NODE,
            power_limit_watts=MOST_WATTS / LIMIT_HEADROOM,
            mark=mark,
            hole_seconds=max(HOLE_SECONDS, HOLE_INTERVALS * self._interval),
        )

    def open(self) -> None:
        try:
            self._source.open()
        except CollectorError as error:
            self._failed(error)
            raise

    def read(self) -> Sequence[Measured]:
        """The energy since the last answer. What is no power (0 W, beyond 30 kW) is counted and not used."""
        try:
            said = self._source.read()
        except CollectorError as error:
            self._failed(error)
            raise
        at, tick = self._clock.now(), self._tick()
        watts = said.power_watts if is_power(said.power_watts) else None
        if watts is None:
            self._count("sentinel")
        measured = self._track.take(Sample(at=at, tick=tick, energy_joules=said.energy_joules, power_watts=watts))
        if watts is None:
            self._state = "not_responding", f"the controller says {said.power_watts} W, which is no power"
        elif measured:
            self._state = "ok", ""
        return measured

    def close(self) -> None:
        self._source.close()

    def health(self) -> MeterHealth:
        state, detail = self._state
        disagreement = self._track.counter_disagreement
        device = DeviceHealth(device=NODE, state=state, detail=detail, counter_disagreement=disagreement)
        followed = {(NODE, word): count for word, count in self._track.events.copy().items()}
        return MeterHealth(devices=(device,), events=followed | dict(self._events))

    def _failed(self, error: CollectorError) -> None:
        if isinstance(error, RetryLater):
            self._count("timeout")
        self._state = ("broken" if isinstance(error, Broken) else "not_responding"), str(error)

    def _count(self, word: str) -> None:
        # A new dict, so that `health` in another thread never sees one that changes while it is copied.
        self._events = self._events | {(NODE, word): self._events.get((NODE, word), 0) + 1}


def is_power(watts: float | None) -> bool:
    """Whether a node that answers can draw this."""
    return watts is not None and math.isfinite(watts) and 0.0 < watts <= MOST_WATTS


def diagnose(source: NodePower) -> list[Finding]:
    """Asks once whether the node's power can be read; changes nothing."""
    try:
        source.open()
        said = source.read()
    except CollectorError as error:
        return [Finding(area="node", subject=NODE, state="broken", what=str(error), mend=source.mend)]
    finally:
        source.close()
    if not is_power(said.power_watts):
        what = f"{source.described} says {said.power_watts} W, which is no power"
        return [Finding(area="node", subject=NODE, state="broken", what=what, mend=source.mend)]
    what = f"{source.described}: {said.power_watts:g} W, power supplies included"
    return [Finding(area="node", subject=NODE, state="ok", what=what)]
