"""A <procfs> of real files with processes that a test starts, works and ends; times in whole hundredths of a second."""

import shutil
from pathlib import Path

from collectors.cpu_time import ticks_per_second


class ProcTree:
    """Two processors. What a process works, the host has worked too."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._host_ticks = 0
        self._processes: dict[int, tuple[int, str, float, int]] = {}
        self.work(0.0)

    def start(self, pid: int, words: str, *, parent: int = 1, create_time: float = 100.0) -> None:
        """A process with this command line, its words parted by spaces."""
        folder = self.root / str(pid)
        folder.mkdir()
        (folder / "cmdline").write_bytes(words.replace(" ", "\0").encode() + b"\0" * bool(words))
        self._processes[pid] = (parent, words.partition(" ")[0].rpartition("/")[2][:15], create_time, 0)
        self._write(pid)

    def work(self, busy_seconds: float, pid: int | None = None) -> None:
        """So much more processor time, of a process or of the host alone."""
        ticks = round(busy_seconds * ticks_per_second())
        self._host_ticks += ticks
        (self.root / "stat").write_text(f"cpu  {self._host_ticks} 0 0 999 0 0 0 0 0 0\ncpu0 0\ncpu1 0\nbtime 1\n")
        if pid is not None:
            parent, name, create_time, own = self._processes[pid]
            self._processes[pid] = (parent, name, create_time, own + ticks)
            self._write(pid)

    def put_into_network(self, name: str, process: int | str) -> None:
        """The process, or "self", is in this network: its net/dev is the file that all have who are in it."""
        file = self.root / f"network {name}"
        file.touch()
        folder = self.root / str(process) / "net"
        folder.mkdir(parents=True)
        (folder / "dev").hardlink_to(file)

    def end(self, pid: int) -> None:
        """The process is gone."""
        shutil.rmtree(self.root / str(pid))
        del self._processes[pid]

    def _write(self, pid: int) -> None:
        parent, name, create_time, ticks = self._processes[pid]
        start = round(create_time * ticks_per_second())
        # proc(5): pid (comm) state ppid .. utime is the 14th, stime the 15th, starttime the 22nd.
        text = f"{pid} ({name}) S {parent} 0 0 0 0 0 0 0 0 0 {ticks} 0 0 0 20 0 1 0 {start} 0 0\n"
        (self.root / str(pid) / "stat").write_text(text)
