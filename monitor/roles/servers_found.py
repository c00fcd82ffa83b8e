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
from collectors.servers import SCAN_SECONDS, KnownServers
from monitor.core.serving import HostServers
from monitor.log.codec import SERVERS_SCHEMA, Decoder, servers_record
from monitor.log.protocol import Log
from monitor.roles.servers_now import OnDevice, ServersNow

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
        self._log, self._host, self._clock = log, host, clock
        self._now = ServersNow(servers, on_devices, procfs=procfs)
        self._stated = _last_stated(log, host)
        self._seen: HostServers | None = None

    def step(self) -> float:
        """Looks, and states what is new; returns the seconds to wait before the next look."""
        found = HostServers(host=self._host, servers=self._now.find())
        if found == self._seen and found != self._stated:
            self._log.append([servers_record(found)], self._clock.now())
            self._stated = found
            logger.info("model servers found", servers=[server.name for server in found.servers])
        self._seen = found
        return SCAN_SECONDS


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
