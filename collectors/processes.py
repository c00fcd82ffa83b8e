"""Who keeps the processors busy: each model server, and all others together. In: <procfs>. Out: ActivityReadings.

    <procfs>/stat                 busy time of the whole host         -> "other": what no server used, this daemon's too
    <procfs>/PID/stat of servers  busy time of their processes        -> "server:NAME"

Only servers' processes are read each time; all of them are looked at every 30 s to find the servers (servers.py).
A process's last moments before its end are in the host's time and in nobody's own: they are counted as other.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from collectors.clock import Clock, SystemClock, boot_seconds
from collectors.counter import HOLE_SECONDS
from collectors.cpu_time import CpuTimeFile
from collectors.device_track import STEP_SECONDS
from collectors.errors import Broken, RetryLater
from collectors.meter import Finding, Measured, MeterHealth
from collectors.proc_table import process_ids, read_process
from collectors.readings import OTHER_PROCESSES, ActivityReading, CounterMark, Device
from collectors.servers import KnownServers, Server, find_servers

SERVER: Final = "server:"
LONGEST_SECONDS: Final = 3.0 * HOLE_SECONDS
"""Busy seconds of a longer interval say nothing of when in it they fell; three late reads are still one interval."""

_Key = tuple[int, float]  # pid and create_time: a pid alone is used again


class BusyProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A process that is no model server's, and the processor time that it used."""

    pid: int
    name: str
    busy_seconds: float


class _Moment(msgspec.Struct, frozen=True, kw_only=True):
    at: float
    tick: float
    busy_seconds: float


class ProcessMeter:
    """A Meter without devices. `cpu_devices` gives the ids of those that its activity is on, evenly over all of them:

    which socket a thread ran on is not told. 6 s of servers over two sockets are 3 s on each.
    """

    name = "processes"

    def __init__(
        self,
        *,
        procfs: Path = Path("/proc"),
        cpu_devices: Callable[[], Sequence[str]],
        servers: KnownServers | None = None,
        interval_seconds: float = 10.0,
        clock: Clock | None = None,
        boot_seconds: Callable[[], float] = boot_seconds,
    ) -> None:
        self.interval_seconds = interval_seconds
        self._procfs, self._cpu_devices = procfs, cpu_devices
        self._clock, self._boot_seconds = clock or SystemClock(), boot_seconds
        self._servers = servers or KnownServers(procfs=procfs)
        self._file = CpuTimeFile(procfs)
        self._last: _Moment | None = None
        self._busy: dict[_Key, float] = {}
        self._foreign: dict[_Key, float] = {}
        self._events: dict[tuple[str, str], int] = {}

    @property
    def devices(self) -> Sequence[Device]:
        """None of its own."""
        return ()

    @property
    def marks(self) -> Sequence[CounterMark]:
        """None: activity is not carried over a restart."""
        return ()

    def resume(self, marks: Sequence[CounterMark]) -> None:
        """Nothing to resume."""

    def health(self) -> MeterHealth:
        """As of the last read; events are under the device ""."""
        return MeterHealth(events=dict(self._events))

    def open(self) -> None:
        """Raises Broken where /proc tells no processor time.

        Where processes of other users are hidden, servers are among the others: counted as "processes_hidden".
        """
        if are_hidden(self._procfs):
            self._count("processes_hidden")
        try:
            self._file.read()
        except RetryLater as error:
            raise Broken(f"{error}; which processes use the CPU is not known without it") from error

    def read(self) -> Sequence[Measured]:
        """What each consumer used since the last read, on each CPU device. Too long or unclear a time is missing."""
        servers = self._servers.servers()
        time = self._file.read()
        moment = _Moment(at=self._clock.now(), tick=self._boot_seconds(), busy_seconds=time.busy_seconds)
        last, self._last = self._last, moment
        used = self._used_by_servers(servers, since_tick=moment.tick if last is None else last.tick)
        if last is None or moment.tick <= last.tick:
            return []
        busy, elapsed = moment.busy_seconds - last.busy_seconds, moment.tick - last.tick
        if elapsed > max(LONGEST_SECONDS, 3.0 * self.interval_seconds):
            return self._missing("activity_gap")
        if busy < 0.0:
            return self._missing("reset")
        start = last.at
        if abs(moment.at - start - elapsed) > STEP_SECONDS:
            self._count("clock_step")
            start = moment.at - elapsed
        if not moment.at > start:
            return []
        return self._readings(_shares(busy, used), start, moment.at)

    def _used_by_servers(self, servers: Sequence[Server], *, since_tick: float) -> dict[str, float]:
        """Server -> busy seconds since the last read. A process that began since then counts from its beginning.

        One that was found late has no earlier figure to compare with: what it used before it was found stays other.
        """
        used: dict[str, float] = {}
        busy_now: dict[_Key, float] = {}
        for server in servers:
            process = read_process(self._procfs, server.pid)
            if process is None or process.create_time != server.create_time:
                continue  # ended; its pid may be another's by now
            key = (server.pid, server.create_time)
            began_since = process.create_time >= since_tick
            before = self._busy.get(key, 0.0 if began_since else process.busy_seconds)
            used[server.name] = used.get(server.name, 0.0) + max(0.0, process.busy_seconds - before)
            busy_now[key] = process.busy_seconds
        self._busy = busy_now
        return used

    def _readings(self, shares: dict[str, float], start: float, end: float) -> list[Measured]:
        devices = self._cpu_devices()
        return [
            ActivityReading(
                device=device, start=start, end=end, consumer=consumer, busy_seconds=busy_seconds / len(devices)
            )
            for device in devices
            for consumer, busy_seconds in shares.items()
        ]

    def top_consumers(self, count: int) -> list[BusyProcess]:
        """The busiest processes that are no model server's, busiest first. Reads every process: only when asked.

        Their time is that since the last call; in the first one, since each began.
        """
        servers = {(server.pid, server.create_time) for server in self._servers.servers()}
        found, busy_now = [], {}
        for pid in process_ids(self._procfs):
            process = read_process(self._procfs, pid)
            if process is None or (key := (pid, process.create_time)) in servers:
                continue
            busy_now[key] = process.busy_seconds
            used = process.busy_seconds - self._foreign.get(key, 0.0)
            if used > 0.0:
                found.append(BusyProcess(pid=pid, name=process.name, busy_seconds=used))
        self._foreign = busy_now
        return sorted(found, key=lambda process: (-process.busy_seconds, process.pid))[:count]

    def _missing(self, word: str) -> list[Measured]:
        self._count(word)
        return []

    def _count(self, word: str) -> None:
        self._events = self._events | {("", word): self._events.get(("", word), 0) + 1}

    def close(self) -> None:
        """Lets go of the file."""
        self._file.close()
        self._last = None
        self._busy = {}


def _shares(busy_seconds: float, used: dict[str, float]) -> dict[str, float]:
    """Consumer -> busy seconds, in sum the host's own. The kernel books both in ticks, so servers' may exceed it.

    Host 10 s, servers 4 s and 3 s: other 3 s. Host 10 s, servers 11 s: those are scaled to 10 s.
    """
    of_servers = sum(used.values())
    scale = min(1.0, busy_seconds / of_servers) if of_servers > 0.0 else 1.0
    shares = {f"{SERVER}{name}": seconds * scale for name, seconds in sorted(used.items())}
    return {OTHER_PROCESSES: max(0.0, busy_seconds - of_servers), **shares}


def are_hidden(procfs: Path) -> bool:
    """Whether /proc shows only this user's own processes (hidepid, or ProtectProc= of a unit): not even the first."""
    return read_process(procfs, 1) is None


def diagnose(*, procfs: Path = Path("/proc"), patterns: Sequence[str] = ()) -> list[Finding]:
    """What `wattribute doctor` says of the processes: a line per model server, and who else is busy."""
    if are_hidden(procfs):
        what = "processes of other users are hidden from this one: model servers cannot be told from the rest"
        mend = "ProtectProc=default in the unit, no hidepid on /proc, and the host's process ids in a container"
        return [Finding(area="processes", subject="processes", state="warning", what=what, mend=mend)]
    found = find_servers(procfs=procfs, patterns=patterns)
    processes = Counter(server.name for server in found)
    findings = [
        Finding(area="processes", subject=name, state="ok", what=f"a model server, processes: {count}")
        for name, count in sorted(processes.items())
    ] or [
        Finding(
            area="processes",
            subject="servers",
            state="missing",
            what="no model server runs on this host that is known by its program",
            mend='name one of your own by its command line: servers = ["my_server.py"] under [collect.processes]',
        )
    ]
    meter = ProcessMeter(procfs=procfs, cpu_devices=tuple, servers=KnownServers(procfs=procfs, patterns=patterns))
    busiest = ", ".join(f"{each.name} {each.busy_seconds:.0f} s" for each in meter.top_consumers(3))
    what = f"busiest since they began, of all others: {busiest or 'none'}"
    return [*findings, Finding(area="processes", subject="other", state="ok", what=what)]
