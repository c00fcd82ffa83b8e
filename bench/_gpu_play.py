"""Plays the coalitions of three teams on model servers of one GPU, with the daemon beside them: a recording of it.

    daemon (NVML, /metrics, events) ---.
    servers (bench/_gpu_engine.py) ----+--> recording, and joules by coalition --> Shapley's value --> error by method
    board's energy counter ------------'

The board first bare, then with the models loaded, then the coalitions, each through its part of the same passes. The
joules of a coalition are the counter's while it plays.
"""

import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench._gpu_plan import TEAMS, coalitions
from bench._gpu_score import WATTRIBUTE, score
from bench._gpu_shape import SHAPES, Shape

BARE, LOADED, PAUSE, FINAL = 41.0, 42.0, 2.0, 22.0
SETTLE = 10.0
"""Clocks are still up so long after the models were loaded: not counted as loaded and idle."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A model server: which of SHAPES it serves, to which teams, and how many turns it plays of a coalition."""

    model: str
    teams: tuple[str, ...]
    turns: int

    @property
    def shape(self) -> Shape:
        """What its passes cost."""
        return SHAPES[self.model]


@dataclass(kw_only=True, slots=True)
class _Playing:
    """A server's process and where its pages are."""

    server: Server
    process: subprocess.Popen[str]
    port: int

    def begin(self, prefix: str, teams: list[str]) -> None:
        """It plays these teams' passes; `ended` waits for it."""
        assert self.process.stdin is not None
        asked = {"prefix": prefix, "teams": teams, "turns": self.server.turns, "seed": 1}
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()

    def said(self) -> str:
        """Its next line; an empty one where it has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def stop(self) -> None:
        """It ends with its orders."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)


@dataclass(slots=True)
class Board:
    """GPU 0, sampled in a thread: (unix seconds, watts, joules of its counter); servers' counters by model."""

    rows: list[tuple[float, float, float]] = field(default_factory=list)
    counters: list[tuple[float, str, dict[str, int]]] = field(default_factory=list)
    servers: tuple[_Playing, ...] = ()
    _over: threading.Event = field(default_factory=threading.Event)

    def follow(self) -> None:
        """Ten times a second the board, once a second the servers."""
        import pynvml

        gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
        turn = 0
        while not self._over.wait(0.1 - time.time() % 0.1):
            joules = pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1e3
            self.rows.append((time.time(), pynvml.nvmlDeviceGetPowerUsage(gpu) / 1e3, joules))
            turn += 1
            for playing in self.servers if turn % 10 == 0 else ():
                with urllib.request.urlopen(f"http://127.0.0.1:{playing.port}/counters", timeout=5) as page:
                    self.counters.append((time.time(), playing.server.model, json.load(page)))

    def stop(self) -> None:
        """The thread ends."""
        self._over.set()

    def joules(self, start: float, end: float) -> float:
        """The counter's difference, each end by a straight line between the samples around it."""
        return joules_at(self.rows, end) - joules_at(self.rows, start)


def joules_at(rows: list[tuple[float, float, float]], when: float) -> float:
    """The counter then. (0 s, 100 J), (2 s, 300 J): at 0.5 s it stood at 150 J."""
    after = next(place for place, row in enumerate(rows) if row[0] >= when)
    (early, _, low), (late, _, high) = rows[after - 1], rows[after]
    return low + (high - low) * (when - early) / (late - early)


def run(name: str, servers: Sequence[Server]) -> list[str]:
    """Plays it into a temporary folder; a line that says why not where there is no GPU or no PyTorch."""
    if find_spec("torch") is None:
        return ["not run: PyTorch is not installed (pip install torch)"]
    with tempfile.TemporaryDirectory() as folder:
        try:
            record(name, Path(folder), servers)
        except OSError as error:
            return [f"not run: {error}"]
        return score(Path(folder), [])


def command(name: str, servers: Sequence[Server], words: Sequence[str]) -> None:
    """`[--score] FOLDER [EARLIER ..]`: plays into FOLDER unless told not to; EARLIER are recordings to learn from."""
    folder, *earlier = [Path(word) for word in words if word != "--score"]
    if "--score" not in words:
        record(name, folder, servers)
    print("\n".join(score(folder, earlier)))


def record(name: str, folder: Path, servers: Sequence[Server]) -> None:
    """Daemon, board and servers together; writes a recording, `coalitions.json` and what the commands said.

    Whatever happens none of them is left running. Raises OSError where there is no GPU, or a server does not start.

    `name` is the recording's, for its host's name: a board that is played twice is two hosts.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise OSError(f"no NVIDIA GPU: {error}") from error
    gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
    uuid, hardware = pynvml.nvmlDeviceGetUUID(gpu), pynvml.nvmlDeviceGetName(gpu)
    folder.mkdir(parents=True, exist_ok=True)
    events = folder / "requests.jsonl"
    board = Board()
    threading.Thread(target=board.follow, daemon=True).start()
    ports = [_free_port() for _ in servers]
    (folder / "config.toml").write_text(_config(folder, ports, servers, uuid))
    begun = time.time()
    with ExitStack() as running:
        running.callback(board.stop)
        daemon = subprocess.Popen(
            [*WATTRIBUTE, "run", "--config", folder / "config.toml"],
            stderr=running.enter_context((folder / "daemon.log").open("w")),
        )
        running.callback(daemon.wait, 60)
        running.callback(daemon.terminate)
        time.sleep(BARE)
        playing: list[_Playing] = []
        for each in zip(servers, ports, strict=True):
            playing.append(_started(*each, events, uuid))
            running.callback(playing[-1].stop)
        if any(each.said() != "ready\n" for each in playing):
            raise OSError("a model server did not start: see above")
        board.servers = tuple(playing)
        ready = time.time()
        time.sleep(LOADED)
        played = []
        for number, teams in enumerate(coalitions(TEAMS)):
            played.append(_played(str(number), teams, playing))
            time.sleep(PAUSE)
        time.sleep(FINAL)
        said = _commands(folder, f"{len(played) - 1}-{TEAMS[0]}-0-5")
        board.stop()  # before its servers end
    idle = board.joules(ready + SETTLE, ready + LOADED - 1.0) / (LOADED - 1.0 - SETTLE)
    for told in played:
        told["energy_joules"] = board.joules(told["start"], told["end"])
    found = {
        "hardware": hardware, "host": _host(uuid, name), "begun": begun, "ready": ready, "idle_watts": idle,
        "bare_watts": board.joules(begun + 2.0, begun + BARE - 1.0) / (BARE - 3.0), "coalitions": played,
    }  # fmt: skip
    (folder / "coalitions.json").write_text(json.dumps(found, indent=1))
    (folder / "commands.txt").write_text(said)
    _write(folder, board, found, servers, uuid)


def _started(server: Server, port: int, events: Path, uuid: str) -> _Playing:
    words = ["--events", str(events), "--name", server.model, "--device", uuid, "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-m", "bench._gpu_engine", *words],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return _Playing(server=server, process=process, port=port)


def _played(prefix: str, teams: Sequence[str], servers: Sequence[_Playing]) -> dict[str, Any]:
    """All servers at once, from when the first began until the last was done."""
    asked = [(each, [team for team in teams if team in each.server.teams]) for each in servers]
    busy = [(each, own) for each, own in asked if own]
    for each, own in busy:
        each.begin(prefix, own)
    times = {each.server.model: json.loads(each.said()) for each, _ in busy}
    start, end = min(each["start"] for each in times.values()), max(each["end"] for each in times.values())
    return {"teams": list(teams), "start": start, "end": end, "servers": times}


def _host(uuid: str, name: str) -> str:
    return f"{uuid[:12].lower()}-{name}"


def _free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


def _config(folder: Path, ports: Sequence[int], servers: Sequence[Server], uuid: str) -> str:
    told = f"""[data]
directory = "{folder / "data"}"
[host]
name = "gpu-host"
zone = "FR"
[accounting]
horizon = "10s"
mark_interval = "1m"
[[sources]]
name = "engine"
kind = "file"
path = "{folder / "requests.jsonl"}"
[collect.processes]
servers = ["*bench._gpu_engine*"]
"""
    for server, port in zip(servers, ports, strict=True):
        told += f"""[[collect.engine.servers]]
url = "http://127.0.0.1:{port}/metrics"
name = "{server.model}"
model = "{server.model}"
devices = ["{uuid}"]
{_facts(server)}"""
    return told


def _facts(server: Server) -> str:
    return f"""[[models]]
name = "{server.model}"
parameters = {server.shape.parameters:.3e}
bytes_per_parameter = 2
kv_bytes_per_token = {server.shape.kv_bytes_per_token}
"""


def _commands(folder: Path, request: str) -> str:
    said = []
    for words in (
        ["doctor"], ["status"], ["report", "--from", "-15m", "--include-idle"], ["top", "--once"],
        ["explain", request], ["coefficients"],
    ):  # fmt: skip
        command = [*WATTRIBUTE, *words, "--config", str(folder / "config.toml")]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        said.append(f"$ wattribute {' '.join(words)}    (exit {answer.returncode})\n{answer.stdout}{answer.stderr}")
    return "\n".join(said)


def _write(folder: Path, board: Board, found: dict[str, Any], servers: Sequence[Server], uuid: str) -> None:
    (folder / "host.toml").write_text(
        f"""host = "{found["host"]}"

[[devices]]
id = "{uuid}"
kind = "gpu"
hardware = "{found["hardware"]}"
idle_watts = {found["idle_watts"]:.1f}
"""
        + "".join(f'\n{_facts(server)}devices = ["{uuid}"]\n' for server in servers)
    )
    lines = [f"{when:.3f},{uuid},{joules:.3f}" for when, _, joules in board.rows[::10]]
    (folder / "readings.csv").write_text("time,device,energy_joules_total\n" + "\n".join(lines) + "\n")
    head = "time,server,model,devices,running,waiting,steps_total,prefill_tokens_total,decode_tokens_total,kv_tokens"
    names = ("running", "waiting", "steps", "prefill_tokens", "decode_tokens", "kv_tokens")
    rows = [
        f"{when:.3f},{model},{model},{uuid}," + ",".join(str(seen[name]) for name in names)
        for when, model, seen in board.counters
    ]
    (folder / "engine.csv").write_text("\n".join([head, *rows]) + "\n")
