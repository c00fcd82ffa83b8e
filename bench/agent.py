"""What the collecting agent costs, beside CodeCarbon and Zeus on the same fakes in the same seconds.

Eight GPUs, two packages and their memory, once a second. Ours writes every reading to disk; the peers keep sums in
memory, so they are the easier task. NVML is a fake that answers at once: what a driver costs comes on top, for all.

    python -m bench agent          about 6 minutes, with both cores otherwise idle; root for the peers' package counters
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench._agent_cost import Jitter, Memory, cpu_seconds, jitter, memory
from bench._agent_host import GPUS, Host
from bench._agent_peers import PEERS, CannotInstall, python
from monitor.log.codec import Decoder, ReadingBatch
from monitor.log.sqlite import SqliteLog

SECONDS = 60.0
BUSY_SECONDS = 120.0  # jitter needs more samples for its 99th percentile
WARM_SECONDS = 15.0
_GOALS = {"CPU": 0.003, "memory": 60.0, "jitter": 0.020}  # of a core; MB; seconds
_CONFIG = """
roles = ["collect"]
[data]
directory = "{data}"
[host]
name = "bench"
[collect]
sysfs = "{sysfs}"
[metrics]
listen = "127.0.0.1:{port}"
"""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One agent over one stretch of time."""

    cpu_ratio: float
    memory: Memory
    jitter: Jitter | None


class Agent:
    """A running agent, and where its samples can be found."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.name, self.process, self._folder = name, process, folder

    @property
    def says(self) -> str:
        """What it has printed."""
        return (self._folder / "says").read_text(errors="replace").strip()

    @property
    def meters(self) -> str:
        """What a peer says that it meters; "" where it has not begun."""
        return next((line for line in self.says.splitlines() if line.startswith("meters ")), "")

    @property
    def gpus(self) -> int:
        """How many GPUs a peer says that it meters."""
        words = self.meters.split()
        return int(words[1]) if words else 0

    def samples(self, start: float, end: float) -> list[list[float]]:
        """When it sampled, in one list per meter; what is not yet stored is not there."""
        series = (
            _samples_of_ours(self._folder / "data") if self.name == "ours" else [_moments(self._folder / "moments")]
        )
        return [[moment for moment in moments if start <= moment < end] for moments in series]


def run() -> list[str]:
    """Ours alone, idle and beside a busy core, against the goals; then ours and the peers together, and the ratios."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-agent-")))
        host = Host(folder)
        stack.callback(host.close)
        lines = [_setting(host)]
        ours = stack.enter_context(_running("ours", host, folder, _our_command(host, folder)))
        time.sleep(WARM_SECONDS)
        lines += _alone(ours)
        try:
            interpreter = python()
        except CannotInstall as error:
            return [*lines, f"no peers beside it: {error}"]
        script = str(Path(__file__).with_name("_agent_peer.py"))
        peers = [
            stack.enter_context(
                _running(name, host, folder, [str(interpreter), script, name, str(folder / name / "moments")])
            )
            for name in PEERS
        ]
        time.sleep(WARM_SECONDS)
        lines += [_sight(peer) for peer in peers]
        seeing = [peer for peer in peers if peer.gpus == GPUS]
        return lines + (_together([ours, *seeing]) if seeing else [])


def _setting(host: Host) -> str:
    counters = "2 packages and 2 dram" if host.hides_sysfs else "2 packages and 2 dram (ours alone: no root)"
    return f"agent: {GPUS} fake GPUs, {counters}, 1 Hz; CPU in % of one core, memory in MB of the process tree"


def _sight(peer: Agent) -> str:
    """What it says that it meters; a comparison with one that does not see the GPUs would be none."""
    named = f"{peer.name} {PEERS[peer.name]}"
    if peer.gpus != GPUS:
        return f"{named} does not see the GPUs and is left out; it said: {peer.says[-500:]}"
    return f"{named} {peer.meters}"


def _our_command(host: Host, folder: Path) -> list[str]:
    config = folder / "config.toml"
    config.write_text(_CONFIG.format(data=folder / "ours" / "data", sysfs=host.tree.sysfs, port=_free_port()))
    return [str(Path(sys.executable).with_name("wattribute")), "run", "--config", str(config)]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@contextmanager
def _running(name: str, host: Host, folder: Path, command: list[str]) -> Iterator[Agent]:
    own = folder / name
    own.mkdir()
    process = host.start(command, own, says=own / "says")
    try:
        yield Agent(name, process, own)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10.0)
        with suppress(ProcessLookupError):  # Zeus leaves the processes that watch for wraps
            os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def _busy_core() -> Iterator[None]:
    """Another process that never rests."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _alone(ours: Agent) -> list[str]:
    idle = _measure([ours], SECONDS)["ours"]
    with _busy_core():
        busy = _measure([ours], BUSY_SECONDS)["ours"]
    lines = [_line("ours alone, idle machine", idle), _line("ours alone, beside a busy core", busy)]
    reached = {
        "CPU": max(idle.cpu_ratio, busy.cpu_ratio),
        "memory": max(idle.memory.pss, busy.memory.pss),
        "jitter": busy.jitter.late if busy.jitter else float("inf"),
    }
    verdicts = [f"{name} {'reached' if reached[name] <= goal else 'MISSED'}" for name, goal in _GOALS.items()]
    goals = f"<= {_GOALS['CPU']:.1%} of a core, <= {_GOALS['memory']:g} MB, late p99 <= {_GOALS['jitter'] * 1e3:g} ms"
    return [*lines, f"goals {goals}: {', '.join(verdicts)}"]


def _together(agents: list[Agent]) -> list[str]:
    lines = []
    for setting, seconds, busy in (("idle machine", SECONDS, False), ("busy core", SECONDS, True)):
        with ExitStack() as stack:
            if busy:
                stack.enter_context(_busy_core())
            costs = _measure(agents, seconds)
        lines += [_line(f"together, {setting}: {name}", cost) for name, cost in costs.items()]
        ours = costs["ours"]
        lines += [
            f"together, {setting}: {name} costs {cost.cpu_ratio / ours.cpu_ratio:.1f} x our CPU,"
            f" {cost.memory.pss / ours.memory.pss:.1f} x our memory"
            for name, cost in costs.items()
            if name != "ours"
        ]
    return lines


def _measure(agents: list[Agent], seconds: float) -> dict[str, Cost]:
    """All of them over the same seconds."""
    start, begun = time.time(), time.perf_counter()
    before = {agent.name: cpu_seconds(agent.process.pid) for agent in agents}
    time.sleep(seconds)
    used = {agent.name: cpu_seconds(agent.process.pid) - before[agent.name] for agent in agents}
    elapsed, end = time.perf_counter() - begun, time.time()
    for agent in agents:
        if agent.process.poll() is not None:
            raise RuntimeError(f"{agent.name} has ended by itself and said: {agent.says[-2000:]}")
    held = {agent.name: memory(agent.process.pid) for agent in agents}
    time.sleep(11.0)  # until the last batch is in the log
    return {
        agent.name: Cost(
            cpu_ratio=used[agent.name] / elapsed,
            memory=held[agent.name],
            jitter=jitter(agent.samples(start, end)),
        )
        for agent in agents
    }


def _line(what: str, cost: Cost) -> str:
    told = (
        f"{what}: CPU {cost.cpu_ratio:.2%} ({cost.cpu_ratio * 3600.0:.1f} s per hour), PSS {cost.memory.pss:.1f} MB"
        f" ({cost.memory.private:.1f} private) in {cost.memory.processes} processes"
    )
    if cost.jitter is None:
        return f"{told}, no samples"
    found = cost.jitter
    return (
        f"{told}, late p99 {found.late * 1e3:.1f} ms, most {found.latest * 1e3:.1f}, interval off by p99"
        f" {found.uneven * 1e3:.1f} ms, mean {found.mean_interval:.4f} s ({found.samples} samples)"
    )


def _samples_of_ours(data: Path) -> list[list[float]]:
    """The ends of the readings of one GPU and of one package: one meter's devices are read together."""
    log, decoder = SqliteLog(data / "log.db", read_only=True), Decoder()
    ends: dict[str, list[float]] = {}
    try:
        for record in log.read({}, 1_000_000):
            batch = decoder.decode(record)
            if isinstance(batch, ReadingBatch):
                for reading in batch.readings:
                    ends.setdefault(reading.device, []).append(reading.end)
    finally:
        log.close()
    return [ends[device] for device in sorted(ends) if device.endswith("-000000000000") or device == "cpu-0"]


def _moments(path: Path) -> list[float]:
    return list(array("d", path.read_bytes()))


if __name__ == "__main__":
    print("\n".join(run()))
