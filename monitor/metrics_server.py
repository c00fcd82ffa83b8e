"""The daemon's own small HTTP server: /metrics, /healthz, /readyz, /status. In: snapshots. Out: text and JSON.

Standard library alone, as a process that only collects must stay lean. A connection has five seconds altogether and
one question, and there are never more than a few at once, so that slow or idle clients cost the host nothing.
"""

import socket
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import msgspec
import structlog

from collectors.clock import monotonic
from collectors.errors import Broken
from monitor.selfmetrics import DaemonSnapshot

CONNECTION_SECONDS: Final = 5.0
CONNECTIONS: Final = 16
LOOP_ALIVE_SECONDS: Final = 30.0
"""A main loop that has not come round for so long hangs."""
_POLL_SECONDS: Final = 0.9

Answer = tuple[HTTPStatus, str, bytes]
"""Status, content type, body."""


class MetricsServer:
    """Serves what `snapshot` gives; it is called from several threads. `listen` is HOST:PORT, port 0 takes any."""

    def __init__(self, listen: str, snapshot: Callable[[], DaemonSnapshot]) -> None:
        self._listen = listen
        self._snapshot = snapshot
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """Where it listens, once started, with the port it got."""
        assert self._server is not None, "start() comes first"
        host, port = self._server.server_address[:2]
        return f"[{host!s}]:{port}" if ":" in str(host) else f"{host!s}:{port}"

    def start(self) -> None:
        """Listens; raises Broken where it cannot."""
        host, _, port = self._listen.rpartition(":")
        try:
            self._server = _Server(host.strip("[]"), int(port), self._snapshot)
        except OSError as error:
            raise Broken(
                f"[metrics] listen: cannot listen on {self._listen}: {error.strerror or error}; another process has"
                f" the port (`ss -ltnp 'sport = :{port}'` names it) or this host has not that address: stop it, or"
                " set another address"
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), name="metrics-server", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Ends within a second, whoever is connected; stopping twice, or before the start, does nothing."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server.drop_connections(0.0)
        self._server = self._thread = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, host: str, port: int, snapshot: Callable[[], DaemonSnapshot]) -> None:
        self.snapshot = snapshot
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._lock = threading.Lock()
        self._begun: dict[socket.socket, float] = {}
        super().__init__((host, port), _Handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is room; a connection beyond it is closed at once, unanswered."""
        with self._lock:
            if len(self._begun) >= CONNECTIONS:
                return False
            self._begun[request] = monotonic()
        return True

    def shutdown_request(self, request: Any) -> None:
        """Called for every connection at its end."""
        with self._lock:
            self._begun.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called a few times a second: a client that sends a letter now and then does not keep its place."""
        self.drop_connections(CONNECTION_SECONDS)

    def drop_connections(self, older_than_seconds: float) -> None:
        """Ends connections of that age; their threads then find nothing to read or write."""
        now = monotonic()
        with self._lock:
            for request, begun in self._begun.items():
                if now - begun >= older_than_seconds:
                    _hang_up(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news; what else goes wrong is our mistake."""
        if not isinstance(sys.exception(), OSError):
            structlog.get_logger().exception("a question to the metrics server has no answer")


def _hang_up(request: socket.socket) -> None:
    try:
        request.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it has gone by itself


class _Handler(BaseHTTPRequestHandler):
    """One question of one connection (HTTP/1.0: closed behind its answer)."""

    server: _Server
    timeout = CONNECTION_SECONDS
    server_version = "wattribute"
    sys_version = ""

    def do_GET(self) -> None:
        """An answer, or 404 with what there is."""
        self._send(*answer_to(self.path.partition("?")[0], self.server.snapshot))

    def do_HEAD(self) -> None:
        """The same without its body."""
        self.do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a scrape every few seconds is no event."""

    def _send(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def answer_to(path: str, snapshot: Callable[[], DaemonSnapshot]) -> Answer:
    """What is to be sent for a path."""
    if path == "/metrics":
        from monitor.metrics_text import CONTENT_TYPE, render

        return HTTPStatus.OK, CONTENT_TYPE, render(snapshot())
    if path == "/status":
        return HTTPStatus.OK, "application/json", msgspec.json.encode(snapshot())
    if path == "/healthz":
        return _verdict(_hanging(snapshot()))
    if path == "/readyz":
        return _verdict(_missing(snapshot()))
    return _text(HTTPStatus.NOT_FOUND, "there is nothing here; see /metrics, /healthz, /readyz, /status")


def _hanging(snapshot: DaemonSnapshot) -> str:
    if snapshot.loop_age_seconds < LOOP_ALIVE_SECONDS:
        return ""
    return f"the main loop has not come round for {snapshot.loop_age_seconds:.0f} s"


def _missing(snapshot: DaemonSnapshot) -> str:
    return "" if snapshot.ready else snapshot.reason or "no good sample has passed yet"


def _verdict(fault: str) -> Answer:
    return _text(HTTPStatus.SERVICE_UNAVAILABLE, fault) if fault else _text(HTTPStatus.OK, "ok")


def _text(status: HTTPStatus, text: str) -> Answer:
    return status, "text/plain; charset=utf-8", f"{text}\n".encode()
