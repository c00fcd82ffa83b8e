"""The split against a real GPU's own meter: three teams on one model server, every coalition of them measured.

    python -m bench gpu_split            (needs an NVIDIA GPU and PyTorch; 7 minutes)
    python -m bench.gpu_split FOLDER     (the same, and what was recorded stays in FOLDER)
    python -m bench.gpu_split --score FOLDER EARLIER     (of a recorded one, learning from an earlier one too)

    daemon (NVML, /metrics, events) --.
    engine (bench/_gpu_engine.py) ----+--> recording, and joules by coalition --> Shapley's value --> error by method
    board's energy counter -----------'

The board first bare, then with the model loaded, then the coalitions, each through its part of the same passes. The
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
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench._gpu_plan import TEAMS, coalitions
from bench._gpu_score import WATTRIBUTE, score
from bench._gpu_shape import LLAMA_8B

TURNS = 2_600
"""Of a coalition: 20 to 28 s on an H200."""
BARE, LOADED, PAUSE, FINAL = 41.0, 42.0, 2.0, 22.0
SETTLE = 10.0
"""Clocks are still up so long after the model was loaded: not counted as loaded and idle."""
MODEL = "llama-8b"


@dataclass(slots=True)
class Board:
    """GPU 0, sampled in a thread: (unix seconds, watts, joules of its counter)."""

    rows: list[tuple[float, float, float]] = field(default_factory=list)
    counters: list[tuple[float, dict[str, int]]] = field(default_factory=list)
    port: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    def follow(self) -> None:
        """Ten times a second the board, once a second the engine."""
        import pynvml

        gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
        turn = 0
        while not self._over.wait(0.1 - time.time() % 0.1):
            joules = pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1e3
            self.rows.append((time.time(), pynvml.nvmlDeviceGetPowerUsage(gpu) / 1e3, joules))
            turn += 1
            if self.port and turn % 10 == 0:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/counters", timeout=5) as page:
                    self.counters.append((time.time(), json.load(page)))

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


def run() -> list[str]:
    """Plays it into a temporary folder; a line that says why not where there is no GPU or no PyTorch."""
    if find_spec("torch") is None:
        return ["not run: PyTorch is not installed (pip install torch)"]
    with tempfile.TemporaryDirectory() as folder:
        try:
            record(Path(folder))
        except OSError as error:
            return [f"not run: {error}"]
        return score(Path(folder), [])


def record(folder: Path) -> None:
    """Daemon, board and engine together; writes a recording, `coalitions.json` and what the commands said."""
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
    port = _free_port()
    (folder / "config.toml").write_text(_config(folder, port, uuid))
    begun = time.time()
    daemon = subprocess.Popen(
        [*WATTRIBUTE, "run", "--config", folder / "config.toml"],
        stderr=(folder / "daemon.log").open("w"),
    )
    time.sleep(BARE)
    words = ["--events", str(events), "--name", MODEL, "--device", uuid, "--port", str(port)]
    engine = subprocess.Popen(
        [sys.executable, "-m", "bench._gpu_engine", *words],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert engine.stdin is not None
    assert engine.stdout is not None
    if engine.stdout.readline() != "ready\n":
        raise OSError("the engine did not start: see above")
    board.port = port
    ready = time.time()
    time.sleep(LOADED)
    played: list[dict[str, Any]] = []
    for number, teams in enumerate(coalitions(TEAMS)):
        engine.stdin.write(json.dumps({"prefix": str(number), "teams": teams, "turns": TURNS, "seed": 1}) + "\n")
        engine.stdin.flush()
        played.append({"teams": teams, **json.loads(engine.stdout.readline())})
        time.sleep(PAUSE)
    time.sleep(FINAL)
    said = _commands(folder, f"{len(played) - 1}-{TEAMS[0]}-0-5")
    board.stop()
    daemon.terminate()
    daemon.wait(60)
    engine.stdin.close()
    engine.wait(60)
    idle = board.joules(ready + SETTLE, ready + LOADED - 1.0) / (LOADED - 1.0 - SETTLE)
    for each in played:
        each["energy_joules"] = board.joules(each["start"], each["end"])
    told = {
        "hardware": hardware, "host": _host(uuid), "begun": begun, "ready": ready, "idle_watts": idle,
        "bare_watts": board.joules(begun + 2.0, begun + BARE - 1.0) / (BARE - 3.0), "coalitions": played,
    }  # fmt: skip
    (folder / "coalitions.json").write_text(json.dumps(told, indent=1))
    (folder / "commands.txt").write_text(said)
    _write(folder, board, told, uuid)


def _host(uuid: str) -> str:
    return uuid[:12].lower()


def _free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


def _config(folder: Path, port: int, uuid: str) -> str:
    return f"""[data]
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
[[collect.engine.servers]]
url = "http://127.0.0.1:{port}/metrics"
name = "engine-0"
model = "{MODEL}"
devices = ["{uuid}"]
[[models]]
name = "{MODEL}"
parameters = {LLAMA_8B.parameters:.3e}
bytes_per_parameter = 2
kv_bytes_per_token = {LLAMA_8B.kv_bytes_per_token}
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


def _write(folder: Path, board: Board, told: dict[str, Any], uuid: str) -> None:
    (folder / "host.toml").write_text(f"""host = "{_host(uuid)}"

[[devices]]
id = "{uuid}"
kind = "gpu"
hardware = "{told["hardware"]}"
idle_watts = {told["idle_watts"]:.1f}

[[models]]
name = "{MODEL}"
parameters = {LLAMA_8B.parameters:.3e}
bytes_per_parameter = 2
kv_bytes_per_token = {LLAMA_8B.kv_bytes_per_token}
devices = ["{uuid}"]
""")
    lines = [f"{when:.3f},{uuid},{joules:.3f}" for when, _, joules in board.rows[::10]]
    (folder / "readings.csv").write_text("time,device,energy_joules_total\n" + "\n".join(lines) + "\n")
    head = "time,server,model,devices,running,waiting,steps_total,prefill_tokens_total,decode_tokens_total,kv_tokens"
    names = ("running", "waiting", "steps", "prefill_tokens", "decode_tokens", "kv_tokens")
    rows = [
        f"{when:.3f},engine-0,{MODEL},{uuid}," + ",".join(str(seen[name]) for name in names)
        for when, seen in board.counters
    ]
    (folder / "engine.csv").write_text("\n".join([head, *rows]) + "\n")


def main(words: list[str]) -> None:
    """`[--score] FOLDER [EARLIER ..]`: plays into FOLDER unless told not to; EARLIER are recordings to learn from."""
    folder, *earlier = [Path(word) for word in words if word != "--score"]
    if "--score" not in words:
        record(folder)
    print("\n".join(score(folder, earlier)))


if __name__ == "__main__":
    main(sys.argv[1:])
