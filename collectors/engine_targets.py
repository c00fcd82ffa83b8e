"""Which model servers are asked for their counters, and where: those that are configured, and those found on this host.

In: the processes of model servers, who has memory on which GPU. Out: targets, one for each address; and one without an
address for each server that has GPUs and cannot be asked, since what it does there is nobody else's.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from collectors.own_host import is_own, network_of, own_names
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
_PAGELESS: Final = ("ollama", "tei")
_LLAMA_CPP_PYTHON: Final = ("llama_cpp.server", 8000)
_METRICS_PORT: Final = "--metrics-port"


class EngineTarget(msgspec.Struct, frozen=True, kw_only=True):
    """A server to ask. `model` is its name where the page does not tell it; `devices` are its GPUs, () if not known.

    `url` is "" for one that cannot be asked. `found`: nobody configured it, so nobody said that it has a page.
    """

    name: str
    url: str
    model: str = ""
    devices: tuple[str, ...] = ()
    found: bool = False


class _Found(NamedTuple):
    """The servers of this host: that are asked, that have no page, and that may have one, nobody knows where.

    These are those in another network, workers alone (Ray's), the second at one address, the operator's own programs.
    """

    asked: list[EngineTarget]
    silent: list[EngineTarget]
    unplaced: list[EngineTarget]


class EngineTargets:
    """Looked up anew with each call; a command line is read once for each process.

    `servers` None: only those that are configured. A configured one at the address of one that is found keeps what it
    says, and takes what it leaves open from the one that is found. Of the found servers that may be at any address
    (_Found.unplaced) it is the one on the further GPUs that it names.
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
        """All of them, by name. Servers of one name that cannot be asked are one, on the GPUs of all."""
        names = cache(partial(own_names, self._procfs))
        found = self._found()
        by_address = {_address(each.url, names): each for each in found.asked}
        claimed: set[str] = set()
        for each in self._configured:
            address = _address(each.url, names)
            beneath = by_address.get(address)
            claimed.update(set(each.devices) - set(beneath.devices if beneath else ()))
            by_address[address] = each if beneath is None else _laid_over(beneath, each)
        mute: dict[str, set[str]] = {}
        for each in found.silent:
            mute.setdefault(each.name, set()).update(each.devices)
        for each in found.unplaced:
            mute.setdefault(each.name, set()).update(set(each.devices) - claimed)
        unasked = [
            EngineTarget(name=name, url="", devices=tuple(sorted(devices)), found=True)
            for name, devices in mute.items()
            if devices
        ]
        return sorted([*by_address.values(), *unasked], key=lambda target: (target.name, target.url))

    def _found(self) -> _Found:
        processes = [] if self._servers is None else self._servers.servers()
        self._words = {key: self._words.get(key) or self._read(key) for key in map(_life, processes)}
        used: dict[int, set[str]] = {}
        for device, pid, _ in self._on_devices():
            used.setdefault(pid, set()).add(device)
        found, at = _Found([], [], []), set[str]()
        for name, is_here, own in self._groups(processes):
            url = self._url(name, own)
            devices = {device for process in own for device in used.get(process.pid, ())}
            target = self._target(name, url or "", own, tuple(sorted(devices)))
            if _kind(name, _PAGELESS) is not None:
                found.silent.append(target)
            elif url is None or url in at or not is_here:
                found.unplaced.append(target)
            else:
                found.asked.append(target)
                at.add(url)
        return found

    def _groups(self, processes: Sequence[Server]) -> list[tuple[str, bool, list[Server]]]:
        """(name, whether in this network, its processes): first those whose name tells their port by their own word.

        127.0.0.1 in another network (a container's) is another host: two containers may both have their port 8000.
        """
        ours = network_of(self._procfs)
        groups: dict[tuple[str, bool], list[Server]] = {}
        for process in sorted(processes, key=_age):
            theirs = ours if ours is None else network_of(self._procfs, process.pid)
            if ours is None or theirs is not None:  # else it has ended meanwhile
                groups.setdefault((process.name, theirs == ours), []).append(process)
        named = sorted(groups.items(), key=lambda item: (not item[0][0][-1:].isdigit(), item[0]))
        return [(name, is_here, own) for (name, is_here), own in named]

    def _target(self, name: str, url: str, own: Sequence[Server], devices: tuple[str, ...]) -> EngineTarget:
        models = [model for process in own for model in served_by(self._words[_life(process)]).models]
        return EngineTarget(name=name, url=url, model=models[0] if models else "", devices=devices, found=True)

    def _url(self, name: str, own: Sequence[Server]) -> str | None:
        """Where its page is; None for a server that has none (ollama), or of which it is not known.

        Nor is it known of workers alone (Ray's): the server that they work for has the port.
        """
        words = [self._words[_life(process)] for process in own]
        kind = _kind(name, _PAGES)
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


def _kind(name: str, kinds: Iterable[str]) -> str | None:
    return next((kind for kind in kinds if name == kind or name.startswith(f"{kind}-")), None)


def _laid_over(found: EngineTarget, told: EngineTarget) -> EngineTarget:
    return EngineTarget(
        name=told.name,
        url=told.url,
        model=told.model or found.model,
        devices=told.devices or found.devices,
    )


def _address(url: str, names: Callable[[], frozenset[str]]) -> tuple[str, int | None]:
    """Where it listens, however this host is written."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # no port, no address: it is asked all the same, and says what is wrong with it
        return url, None
    host = parts.hostname or ""
    return "" if is_own(host, names) else host, port


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
