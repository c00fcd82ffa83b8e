"""A door in front of a server that answers by itself what a test asks for: statuses that a real server seldom gives."""

import http.client
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Answer = tuple[int, Mapping[str, str], bytes]


@dataclass
class Front:
    """`judge` sees each request's path and body; what it answers goes out, None lets the request through."""

    url: str = ""
    judge: Callable[[str, bytes], Answer | None] = field(default=lambda path, body: None)
    bodies: list[int] = field(default_factory=list)
    """The sizes of those let through."""


@contextmanager
def fronted(port: int, certificate: tuple[Path, Path] | None = None) -> Iterator[Front]:
    """The door on a free port, before the server at `port` of 127.0.0.1; by TLS with this certificate and key."""
    front = Front()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, text = front.judge(self.path, body) or self._through(body)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status != http.HTTPStatus.NO_CONTENT:
                self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_GET(self) -> None:
            self.do_POST()

        def do_PATCH(self) -> None:
            self.do_POST()

        def do_DELETE(self) -> None:
            self.do_POST()

        def _through(self, body: bytes) -> Answer:
            front.bodies.append(len(body))
            passed = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            try:
                connection.request(self.command, self.path, body, passed)
                answer = connection.getresponse()
                return answer.status, {}, answer.read()
            finally:
                connection.close()

        def log_message(self, *_arguments: object) -> None:
            """A test's output is its own."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_arguments: object) -> None:
            """A client that hangs up is what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    scheme = "http" if certificate is None else "https"
    front.url = f"{scheme}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield front
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
