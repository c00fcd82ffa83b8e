"""A small real HTTP server whose pages a test changes as it goes: what an exporter or a controller is to a meter."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = tuple[int, bytes]


@dataclass
class Pages:
    """`answers` by path: status and body, or a function that writes to the handler itself. Another path is 404."""

    url: str = ""
    answers: dict[str, Answer | Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)  # path, Authorization
    connections: int = 0

    def show(self, path: str, body: str | bytes, status: int = 200) -> None:
        """What the server answers under this path from now on."""
        self.answers[path] = (status, body.encode() if isinstance(body, str) else body)


@contextmanager
def served_pages(tls: "Callable[[ThreadingHTTPServer], None] | None" = None) -> Iterator[Pages]:
    """The server on a free port of 127.0.0.1; `tls` wraps its socket."""
    pages = Pages()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            pages.connections += 1
            super().setup()

        def do_GET(self) -> None:
            pages.asked.append((self.path, self.headers.get("Authorization", "")))
            answer = pages.answers.get(self.path, (404, b"no such page"))
            if callable(answer):
                answer(self)
                return
            status, body = answer
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """A test's output is its own."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *_arguments: object) -> None:
            """A client that hangs up early is what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        tls(server)
    scheme = "http" if tls is None else "https"
    pages.url = f"{scheme}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield pages
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
