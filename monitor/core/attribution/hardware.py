"""What a device type can do and draws when quiet, from its maker's data sheet. Facts re-typed, dense bf16/fp16.

Sources: NVIDIA data sheets of the named boards (tensor core peak without sparsity, memory bandwidth, maximum power).
Idle watts: bare idle of the board as commonly seen with nothing loaded; they are a last resort and marked `table`
wherever they stand.
"""

import re
from functools import lru_cache

import msgspec


class Hardware(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU type. Peak figures; what an engine reaches is about `FLOP_EFFICIENCY` and `BYTE_EFFICIENCY` of them."""

    name: str
    peak_flops_per_second: float
    peak_bytes_per_second: float
    idle_watts: float
    power_limit_watts: float
    """The most that a board of the type draws as sold; a lower limit that was set is not known here."""


FLOP_EFFICIENCY = 0.45
BYTE_EFFICIENCY = 0.75

UNKNOWN_GPU = Hardware(
    name="unknown GPU (taken as an A100)",
    peak_flops_per_second=312e12,
    peak_bytes_per_second=1.94e12,
    idle_watts=50.0,
    power_limit_watts=400.0,
)
# The first whose key stands in the maker's name as whole words wins, so the more special key comes first.
_TABLE = tuple(
    (
        key,
        Hardware(
            name=key,
            peak_flops_per_second=tera * 1e12,
            peak_bytes_per_second=giga * 1e9,
            idle_watts=idle,
            power_limit_watts=limit,
        ),
    )
    for key, tera, giga, idle, limit in (
        ("GB200", 2_500, 8_000, 140, 1_200),
        ("GH200", 989, 4_000, 90, 1_000),
        ("B200", 2_250, 8_000, 140, 1_000),
        ("H200", 989, 4_800, 75, 700),
        ("H100 PCIE", 756, 2_000, 45, 350),
        ("H100 NVL", 835, 3_900, 60, 400),
        ("H100", 989, 3_350, 70, 700),
        ("A100 80GB", 312, 1_940, 50, 300),
        ("A100-SXM4-80GB", 312, 2_039, 55, 400),
        ("A100", 312, 1_555, 50, 400),
        ("L40S", 362, 864, 35, 350),
        ("L40", 181, 864, 35, 300),
        ("L4", 121, 300, 16, 72),
        ("A10G", 70, 600, 20, 150),
        ("A10", 125, 600, 20, 150),
        ("A40", 150, 696, 30, 300),
        ("V100", 125, 900, 40, 300),
        ("T4", 65, 320, 10, 70),
        ("RTX 4090", 165, 1_008, 20, 450),
        ("RTX 4080", 97, 717, 13, 320),
        ("MI300X", 1_307, 5_300, 140, 750),
    )
)


@lru_cache(maxsize=1_024)
def hardware_of(name: str) -> Hardware | None:
    """The data sheet of a board by its maker's name ("NVIDIA A100-SXM4-40GB"), or None where it is not in the table.

    An "RTX A4000" is no A40 and a "T400" no T4: a key stands for itself, never for a part of a word.
    """
    return next((hardware for key, hardware in _TABLE if re.search(rf"\b{key}\b", name, re.IGNORECASE)), None)
