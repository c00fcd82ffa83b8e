"""What the host says of NVIDIA's driver beside NVML: one life of its counters, its GPUs, and what mends a refusal."""

from pathlib import Path

from collectors.errors import Broken, Gone
from collectors.nvml_samples import (
    GPU_IS_LOST,
    LIB_RM_VERSION_MISMATCH,
    LIBRARY_NOT_FOUND,
    NO_PERMISSION,
    RESET_REQUIRED,
    Refused,
)


def refusal(refused: Refused) -> Gone | Broken:
    """What a host where NVML cannot be used means for the meter, and what mends it."""
    if refused.code == LIBRARY_NOT_FOUND:
        return Gone("no NVIDIA driver on this host: libnvidia-ml.so.1 is not found")
    return Broken(f"NVML refuses to start: {refused.text}; {mend(refused.code)}")


def mend(code: int) -> str:
    """What a person can do about a refusal or a GPU that cannot be read."""
    if code == NO_PERMISSION:
        return "give the user of the agent read access to /dev/nvidia*"
    if code == LIB_RM_VERSION_MISMATCH:
        return "the driver was updated and the old one is still loaded: reload the nvidia modules, or reboot"
    if code in (GPU_IS_LOST, RESET_REQUIRED):
        return "dmesg | grep Xid says why; nvidia-smi --gpu-reset or a reboot mends it"
    return "modprobe nvidia loads it; dmesg | grep -i nvrm says why it is not"


def listed_gpus(procfs: Path) -> tuple[str, ...]:
    """The GPUs that the kernel module has, by PCI bus id; empty where it does not say (containers)."""
    try:
        return tuple(sorted(entry.name for entry in (procfs / "driver/nvidia/gpus").iterdir()))
    except OSError:
        return ()
