"""Model servers and other processes on small /proc trees with seconds worked by hand, and on the real one."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from proc_tree import ProcTree
from sysfs_tree import HandClock

from collectors.errors import Broken
from collectors.meter import Measured
from collectors.proc_table import read_process
from collectors.processes import BusyProcess, ProcessMeter, diagnose
from collectors.readings import ActivityReading
from collectors.servers import KnownServers, find_servers, server_name


@pytest.fixture
def tree(tmp_path: Path) -> ProcTree:
    tree = ProcTree(tmp_path)
    tree.start(1, "init", create_time=0.0)
    return tree


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def opened(tree: ProcTree, clock: HandClock, *devices: str) -> ProcessMeter:
    meter = ProcessMeter(
        procfs=tree.root,
        cpu_devices=lambda: devices or ("cpu-0",),
        servers=KnownServers(procfs=tree.root, boot_seconds=clock.boot_seconds),
        clock=clock,
        boot_seconds=clock.boot_seconds,
    )
    meter.open()
    assert meter.read() == []
    return meter


def busy(readings: Sequence[Measured]) -> dict[tuple[str, str], float]:
    return {
        (reading.device, reading.consumer): round(reading.busy_seconds, 6)
        for reading in readings
        if isinstance(reading, ActivityReading)
    }


def test_busy_time_is_the_servers_and_others(tree: ProcTree, clock: HandClock) -> None:
    """10 s of 20: the server 6 s with its worker's 2 s, the rest 4 s is other; the interval is the meter's."""
    tree.start(10, "python3 -m vllm.entrypoints.openai.api_server --port 8000")
    tree.start(11, "VLLM::EngineCore", parent=10)
    tree.start(20, "stress -c 1")
    meter = opened(tree, clock)
    tree.work(4.0, 10)
    tree.work(2.0, 11)
    tree.work(3.5, 20)
    tree.work(0.5)
    clock.pass_seconds(10.0)
    readings = meter.read()
    assert busy(readings) == {("cpu-0", "other"): 4.0, ("cpu-0", "server:vllm-8000"): 6.0}
    assert {(reading.start, reading.end) for reading in readings} == {(1_000_000.0, 1_000_010.0)}


def test_several_sockets_have_even_parts(tree: ProcTree, clock: HandClock) -> None:
    """Which socket a thread ran on is not told: 3 s and 1 s over two."""
    tree.start(10, "/usr/bin/tritonserver --model-repository=/models")
    meter = opened(tree, clock, "cpu-0", "cpu-1")
    tree.work(3.0, 10)
    tree.work(1.0)
    clock.pass_seconds(10.0)
    assert busy(meter.read()) == {
        ("cpu-0", "other"): 0.5, ("cpu-0", "server:triton"): 1.5,
        ("cpu-1", "other"): 0.5, ("cpu-1", "server:triton"): 1.5,
    }  # fmt: skip


def test_pid_that_is_used_again_is_nobodys_past(tree: ProcTree, clock: HandClock) -> None:
    """The server with 50 s behind it ends, a shell gets its pid: all is other, nothing negative."""
    tree.start(10, "llama-server -m model.gguf --port 8080")
    tree.work(50.0, 10)
    meter = opened(tree, clock)
    tree.end(10)
    tree.start(10, "bash", create_time=505.0)
    tree.work(2.0, 10)
    clock.pass_seconds(10.0)
    assert busy(meter.read()) == {("cpu-0", "other"): 2.0}


def test_server_that_began_in_between_counts_from_its_beginning(tree: ProcTree, clock: HandClock) -> None:
    """Found by the look after 30 s: what it used since the last read is its own; one that is older has no past."""
    meter = opened(tree, clock)
    for _ in range(2):
        clock.pass_seconds(10.0)
        meter.read()
    tree.start(10, "sglang::scheduler", create_time=525.0)
    tree.start(11, "text-generation-launcher --port=3000", create_time=100.0)
    tree.work(4.0, 10)
    tree.work(1.0, 11)
    clock.pass_seconds(10.0)
    assert busy(meter.read()) == {
        ("cpu-0", "other"): 1.0,
        ("cpu-0", "server:sglang"): 4.0,
        ("cpu-0", "server:tgi-3000"): 0.0,
    }


def test_servers_never_exceed_the_host(tree: ProcTree, clock: HandClock) -> None:
    """The kernel's ticks disagree, host 4 s and servers 3 s + 2 s: scaled to 2.4 s and 1.6 s, other 0."""
    tree.start(10, "llama-server --port 1")
    tree.start(11, "llama-server --port 2")
    meter = opened(tree, clock)
    tree.work(3.0, 10)
    tree.work(2.0, 11)
    tree.work(-1.0)
    clock.pass_seconds(10.0)
    assert busy(meter.read()) == {
        ("cpu-0", "other"): 0.0, ("cpu-0", "server:llama.cpp-1"): 2.4, ("cpu-0", "server:llama.cpp-2"): 1.6,
    }  # fmt: skip


def test_long_or_unclear_time_is_missing_and_named(tree: ProcTree, clock: HandClock) -> None:
    """91 s without a read, then a host's time that goes back."""
    meter = opened(tree, clock)
    tree.work(50.0)
    clock.pass_seconds(91.0)
    assert meter.read() == []
    tree.work(-20.0)
    clock.pass_seconds(10.0)
    assert meter.read() == []
    assert meter.health().events == {("", "activity_gap"): 1, ("", "reset"): 1}


def test_a_set_clock_leaves_the_interval_its_length(tree: ProcTree, clock: HandClock) -> None:
    """An hour ahead: 10 s stay 10 s."""
    meter = opened(tree, clock)
    clock.pass_seconds(10.0)
    clock.step(3_600.0)
    assert {(reading.start, reading.end) for reading in meter.read()} == {(1_003_600.0, 1_003_610.0)}
    assert meter.health().events == {("", "clock_step"): 1}


def test_without_proc_somebody_must_look(tmp_path: Path) -> None:
    """Said at the start."""
    with pytest.raises(Broken, match="which processes use the CPU is not known"):
        ProcessMeter(procfs=tmp_path / "absent", cpu_devices=lambda: ()).open()


def test_top_consumers_are_the_busiest_that_are_no_servers(tree: ProcTree, clock: HandClock) -> None:
    """First since each began, then since the last call."""
    tree.start(10, "vllm serve model")
    tree.start(20, "backup --all")
    tree.start(30, "indexer")
    meter = opened(tree, clock)
    for pid, seconds in ((10, 9.0), (20, 5.0), (30, 1.0)):
        tree.work(seconds, pid)
    assert meter.top_consumers(1) == [BusyProcess(pid=20, name="backup", busy_seconds=5.0)]
    tree.work(2.0, 30)
    assert [(process.name, process.busy_seconds) for process in meter.top_consumers(9)] == [("indexer", 2.0)]


def test_the_doctor_names_servers_and_the_busiest_others(tree: ProcTree) -> None:
    """None at first, with where to name one's own; then each with its processes."""
    missing, _ = diagnose(procfs=tree.root)
    assert (missing.state, "[collect.processes]" in missing.mend) == ("missing", True)
    tree.start(10, "llama-server --port 8080")
    tree.start(11, "python3 mine.py", parent=1)
    tree.start(20, "backup", create_time=3.0)
    tree.work(7.0, 20)
    findings = diagnose(procfs=tree.root, patterns=("mine.py",))
    assert [(finding.subject, finding.what) for finding in findings] == [
        ("llama.cpp-8080", "a model server, processes: 1"),
        ("mine.py", "a model server, processes: 1"),
        ("other", "busiest since they began, of all others: backup 7 s"),
    ]


def test_hidden_processes_are_said(tree: ProcTree, clock: HandClock) -> None:
    """hidepid shows no process of root's, not even the first: all busy time would be other, so it is counted."""
    tree.end(1)
    assert opened(tree, clock).health().events == {("", "processes_hidden"): 1}
    (finding,) = diagnose(procfs=tree.root)
    assert (finding.state, "ProtectProc" in finding.mend) == ("warning", True)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("/opt/venv/bin/python3.11 /opt/venv/bin/vllm serve Qwen/Qwen3-8B --port 8001", "vllm-8001"),
        ("vllm serve Qwen/Qwen3-8B", "vllm"),
        ("python -W ignore -m vllm.entrypoints.openai.api_server --port=9000", "vllm-9000"),
        ("VLLM::Worker_TP3", "vllm"),
        ("ray::RayWorkerWrapper.execute_method", "vllm"),
        ("python3 -m sglang.launch_server --model-path x --port 30000", "sglang-30000"),
        ("text-generation-launcher --model-id x", "tgi"),
        ("/llama-server -m a.gguf --port 8080", "llama.cpp-8080"),
        ("/opt/tritonserver/bin/tritonserver --http-port 8100", "triton-8100"),
        ("python3 /usr/local/bin/trtllm-serve x --port 8000", "tensorrt-llm-8000"),
        ("/usr/bin/ollama runner --model x --port 41337", "ollama-41337"),
        ("vllm serve x --port 65535", "vllm-65535"),
        ("vllm serve x --port 65536", "vllm"),
        ("vllm serve x --port=0", "vllm"),
        ("vllm serve x --port " + "9" * 5_000, "vllm"),
        ("vim vllm.py", None),
        ("grep -r vllm serve", None),
        ("python3 my_vllm_client.py --port 8000", None),
        ("vllm bench latency", None),
        ("python3 -m vllm_tools", None),
        ("bash -c vllm serve x", None),
        ("", None),
    ],
)
def test_servers_are_known_by_the_program_they_run(words: str, name: str | None) -> None:
    """Not by a word somewhere in the command line."""
    assert server_name(words.split()) == name


@pytest.mark.parametrize(
    ("pattern", "name"),
    [("my_server.py", "my_server.py-7000"), ("*my_server*--gpu*", "my_server.py-7000"), ("other.py", None)],
)
def test_patterns_of_the_operator_look_at_the_whole_command_line(pattern: str, name: str | None) -> None:
    """The server is named after its program."""
    words = ["/usr/bin/python3", "/srv/my_server.py", "--gpu", "0", "--port", "7000"]
    assert server_name(words, [pattern]) == name


def test_children_belong_to_the_outermost_server_above_them(tree: ProcTree) -> None:
    """The launcher's port names its workers too."""
    tree.start(10, "text-generation-launcher --port 3000")
    tree.start(11, "text-generation-server serve x --port 29500", parent=10)
    tree.start(12, "nvcc kernel.cu", parent=11)
    tree.start(13, "nvcc kernel.cu")
    found = find_servers(procfs=tree.root)
    assert [(server.pid, server.name) for server in found] == [(10, "tgi-3000"), (11, "tgi-3000"), (12, "tgi-3000")]


def test_known_servers_look_again_after_30_s_or_for_a_new_pid(tree: ProcTree, clock: HandClock) -> None:
    """A pid that no look shows (another namespace) makes nobody look each time."""
    known = KnownServers(procfs=tree.root, patterns=("mine",), boot_seconds=clock.boot_seconds)
    tree.start(20, "mine")
    assert known.is_server(20)
    tree.start(21, "llama-server")
    assert not known.is_server(21)
    assert not known.is_server(21)
    clock.pass_seconds(30.0)
    assert known.is_server(21)
    tree.start(22, "llama-server --port 5")
    clock.pass_seconds(2.0)
    assert known.name_of(22) == "llama.cpp-5"
    tree.end(20)
    assert known.is_server(20)
    clock.pass_seconds(30.0)
    assert not known.is_server(20)


def test_name_with_brackets_and_spaces_is_read(tree: ProcTree) -> None:
    """The kernel writes a process's name as it is."""
    tree.start(10, "a")
    stat = tree.root / "10" / "stat"
    stat.write_text(stat.read_text().replace("(a)", "(a) S 1 (b)"))
    process = read_process(tree.root, 10)
    assert process is not None
    assert (process.name, process.parent, process.create_time) == ("a) S 1 (b", 1, 100.0)


@pytest.fixture
def real_server(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A shell that runs as `vllm serve --port 8123`, with a child that keeps a processor busy."""
    (tmp_path / "serve").write_text("(while :; do :; done) & wait\n")
    words = ["vllm", "serve", "--port", "8123"]
    process = subprocess.Popen(words, executable="/bin/sh", cwd=tmp_path, start_new_session=True)
    yield process
    os.killpg(process.pid, 9)
    process.wait()


def test_real_processes_of_this_host_are_found_and_timed(real_server: subprocess.Popen[bytes]) -> None:
    """The shell and its child are the server; its busy time is seen, and so is everybody else's."""
    until(lambda: sum(server.name == "vllm-8123" for server in find_servers()) == 2)
    assert real_server.pid in {server.pid for server in find_servers()}
    meter = ProcessMeter(cpu_devices=lambda: ("cpu",))
    meter.open()
    meter.read()
    seen: list[Measured] = []

    def server_is_busy() -> bool:
        seen.extend(meter.read())
        return sum(value for (_, who), value in busy(seen).items() if who == "server:vllm-8123") > 0.0

    until(server_is_busy)
    assert ("cpu", "other") in busy(seen)
    assert all(process.pid != real_server.pid for process in meter.top_consumers(1_000))
    meter.close()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20.0
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
