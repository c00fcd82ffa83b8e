"""Which processes of this host are model servers. In: command lines. Out: their names and pids, children included.

A server is known by the program it runs, never by a word somewhere in its command line: an editor with vllm.py open is
none. Patterns of the operator's own look at the whole command line instead.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Final

import msgspec

from collectors.clock import boot_seconds
from collectors.proc_table import ProcessTime, command_line, process_ids, read_process

SCAN_SECONDS: Final = 30.0
"""How often all processes are looked at."""
STRANGER_SECONDS: Final = 2.0
"""A pid that was not there at the last look may be a new server's: then it is looked again, no sooner than this."""

_PROGRAMS: Final[Mapping[str, tuple[str, str]]] = {
    # program -> (server, the first word that must follow; "" is any)
    "vllm": ("vllm", "serve"),
    "text-generation-launcher": ("tgi", ""),
    "text-generation-router": ("tgi", ""),
    "text-generation-server": ("tgi", ""),
    "text-embeddings-router": ("tei", ""),
    "llama-server": ("llama.cpp", ""),
    "tritonserver": ("triton", ""),
    "trtllm-serve": ("tensorrt-llm", ""),
    "ollama": ("ollama", ""),
    "ollama_llama_server": ("ollama", ""),
    "lmdeploy": ("lmdeploy", "serve"),
    "mlc_llm": ("mlc-llm", "serve"),
    "aphrodite": ("aphrodite", "run"),
}
_MODULES: Final[Mapping[str, str]] = {
    "vllm.entrypoints": "vllm",
    "sglang": "sglang",
    "llama_cpp.server": "llama.cpp",
    "text_generation_server": "tgi",
    "tensorrt_llm": "tensorrt-llm",
    "lmdeploy": "lmdeploy",
    "mlc_llm": "mlc-llm",
    "aphrodite": "aphrodite",
}
# Workers that name themselves; Ray's are no children of the server that they work for.
_TITLES: Final[Mapping[str, str]] = {"VLLM::": "vllm", "sglang::": "sglang", "ray::RayWorkerWrapper": "vllm"}
_LAST_PORT: Final = 65_535
_INTERPRETER: Final = re.compile(r"(?:python|pypy)[\d.]*|bash|sh|dash|env|tini")


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A process of a model server. `name` is the server's ("vllm-8000", the port where its command line tells it).

    `create_time` in seconds since the machine started: (pid, create_time) is the process, a pid alone is not.
    """

    pid: int
    name: str
    create_time: float


def server_name(words: Sequence[str], patterns: Sequence[str] = ()) -> str | None:
    """The name of the server that this command line starts, None for no server.

    A pattern ("my_server.py", "*engine*--gpu*") matches where fnmatch finds it anywhere in the line; the server is then
    named after its program. ["python3", "-m", "vllm.entrypoints.openai.api_server", "--port", "8001"] is "vllm-8001".
    """
    kind = _known_kind(words)
    if kind is None:
        line = " ".join(words)
        if not any(fnmatchcase(line, f"*{pattern}*") for pattern in patterns):
            return None
        kind = _program(words)[0] or "server"
    port = _port(words)
    return f"{kind}-{port}" if port else kind


def names_itself(words: Sequence[str]) -> bool:
    """Whether it is a worker that wrote a title over its command line, and so its server's options with it."""
    return bool(words) and words[0].startswith(tuple(_TITLES))


def _known_kind(words: Sequence[str]) -> str | None:
    if names_itself(words):
        return next(kind for beginning, kind in _TITLES.items() if words[0].startswith(beginning))
    program, module, following = _program(words)
    if module:
        return next((kind for name, kind in _MODULES.items() if f"{module}.".startswith(f"{name}.")), None)
    kind, needed = _PROGRAMS.get(program, ("", ""))
    return kind if kind and needed in {"", following} else None


def _program(words: Sequence[str]) -> tuple[str, str, str]:
    """(program, Python module if it is one, the word after it): past interpreters and their options."""
    rest = list(words)
    while rest:
        program = PurePosixPath(rest.pop(0)).name
        if not _INTERPRETER.fullmatch(program):
            return program, "", rest[0] if rest else ""
        while rest and rest[0].startswith("-"):
            option = rest.pop(0)
            if option == "-m" and rest:
                return rest[0], rest[0], rest[1] if len(rest) > 1 else ""
            if option == "-c":
                return program, "", ""  # what it starts is a process of its own, or this one soon
            del rest[: option in {"-W", "-X"}]
    return "", "", ""


def _port(words: Sequence[str]) -> str:
    """The port that it listens on, as its command line tells it; "" where it does not."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        told = following if word in {"--port", "--http-port"} else word.partition("=")[2] * word.startswith("--port=")
        if is_port(told):
            return told
    return ""


def is_port(word: str) -> bool:
    """Whether a server can listen there: 1 to 65535. A typo ("80000") is none, however many digits it has."""
    return word.isascii() and word.isdigit() and len(word) <= len(str(_LAST_PORT)) and 0 < int(word) <= _LAST_PORT


def find_servers(*, procfs: Path = Path("/proc"), patterns: Sequence[str] = ()) -> list[Server]:
    """Every process of a model server now, in order of pids. A child belongs to the outermost server above it."""
    return _servers(procfs, _read_all(procfs), patterns)


def _read_all(procfs: Path) -> dict[int, ProcessTime]:
    read = (read_process(procfs, pid) for pid in process_ids(procfs))
    return {process.pid: process for process in read if process is not None}


def _servers(procfs: Path, processes: Mapping[int, ProcessTime], patterns: Sequence[str]) -> list[Server]:
    own_names = {pid: server_name(command_line(procfs, pid), patterns) for pid in processes}
    found = []
    for pid, process in sorted(processes.items()):
        names = [name for ancestor in _lineage(pid, processes) if (name := own_names[ancestor]) is not None]
        if names:
            found.append(Server(pid=pid, name=names[-1], create_time=process.create_time))
    return found


def _lineage(pid: int, processes: Mapping[int, ProcessTime]) -> Iterable[int]:
    """The process and those above it, outermost last; a pid that was used again meanwhile makes no ring."""
    seen: set[int] = set()
    while pid in processes and pid not in seen:
        seen.add(pid)
        yield pid
        pid = processes[pid].parent


class KnownServers:
    """The host's model servers, looked up again every 30 s at most. Safe to be asked from any thread."""

    def __init__(
        self,
        *,
        procfs: Path = Path("/proc"),
        patterns: Sequence[str] = (),
        boot_seconds: Callable[[], float] = boot_seconds,
    ) -> None:
        self._procfs, self._patterns, self._boot_seconds = procfs, tuple(patterns), boot_seconds
        self._scanning = Lock()
        self._servers: dict[int, Server] = {}
        self._strangers: frozenset[int] = frozenset()
        self._scan_tick = float("-inf")

    def is_server(self, pid: int) -> bool:
        """Whether the process belongs to a model server; a look-up, and a scan where one is due."""
        return self.name_of(pid) is not None

    def name_of(self, pid: int) -> str | None:
        """The server that the process belongs to, None for none."""
        is_new = pid not in self._servers and pid not in self._strangers
        self._scan_after(STRANGER_SECONDS if is_new else SCAN_SECONDS)
        server = self._servers.get(pid)
        if server is None and is_new:
            self._strangers |= {pid}  # also one of another pid namespace, which no look will ever show
        return None if server is None else server.name

    def servers(self) -> list[Server]:
        """All of them, as of at most 30 s ago."""
        self._scan_after(SCAN_SECONDS)
        return list(self._servers.values())

    def _scan_after(self, seconds: float) -> None:
        """Looks again where the last look is older than that; whoever comes while another looks takes the old list."""
        if self._boot_seconds() - self._scan_tick < seconds or not self._scanning.acquire(blocking=self._never_looked):
            return
        try:
            if self._boot_seconds() - self._scan_tick >= seconds:
                processes = _read_all(self._procfs)
                servers = {server.pid: server for server in _servers(self._procfs, processes, self._patterns)}
                self._servers, self._strangers = servers, frozenset(processes.keys() - servers.keys())
                self._scan_tick = self._boot_seconds()
        finally:
            self._scanning.release()

    @property
    def _never_looked(self) -> bool:
        return self._scan_tick == float("-inf")
