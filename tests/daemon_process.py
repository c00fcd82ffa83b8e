"""A real `wattribute run` in a folder of its own, its sockets on free ports, its powercap tree of real files."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

COMMAND = Path(sys.executable).with_name("wattribute")
PATIENCE_SECONDS = 30.0


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, is_there: Callable[[], Any]) -> Any:
    """What `is_there` gives once it gives something."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if found := is_there():
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} never came")


class DaemonProcess:
    """`config` is laid over the folders and ports; `environ` over the environment."""

    def __init__(self, folder: Path, config: str, environ: Mapping[str, str] | None = None) -> None:
        self.folder, self.data = folder, folder / "data"
        self.config, self.errors = folder / "config.toml", folder / "errors.log"
        self.metrics, self.web, self.receiver = free_port(), free_port(), free_port()
        self._environ = dict(os.environ) | dict(environ or {})
        self.process: subprocess.Popen[bytes] | None = None
        self.configure(config)

    def configure(self, text: str) -> None:
        """Writes the configuration; the daemon is not told."""
        places = f'[data]\ndirectory = "{self.data}"\n[host]\nname = "node-1"\nzone = "FR"\n'
        ports = f'[metrics]\nlisten = "127.0.0.1:{self.metrics}"\n[web]\nlisten = "127.0.0.1:{self.web}"\n'
        self.config.write_text(text.replace("RECEIVER", f"127.0.0.1:{self.receiver}") + places + ports)

    def start(self) -> "DaemonProcess":
        """Starts it, without waiting for anything."""
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(
                [COMMAND, "run", "--config", self.config], stderr=errors, env=self._environ, cwd=self.folder
            )
        return self

    def ready(self) -> "DaemonProcess":
        """Once /readyz says so."""
        wait_for("readiness", lambda: self.get(self.metrics, "/readyz")[0] == 200)
        return self

    def get(self, port: int, path: str, host: str = "127.0.0.1") -> tuple[int, bytes]:
        """Status and body; (0, b"") where nobody answers. `host` is what the request calls it."""
        return self._ask("GET", port, path, None, host)

    def post(self, body: Any) -> tuple[int, bytes]:
        """Posts events to the receiver."""
        return self._ask("POST", self.receiver, "/v1/events", json.dumps(body))

    def _ask(self, method: str, port: int, path: str, body: str | None, host: str = "127.0.0.1") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json", "Host": host})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except OSError:
            return 0, b""
        finally:
            connection.close()

    def status(self) -> dict[str, Any]:
        """The daemon's own picture of itself."""
        found: dict[str, Any] = json.loads(self.get(self.metrics, "/status")[1] or b"{}")
        return found

    def said(self, text: str) -> bool:
        """Whether its log has that text."""
        return text in self.errors.read_text()

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code."""
        self.send(number)
        return self.wait()

    def wait(self) -> int:
        """Its exit code once it has ended."""
        assert self.process is not None
        return self.process.wait(timeout=PATIENCE_SECONDS)

    def __enter__(self) -> "DaemonProcess":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(timeout=PATIENCE_SECONDS)
