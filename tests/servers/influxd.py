"""A real InfluxDB 2.x in a folder, set up with one organisation and a token that tests know."""

import http.client
import json
from pathlib import Path
from typing import Any

from servers.server_process import ServerProcess, cache_folder, program, server_port

from monitor.config.output_sections import InfluxDb

VERSION = "v2.9.1"
TOKEN, ORG = "a-token-of-the-tests", "house"


class InfluxServer(ServerProcess):
    """`settings` are those of a client that may do everything; its token stands in `token_file`."""

    api = "v2"

    def __init__(self, folder: Path) -> None:
        self.port = server_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.token_file = folder / "token"
        super().__init__(type(self).__name__, self._command(folder), folder, self._answers)

    def _command(self, folder: Path) -> list[str | Path]:
        paths = [f"--{name}-path={folder / name}" for name in ("engine", "bolt", "sqlite")]
        binary = program("influxd", cache_folder() / f"influxd-{VERSION}")
        return [binary, f"--http-bind-address=127.0.0.1:{self.port}", *paths, "--reporting-disabled"]

    def start(self, wait: bool = True) -> None:
        """Starts it; the first start makes the organisation and the token."""
        super().start(wait)
        if not self.token_file.exists():
            setup = {"username": "tests", "password": "tests-only", "org": ORG, "bucket": "first", "token": TOKEN}
            self.ask("POST", "/api/v2/setup", setup)
            self.token_file.write_text(TOKEN)

    def settings(self, bucket: str, **named: Any) -> InfluxDb:
        """How a client with all rights reaches this bucket and its siblings."""
        return InfluxDb(
            **{
                "url": self.url,
                "api": self.api,
                "org": ORG,
                "bucket": bucket,
                "token_file": self.token_file,
                "requests": True,
                **named,
            }
        )

    def ask(self, method: str, path: str, body: Any = None, token: str = TOKEN) -> Any:
        """One request of its API; AssertionError if it refuses."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            headers = {"Authorization": f"Token {token}", "Content-Type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status < 300, f"{self.name}: {method} {path}: {answer.status} {text.decode()}"
            return json.loads(text) if text else None
        finally:
            connection.close()

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
        try:
            connection.request("GET", "/ping")
            return connection.getresponse().status in (200, 204)
        except OSError:
            return False
        finally:
            connection.close()
