"""An existing dcgm-exporter as the GPU meter. In: its /metrics, by HTTP. Out: joules and activity of each board.

For fleets that run the exporter already: one reader of the driver per host is enough. `dcgm_page` reads a page,
`dcgm_board` decides what of it is new. Scraped with http.client over one connection that is kept open; `http_page`
says why not with httpx2.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from collectors.clock import Clock, boot_seconds
from collectors.dcgm_board import BoardTrack
from collectors.dcgm_page import MOST_BOARDS, Board, boards
from collectors.errors import CollectorError, RetryLater
from collectors.http_page import KeptConnection
from collectors.meter import DeviceHealth, Finding, Measured, MeterHealth
from collectors.readings import CounterMark, Device, EnergyReading

TIMEOUT_SECONDS: Final = 2.0
SILENT_INTERVALS: Final = 3.0
"""Pages further apart than so many intervals: what is shown next may have been refreshed at any time between."""
_OK: Final = 200


class DcgmMeter:
    """A Meter. `url` is the page's ("http://127.0.0.1:9400/metrics"), `tick` a steady clock in seconds.

    `boot_id` is the host's: the counters begin anew with the driver, at latest when the host boots.
    """

    name = "dcgm"

    def __init__(
        self,
        url: str,
        *,
        interval_seconds: float,
        clock: Clock,
        boot_id: str,
        tick: Callable[[], float] = boot_seconds,
    ) -> None:
        self._interval, self._clock, self._boot_id, self._tick = interval_seconds, clock, boot_id, tick
        self._connection = KeptConnection(url, timeout_seconds=TIMEOUT_SECONDS)
        self._left_off: dict[str, CounterMark] = {}
        self._tracks: dict[str, BoardTrack] = {}
        self._told: set[str] = set()
        self._timeouts = 0
        self._page_tick: float | None = None
        self._health = MeterHealth()

    @property
    def interval_seconds(self) -> float:
        return self._interval

    @property
    def devices(self) -> Sequence[Device]:
        """The boards of the last page."""
        return [each.device for each in tuple(self._tracks.values()) if each.present]

    @property
    def marks(self) -> Sequence[CounterMark]:
        return [mark for each in self._tracks.values() if (mark := each.track.mark) is not None]

    def resume(self, marks: Sequence[CounterMark]) -> None:
        """The counter is the driver's own, so a mark that the nvml meter left is as good."""
        self._left_off = {mark.device: mark for mark in marks}

    def open(self) -> None:
        """Asks for a first page, so that the boards are known. How old its figures are is not, so none is taken."""
        for track in self._tracks.values():
            track.forget_age()
        self.read()

    def read(self) -> Sequence[Measured]:
        """What the page has brought. RetryLater where there is none, within TIMEOUT_SECONDS."""
        try:
            found = page_boards(self._connection)
        except RetryLater as error:
            self._timeouts += 1
            self._health = self._as_silent(str(error))
            raise
        at, tick = self._clock.now(), self._tick()
        if self._page_tick is not None and tick - self._page_tick > SILENT_INTERVALS * self._interval:
            for track in self._tracks.values():
                track.forget_age()
        self._page_tick = tick
        measured = self._take(found, at, tick)
        self._told.update(each.device for each in measured if isinstance(each, EnergyReading))
        self._health = self._as_read()
        return measured

    def close(self) -> None:
        self._connection.close()

    def health(self) -> MeterHealth:
        return self._health

    def _take(self, found: Mapping[str, Board], at: float, tick: float) -> list[Measured]:
        for uuid, track in self._tracks.items():
            if uuid not in found:
                track.present = False
                track.forget_age()
        measured: list[Measured] = []
        for uuid, board in found.items():
            track = self._tracks.get(uuid) or self._begun(board)
            measured += track.take(board, at=at, tick=tick)
        return measured

    def _begun(self, board: Board) -> BoardTrack:
        while len(self._tracks) >= 2 * MOST_BOARDS:
            absent = next(uuid for uuid, track in self._tracks.items() if not track.present)
            del self._tracks[absent]
        track = BoardTrack(board, boot_id=self._boot_id, mark=self._left_off.pop(board.uuid, None))
        self._tracks[board.uuid] = track
        return track

    def _as_read(self) -> MeterHealth:
        return MeterHealth(
            devices=tuple(track.health(closed=uuid in self._told) for uuid, track in self._tracks.items()),
            events=self._events(),
        )

    def _as_silent(self, detail: str) -> MeterHealth:
        devices = tuple(
            DeviceHealth(device=uuid, state="not_responding", detail=detail)
            for uuid, track in self._tracks.items()
            if track.present
        )
        return MeterHealth(devices=devices, events=self._events())

    def _events(self) -> dict[tuple[str, str], int]:
        events = {
            (uuid, word): count for uuid, track in self._tracks.items() for word, count in track.track.events.items()
        }
        return events | ({("", "timeout"): self._timeouts} if self._timeouts else {})


def page_boards(connection: KeptConnection) -> Mapping[str, Board]:
    """The boards of the page as it is now; RetryLater where there is no page, or none with a GPU on it."""
    page = connection.get()
    if page.status != _OK:
        connection.close()
        raise RetryLater(f"{connection.url}: HTTP status {page.status}; is it a dcgm-exporter's /metrics?")
    found = boards(page.body.decode("utf-8", "replace"))
    if not found:
        raise RetryLater(f"{connection.url}: no row of a GPU with a UUID; is it a dcgm-exporter's /metrics?")
    return found


def diagnose(url: str) -> list[Finding]:
    """What of each board the exporter at this address shows; asks once, and changes nothing."""
    connection = KeptConnection(url, timeout_seconds=TIMEOUT_SECONDS)
    try:
        found = page_boards(connection)
    except CollectorError as error:
        mend = "systemctl start nvidia-dcgm-exporter, or correct url under [collect.dcgm]"
        return [Finding(area="gpu", subject="dcgm", state="broken", what=str(error), mend=mend)]
    finally:
        connection.close()
    return [_finding(board) for board in found.values()]


def _finding(board: Board) -> Finding:
    named = f"{board.hardware or 'a GPU'}, by dcgm-exporter"
    if board.instances:
        named += f", {len(board.instances)} MIG instances"
    if board.energy_joules is not None:
        return Finding(area="gpu", subject=board.uuid, state="ok", what=f"{named}: energy counter")
    mend = "add DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION to the exporter's list of counters (-f FILE)"
    if board.power_watts is not None:
        what = f"{named}: power only, integrated"
        return Finding(area="gpu", subject=board.uuid, state="warning", what=what, mend=mend)
    what = f"{named}: neither energy nor power is shown"
    return Finding(area="gpu", subject=board.uuid, state="broken", what=what, mend=mend)
