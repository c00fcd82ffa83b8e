"""toxiproxy: a real network between a client and a server that a test makes slow, silent or broken.

proxy = toxiproxy.proxy(upstream_port)
proxy.add("latency", latency=500, jitter=100)  # also timeout, reset_peer, bandwidth, slicer, limit_data
proxy.down(); proxy.up(); proxy.clear()
"""

import http.client
import json
from pathlib import Path
from typing import Any, Literal

from servers.server_process import ServerProcess, accepts, cache_folder, program, server_port

VERSION = "v2.5.0"


class Toxiproxy(ServerProcess):
    """The server; its proxies listen on 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self.port = server_port()
        binary = program("toxiproxy", cache_folder() / f"toxiproxy-{VERSION}")
        command = [binary, "-host", "127.0.0.1", "-port", str(self.port)]
        super().__init__("toxiproxy", command, folder, lambda: accepts(self.port))

    def proxy(self, upstream: int | str, name: str = "") -> "Proxy":
        """A proxy to a port of 127.0.0.1 or to host:port, without any toxic."""
        port = server_port()
        name = name or f"proxy-{port}"
        target = upstream if isinstance(upstream, str) else f"127.0.0.1:{upstream}"
        self.ask("POST", "/proxies", {"name": name, "listen": f"127.0.0.1:{port}", "upstream": target, "enabled": True})
        return Proxy(self, name, port)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One request of its API; AssertionError if it refuses."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status < 300, f"toxiproxy: {method} {path}: {answer.status} {text.decode()}"
            return json.loads(text) if text else None
        finally:
            connection.close()


class Proxy:
    """One link. Clients connect to `port`."""

    def __init__(self, server: Toxiproxy, name: str, port: int) -> None:
        self._server, self.name, self.port = server, name, port
        self.address = f"127.0.0.1:{port}"

    def add(
        self,
        kind: str,
        stream: Literal["upstream", "downstream"] = "downstream",
        toxicity: float = 1.0,
        **attributes: int,
    ) -> str:
        """Adds a toxic (times in ms) and returns its name. downstream is what the server sends to the client."""
        name = f"{kind}_{stream}"
        toxic = {"name": name, "type": kind, "stream": stream, "toxicity": toxicity, "attributes": attributes}
        self._server.ask("POST", f"/proxies/{self.name}/toxics", toxic)
        return name

    def remove(self, toxic: str) -> None:
        """Removes one toxic."""
        self._server.ask("DELETE", f"/proxies/{self.name}/toxics/{toxic}")

    def clear(self) -> None:
        """Removes all toxics and puts the link up."""
        for toxic in self._server.ask("GET", f"/proxies/{self.name}/toxics"):
            self.remove(toxic["name"])
        self.up()

    def down(self) -> None:
        """Cuts the link: connections are closed and new ones refused."""
        self._server.ask("POST", f"/proxies/{self.name}", {"enabled": False})

    def up(self) -> None:
        """Lets connections through again."""
        self._server.ask("POST", f"/proxies/{self.name}", {"enabled": True})
