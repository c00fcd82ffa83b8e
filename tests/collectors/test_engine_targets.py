"""Which servers are asked: found by their processes, with the port of their command line, and those configured."""

import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from proc_tree import ProcTree

from collectors.engine_targets import EngineTarget, EngineTargets
from collectors.own_host import network_of, own_names
from collectors.servers import KnownServers

FIB_TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.0.0.0/24 2 0 2
        +-- 10.0.0.0/29 2 0 2
           |-- 10.0.0.0
              /24 link UNICAST
           |-- 10.0.0.5
              /32 host LOCAL
           |-- 10.0.0.6
              /32 link UNICAST
        |-- 10.0.0.255
           /32 link BROADCAST
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.1
           /32 host LOCAL
"""
"""Of an interface with 10.0.0.5, and a route to 10.0.0.6."""
IF_INET6 = """\
00000000000000000000000000000001 01 80 10 80       lo
fe800000000000000000000000000001 02 40 20 80     eth0
"""
NAME = socket.gethostname()


@pytest.fixture
def tree(tmp_path: Path) -> ProcTree:
    return ProcTree(tmp_path)


def targets(
    tree: ProcTree,
    *configured: EngineTarget,
    discover: bool = True,
    on_devices: Callable[[], Sequence[tuple[str, int, float]]] = tuple,
) -> list[EngineTarget]:
    """Those there are now."""
    servers = KnownServers(procfs=tree.root) if discover else None
    return EngineTargets(configured, servers=servers, on_devices=on_devices, procfs=tree.root).now()


@pytest.mark.parametrize(
    ("line", "name", "url", "model"),
    [
        ("vllm serve qwen/q", "vllm", "http://127.0.0.1:8000/metrics", "qwen/q"),
        ("vllm serve qwen/q --port 8001", "vllm-8001", "http://127.0.0.1:8001/metrics", "qwen/q"),
        ("python3 -m sglang.launch_server --model-path m", "sglang", "http://127.0.0.1:30000/metrics", "m"),
        ("text-generation-launcher --model-id b --port=8080", "tgi-8080", "http://127.0.0.1:8080/metrics", "b"),
        ("text-generation-launcher --model-id b", "tgi", "http://127.0.0.1:3000/metrics", "b"),
        ("python -m llama_cpp.server --model phi", "llama.cpp", "http://127.0.0.1:8000/metrics", "phi"),
        ("python -m llama_cpp.server --port 81", "llama.cpp-81", "http://127.0.0.1:81/metrics", ""),
        ("llama-server -m x.gguf --alias phi", "llama.cpp", "http://127.0.0.1:8080/metrics", "phi"),
        ("trtllm-serve m --port 9000", "tensorrt-llm-9000", "http://127.0.0.1:9000/prometheus/metrics", "m"),
        ("tritonserver --http-port 9000", "triton-9000", "http://127.0.0.1:8002/metrics", ""),
        ("tritonserver --metrics-port=9002", "triton", "http://127.0.0.1:9002/metrics", ""),
        ("tritonserver --metrics-port=90020", "triton", "http://127.0.0.1:8002/metrics", ""),
        ("vllm serve q --port 80000", "vllm", "http://127.0.0.1:8000/metrics", "q"),
    ],
)
def test_a_server_is_asked_at_its_port(tree: ProcTree, line: str, name: str, url: str, model: str) -> None:
    """That of its command line, else the usual one of its kind."""
    tree.start(10, line)
    assert targets(tree) == [EngineTarget(name=name, url=url, model=model, found=True)]


def test_what_has_no_page_is_not_asked(tree: ProcTree) -> None:
    """Ollama shows no counters, and an editor is no server."""
    tree.start(10, "ollama serve")
    tree.start(11, "vim vllm.py")
    assert targets(tree, on_devices=lambda: [("GPU-a", 11, 1e9)]) == []


def test_what_has_no_page_is_known_by_its_gpus(tree: ProcTree) -> None:
    """Ollama's runner, an embedding server, a worker of Ray, and of two tritons the one that cannot have port 8002."""
    tree.start(10, "ollama serve")
    tree.start(11, "ollama runner", parent=10)
    tree.start(12, "text-embeddings-router --model-id e --port 80")
    tree.start(13, "ray::RayWorkerWrapper")
    tree.start(14, "tritonserver --http-port 9000")
    tree.start(15, "tritonserver --http-port 9001")
    gpus = [("GPU-b", 11, 1e9), ("GPU-a", 11, 1e9), *((f"GPU-{pid}", pid, 1e9) for pid in (12, 13, 14, 15))]
    assert [(each.name, each.url, each.devices) for each in targets(tree, on_devices=lambda: gpus)] == [
        ("ollama", "", ("GPU-a", "GPU-b")),
        ("tei-80", "", ("GPU-12",)),
        ("triton-9000", "http://127.0.0.1:8002/metrics", ("GPU-14",)),
        ("triton-9001", "", ("GPU-15",)),
        ("vllm", "", ("GPU-13",)),
    ]


def test_workers_alone_are_not_asked(tree: ProcTree) -> None:
    """Ray's and an orphan: which port their server has is not known, and 8000 may be anybody's."""
    tree.start(10, "ray::RayWorkerWrapper.execute_method")
    tree.start(11, "VLLM::Worker_TP1")
    assert targets(tree) == []
    tree.start(12, "vllm serve q")
    assert [(each.name, each.url) for each in targets(tree)] == [("vllm", "http://127.0.0.1:8000/metrics")]


def test_replicas_are_told_apart_and_workers_belong_to_theirs(tree: ProcTree) -> None:
    """Two servers with a worker each, and a Ray worker that nobody's child is: at no other's address."""
    tree.start(10, "vllm serve q --port 8000")
    tree.start(11, "VLLM::EngineCore", parent=10)
    tree.start(20, "vllm serve q --port 8001")
    tree.start(21, "VLLM::EngineCore", parent=20)
    tree.start(30, "ray::RayWorkerWrapper")
    gpus = [("GPU-a", 11, 1e9), ("GPU-b", 21, 1e9), ("GPU-b", 20, 1e6), ("GPU-c", 99, 1e9)]
    found = targets(tree, on_devices=lambda: gpus)
    assert [(each.name, each.devices) for each in found] == [("vllm-8000", ("GPU-a",)), ("vllm-8001", ("GPU-b",))]


def test_a_configured_server_takes_what_it_leaves_open_from_the_one_that_is_found(tree: ProcTree) -> None:
    """At the same address, however loopback is written; its own words stand."""
    tree.start(10, "vllm serve q --port 8000")
    told = EngineTarget(name="chat", url="http://localhost:8000/metrics")
    found = targets(tree, told, on_devices=lambda: [("GPU-a", 10, 1e9)])
    assert found == [EngineTarget(name="chat", url=told.url, model="q", devices=("GPU-a",))]
    fixed = EngineTarget(name="chat", url=told.url, model="m", devices=("GPU-z",))
    assert targets(tree, fixed, on_devices=lambda: [("GPU-a", 10, 1e9)]) == [fixed]


@pytest.mark.parametrize(
    "host",
    ["10.0.0.5", "127.0.1.1", "[::1]", "[::ffff:10.0.0.5]", "[FE80:0::1]", "0.0.0.0", "localhost", NAME, NAME.upper()],
)
def test_a_server_by_two_addresses_of_this_host_is_one(tree: ProcTree, host: str) -> None:
    """Loopback, an interface's own address and the host's name lead to the same."""
    addresses(tree)
    tree.start(10, "vllm serve q --port 8000")
    told = EngineTarget(name="chat", url=f"http://{host}:8000/metrics")
    assert [(each.name, each.model) for each in targets(tree, told)] == [("chat", "q")]
    other = EngineTarget(name="chat", url=f"http://{host}:8001/metrics")
    assert [each.name for each in targets(tree, other)] == ["chat", "vllm-8000"]


@pytest.mark.parametrize(
    "url", ["http://10.0.0.6:8000/metrics", f"http://no-{NAME}:8000", "http://h:80000", "http://[x"]
)
def test_another_hosts_address_is_another_server(tree: ProcTree, url: str) -> None:
    """And so is what is no address."""
    addresses(tree)
    tree.start(10, "vllm serve q --port 8000")
    assert [each.name for each in targets(tree, EngineTarget(name="chat", url=url))] == ["chat", "vllm-8000"]


def test_what_is_not_told_of_the_interfaces_is_not_known(tree: ProcTree) -> None:
    """Then the name alone is this host's."""
    assert own_names(tree.root) == {NAME.lower(), NAME.lower().partition(".")[0]}


def test_a_real_host_tells_its_addresses() -> None:
    """That of loopback at least, as any other."""
    assert "127.0.0.1" in own_names(Path("/proc"))


def addresses(tree: ProcTree) -> None:
    """What the kernel tells of this host's addresses."""
    folder = tree.root / "self" / "net"
    folder.mkdir(parents=True)
    (folder / "fib_trie").write_text(FIB_TRIE)
    (folder / "if_inet6").write_text(IF_INET6)


def containers(tree: ProcTree) -> Callable[[], Sequence[tuple[str, int, float]]]:
    """Two containers with port 8000 each, and one vLLM in the network that this process is in."""
    tree.put_into_network("host", "self")
    for pid, network in ((10, "a"), (20, "b"), (30, "host")):
        tree.start(pid, f"vllm serve q --port {8000 if network != 'host' else 8001}")
        tree.put_into_network(network, pid)
    return lambda: [("GPU-a", 10, 1e9), ("GPU-b", 20, 1e9), ("GPU-c", 30, 1e9)]


def test_a_server_in_another_network_is_not_asked_at_this_one_s_address(tree: ProcTree) -> None:
    """Two containers with the usual port are no one server on both GPUs; they are there, and tell nothing."""
    found = targets(tree, on_devices=containers(tree))
    assert [(each.name, each.url, each.devices) for each in found] == [
        ("vllm-8000", "", ("GPU-a", "GPU-b")),
        ("vllm-8001", "http://127.0.0.1:8001/metrics", ("GPU-c",)),
    ]


def test_a_server_in_another_network_is_the_one_that_is_configured_on_its_gpus(tree: ProcTree) -> None:
    """By an address that is published; the other container still tells nothing, and neither does ollama there."""
    on_devices = containers(tree)
    tree.start(40, "ollama serve")
    tree.put_into_network("a", 40)
    told = EngineTarget(name="chat", url="http://127.0.0.1:8000/metrics", devices=("GPU-a",))
    found = targets(tree, told, on_devices=lambda: [*on_devices(), ("GPU-a", 40, 1e9)])
    assert [(each.name, each.url, each.devices) for each in found] == [
        ("chat", told.url, ("GPU-a",)),
        ("ollama", "", ("GPU-a",)),
        ("vllm-8000", "", ("GPU-b",)),
        ("vllm-8001", "http://127.0.0.1:8001/metrics", ("GPU-c",)),
    ]


def test_a_configured_server_has_the_workers_on_its_gpus(tree: ProcTree) -> None:
    """Ray's on GPU-a are its own by its word; those on GPU-b nobody's, and GPU-c has the server of another name too."""
    tree.start(10, "vllm serve q --port 8000")
    tree.start(11, "ray::RayWorkerWrapper")
    tree.start(12, "ray::RayWorkerWrapper")
    tree.start(13, "lmdeploy serve q --port 81")
    gpus = [("GPU-c", 10, 1e9), ("GPU-a", 11, 1e9), ("GPU-b", 12, 1e9), ("GPU-c", 13, 1e9)]
    told = EngineTarget(name="chat", url="http://127.0.0.1:8000/metrics", devices=("GPU-a", "GPU-c"))
    assert [(each.name, each.devices) for each in targets(tree, told, on_devices=lambda: gpus)] == [
        ("chat", ("GPU-a", "GPU-c")),
        ("lmdeploy-81", ("GPU-c",)),
        ("vllm", ("GPU-b",)),
    ]


def test_a_process_that_has_ended_meanwhile_is_in_no_network(tree: ProcTree) -> None:
    """Nobody is asked for its sake."""
    tree.put_into_network("host", "self")
    tree.start(10, "vllm serve q")
    assert targets(tree) == []


def test_networks_are_told_apart_on_a_real_host() -> None:
    """This process and its parent are in one; a process that is gone is in none."""
    ours = network_of(Path("/proc"))
    assert ours is not None
    assert network_of(Path("/proc"), os.getpid()) == network_of(Path("/proc"), os.getppid()) == ours
    assert network_of(Path("/proc"), 2**22 + 1) is None


def test_discovery_can_be_switched_off(tree: ProcTree) -> None:
    """Then only what is configured is asked."""
    tree.start(10, "vllm serve q --port 8000")
    told = EngineTarget(name="a", url="http://10.0.0.6:8000/metrics")
    assert targets(tree, told, discover=False) == [told]
    assert [each.name for each in targets(tree, told)] == ["a", "vllm-8000"]
