"""One board of a dcgm-exporter, from page to page: when its figures are new, and what they then amount to.

The exporter asks DCGM every 30 s by default and shows the same figures in between, so a counter that stands still from
page to page is no board at 0 W, and a value first seen may be 30 s old. Hence:
- a counter's value is taken at the page on which it changed, when its age is at most the meter's interval;
- of the first page, and of the first one after a silence, nothing is taken: the age of its values is unknown;
- where the counter stood still and power did not, power is taken, so that a counter that stopped is found out;
- a board without a counter is taken to draw what was last shown, as long as its page is renewed at all.
With no change at all for STALE_SECONDS the exporter has lost the board: not responding, and the time is missing.
What the counter then says on its return is recovered.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from collectors.dcgm_page import Board
from collectors.device_track import DeviceTrack, Sample
from collectors.idle_levels import IdleLevels
from collectors.meter import DeviceHealth, DeviceState, Measured
from collectors.readings import ActivityReading, CounterMark, Device
from collectors.units import UnixSeconds

REFRESH_HOLE_SECONDS: Final = 65.0
"""Two of the exporter's default refreshes and some: one that is missed is no hole."""
STALE_SECONDS: Final = 120.0
"""Four default refreshes without any change: an idle board's counter moves by more than 1 J in each 0.1 s."""
UNKNOWN_LIMIT_WATTS: Final = 1_000.0
"""Where the page does not tell the power limit (it is not in the exporter's default list): above today's boards."""
LOADED_MEBIBYTES: Final = 256.0
"""A CUDA context alone takes more on today's boards; what a driver keeps for itself is not shown as used."""
REFRESHES_PER_INTERVAL: Final = 2.0
"""Two refreshes may fall between two pages, and so twice the joules; the bound of what is plausible allows for it."""


class BoardTrack:
    """Follows one board. `mark` is where the last run left off."""

    def __init__(self, board: Board, *, boot_id: str, mark: CounterMark | None) -> None:
        self._levels = IdleLevels()
        self.device = _device(board, self._levels)
        self.track: Final = DeviceTrack(
            board.uuid,
            boot_id=boot_id,
            power_limit_watts=_limit_watts(board),
            mark=mark,
            hole_seconds=REFRESH_HOLE_SECONDS,
        )
        self._shown: Board | None = None  # the figures on the last page; None: their age is unknown
        self._changed_tick: float | None = None
        self._taken: tuple[UnixSeconds, float] | None = None  # wall and steady time of the last activity
        self._has_counter = False
        self._page_tick = 0.0
        self.present = True

    def forget_age(self) -> None:
        """Pages were missed: what is shown next may be old."""
        self._shown = None

    def take(self, board: Board, *, at: UnixSeconds, tick: float) -> list[Measured]:
        """What has become known with this page."""
        self.device, self._page_tick, self.present = _device(board, self._levels), tick, True
        self.track.power_limit_watts = _limit_watts(board)
        self._has_counter |= board.energy_joules is not None
        before, self._shown = self._shown, board
        if before is None:
            self._changed_tick, self._taken = tick, None
            return []
        counted = (board.energy_joules, board.written) != (before.energy_joules, before.written)
        changed = counted or _gauges(board) != _gauges(before)
        if changed:
            self._changed_tick = tick
        if not changed and (self._has_counter or self._still_seconds > REFRESH_HOLE_SECONDS):
            return []
        sample = Sample(
            at=at,
            tick=tick,
            energy_joules=board.energy_joules if counted else None,
            power_watts=board.power_watts,
        )
        used = self.track.take(sample)
        self._levels.note(used)
        self._look(board)
        self.device = _device(board, self._levels)
        return [*used, *self._activities(board, at, tick)]

    def _look(self, board: Board) -> None:
        memory, busy = board.memory_mebibytes, board.busy_ratio
        if board.instances:  # at rest is a board of which all are, each of them told
            told = board.instances.values()
            busy = None if None in told else max(ratio or 0.0 for ratio in told)
        loaded = None if memory is None or board.instances else memory >= LOADED_MEBIBYTES
        self._levels.look(busy_ratio=busy, loaded=loaded, limit_watts=board.limit_watts or UNKNOWN_LIMIT_WATTS)

    @property
    def _still_seconds(self) -> float:
        return 0.0 if self._changed_tick is None else self._page_tick - self._changed_tick

    def _activities(self, board: Board, at: UnixSeconds, tick: float) -> Sequence[Measured]:
        """How busy the board and its instances were since they were last told."""
        since, self._taken = self._taken, (at, tick)
        if since is None or not 0.0 < tick - since[1] <= STALE_SECONDS:
            return []
        elapsed = tick - since[1]
        ratios = {f"instance:{instance_id(board.uuid, each)}": ratio for each, ratio in board.instances.items()}
        return [
            ActivityReading(
                device=board.uuid, start=at - elapsed, end=at, consumer=consumer, busy_seconds=ratio * elapsed
            )
            for consumer, ratio in {"": board.busy_ratio, **ratios}.items()
            if ratio is not None
        ]

    def health(self, *, closed: bool) -> DeviceHealth:
        """`closed`: an interval of it has been told."""
        disagreement = self.track.counter_disagreement
        told = DeviceHealth(device=self.device.id, state="ok", counter_disagreement=disagreement)
        if not self.present:
            return _as(told, "gone", "the exporter's page no longer names it")
        if self._shown is not None and self._shown.energy_joules is None and self._shown.power_watts is None:
            return _as(told, "not_responding", "the exporter shows neither energy nor power of it (blank values)")
        if self._still_seconds > STALE_SECONDS:
            still = f"its figures have not changed for {self._still_seconds:.0f} s; restart the dcgm-exporter"
            return _as(told, "not_responding", still)
        return told if closed else _as(told, "waiting", "the exporter's next refresh begins its first interval")


def instance_id(uuid: str, gpu_instance: str) -> str:
    """A MIG instance's name: the page tells its number on its board only. "GPU-c2f7" and "3" are "GPU-c2f7/3"."""
    return f"{uuid}/{gpu_instance}"


def _device(board: Board, levels: IdleLevels) -> Device:
    instances = tuple(sorted(instance_id(board.uuid, each) for each in board.instances))
    sizes = {instance_id(board.uuid, each): size for each, size in board.slices.items()}
    return Device(
        id=board.uuid,
        kind="gpu",
        hardware=board.hardware,
        instances=instances,
        instance_slices=tuple(sizes[each] for each in instances) if sizes.keys() >= set(instances) else (),
        loaded=levels.loaded,
        bare_watts=levels.bare_watts,
        loaded_watts=levels.loaded_watts,
    )


def _gauges(board: Board) -> tuple[object, ...]:
    return (board.power_watts, board.active_ratio, board.used_ratio, board.instances)


def _limit_watts(board: Board) -> float:
    return REFRESHES_PER_INTERVAL * (board.limit_watts or UNKNOWN_LIMIT_WATTS)


def _as(health: DeviceHealth, state: DeviceState, detail: str) -> DeviceHealth:
    return msgspec.structs.replace(health, state=state, detail=detail)
