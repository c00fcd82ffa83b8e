"""The fake NVML of tests/fake_nvml/libnvidia_ml.c: compiled with `cc`, and scripted through a file that it maps.

with FakeNvml(folder, GPUS) as nvml:      environment: LD_LIBRARY_PATH and FAKE_NVML, for any program
    nvml.gpu(0).energy_mj = 1_500_000     what the next call answers, in whatever process
"""

import atexit
import ctypes
import functools
import mmap
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

SOURCE = Path(__file__).parent / "fake_nvml" / "libnvidia_ml.c"
LIBRARY = "libnvidia-ml.so.1"

NOT_SUPPORTED, NO_PERMISSION, DRIVER_NOT_LOADED, GPU_IS_LOST, LIB_RM_VERSION_MISMATCH, UNKNOWN = 3, 4, 9, 15, 18, 999

CALLS = [
    "init",
    "count",
    "handle",
    "uuid",
    "name",
    "pci",
    "fields",
    "energy",
    "power",
    "limit",
    "reasons",
    "mig",
    "c2c",
    "processes",
    "utilisation",
    "persistence",
    "instance",
    "gpm_support",
    "gpm_sample",
    "gpm_metrics",
]
FIELDS = [
    "energy",
    "average",
    "instant",
    "limit",
    "max_limit",
    "module_energy",
    "module_average",
    "module_limit",
    "memory_average",
]


class _Process(ctypes.Structure):
    _fields_ = (("pid", ctypes.c_uint32), ("unused", ctypes.c_uint32), ("memory", ctypes.c_uint64))


class _UtilisationSample(ctypes.Structure):
    _fields_ = (("pid", ctypes.c_uint32), ("sm", ctypes.c_uint32), ("at", ctypes.c_uint64))


class FakeGpu(ctypes.Structure):
    """`struct device` of the C file."""

    _fields_ = (
        ("uuid", ctypes.c_char * 80),
        ("name", ctypes.c_char * 96),
        ("pci", ctypes.c_char * 32),
        ("removed", ctypes.c_uint32),
        ("hang", ctypes.c_uint32),
        ("delay_ms", ctypes.c_uint32),
        ("crash", ctypes.c_uint32),
        ("code", ctypes.c_int32 * len(CALLS)),
        ("field_code", ctypes.c_int32 * len(FIELDS)),
        ("energy_mj", ctypes.c_uint64),
        ("watts", ctypes.c_double),
        ("since", ctypes.c_double),
        ("field_value", ctypes.c_uint64 * len(FIELDS)),
        ("mig", ctypes.c_uint32),
        ("instances", ctypes.c_uint32),
        ("instance", (ctypes.c_char * 80) * 8),
        ("reasons", ctypes.c_uint64),
        ("c2c", ctypes.c_uint32),
        ("persistence", ctypes.c_uint32),
        ("processes", ctypes.c_uint32),
        ("samples", ctypes.c_uint32),
        ("process", _Process * 16),
        ("sample", _UtilisationSample * 16),
        ("gpm", ctypes.c_uint32),
        ("gpu_instance", ctypes.c_uint32 * 8),
        ("slices", ctypes.c_uint32 * 8),
        ("unit_code", ctypes.c_int32 * 16),
        ("active", ctypes.c_double * 16),
    )

    def answer(self, call: str, code: int) -> None:
        """What this call returns from now on; 0 is success."""
        self.code[CALLS.index(call)] = code

    def set_field(self, field: str, milliwatts: int, code: int = 0) -> None:
        """A field's value in mW (mJ for the module's energy), and the code that comes with it."""
        self.field_value[FIELDS.index(field)] = milliwatts
        self.field_code[FIELDS.index(field)] = code

    def draw(self, watts: float) -> None:
        """From now on energy grows by itself, by what this power gives over time."""
        self.watts, self.since = watts, time.clock_gettime(time.CLOCK_BOOTTIME)

    def set_instances(self, *uuids: str, units: Sequence[int] = (), slices: Sequence[int] = ()) -> None:
        """MIG mode on, with these instances: their GPU instances (1, 2, ..) and the sizes of those (1 slice each)."""
        self.mig, self.instances = 1, len(uuids)
        for place, uuid in enumerate(uuids):
            self.instance[place].value = uuid.encode()
            self.gpu_instance[place] = units[place] if units else place + 1
            self.slices[place] = slices[place] if slices else 1

    def set_activity(self, **percent: float) -> None:
        """GPM counters, and how active each GPU instance is: set_activity(g1=100.0, g2=25.0)."""
        self.gpm = 1
        for unit, active in percent.items():
            self.active[int(unit.removeprefix("g"))] = active

    def set_processes(self, *processes: tuple[int, int]) -> None:
        """Those that have memory on the board: (pid, bytes)."""
        for place, (pid, memory) in enumerate(processes):
            self.process[place].pid, self.process[place].memory = pid, memory
        self.processes = len(processes)

    def set_utilisation(self, *samples: tuple[int, int]) -> None:
        """Samples taken just now: (pid, percent)."""
        now = time.time_ns() // 1000
        for place, (pid, percent) in enumerate(samples):
            self.sample[place].pid, self.sample[place].sm, self.sample[place].at = pid, percent, now
        self.samples = len(samples)


class _Control(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_uint64),
        ("devices", ctypes.c_uint32),
        ("order", ctypes.c_uint32 * 16),
        ("generation", ctypes.c_uint32),
        ("init_code", ctypes.c_int32),
        ("init_hang", ctypes.c_uint32),
        ("driver", ctypes.c_char * 80),
        ("calls", ctypes.c_uint64 * len(CALLS)),
        ("gpm_samples", ctypes.c_int64),
        ("device", FakeGpu * 16),
    )


@functools.cache
def library() -> Path:
    """The compiled library, once per test session; kept in a folder of its own for LD_LIBRARY_PATH."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise RuntimeError(
            "the tests of the NVML meter compile a fake driver and need `cc`: apt-get install gcc libc6-dev"
        )
    target = Path(tempfile.mkdtemp(prefix="fake-nvml-")) / LIBRARY
    atexit.register(shutil.rmtree, target.parent, ignore_errors=True)
    flags = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", f"-Wl,-soname,{LIBRARY}"]
    subprocess.run([compiler, *flags, "-o", str(target), str(SOURCE)], check=True)
    return target


class FakeNvml:
    """A scripted driver with `gpus` boards: H100s of 700 W that have used 1 000 J, at 100 W, unless told otherwise."""

    def __init__(self, folder: Path, gpus: int) -> None:
        self._path = folder / "fake-nvml.control"
        self._path.write_bytes(bytes(ctypes.sizeof(_Control)))
        with self._path.open("r+b") as file:
            self._memory: Any = mmap.mmap(file.fileno(), 0)
        self.control = _Control.from_buffer(self._memory)
        self.control.driver = b"590.48.01"
        for slot in range(gpus):
            self.add(slot)
        self.control.size = ctypes.sizeof(_Control)

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs so that it loads the fake instead of a driver's library."""
        return {"FAKE_NVML": str(self._path), "LD_LIBRARY_PATH": str(library().parent)}

    def environ(self) -> dict[str, str]:
        """This process's environment, with those."""
        return dict(os.environ) | self.environment

    def gpu(self, slot: int) -> FakeGpu:
        """The board in this slot; its UUID is uuid(slot)."""
        gpu: FakeGpu = self.control.device[slot]
        return gpu

    def add(self, slot: int) -> FakeGpu:
        """Plugs a board in: no MIG, no C2C, no module and no memory scope, as an ordinary H100."""
        gpu = self.gpu(slot)
        gpu.uuid, gpu.name = uuid(slot).encode(), b"NVIDIA H100 80GB HBM3"
        gpu.pci = f"00000000:{slot + 1:02X}:00.0".encode()
        gpu.energy_mj, gpu.persistence = 1_000_000, 1
        for field in FIELDS:
            gpu.set_field(field, 0, NOT_SUPPORTED)
        gpu.set_field("energy", 0)
        for field, milliwatts in (("average", 100_000), ("instant", 100_000), ("limit", 700_000)):
            gpu.set_field(field, milliwatts)
        gpu.answer("c2c", NOT_SUPPORTED)
        self.control.order[slot] = slot
        self.control.devices = max(self.control.devices, slot + 1)
        return gpu

    def order(self, *slots: int) -> None:
        """Which slot each index stands for, as after a reboot that renumbered them."""
        for index, slot in enumerate(slots):
            self.control.order[index] = slot

    def reload_driver(self, driver: str = "590.48.01") -> None:
        """Unloads and loads the driver: open libraries must start anew, counters begin at 0."""
        self.control.driver = driver.encode()
        for slot in range(self.control.devices):
            self.gpu(slot).energy_mj = 0
        self.control.generation += 1

    def calls(self, call: str) -> int:
        """How often it was made, by all processes together."""
        return int(self.control.calls[CALLS.index(call)])

    def close(self) -> None:
        """Lets the file go."""
        del self.control
        self._memory = None

    def __enter__(self) -> "FakeNvml":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def uuid(slot: int) -> str:
    """GPU-00000000-0000-4000-8000-000000000001 for slot 1."""
    return f"GPU-00000000-0000-4000-8000-{slot:012d}"


def uuids(slots: Sequence[int]) -> list[str]:
    """Those of several slots."""
    return [uuid(slot) for slot in slots]
