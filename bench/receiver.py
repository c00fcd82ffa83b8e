"""Events per second over HTTP into the log, beside a bare starlette endpoint that only reads the body, in the same run.

The sender is another process; both servers run in this one.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collectors.clock import SystemClock
from collectors.http_server import HttpServer
from monitor.config.input_sections import Source
from monitor.config.sections import Config
from monitor.log.sqlite import SqliteLog
from monitor.roles.ingest_http import HttpIngest
from monitor.roles.placement import place_by_config

_ROUNDS = 3
_POSTS = {1: 150, 100: 40}  # events in a post: posts of a connection in a round
_CONNECTIONS = 8
_SENDER = """
import http.client, json, sys, threading, time
port, size, posts, connections = map(int, sys.argv[1:])
now = time.time()
def send(worker):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for post in range(posts):
        body = "\\n".join(json.dumps({"request_id": f"{worker}-{post}-{each}-{now}", "model": "llama", "team": "search",
            "start": now - 2, "first_token": now - 1.5, "end": now, "input_tokens": 312, "output_tokens": 190})
            for each in range(size))
        connection.request("POST", "/v1/events", body, {"content-type": "application/x-ndjson"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 202, answer.status
    connection.close()
threads = [threading.Thread(target=send, args=(each,)) for each in range(connections)]
begun = time.perf_counter()
[each.start() for each in threads]
[each.join() for each in threads]
print(size * posts * connections / (time.perf_counter() - begun))
"""


def run() -> list[str]:
    """A line for each number of events in a post."""
    with tempfile.TemporaryDirectory() as folder:
        log = SqliteLog(Path(folder) / "log.db")
        source = Source(name="bench", kind="http", listen="127.0.0.1:0")
        ingest = HttpIngest(log, Config(), [source], place_by_config(Config(), "host"), SystemClock())
        bare = HttpServer(_bare_app(), "127.0.0.1:0", name="bare")
        ingest.start()
        bare.start()
        try:
            return [_line(ingest.ports["bench"], bare.port, size, posts) for size, posts in _POSTS.items()]
        finally:
            bare.stop()
            ingest.stop()
            log.close()


def _line(port: int, bare_port: int, size: int, posts: int) -> str:
    ours, theirs = [], []
    for _ in range(_ROUNDS):
        ours.append(_rate(port, size, posts))
        theirs.append(_rate(bare_port, size, posts))
    ratio = median(one / other for one, other in zip(ours, theirs, strict=True))
    return (
        f"receiver: {size} events a post, {_CONNECTIONS} connections: {median(ours):,.0f} events/s decoded and on disk,"
        f" bare starlette {median(theirs):,.0f} events/s read and dropped, ratio {ratio:.2f}"
    )


def _rate(port: int, size: int, posts: int) -> float:
    sender = [sys.executable, "-c", _SENDER, str(port), str(size), str(posts), str(_CONNECTIONS)]
    return float(subprocess.run(sender, capture_output=True, text=True, check=True).stdout)


def _bare_app() -> Starlette:
    async def take(request: Request) -> Response:
        await request.body()
        return Response(b"{}", 202, media_type="application/json")

    return Starlette(routes=[Route("/v1/events", take, methods=["POST"])])


if __name__ == "__main__":
    print("\n".join(run()))
