"""What a tree of processes costs: processor time to the nanosecond, memory, and how even its samples are in time."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

_MEGABYTE = 1e6
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Of all processes together, in MB of 10^6 bytes; `pss` counts what several share once."""

    pss: float
    private: float
    processes: int


@dataclass(frozen=True, kw_only=True)
class Jitter:
    """`late` p99 and greatest seconds behind the steady grid of 1 s; `uneven` p99 of |time between samples - 1 s|."""

    samples: int
    late: float
    latest: float
    uneven: float
    mean_interval: float


def tree(root: int) -> list[int]:
    """The process and all its descendants, now."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (words := _stat(int(entry.name))):
            children.setdefault(int(words[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_seconds(root: int) -> float:
    """What the tree has used so far, ended threads and reaped children included.

    utime + stime of /proc/PID/stat go by 10 ms, a third of what a minute of the lean agent costs; a process's own CPU
    clock (clock_getcpuclockid(3)) counts the same in ns. Children that ended are only in cutime + cstime.
    """
    used = 0.0
    for pid in tree(root):
        if words := _stat(pid):
            used += time.clock_gettime((~pid << 3) | 2) + (int(words[13]) + int(words[14])) / _TICKS
    return used


def memory(root: int) -> Memory:
    """As the kernel's smaps_rollup has it."""
    pids = tree(root)
    sums = {"Pss": 0, "Private_Clean": 0, "Private_Dirty": 0}
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, _, rest = line.partition(":")
            if name in sums:
                sums[name] += int(rest.split()[0]) * 1024
    private = sums["Private_Clean"] + sums["Private_Dirty"]
    return Memory(pss=sums["Pss"] / _MEGABYTE, private=private / _MEGABYTE, processes=len(pids))


def jitter(series: Sequence[Sequence[float]]) -> Jitter | None:
    """Of the moments at which each meter sampled, in one series per meter; None where there are too few to say.

    A series' grid has a period of 1 s exactly and begins so that its earliest sample is on time: lateness includes what
    the read itself took longer than the fastest did. 0.01, 1.01, 2.03 and 3.01 s: latest 0.02 s.
    """
    late, intervals = [], []
    for moments in series:
        times = np.array(moments)
        if len(times) < 5:
            continue
        offsets = times - np.round(times - times[0])
        late += list(offsets - offsets.min())
        intervals += list(np.diff(times))
    if not late:
        return None
    return Jitter(
        samples=len(late),
        late=float(np.percentile(late, 99)),
        latest=max(late),
        uneven=float(np.percentile(np.abs(np.array(intervals) - 1.0), 99)),
        mean_interval=fmean(intervals),
    )


def _stat(pid: int) -> list[str]:
    """The words behind the name; empty for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
