"""Role collect: the model servers found on this host, as a fact, so that requests find their host and devices.

/proc (KnownServers, command lines), NVML (who is on which GPU) --> ServersFound --> facts of the log
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import structlog

from collectors.clock import Clock
from collectors.errors import Rejected
from collectors.meter import Meter
from collectors.proc_table import command_line
from collectors.served_models import Served, served_by
from collectors.servers import SCAN_SECONDS, KnownServers, Server
from monitor.core.serving import FoundServer, HostServers
from monitor.log.codec import SERVERS_SCHEMA, Decoder, servers_record
from monitor.log.protocol import Log

OnDevice = tuple[str, int, float]
"""(device, pid, bytes) of a process with memory on a GPU."""

logger = structlog.get_logger()


@runtime_checkable
class _TellsProcesses(Protocol):
    @property
    def processes(self) -> Sequence[OnDevice]: ...


class ServersFound:
    """States what is found when it changed and was found so twice: a server that starts up is not yet itself.

    `on_devices` gives the processes on the GPUs. `step` is for a Loop; raises LogUnavailable.
    """

    def __init__(
        self,
        log: Log,
        servers: KnownServers,
        on_devices: Callable[[], Sequence[OnDevice]],
        *,
        host: str,
        clock: Clock,
        procfs: Path = Path("/proc"),
    ) -> None:
        self._log, self._servers, self._on_devices = log, servers, on_devices
        self._host, self._clock, self._procfs = host, clock, procfs
        self._told: dict[tuple[int, float], Served] = {}
        self._stated = _last_stated(log, host)
        self._seen: HostServers | None = None

    def step(self) -> float:
        """Looks, and states what is new; returns the seconds to wait before the next look."""
        found = HostServers(host=self._host, servers=self._find())
        if found == self._seen and found != self._stated:
            self._log.append([servers_record(found)], self._clock.now())
            self._stated = found
            logger.info("model servers found", servers=[server.name for server in found.servers])
        self._seen = found
        return SCAN_SECONDS

    def _find(self) -> tuple[FoundServer, ...]:
        processes = self._servers.servers()
        by_name: dict[str, list[Server]] = {}
        for process in processes:
            by_name.setdefault(process.name, []).append(process)
        devices: dict[str, set[str]] = {}
        names = {process.pid: process.name for process in processes}
        for device, pid, _ in self._on_devices():
            if pid in names:
                devices.setdefault(names[pid], set()).add(device)
        self._told = {key: told for key, told in self._told.items() if key[0] in names}
        return tuple(self._found(name, by_name[name], tuple(sorted(devices.get(name, ())))) for name in sorted(by_name))

    def _found(self, name: str, processes: Sequence[Server], devices: tuple[str, ...]) -> FoundServer:
        told = [self._served(process) for process in processes]
        return FoundServer(
            name=name,
            models=tuple(sorted({model for each in told for model in each.models})),
            devices=devices,
            tensor_parallel_size=max(each.tensor_parallel_size for each in told),
        )

    def _served(self, process: Server) -> Served:
        """A process's command line is read once."""
        key = (process.pid, process.create_time)
        if key not in self._told:
            self._told[key] = served_by(command_line(self._procfs, process.pid))
        return self._told[key]


def on_devices_of(meters: Sequence[Meter]) -> Callable[[], Sequence[OnDevice]]:
    """Who has memory on which GPU, of the meters that can tell (NVML)."""
    telling = [meter for meter in meters if isinstance(meter, _TellsProcesses)]
    return lambda: [each for meter in telling for each in meter.processes]


def _last_stated(log: Log, host: str) -> HostServers:
    """What the last run stated; nothing at all where none did."""
    record = log.last("facts", host, SERVERS_SCHEMA)
    try:
        stated = None if record is None else Decoder().decode(record)
    except Rejected:  # an older or newer version's: stated again in this one's words
        stated = None
    return stated if isinstance(stated, HostServers) else HostServers(host=host, servers=())
