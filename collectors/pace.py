"""Keeps a replay's own time behind the wall's, with absolute deadlines."""

import math

from collectors.clock import monotonic, sleep
from collectors.units import UnixSeconds


class Pace:
    """`speed` times as fast as the recording was made; infinity waits for nothing."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._origin: tuple[float, UnixSeconds] | None = None

    def wait_for(self, now: UnixSeconds) -> None:
        """Returns when that moment of the replay has come; the first one is at once."""
        if not math.isfinite(self._speed):
            return
        if self._origin is None:
            self._origin = (monotonic(), now)
        wall, begin = self._origin
        sleep(wall + (now - begin) / self._speed - monotonic())
