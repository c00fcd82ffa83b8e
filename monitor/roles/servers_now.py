"""The model servers of this host as they are now: what they serve, on which GPUs. In: processes. Out: FoundServers."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from collectors.proc_table import command_line
from collectors.served_models import Served, served_by
from collectors.servers import KnownServers, Server
from monitor.core.serving import FoundServer

OnDevice = tuple[str, int, float]
"""(device, pid, bytes) of a process with memory on a GPU."""


class ServersNow:
    """Looks at the processes that `servers` knows; `on_devices` gives those on the GPUs. Not for several threads."""

    def __init__(
        self, servers: KnownServers, on_devices: Callable[[], Sequence[OnDevice]], *, procfs: Path = Path("/proc")
    ) -> None:
        self._servers, self._on_devices, self._procfs = servers, on_devices, procfs
        self._told: dict[tuple[int, float], Served] = {}

    def find(self) -> tuple[FoundServer, ...]:
        """All of them, in the order of their names."""
        return tuple(self._found(name, *place) for name, place in self._look().items())

    def residents(self) -> Mapping[str, tuple[str, ...]]:
        """Device -> the models whose servers are on it now, each by the first name that it answers to.

        `vllm serve Qwen/Qwen3-8B --served-model-name chat qwen` on GPU-a is {"GPU-a": ("chat",)}.
        """
        if not self._on_devices():
            return {}  # no look at all processes for nothing
        found: dict[str, set[str]] = {}
        for processes, devices in self._look().values():
            models = [model for process in processes for model in self._served(process).models[:1]]
            for device in devices:
                found.setdefault(device, set()).update(models[:1])
        return {device: tuple(sorted(models)) for device, models in found.items() if models}

    def _look(self) -> Mapping[str, tuple[Sequence[Server], tuple[str, ...]]]:
        """Of each server, by its name, the processes and the devices that they are on."""
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
        return {name: (by_name[name], tuple(sorted(devices.get(name, ())))) for name in sorted(by_name)}

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
