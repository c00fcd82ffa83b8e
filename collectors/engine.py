"""The model servers' own counters. In: their /metrics pages, by HTTP. Out: EngineReadings: steps, tokens, requests.

`engine_targets` says whom to ask, `engine_names` what the counters are called, `engine_page` reads a page and
`engine_server` makes readings of two. Servers are asked one after the other; one that does not answer is left alone for
a while, so that it holds the others up for TIMEOUT_SECONDS once.
"""

from collections.abc import Callable, Sequence
from http.client import HTTPException
from typing import Final

from collectors.clock import Clock, boot_seconds
from collectors.engine_server import TIMEOUT_SECONDS, EngineServer, read_engine
from collectors.engine_targets import EngineTarget
from collectors.errors import CollectorError
from collectors.http_page import KeptConnection
from collectors.meter import DeviceHealth, Finding, Measured, MeterHealth
from collectors.readings import CounterMark, Device, EngineReading

LOOK_SECONDS: Final = 10.0
"""How often it is asked which servers there are. What is found on the host is looked for every 30 s at most."""
_UNFORESEEN: Final = (ValueError, ArithmeticError, OSError, HTTPException)
"""What an address or a page that nobody thought of makes the libraries raise: no name's label has 64 letters, .."""


class EngineMeter:
    """A Meter without devices: `health` has one for each server. `targets` gives the servers there are now."""

    name = "engine"

    def __init__(
        self,
        targets: Callable[[], Sequence[EngineTarget]],
        *,
        interval_seconds: float,
        clock: Clock,
        tick: Callable[[], float] = boot_seconds,
    ) -> None:
        self.interval_seconds = interval_seconds
        self._targets, self._clock, self._tick = targets, clock, tick
        self._servers: dict[str, EngineServer] = {}
        self._look_tick = float("-inf")
        self._looked_tick: float | None = None
        self._failed_looks = 0
        self._health = MeterHealth()

    @property
    def devices(self) -> Sequence[Device]:
        """None: its servers are no meters of energy."""
        return ()

    @property
    def marks(self) -> Sequence[CounterMark]:
        """None: what servers did while nobody looked is not placed in time, and is left out."""
        return ()

    def resume(self, marks: Sequence[CounterMark]) -> None:
        """Nothing to resume."""

    def open(self) -> None:
        """Nothing to open: servers come and go."""

    def read(self) -> Sequence[Measured]:
        """What each server did since it was last read. Never raises: one that does not answer is told in `health`.

        What one server's address or page makes fail is that server's fault alone, and never stops the others.
        """
        measured: list[Measured] = []
        if self._tick() - self._look_tick >= LOOK_SECONDS:
            measured += self._look()
        for server in self._servers.values():
            try:
                measured += server.read()
            except _UNFORESEEN as error:
                server.failed(error)
        self._health = MeterHealth(devices=self._states(), events=self._events())
        return measured

    def close(self) -> None:
        for server in self._servers.values():
            server.close()

    def health(self) -> MeterHealth:
        return self._health

    def _look(self) -> list[EngineReading]:
        """What servers that are gone leave untold. One that is new may be so since the last look."""
        self._look_tick = self._tick()
        try:
            targets = {target.url or target.name: target for target in self._targets()}
        except _UNFORESEEN:
            self._failed_looks += 1
            return []  # those that are known are asked all the same
        gone = [self._servers.pop(key) for key in self._servers.keys() - targets.keys()]
        for key, target in targets.items():
            if key in self._servers:
                self._servers[key].is_now(target)
            else:
                self._servers[key] = EngineServer(
                    target, clock=self._clock, tick=self._tick, since_tick=self._looked_tick
                )
        self._looked_tick = self._look_tick
        return [reading for server in gone for reading in server.ended()]

    def _states(self) -> tuple[DeviceHealth, ...]:
        """By name; of two servers of one name the one that is asked."""
        servers = sorted(self._servers.values(), key=lambda server: server.is_asked)
        return tuple({server.name: server.health() for server in servers}.values())

    def _events(self) -> dict[tuple[str, str], int]:
        told = self._servers.values()
        looks = {("", "look_failed"): self._failed_looks} if self._failed_looks else {}
        return looks | {(server.name, word): count for server in told for word, count in server.events.items()}


def diagnose(targets: Sequence[EngineTarget]) -> list[Finding]:
    """What `wattribute doctor` says of the model servers' counters; asks each once."""
    if not targets:
        what = "no model server is known whose counters could be read: requests are placed by their events alone"
        mend = 'url = "http://127.0.0.1:8000/metrics" under [[collect.engine.servers]] for one that is not found'
        return [Finding(area="engine", subject="servers", state="missing", what=what, mend=mend)]
    return [_finding(target) for target in targets]


def _finding(target: EngineTarget) -> Finding:
    if not target.url:
        what = f"shows no counters that can be asked for here: nothing is learned of {', '.join(target.devices)}"
        mend = "its url and devices under [[collect.engine.servers]], where it has counters in a network of its own"
        return Finding(area="engine", subject=target.name, state="missing", what=what, mend=mend)
    connection = KeptConnection(target.url, timeout_seconds=TIMEOUT_SECONDS)
    try:
        page = read_engine(connection)
    except CollectorError as error:
        return Finding(area="engine", subject=target.name, state="warning", what=str(error), mend="curl " + target.url)
    finally:
        connection.close()
    told = {figure for figures in page.models.values() for figure in figures}
    models = ", ".join(sorted(model or target.model or "not named" for model in page.models)) or "none yet"
    what = f"{page.kind}, model {models}, steps {'are counted' if 'steps_total' in told else 'are not told'}"
    if page.bad:
        what += f"; cannot be read: {', '.join(sorted(page.bad))}"
    return Finding(area="engine", subject=target.name, state="warning" if page.bad else "ok", what=what)
