"""The only caller of the system clock. Everything else is given a `Clock`, or the time itself."""

import time
from datetime import UTC, datetime
from typing import Protocol

from collectors.units import UnixSeconds


class Clock(Protocol):
    """Tells the time of the log: the system's, or a recording's own."""

    def now(self) -> UnixSeconds:
        """The present moment in unix seconds, UTC."""
        ...


class SystemClock:
    """The clock of a live host."""

    def now(self) -> UnixSeconds:
        """Wall clock time; it may step when the host's clock is set."""
        return time.time()


def monotonic() -> float:
    """Seconds that never step back, for durations only."""
    return time.monotonic()


def boot_seconds() -> float:
    """Seconds since the machine started, suspended time included; never steps, unlike the wall clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def sleep(duration_seconds: float) -> None:
    """Waits; a negative duration does not wait."""
    if duration_seconds > 0:
        time.sleep(duration_seconds)


def rfc3339(moment: UnixSeconds) -> str:
    """A moment as people and auditors read it, to the millisecond: 0.0 is 1970-01-01T00:00:00.000Z."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
