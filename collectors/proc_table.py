"""The processes of a host, read from <procfs> itself. Out: what is asked of each process, and no more.

psutil reads the same files; it is not used because the host's /proc may be mounted elsewhere (psutil knows one, for the
whole process) and a read of one process costs a third.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from collectors.cpu_time import ticks_per_second


class ProcessTime(msgspec.Struct, frozen=True, kw_only=True):
    """One process. (pid, create_time) is its identity, as pids are used again.

    `create_time` is in seconds since the machine started, `busy_seconds` what its threads used since then, `name` the
    kernel's word for it (15 characters).
    """

    pid: int
    parent: int
    name: str
    create_time: float
    busy_seconds: float


def process_ids(procfs: Path) -> Iterator[int]:
    """All there are now, in no order; none where <procfs> cannot be read."""
    try:
        names = os.listdir(procfs)
    except OSError:
        return
    yield from (int(name) for name in names if name.isascii() and name.isdigit())


def read_process(procfs: Path, pid: int) -> ProcessTime | None:
    """The process as it is now; None where it is gone (or hidden, hidepid)."""
    try:
        with open(f"{procfs}/{pid}/stat", "rb", buffering=0) as file:
            text = file.read(4096)
    except OSError:
        return None
    # The name may hold spaces and brackets: it ends at the last one.
    start, end = text.find(b"("), text.rfind(b")")
    words = text[end + 2 :].split()
    if start < 0 or end < start or len(words) < 20:
        return None
    ticks = ticks_per_second()
    return ProcessTime(
        pid=pid,
        parent=int(words[1]),
        name=text[start + 1 : end].decode("utf-8", "replace"),
        create_time=int(words[19]) / ticks,
        busy_seconds=(int(words[11]) + int(words[12])) / ticks,
    )


def command_line(procfs: Path, pid: int) -> list[str]:
    """Its words; empty for the kernel's own processes and for those that are gone."""
    try:
        with open(f"{procfs}/{pid}/cmdline", "rb", buffering=0) as file:
            text = file.read(8192)
    except OSError:
        return []
    return text.decode("utf-8", "replace").rstrip("\0").split("\0") if text else []
