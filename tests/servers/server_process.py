"""A server of the tests as a process of its own: started, stopped, killed, frozen and started again on the same files.

It ends with the thread that started it (PR_SET_PDEATHSIG), so also when pytest is killed: start it in a thread that
lives as long as the server is meant to.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PATIENCE_SECONDS = 90.0


def cache_folder() -> Path:
    """Where tests/services/fetch.sh puts the servers."""
    if named := os.environ.get("WATTRIBUTE_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wattribute"


class MissingServer(Exception):
    """The server is not on this machine; says which, and what makes it."""


def program(name: str, path: str | Path) -> Path:
    """The program's whole path; MissingServer where there is none."""
    if found := shutil.which(path):
        return Path(found)
    raise MissingServer(f"needs {name}: run `make services`")


def server_port() -> int:
    """A free port below those that the kernel gives to clients, so that it is still free after a restart."""
    for _ in range(1000):
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port between 15000 and 32000")


def accepts(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class ServerProcess:
    """`ready` is asked until it says yes; what the server writes goes to `output`, in the folder."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        folder: Path,
        ready: "Callable[[], bool]",
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.folder, self.output = name, folder, folder / f"{name}.log"
        self.command, self._ready = [str(part) for part in command], ready
        self._environ = dict(os.environ) | dict(environ or {})
        self.process: subprocess.Popen[bytes] | None = None
        self.began_at = 0
        """Where in `output` the running process began to write."""

    def start(self, wait: bool = True) -> None:
        """Starts it and returns once it is ready; without `wait` at once."""
        assert self.process is None, f"{self.name} runs already"
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.output.open("ab") as output:
            self.began_at = output.tell()
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self.command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                env=self._environ,
            )
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Returns once it is ready; AssertionError with its last words if it ended or never was."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if self.process is None or self.process.poll() is not None:
                raise AssertionError(f"{self.name} ended at its start:\n{self.last_words()}")
            if self._ready():
                return
            time.sleep(0.05)
        raise AssertionError(f"{self.name} was not ready in {PATIENCE_SECONDS:.0f} s:\n{self.last_words()}")

    def written(self) -> str:
        """What it has written since its last start."""
        with self.output.open("rb") as output:
            output.seek(self.began_at)
            return output.read().decode(errors="replace")

    def last_words(self) -> str:
        """The end of what it wrote."""
        return "\n".join(self.written().splitlines()[-20:])

    @property
    def pid(self) -> int:
        """The running process."""
        assert self.process is not None, f"{self.name} does not run"
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to it."""
        os.kill(self.pid, number)

    def freeze(self) -> None:
        """SIGSTOP: its sockets stay open and nobody answers."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, and returns once it is gone. Nothing if it does not run."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if it takes more than 20 s. Nothing if it does not run."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.process.wait()
        self.process = None

    def restart(self) -> None:
        """Stops and starts it, on the same files and ports."""
        self.stop()
        self.start()
