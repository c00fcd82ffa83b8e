"""What the kernel says of the processors. In: <procfs>/cpuinfo. Out: their name and how many there are."""

import re
from pathlib import Path
from typing import Final

import msgspec

_MAKERS_MARKS: Final = re.compile(r"\((?:R|TM|r|tm)\)")


class CpuInfo(msgspec.Struct, frozen=True, kw_only=True):
    """`model` as the maker names it, without marks and clock ("Intel Xeon Platinum 8480+"), "" where it is not told.

    `threads` are the processors that the kernel schedules on, >= 1. `is_virtual`: a hypervisor lends them, and what it
    says of sockets is made up.
    """

    model: str
    threads: int
    sockets: int
    is_virtual: bool


def read_cpu_info(procfs: Path) -> CpuInfo:
    """Empty name, one thread and one socket where the file cannot be read (ARM tells neither name nor socket)."""
    try:
        text = (procfs / "cpuinfo").read_text(errors="replace")
    except OSError:
        text = ""
    fields = [(key.strip(), value.strip()) for key, colon, value in map(_halves, text.splitlines()) if colon]
    model = next((value for key, value in fields if key == "model name"), "")
    flags = next((value for key, value in fields if key == "flags"), "")
    return CpuInfo(
        model=plain_model(model),
        threads=max(1, sum(key == "processor" and value.isdigit() for key, value in fields)),
        sockets=max(1, len({value for key, value in fields if key == "physical id"})),
        is_virtual="hypervisor" in flags.split(),
    )


def _halves(line: str) -> tuple[str, str, str]:
    return line.partition(":")


def plain_model(told: str) -> str:
    """ "Intel(R) Xeon(R) Platinum 8480+ CPU @ 2.00GHz" is "Intel Xeon Platinum 8480+"; AMD adds "64-Core Processor"."""
    name = _MAKERS_MARKS.sub("", told).partition("@")[0]
    name = re.sub(r"\b\d+-Core Processor\b|\b(?:CPU|Processor)\b", " ", name)
    return " ".join(name.split())
