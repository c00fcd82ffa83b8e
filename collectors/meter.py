"""A meter, on one screen: a Source of what the hardware used, that knows its devices and says how well it does.

A meter runs in a thread of its own and is asked at absolute deadlines. `read` has a deadline of its own: it raises
RetryLater rather than wait longer. Whatever happens to one device is told in `health` and never keeps the others.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from collectors.collector import Source
from collectors.readings import ActivityReading, CounterMark, Device, EnergyReading, EngineReading

Measured = EnergyReading | ActivityReading | EngineReading

DeviceState = Literal["ok", "waiting", "not_responding", "gone", "broken"]
"""waiting: no interval is closed yet. not_responding: asked, no answer. gone: removed. broken: a person must act."""


class DeviceHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How a device does as a meter. `detail` says what happened and what mends it; "" where nothing did.

    `counter_disagreement` is (counter - integral of power) / integral since the start, None before a minute of both.
    """

    device: str
    state: DeviceState
    detail: str = ""
    counter_disagreement: float | None = None


class MeterHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How a meter does: its devices, and how often each named thing happened since it was opened.

    `events` counts by (device, word): "wrap", "reset", "recovered", "lost", "implausible", "sentinel", "glitch",
    "counter_stuck", "power_gap", "clock_step", "timeout", .. `note` is what a person should know of the meter as a
    whole though nothing is wrong: that it stands in for another one.
    """

    devices: tuple[DeviceHealth, ...] = ()
    note: str = ""
    events: dict[tuple[str, str], int] = {}


class Meter(Source[Measured], Protocol):
    """What role collect asks of nvml, dcgm, rapl, cpu_model, bmc and processes."""

    @property
    def interval_seconds(self) -> float:
        """How often it wants to be read."""
        ...

    @property
    def devices(self) -> Sequence[Device]:
        """The devices it meters now, facts as it found them; may change with each read. Empty for `processes`."""
        ...

    @property
    def marks(self) -> Sequence[CounterMark]:
        """The raw counters at the end of the last readings, one for each device that has a counter."""
        ...

    def resume(self, marks: Sequence[CounterMark]) -> None:
        """Called once before `open`: the counters where the last run left off; those of other meters' are ignored."""
        ...

    def health(self) -> MeterHealth:
        """May be asked from another thread at any time, also while a read is under way."""
        ...


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `wattribute doctor`: a thing that can be metered or is needed for it, and how it is.

    `subject` names it as in the books ("GPU-5c7f7b0e", "cpu-0", "clock"), `what` says it in a sentence, `mend` is the
    command or setting that mends it ("" where nothing is to be done).
    """

    area: str
    subject: str
    state: Literal["ok", "missing", "warning", "broken"]
    what: str
    mend: str = ""
