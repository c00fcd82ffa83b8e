"""What goes over the pipe between the NVML meter and the child that makes the driver calls: msgpack, length in front.

    meter -> child   Plan once, then an Ask for each read
    child -> meter   Step.. Opened | Refused, then for each Ask a GpuRead per GPU in the order of Opened.gpus, and Done

A GPU is named by its token: the PCI bus id ("00000000:01:00.0"), or "#3" for an index that nothing else is known of.
"""

import msgspec

UNINITIALIZED = 1
NOT_SUPPORTED = 3
NO_PERMISSION = 4
DRIVER_NOT_LOADED = 9
LIBRARY_NOT_FOUND = 12
GPU_IS_LOST = 15
RESET_REQUIRED = 16
LIB_RM_VERSION_MISMATCH = 18
GPU_NOT_FOUND = 28

REOPEN = frozenset(
    {UNINITIALIZED, DRIVER_NOT_LOADED, GPU_IS_LOST, RESET_REQUIRED, LIB_RM_VERSION_MISMATCH, GPU_NOT_FOUND}
)
"""After one of these only a new process sees the driver as it is now."""


class Plan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which GPUs to open: `only` these tokens, or with none all that there are but those to `skip`."""

    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()


class Ask(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One read of every GPU; `slow`: with limits, MIG and processes, which change seldom and cost more."""

    slow: bool = False


class Step(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Said before a call that may hang: the token of the GPU that is opened next, "" for the driver itself."""

    token: str


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """NVML cannot be used: its return code, and what it calls that."""

    code: int
    text: str


class GpuFacts(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A GPU as it was found. `persistence` is None where it cannot be read."""

    token: str
    uuid: str
    pci: str
    name: str
    persistence: bool | None = None


class Unopened(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU that the driver counts and does not give."""

    token: str
    code: int
    text: str


class Opened(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """NVML is ready. `count` is how many GPUs the driver counts, opened or not."""

    driver: str
    count: int
    gpus: tuple[GpuFacts, ...]
    unopened: tuple[Unopened, ...] = ()


class MigInstance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A MIG device: its UUID, the GPU instance that it lies in, how many compute slices that has. None is not told."""

    uuid: str
    gpu_instance: int | None = None
    slices: float | None = None


class Active(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A round of GPM samples: how active (0-1) each GPU instance was since the round before; those not told are absent.

    `since` is the tick of the read that made the round before; None for a child's first.
    """

    since: float | None = None
    ratios: tuple[tuple[int, float], ...] = ()


class SlowFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What changes seldom. `limit_watts` is the highest power the board may be set to, or is set to where that is all
    it tells. `busy` are (pid, share of the time since the last slow read); None where it cannot be told (MIG).
    `processes` are those with memory on the GPU: (pid, bytes). `untold` is why the activity of its instances is not
    told, "" where it is.
    """

    limit_watts: float | None = None
    module_limit_watts: float | None = None
    instances: tuple[MigInstance, ...] = ()
    untold: str = ""
    busy: tuple[tuple[int, float], ...] | None = None
    processes: tuple[tuple[int, float], ...] = ()


class GpuRead(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """One GPU, read once. `tick` is clock.boot_seconds() after the energy was read. NaN energy: an all-ones sentinel.

    `module_..` are those of the Grace Hopper module that the GPU is a part of. `reasons` is NVML's clocks-event mask.
    `code` and `text` say which call failed first, where one failed that this GPU supports; 0 if none did. `active` is
    there where this read made a round of GPM samples.
    """

    token: str
    uuid: str
    tick: float
    energy_joules: float | None = None
    power_watts: float | None = None
    module_energy_joules: float | None = None
    module_power_watts: float | None = None
    reasons: int = 0
    code: int = 0
    text: str = ""
    slow: SlowFacts | None = None
    active: Active | None = None


class Done(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    """Every GPU has been asked. `count` is how many the driver counts now; None where it was not asked."""

    count: int | None = None


Frame = Step | Refused | Opened | GpuRead | Done

HEADER_BYTES = 4


def framed(record: msgspec.Struct) -> bytes:
    """The record as it goes over the pipe."""
    payload = msgspec.msgpack.encode(record)
    return len(payload).to_bytes(HEADER_BYTES, "little") + payload
