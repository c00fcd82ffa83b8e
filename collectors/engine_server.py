"""One model server, from page to page: what it did in between, or the name of why that is not known.

Time of which a server with GPUs tells nothing is told as such: what its boards used then is not the work of their other
servers alone.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from collectors.clock import Clock
from collectors.counter import HOLE_SECONDS
from collectors.device_track import STEP_SECONDS
from collectors.engine_page import EnginePage, read_page
from collectors.engine_sample import EngineSample, reading_between
from collectors.engine_targets import EngineTarget
from collectors.errors import CollectorError, Rejected, RetryLater
from collectors.http_page import KeptConnection
from collectors.meter import DeviceHealth, DeviceState
from collectors.readings import EngineReading
from collectors.units import UnixSeconds

TIMEOUT_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 60.0
"""So long at most a server that does not answer is left alone; it begins with 2 s."""
SILENT_SECONDS: Final = 10.0
"""Of what is never told, one reading for so long at least: of a shorter time, the readings around it leave a hole."""
_LONGEST_DETAIL: Final = 300
_MUTE: Final = "it shows no counters that can be asked for here: nothing is learned of its GPUs"
_OK: Final = 200
_HOW: Final[Mapping[int, str]] = {
    404: "has no such page: start sglang with --enable-metrics, or set url under [[collect.engine.servers]]",
    501: "shows no counters: start llama-server with --metrics",
}


class EngineServer:
    """Follows one server, of which nothing is told since `since_tick`, now if None. Not thread-safe."""

    def __init__(
        self,
        target: EngineTarget,
        *,
        clock: Clock,
        tick: Callable[[], float],
        since_tick: float | None = None,
    ) -> None:
        self._target, self._clock, self._tick = target, clock, tick
        self._connection = KeptConnection(target.url, timeout_seconds=TIMEOUT_SECONDS)
        self._last: dict[str, tuple[EngineSample, float]] = {}  # model -> its last sample, at which steady time
        self._bad: frozenset[str] = frozenset()
        self._again_tick, self._pause_seconds, self._failing = float("-inf"), 1.0, False
        # What it did until then is told, or told as not known.
        self._told_tick = tick() if since_tick is None else since_tick
        self._state: tuple[DeviceState, str] = ("waiting", "" if target.url else _MUTE)
        self._answered = False
        self.events: Counter[str] = Counter()

    @property
    def name(self) -> str:
        return self._target.name

    @property
    def is_asked(self) -> bool:
        """Whether it has an address; one without is only known to be there."""
        return bool(self._target.url)

    def is_now(self, target: EngineTarget) -> None:
        """What is known of it by now, its address being the same: its devices are seen when it has loaded its model."""
        self._target = target

    def read(self) -> list[EngineReading]:
        """What it did for each model since the last page; nothing where it is not asked yet, or does not answer.

        Of time that no later page will tell of, a reading without figures.
        """
        readings = self._ask() if self._target.url and self._tick() >= self._again_tick else []
        return readings or self._untold()

    def _ask(self) -> list[EngineReading]:
        try:
            page = read_engine(self._connection)
        except CollectorError as error:
            # Many a server that is found shows no counters unless it is started so, and is as healthy as any.
            expected = self._target.found and not self._answered
            self._pause("waiting" if expected else "not_responding", str(error))
            return []
        self._answered = True
        tick = self._tick()
        readings = self._take(page, self._clock.now(), tick)
        if readings:
            self._told_tick = tick
        if readings or self._failing:
            self._state = ("ok", "") if readings else ("waiting", "")
        self._pause_seconds, self._failing = 1.0, False
        return readings

    def ended(self) -> list[EngineReading]:
        """It is no more: what no later page will tell, however short."""
        self.close()
        self._last = {}
        return self._untold(least_seconds=0.0)

    def failed(self, error: Exception) -> None:
        """`read` raised what nobody foresaw: it is asked ever more rarely too, and a person has to look."""
        self._connection.close()
        self._pause("broken", f"{self._target.url}: {type(error).__name__}: {error}"[:_LONGEST_DETAIL])

    def _pause(self, state: DeviceState, detail: str) -> None:
        self._pause_seconds = min(2.0 * self._pause_seconds, LONGEST_PAUSE_SECONDS)
        self._again_tick = self._tick() + self._pause_seconds
        if not self._failing:
            self.events["not_answering"] += 1
        self._state, self._failing = (state, detail), True

    def health(self) -> DeviceHealth:
        """As of the last page; what of it cannot be read is named.

        One that was found and never gave a page is waiting; one that did, or is configured, is not responding.
        """
        state, detail = self._state
        if not detail and self._bad:
            detail = f"its page has values that are none: {', '.join(sorted(self._bad))}"
        return DeviceHealth(device=self._target.name, state=state, detail=detail)

    def close(self) -> None:
        self._connection.close()

    def _take(self, page: EnginePage, at: UnixSeconds, tick: float) -> list[EngineReading]:
        if page.bad - self._bad:
            self.events["bad_value"] += 1
        self._bad = page.bad
        before, self._last = self._last, {}
        readings = []
        for model, figures in page.models.items():
            target = self._target
            sample = EngineSample(at, target.name, model or target.model, target.devices, **figures)
            self._last[model] = sample, tick
            if model in before:
                readings += self._between(*before[model], sample, tick)
        return readings

    def _untold(self, *, least_seconds: float = SILENT_SECONDS) -> list[EngineReading]:
        """Of a server whose last page was 31 s ago, those 31 s; while a page may still tell of them all, nothing."""
        now, tick = self._clock.now(), self._tick()
        page_tick = max((at for _, at in self._last.values()), default=float("-inf"))
        until_tick = page_tick if tick - page_tick <= HOLE_SECONDS else tick
        since_tick, target = self._told_tick, self._target
        if until_tick <= since_tick or until_tick - since_tick < least_seconds:
            return []
        self._told_tick = until_tick
        if not target.devices:
            return []
        start, end = now - (tick - since_tick), now - (tick - until_tick)
        return [EngineReading(server=target.name, model="", devices=target.devices, start=start, end=end)]

    def _between(
        self, before: EngineSample, before_tick: float, after: EngineSample, tick: float
    ) -> list[EngineReading]:
        elapsed = tick - before_tick
        if any(old is not None and new is None for old, new in zip(before, after, strict=True)):
            self.events["metric_missing"] += 1
        if elapsed > HOLE_SECONDS:
            self.events["engine_gap"] += 1
            return []
        if abs(after.time - before.time - elapsed) > STEP_SECONDS:
            self.events["clock_step"] += 1
            before = before._replace(time=after.time - elapsed)
        if not after.time > before.time:
            return []
        try:
            return [reading_between(before, after)]
        except Rejected:
            self.events["reset"] += 1
            return []


def read_engine(connection: KeptConnection) -> EnginePage:
    """The server's page as it is now; RetryLater, or Broken, where there is none, or none of a known server."""
    page = connection.get()
    if page.status != _OK:
        connection.close()
        raise RetryLater(
            f"{connection.url}: HTTP status {page.status}, {_HOW.get(page.status, 'it is busy or broken')}"
        )
    found = read_page(page.body)
    if found is None:
        raise RetryLater(f"{connection.url}: no counter of vLLM, SGLang, TGI, llama.cpp, TensorRT-LLM or Triton on it")
    return found
