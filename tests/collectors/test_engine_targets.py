"""Which servers are asked: found by their processes, with the port of their command line, and those configured."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from proc_tree import ProcTree

from collectors.engine_targets import EngineTarget, EngineTargets
from collectors.servers import KnownServers


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
    assert targets(tree) == []


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


def test_discovery_can_be_switched_off(tree: ProcTree) -> None:
    """Then only what is configured is asked."""
    tree.start(10, "vllm serve q --port 8000")
    told = EngineTarget(name="a", url="http://10.0.0.5:8000/metrics")
    assert targets(tree, told, discover=False) == [told]
    assert [each.name for each in targets(tree, told)] == ["a", "vllm-8000"]
