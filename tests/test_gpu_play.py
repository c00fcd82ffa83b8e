"""Playing coalitions on a GPU (bench/_gpu_play.py), with no GPU: what happens when it cannot go on."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import _gpu_play
from bench._gpu_play import Server


class Process:
    """A program that says nothing: a daemon, or a server that fails before it is ready."""

    started: list["Process"]

    def __init__(self, words: list[Any], **_pipes: Any) -> None:
        self.words, self.told, self.awaited = words, False, False
        self.stdin, self.stdout = io.StringIO(), io.StringIO("")
        self.started.append(self)

    def terminate(self) -> None:
        """It is told to end."""
        self.told = True

    def wait(self, _seconds: float) -> int:
        """It ends once it was told to, or has no orders left."""
        assert self.told or self.stdin.closed
        self.awaited = True
        return 1


def test_nothing_is_left_running_where_a_server_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon would go on metering, and the other server would keep its model on the board."""
    nvml = SimpleNamespace(
        NVMLError=RuntimeError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda _number: None,
        nvmlDeviceGetUUID=lambda _gpu: "GPU-1",
        nvmlDeviceGetName=lambda _gpu: "a board",
        nvmlDeviceGetTotalEnergyConsumption=lambda _gpu: 0,
        nvmlDeviceGetPowerUsage=lambda _gpu: 0,
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(Process, "started", [], raising=False)
    monkeypatch.setattr("subprocess.Popen", Process)
    monkeypatch.setattr(_gpu_play, "BARE", 0.0)
    servers = [Server(model=name, teams=(name,), turns=1) for name in ("llama-8b", "llama-3b")]
    with pytest.raises(OSError, match="did not start"):
        _gpu_play.record("test", tmp_path, servers)
    assert [each.awaited for each in Process.started] == [True, True, True]
