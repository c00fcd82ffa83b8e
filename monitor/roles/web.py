"""Role web on a live host: the API over the books of the data folder, read as any other process would.

the store (read-only) --> Query --> app --> HttpServer
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp

from collectors.clock import Clock
from collectors.http_server import HttpServer
from monitor.config.sections import Config
from monitor.query import Query
from monitor.roles.embedded import gains_of, owners_of
from monitor.roles.request_energy import keeps_requests
from monitor.selfmetrics import DaemonSnapshot
from monitor.store.open import open_store
from monitor.web.app import build_app


class WebRole:
    """Listens from `start` to `stop`; raises Broken where the address is taken."""

    def __init__(
        self,
        config: Config,
        store_path: Path,
        *,
        rejected: Callable[[], Mapping[str, int] | None],
        snapshot: Callable[[], DaemonSnapshot],
        clock: Clock,
    ) -> None:
        self._store = open_store(config, store_path, read_only=True)
        query = Query(
            self._store,
            rejected=rejected,
            owners=owners_of(config),
            keeps_requests=keeps_requests(config),
            gains=gains_of(config),
        )
        app: ASGIApp = build_app(query, clock=clock, daemon=snapshot)
        if is_loopback(config.web.listen):  # a web page must not reach it by a name of its own that leads here
            app = TrustedHostMiddleware(app, allowed_hosts=["localhost", "127.0.0.1", "[::1]"], www_redirect=False)
        self._server = HttpServer(app, config.web.listen, name="web")

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()
        self._store.close()


def is_loopback(listen: str) -> bool:
    """Whether only this host reaches the address."""
    return listen.startswith(("127.", "localhost:", "[::1]:"))
