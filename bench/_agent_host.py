"""A host for agents to meter: eight GPUs of the fake driver, two packages with their memory, counters that advance."""

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from tests.fake_nvml import FakeNvml
from tests.sysfs_tree import PowercapTree

GPUS = 8
_GPU_WATTS = 310.0
_ZONES = {  # zone: name, watts; no two alike, as meters that always agree are taken for one
    "intel-rapl:0": ("package-0", 121.0),
    "intel-rapl:0:0": ("dram", 17.0),
    "intel-rapl:1": ("package-1", 97.0),
    "intel-rapl:1:0": ("dram", 11.0),
}
_FIRST_MICROJOULES = (
    100_000_000_000  # twelve digits, and so it stays for half an hour: a value is replaced in one write
)
_TICK_SECONDS = 0.2
_POWERCAP = Path("/sys/class/powercap")


class Host:
    """Runs agents that see the fakes in place of this machine's own GPUs and counters."""

    def __init__(self, folder: Path) -> None:
        self.nvml = FakeNvml(folder, GPUS)
        for slot in range(GPUS):
            self.nvml.gpu(slot).draw(_GPU_WATTS + 7.0 * slot)
        self.tree = PowercapTree(folder)
        self.tree.sockets(0, 1)
        for place, (zone, (name, _watts)) in enumerate(_ZONES.items()):
            self.tree.add(zone, name, microjoules=_FIRST_MICROJOULES + place * 7_000_000_000, limit_watts=350)
        _link_as_the_kernel(self.tree)
        self._programs = _nvidia_smi(folder)
        self.hides_sysfs = os.geteuid() == 0 and _may_mount(_mounts(self.tree))
        self._stop = threading.Event()
        self._counting = threading.Thread(target=self._count, daemon=True)
        self._counting.start()

    def start(self, command: Sequence[str], folder: Path, *, says: Path) -> subprocess.Popen[bytes]:
        """The agent in a mount namespace of its own, in which /sys/class/powercap is the tree; `says` takes its output.

        It leads a process group of its own, as peers leave children behind. Without root it sees the true /sys.
        """
        path = f"{self._programs}:{os.environ['PATH']}"
        environment = self.nvml.environ() | {"HOME": str(folder), "PATH": path}
        with says.open("wb") as output:
            return subprocess.Popen(
                [*(_mounts(self.tree) if self.hides_sysfs else ()), *command],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def close(self) -> None:
        """Nothing advances any more."""
        self._stop.set()
        self._counting.join()
        self.nvml.close()

    def _count(self) -> None:
        """A counter's file is rewritten in one write of the same length: no reader sees half of it."""
        files = {zone: os.open(self.tree.folder(zone) / "energy_uj", os.O_WRONLY) for zone in _ZONES}
        values = {zone: int((self.tree.folder(zone) / "energy_uj").read_text()) for zone in _ZONES}
        while not self._stop.wait(_TICK_SECONDS):
            for zone, (_name, watts) in _ZONES.items():
                values[zone] += round(watts * 1e6 * _TICK_SECONDS)
                os.pwrite(files[zone], b"%d\n" % values[zone], 0)
        for file in files.values():
            os.close(file)


def _link_as_the_kernel(tree: PowercapTree) -> None:
    """The control type holds the zones and the zones their parts, for those who walk down from there."""
    (tree.folder("intel-rapl") / "subsystem").symlink_to("..")
    for zone in _ZONES:
        (tree.folder(zone.rpartition(":")[0]) / zone).symlink_to(Path("..") / zone)


def _nvidia_smi(folder: Path) -> Path:
    """A folder with a program of that name: CodeCarbon looks for GPUs only where it can be run."""
    programs = folder / "bin"
    programs.mkdir()
    (programs / "nvidia-smi").write_text("#!/bin/sh\n")
    (programs / "nvidia-smi").chmod(0o755)
    return programs


def _mounts(tree: PowercapTree) -> list[str]:
    """What goes before a command, so that it sees the tree; it replaces itself by the command."""
    source, target = tree.folder(""), _POWERCAP
    if not target.exists():  # a machine without the driver: nothing can be made in /sys, only hidden
        source, target = source.parent, target.parent
    script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, "sh", str(source), str(target)]


def _may_mount(mounts: Sequence[str]) -> bool:
    """Whether this machine lets root have a mount namespace (containers often do not)."""
    try:
        subprocess.run([*mounts, sys.executable, "-c", ""], check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return False
    return True
