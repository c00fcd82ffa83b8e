"""Thermal design power of the processors found beside GPUs. In: a processor's name. Out: its watts and threads.

Facts as the makers' product pages tell them (Intel ARK, AMD product specifications; compared on 2026-11-24 with
CodeCarbon's cpu_power.csv, MIT: the same watts for all but the 8480C, which it has not). TDP is no maximum and no
measurement: RAPL showed 46 W on an EPYC 8024P of 90 W at full load, 80 to 117 W on two E5-2620 v3 of 85 W each
(CodeCarbon's published runs, 2025-01-14).
"""

from typing import Final, NamedTuple


class Part(NamedTuple):
    """One socket's processor: all of it, whatever part of it a virtual machine has."""

    tdp_watts: float
    threads: int


DEFAULT_WATTS_PER_THREAD: Final = 3.0
"""For a name that the table has not. The middle of its parts is 3.5 W, of those with 64 threads or more 3.1 W."""

PARTS: Final[dict[str, Part]] = {
    "AMD EPYC 7302": Part(155, 32), "AMD EPYC 7313": Part(155, 32), "AMD EPYC 7402": Part(180, 48),
    "AMD EPYC 7413": Part(180, 48), "AMD EPYC 7443": Part(200, 48), "AMD EPYC 7452": Part(155, 64),
    "AMD EPYC 7453": Part(225, 56), "AMD EPYC 7502": Part(180, 64), "AMD EPYC 7513": Part(200, 64),
    "AMD EPYC 7542": Part(225, 64), "AMD EPYC 7543": Part(225, 64), "AMD EPYC 7642": Part(225, 96),
    "AMD EPYC 7643": Part(225, 96), "AMD EPYC 7663": Part(240, 112), "AMD EPYC 7702": Part(200, 128),
    "AMD EPYC 7713": Part(225, 128), "AMD EPYC 7742": Part(225, 128), "AMD EPYC 7763": Part(280, 128),
    "AMD EPYC 8024P": Part(90, 16), "AMD EPYC 9124": Part(200, 32), "AMD EPYC 9174F": Part(320, 32),
    "AMD EPYC 9224": Part(200, 48), "AMD EPYC 9254": Part(200, 48), "AMD EPYC 9334": Part(210, 64),
    "AMD EPYC 9354": Part(280, 64), "AMD EPYC 9374F": Part(320, 64), "AMD EPYC 9454": Part(290, 96),
    "AMD EPYC 9474F": Part(360, 96), "AMD EPYC 9534": Part(280, 128), "AMD EPYC 9554": Part(360, 128),
    "AMD EPYC 9555": Part(360, 128), "AMD EPYC 9575F": Part(400, 128), "AMD EPYC 9634": Part(290, 168),
    "AMD EPYC 9654": Part(360, 192), "AMD EPYC 9655": Part(400, 192), "AMD EPYC 9684X": Part(400, 192),
    "AMD EPYC 9754": Part(360, 256), "AMD EPYC 9755": Part(500, 256), "AMD EPYC 9965": Part(500, 384),
    "Intel Xeon 6960P": Part(500, 144), "Intel Xeon 6979P": Part(500, 240), "Intel Xeon 6980P": Part(500, 256),
    "Intel Xeon E5-2620 v3": Part(85, 12), "Intel Xeon E5-2680 v4": Part(120, 28),
    "Intel Xeon E5-2698 v4": Part(135, 40), "Intel Xeon Gold 6226R": Part(150, 32),
    "Intel Xeon Gold 6230": Part(125, 40), "Intel Xeon Gold 6248": Part(150, 40),
    "Intel Xeon Gold 6248R": Part(205, 48), "Intel Xeon Gold 6326": Part(185, 32),
    "Intel Xeon Gold 6330": Part(205, 56), "Intel Xeon Gold 6338": Part(205, 64),
    "Intel Xeon Gold 6430": Part(270, 64), "Intel Xeon Gold 6448Y": Part(225, 64),
    "Intel Xeon Platinum 8168": Part(205, 48), "Intel Xeon Platinum 8259CL": Part(210, 48),
    "Intel Xeon Platinum 8260": Part(165, 48), "Intel Xeon Platinum 8268": Part(205, 48),
    "Intel Xeon Platinum 8275CL": Part(240, 48), "Intel Xeon Platinum 8280": Part(205, 56),
    "Intel Xeon Platinum 8358": Part(250, 64), "Intel Xeon Platinum 8368": Part(270, 76),
    "Intel Xeon Platinum 8375C": Part(300, 64), "Intel Xeon Platinum 8380": Part(270, 80),
    "Intel Xeon Platinum 8462Y+": Part(300, 64), "Intel Xeon Platinum 8468": Part(350, 96),
    "Intel Xeon Platinum 8470": Part(350, 104), "Intel Xeon Platinum 8480+": Part(350, 112),
    "Intel Xeon Platinum 8480C": Part(350, 112), "Intel Xeon Platinum 8490H": Part(350, 120),
    "Intel Xeon Platinum 8558": Part(330, 96), "Intel Xeon Platinum 8568Y+": Part(350, 96),
    "Intel Xeon Platinum 8570": Part(350, 112), "Intel Xeon Platinum 8592+": Part(350, 128),
}  # fmt: skip


def part_of(model: str) -> Part | None:
    """The part with this name (cpu_info.plain_model), in either case. None: not known.

    AMD's single-socket twin "9654P" is the 9654; Xeons of the fifth generation call themselves "INTEL XEON PLATINUM".
    """
    by_name = {name.upper(): part for name, part in PARTS.items()}
    name = model.upper()
    part = by_name.get(name)
    return by_name.get(name.removesuffix("P")) if part is None and name.startswith("AMD EPYC") else part
