"""Two halves of a request, the gateway's and the engine's, made one. Pure. In: halves in log order. Out: requests.

The gateway knows who asked (team, labels, tokens), the engine where and when it worked (host, devices, phases). A half
waits a bounded log time for the other; then it goes alone. What is decided depends on the log alone: a reader that
starts at `needed_from` and throws away what was handed on already goes on as the one before it would have.
"""

from collections import deque
from typing import Literal

import msgspec

from collectors.requests.event import RequestEvent
from collectors.units import UnixSeconds

Side = Literal["gateway", "engine"]
Key = tuple[str, str, int]


class Half(msgspec.Struct, frozen=True, kw_only=True):
    """What one side says of a request."""

    side: Side
    event: RequestEvent


class _Waiting:
    __slots__ = ("done", "first_at", "half", "sides")

    def __init__(self, half: Half, first_at: UnixSeconds) -> None:
        self.half, self.first_at, self.sides, self.done = half, first_at, {half.side}, False


class Joiner:
    """One partition of halves. Remembers a request for `wait_seconds + memory_seconds` after its first half.

    A half that comes when its request was handed on already is counted in `unjoined`, and is never a second request; a
    half that comes twice counts once.
    """

    def __init__(self, wait_seconds: float, memory_seconds: float, log_time: UnixSeconds = float("-inf")) -> None:
        self._wait, self._memory = wait_seconds, memory_seconds
        self._known: dict[Key, _Waiting] = {}
        self._by_wait: deque[Key] = deque()
        self._by_age: deque[Key] = deque()
        self.log_time = log_time
        self.unjoined = 0

    @property
    def needed_from(self) -> UnixSeconds:
        """Halves that stand at this log time or before it are forgotten."""
        return self.log_time - self._wait - self._memory

    def take(self, half: Half, log_time: UnixSeconds) -> list[RequestEvent]:
        """The next half of the log; returns the requests that are whole now, or have waited long enough."""
        found = self.advance(log_time)
        key = (half.event.namespace, half.event.request_id, half.event.attempt)
        known = self._known.get(key)
        if known is None:
            self._known[key] = _Waiting(half, self.log_time)
            self._by_wait.append(key)
            self._by_age.append(key)
        elif half.side not in known.sides:
            known.sides.add(half.side)
            if known.done:
                self.unjoined += 1
            else:
                known.done = True
                found.append(_joined(known.half.event, half.event, known.half.side))
        return found

    def advance(self, log_time: UnixSeconds) -> list[RequestEvent]:
        """Log time has come this far; returns the requests whose other half did not come in time."""
        self.log_time = max(self.log_time, log_time)
        alone = []
        while self._by_wait and self._known[self._by_wait[0]].first_at + self._wait <= self.log_time:
            known = self._known[self._by_wait.popleft()]
            if not known.done:
                known.done = True
                alone.append(known.half.event)
        while self._by_age and self._known[self._by_age[0]].first_at + self._wait + self._memory <= self.log_time:
            del self._known[self._by_age.popleft()]
        return alone


def _joined(first: RequestEvent, second: RequestEvent, first_side: Side) -> RequestEvent:
    """Who asked and how much from the gateway, where and when the engine worked from the engine."""
    gateway, engine = (first, second) if first_side == "gateway" else (second, first)
    scheduled = _within(engine.start if engine.scheduled is None else engine.scheduled, gateway.start, gateway.end)
    first_token = gateway.first_token if engine.first_token is None else engine.first_token
    first_token = _within(first_token, gateway.start if scheduled is None else scheduled, gateway.end)
    input_tokens = engine.input_tokens if gateway.input_tokens is None else gateway.input_tokens
    cached = engine.cached_input_tokens if gateway.cached_input_tokens is None else gateway.cached_input_tokens
    parts = engine.parts or gateway.parts
    return msgspec.structs.replace(
        gateway,
        host=None if parts else engine.host or gateway.host,
        devices=gateway.devices if engine.devices is None else engine.devices,
        deployment=gateway.deployment or engine.deployment,
        scheduled=scheduled,
        first_token=first_token,
        input_tokens=input_tokens,
        cached_input_tokens=None
        if None not in (cached, input_tokens) and (cached or 0) > (input_tokens or 0)
        else cached,
        output_tokens=engine.output_tokens if gateway.output_tokens is None else gateway.output_tokens,
        work=engine.work if gateway.work is None else gateway.work,
        parts=parts,
    )


def _within(moment: UnixSeconds | None, earliest: UnixSeconds, latest: UnixSeconds) -> UnixSeconds | None:
    """None where the two sides' clocks contradict each other."""
    return moment if moment is not None and earliest <= moment <= latest else None
