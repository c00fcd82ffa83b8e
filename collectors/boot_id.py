"""Which life of the machine this is. In: <procfs>. Out: the kernel's id of this boot."""

from pathlib import Path


def boot_id(procfs: Path) -> str:
    """The kernel's id of this boot; "" where it tells none, then only a counter's fall tells its lives apart."""
    try:
        return (procfs / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
