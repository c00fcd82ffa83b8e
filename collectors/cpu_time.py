"""The processors' own account of their time. In: <procfs>/stat. Out: seconds that they were busy, and how many run.

Guest time is inside user time already. Stolen time is not ours: another machine used the processor.
"""

import os
from pathlib import Path

import msgspec

from collectors.errors import RetryLater
from collectors.kept_file import KeptFile


class CpuTime(msgspec.Struct, frozen=True, kw_only=True):
    """`busy_seconds` since the machine started, over all processors; `threads` are those online, >= 1."""

    busy_seconds: float
    threads: int


class CpuTimeFile:
    """<procfs>/stat, kept open. Not thread-safe."""

    def __init__(self, procfs: Path) -> None:
        self._file = KeptFile(procfs / "stat")

    def read(self) -> CpuTime:
        """The account now; raises RetryLater where it cannot be read."""
        try:
            return cpu_time(self._file.read().decode("ascii", "replace"))
        except (OSError, ValueError) as error:
            raise RetryLater(f"{self._file.path} tells no processor time: {error}") from error

    def close(self) -> None:
        """Lets go of the file."""
        self._file.close()


def cpu_time(stat: str) -> CpuTime:
    """The busy time that the text tells; raises ValueError where it tells none.

    "cpu  100 20 30 900 50 5 5 7 60 0", 100 ticks to the second: user 100 (60 of it guests'), nice 20, system 30,
    irq 5 and softirq 5 are 1.6 s; idle, iowait and 7 stolen ticks are not busy.
    """
    lines = stat.splitlines()
    words = lines[0].split() if lines else []
    if len(words) < 8 or words[0] != "cpu":
        raise ValueError("its first line is no sum of all processors")
    user, nice, system, _idle, _iowait, irq, softirq = (int(word) for word in words[1:8])
    threads = sum(line.startswith("cpu") for line in lines) - 1
    return CpuTime(busy_seconds=(user + nice + system + irq + softirq) / ticks_per_second(), threads=max(1, threads))


def ticks_per_second() -> int:
    """The unit of all times in /proc; 100 on every common kernel."""
    return os.sysconf("SC_CLK_TCK")
