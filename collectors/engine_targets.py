"""Which model servers are asked for their counters, and where: those that are configured, and those found on this host.

In: the processes of model servers, who has memory on which GPU. Out: targets, one for each address.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from collectors.proc_table import command_line
from collectors.served_models import served_by
from collectors.servers import KnownServers, Server, is_port, names_itself

OnDevice = tuple[str, int, float]
"""(device, pid, bytes) of a process with memory on a GPU."""

_PAGES: Final[Mapping[str, tuple[int, str]]] = {
    # server -> its port where the command line tells none, and the path of its page
    "vllm": (8000, "/metrics"),
    "sglang": (30000, "/metrics"),
    "tgi": (3000, "/metrics"),
    "llama.cpp": (8080, "/metrics"),  # llama-server; its Python twin has a port of its own
    "tensorrt-llm": (8000, "/prometheus/metrics"),  # its /metrics is JSON
    "triton": (8002, "/metrics"),  # a port of its own, never that of the requests
}
_LLAMA_CPP_PYTHON: Final = ("llama_cpp.server", 8000)
_METRICS_PORT: Final = "--metrics-port"
_LOCAL: Final = ("127.0.0.1", "localhost", "::1")


class EngineTarget(msgspec.Struct, frozen=True, kw_only=True):
    """A server to ask. `model` is its name where the page does not tell it; `devices` are its GPUs, () if not known.

    `found`: nobody configured it, so nobody said that it has a page.
    """

    name: str
    url: str
    model: str = ""
    devices: tuple[str, ...] = ()
    found: bool = False


class EngineTargets:
    """Looked up anew with each call; a command line is read once for each process.

    `servers` None: only those that are configured. A configured one at the address of one that is found keeps what it
    says, and takes what it leaves open from the one that is found.
    """

    def __init__(
        self,
        configured: Sequence[EngineTarget] = (),
        *,
        servers: KnownServers | None = None,
        on_devices: Callable[[], Sequence[OnDevice]] = tuple,
        procfs: Path = Path("/proc"),
    ) -> None:
        self._configured, self._servers = tuple(configured), servers
        self._on_devices, self._procfs = on_devices, procfs
        self._words: dict[tuple[int, float], Sequence[str]] = {}

    def now(self) -> list[EngineTarget]:
        """All of them, by name."""
        found = {_address(each.url): each for each in self._found()}
        for each in self._configured:
            beneath = found.get(_address(each.url))
            found[_address(each.url)] = each if beneath is None else _laid_over(beneath, each)
        return sorted(found.values(), key=lambda target: target.name)

    def _found(self) -> list[EngineTarget]:
        processes = [] if self._servers is None else self._servers.servers()
        self._words = {key: self._words.get(key) or self._read(key) for key in map(_life, processes)}
        used: dict[int, set[str]] = {}
        for device, pid, _ in self._on_devices():
            used.setdefault(pid, set()).add(device)
        by_name: dict[str, list[Server]] = {}
        for process in sorted(processes, key=_age):
            by_name.setdefault(process.name, []).append(process)
        # At an address that another server has by its own word, that is it.
        named = sorted(by_name.items(), key=lambda item: (not item[0][-1:].isdigit(), item[0]))
        targets: dict[str, EngineTarget] = {}
        for name, own in named:
            if (url := self._url(name, own)) is not None:
                devices = {device for process in own for device in used.get(process.pid, ())}
                targets.setdefault(url, self._target(name, url, own, tuple(sorted(devices))))
        return list(targets.values())

    def _target(self, name: str, url: str, own: Sequence[Server], devices: tuple[str, ...]) -> EngineTarget:
        models = [model for process in own for model in served_by(self._words[_life(process)]).models]
        return EngineTarget(name=name, url=url, model=models[0] if models else "", devices=devices, found=True)

    def _url(self, name: str, own: Sequence[Server]) -> str | None:
        """Where its page is; None for a server that has none (ollama), or of which it is not known.

        Nor is it known of workers alone (Ray's): the server that they work for has the port.
        """
        words = [self._words[_life(process)] for process in own]
        kind = next((kind for kind in _PAGES if name == kind or name.startswith(f"{kind}-")), None)
        if kind is None or all(names_itself(each) for each in words if each):
            return None
        default, path = _PAGES[kind]
        told = name.removeprefix(kind).removeprefix("-")
        if kind == "triton":
            told = next((port for each in words if (port := _option(each, _METRICS_PORT))), "")
        if any(_LLAMA_CPP_PYTHON[0] in each for each in words):
            default = _LLAMA_CPP_PYTHON[1]
        return f"http://127.0.0.1:{told if is_port(told) else default}{path}"

    def _read(self, key: tuple[int, float]) -> Sequence[str]:
        return command_line(self._procfs, key[0])


def _laid_over(found: EngineTarget, told: EngineTarget) -> EngineTarget:
    return EngineTarget(
        name=told.name,
        url=told.url,
        model=told.model or found.model,
        devices=told.devices or found.devices,
    )


def _address(url: str) -> tuple[str, int | None]:
    """Where it listens, however loopback is written."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return "" if host in _LOCAL else host, parts.port


def _life(process: Server) -> tuple[int, float]:
    return process.pid, process.create_time


def _age(process: Server) -> tuple[float, int]:
    return process.create_time, process.pid


def _option(words: Sequence[str], option: str) -> str:
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == option:
            return following
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return ""
