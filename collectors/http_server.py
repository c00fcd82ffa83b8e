"""An HTTP server in a thread of its own: an ASGI app behind uvicorn, and no client may keep the others out.

uvicorn has no time-out for a head or a body that comes slowly, and its limit on connections refuses the honest ones
too. Here each connection has a deadline for what it is at, and when there are too many, the one that has waited longest
makes room.
"""

import asyncio
import socket
import threading
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from collectors.clock import monotonic
from collectors.errors import Broken

MOST_CONNECTIONS: Final = 512
HEAD_SECONDS: Final = 10.0
BODY_SECONDS: Final = 60.0
IDLE_SECONDS: Final = 30.0
MOST_HEAD_BYTES: Final = 16_384
START_SECONDS: Final = 10.0
_BACKLOG: Final = 1_024
_SWEEP_TICKS: Final = 5
"""uvicorn ticks ten times a second."""
_BUSY: Final = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"

_IDLE, _HEAD, _BODY, _ANSWER = range(4)
"""What a connection is at."""


class HttpServer:
    """Serves `app` on `listen` ("host:port", port 0 for any) between `start` and `stop`.

    A request head has to come within `head_seconds` and its body within `body_seconds`, an answer has to be taken
    within `body_seconds`, and a connection without a request lasts `idle_seconds`: then it is closed.
    """

    def __init__(
        self,
        app: Any,
        listen: str,
        *,
        name: str,
        most_connections: int = MOST_CONNECTIONS,
        head_seconds: float = HEAD_SECONDS,
        body_seconds: float = BODY_SECONDS,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._listen, self._name = listen, name
        config = uvicorn.Config(
            app,
            http=_Connection,
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=max(1, round(idle_seconds)),
            h11_max_incomplete_event_size=MOST_HEAD_BYTES,
        )
        limits = (idle_seconds, head_seconds, body_seconds, float("inf"))
        self._server = _Server(config, most_connections, limits)
        self._thread: threading.Thread | None = None
        self.port = 0

    def start(self) -> None:
        """Returns when it listens; raises Broken where the address cannot be had."""
        listener = self._bound()
        self.port = listener.getsockname()[1]
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name=self._name, daemon=True)
        self._thread.start()
        if not self._server.listening.wait(START_SECONDS):
            raise Broken(f"{self._name}: no server on {self._listen} after {START_SECONDS:.0f} s; see the log for why")

    def stop(self, seconds: float = 1.0) -> None:
        """Takes no more requests, lets those that are complete be answered for that long, and closes everything."""
        if self._thread is None:
            return
        self._server.drain_seconds = seconds
        self._server.should_exit = True
        self._thread.join(seconds + 5.0)
        self._thread = None

    def _bound(self) -> socket.socket:
        host, _, port = self._listen.rpartition(":")
        host = host.strip("[]")
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            # asyncio turns Nagle's algorithm off for sockets of protocol TCP only, and socket.create_server makes them
            # of protocol 0: each answer would wait 40 ms for the client's delayed acknowledgement.
            listener = socket.socket(family, kind, protocol)
        except (OSError, OverflowError, ValueError) as error:
            raise self._cannot_listen(error) from error
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            raise self._cannot_listen(error) from error
        return listener

    def _cannot_listen(self, error: Exception) -> Broken:
        return Broken(
            f"{self._name}: cannot listen on {self._listen}: {getattr(error, 'strerror', None) or error};"
            " free the address (`ss -ltnp` shows who holds it) or set another `listen`"
        )


class _Server(uvicorn.Server):
    """uvicorn's server, with eyes on its connections."""

    def __init__(self, config: uvicorn.Config, most_connections: int, limits: tuple[float, ...]) -> None:
        super().__init__(config)
        self.server_state = _State(most_connections, limits)
        self.listening = threading.Event()
        self.drain_seconds = 1.0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def on_tick(self, counter: int) -> bool:
        if counter % _SWEEP_TICKS == 0:
            now = monotonic()
            for connection in _connections(self.server_state):
                if now >= connection.deadline:
                    connection.transport.abort()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in _connections(self.server_state):
            if connection.phase != _ANSWER:
                connection.transport.abort()
        self.config.timeout_graceful_shutdown = self.drain_seconds  # type: ignore[assignment]  # it waits for floats
        await super().shutdown(sockets)
        for connection in _connections(self.server_state):
            connection.transport.abort()
        await asyncio.sleep(0)  # the loop tells the transports


class _State(ServerState):
    def __init__(self, most_connections: int, limits: tuple[float, ...]) -> None:
        super().__init__()
        self.most_connections = most_connections
        self.limits = limits


class _Connection(H11Protocol):
    """uvicorn's connection, which knows what it is at and until when. Bytes that trickle in move no deadline."""

    server_state: _State
    phase = _HEAD
    since = 0.0
    deadline = float("inf")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._enter(_HEAD)
        if len(self.connections) > self.server_state.most_connections:
            _make_room(self.server_state)

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            phase = _HEAD
        else:
            phase = _BODY if self.cycle.more_body else _ANSWER
        if phase != self.phase or self.cycle is not before:
            self._enter(phase)

    def on_response_complete(self) -> None:
        self._enter(_IDLE)
        before = self.cycle
        super().on_response_complete()
        if self.cycle is not before:  # one that was sent ahead of the answer
            self._enter(_BODY if self.cycle.more_body else _ANSWER)

    def pause_writing(self) -> None:
        self.deadline = monotonic() + self.server_state.limits[_BODY]
        super().pause_writing()

    def resume_writing(self) -> None:
        self.deadline = self.since + self.server_state.limits[self.phase]
        super().resume_writing()

    def _enter(self, phase: int) -> None:
        self.phase, self.since = phase, monotonic()
        self.deadline = self.since + self.server_state.limits[phase]


def _connections(state: ServerState) -> list[_Connection]:
    return [connection for connection in state.connections if isinstance(connection, _Connection)]


def _make_room(state: ServerState) -> None:
    """Gives up the connection that has waited longest for its client, one without a request first. If all others are
    being answered, the newest is told to come back."""
    connections = _connections(state)
    newest = max(connections, key=lambda each: each.since)
    waiting = [each for each in connections if each is not newest and each.phase != _ANSWER]
    if waiting:
        victim = min(waiting, key=lambda each: (each.phase != _IDLE, each.since))
        victim.transport.abort()
        state.connections.discard(victim)
    else:
        newest.transport.write(_BUSY)
        newest.transport.close()
