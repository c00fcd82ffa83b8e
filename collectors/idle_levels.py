"""What a board draws at rest, learned from its own quiet time. Pure. In: readings, looks at who is there. Out: watts.

A board has two levels: bare, and with a model loaded. A CUDA context alone holds its clocks up, which is worth 26 to
66 W on data-centre boards, whatever the model's size (arXiv 2605.23918); gaps between requests are drawn at that level.

    reading ..  reading  look(busy 0, loaded)  reading ..  reading  look(busy 0, loaded)  -> a quiet chunk of that state
    reading ..  reading  look(busy 0.2)        -> nothing: somebody worked
"""

from collections import deque
from collections.abc import Collection, Sequence
from statistics import median
from typing import Final

from collectors.readings import EnergyReading

CHUNK_SECONDS: Final = 10.0
"""A power sensor averages over up to a second; a chunk holds many of them."""
LEAST_CHUNKS: Final = 3
"""A level that rests on less than half a minute is not believed."""
MOST_CHUNKS: Final = 360
"""An hour of quiet. A board that ages, or a room that warms up, takes the level along."""
NOT_BUSY_RATIO: Final = 0.001
"""Below it nobody worked: the profiler of a DCGM page leaves traces of itself."""
REST_RATIO: Final = 0.6
"""Beyond this part of its power limit no board is at rest: a driver that shows nobody busy there sees nobody. Small
boards (70 W) with a model loaded come nearest, at about 0.4."""


def at_rest(watts: Collection[float]) -> float | None:
    """The median of what lies within 25 % of the quietest, once the lowest twentieth is left out; None for nothing.

    50, 51, 52, 300 and 310 W are at rest at 51 W: work that nobody reported does not move it.
    """
    if not watts:
        return None
    ordered = sorted(watts)
    quietest = ordered[len(ordered) // 20]
    return median([each for each in ordered if each <= 1.25 * quietest]) if quietest > 0 else None


class IdleLevels:
    """Follows one board. `limit_watts` is its power limit. `loaded` is how it was at the last look or the one before.

    So in the seconds after a model was unloaded it is still taken for loaded: what exceeds the higher level is work.
    """

    def __init__(self) -> None:
        self.loaded: bool | None = None
        self._now: bool | None = None
        self._joules = self._seconds = 0.0
        self._quiet: tuple[float, float] = (0.0, 0.0)
        self._chunks: dict[bool | None, deque[float]] = {}
        self._rest: dict[bool | None, float] = {}

    def note(self, readings: Sequence[EnergyReading]) -> None:
        """What was used since the last look. Recovered readings may hold work of a time that nobody looked at."""
        for reading in readings:
            if reading.method in ("counter", "integrated"):
                self._joules += reading.energy_joules
                self._seconds += reading.end - reading.start

    def look(self, *, busy_ratio: float | None, loaded: bool | None, limit_watts: float) -> None:
        """Who is there now, and how busy all of them together were since the last look (0-1); None is not known.

        Three times 10 s at 1 150 J, a model loaded and nobody busy: it rests loaded at 115 W.
        """
        was, self._now = self._now, loaded
        self.loaded = (was or loaded) if None not in (was, loaded) else loaded
        joules, seconds = self._joules, self._seconds
        self._joules = self._seconds = 0.0
        if busy_ratio is None or busy_ratio > NOT_BUSY_RATIO or was != loaded:
            self._quiet = (0.0, 0.0)
            return
        joules, seconds = self._quiet[0] + joules, self._quiet[1] + seconds
        self._quiet = (joules, seconds)
        if seconds < CHUNK_SECONDS:
            return
        self._quiet = (0.0, 0.0)
        if joules <= REST_RATIO * limit_watts * seconds:
            self._keep(loaded, joules / seconds)

    def _keep(self, loaded: bool | None, watts: float) -> None:
        chunks = self._chunks.setdefault(loaded, deque(maxlen=MOST_CHUNKS))
        chunks.append(watts)
        level = at_rest(chunks) if len(chunks) >= LEAST_CHUNKS else None
        if level is not None:
            self._rest[loaded] = round(level, 1)

    @property
    def bare_watts(self) -> float | None:
        """With nothing loaded, to 0.1 W. Of a board of which nobody knows what is loaded: its one level."""
        return self._rest.get(False, self._rest.get(None))

    @property
    def loaded_watts(self) -> float | None:
        """With a model loaded, to 0.1 W."""
        return self._rest.get(True, self._rest.get(None))
