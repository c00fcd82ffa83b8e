"""A dcgm-exporter's page as boards. Pure. In: the text of /metrics. Out: one Board for each GPU, by its UUID.

With MIG the exporter has a row for each instance, and each of them repeats the figures of the whole board
(dcgm-exporter issue 317); with pods that share a GPU it has one for each pod (582). So a board takes the first value it
finds and never adds rows up.

What DCGM does not know it writes as a number (dcgm_structs.h: DCGM_INT32_BLANK 0x7ffffff0, DCGM_INT64_BLANK
0x7ffffffffffffff0, DCGM_FP64_BLANK 2^47; + 1 not found, + 2 not supported, + 3 not permitted), and after some
faults as 0 (DCGM issues 202 and 303). None of these is a value, and 0 W or 0 mJ of a board that answers is none either.
"""

import math
from collections.abc import Mapping
from typing import Final

import msgspec

from collectors.prometheus_text import Row, rows
from collectors.units import joules_from_millijoules

ENERGY: Final = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
POWER: Final = "DCGM_FI_DEV_POWER_USAGE"
LIMIT: Final = "DCGM_FI_DEV_POWER_MGMT_LIMIT"
ENGINE_ACTIVE: Final = "DCGM_FI_PROF_GR_ENGINE_ACTIVE"
UTILIZATION: Final = "DCGM_FI_DEV_GPU_UTIL"
MEMORY_USED: Final = "DCGM_FI_DEV_FB_USED"
NAMES: Final = (ENERGY, POWER, LIMIT, ENGINE_ACTIVE, UTILIZATION, MEMORY_USED)
MOST_SLICES: Final = 64
MOST_BOARDS: Final = 64
"""No host has more; a page that names others each time must not fill the memory."""

_BLANKS: Final = (2.0**31 - 16.0, 2.0**47, 2.0**63 - 2_048.0)
_BLANK_WIDTH: Final = (16.0, 16.0, 4_096.0)
"""Near 2^63 a float knows only each 1 024th or 2 048th whole number."""


class Board(msgspec.Struct, kw_only=True):
    """What the page says of one GPU; None is not told. Ratios are 0-1, `limit_watts` is the configured power limit.

    `energy_joules` is the raw counter since the driver was loaded. `written` is the exporter's own time of it in
    milliseconds. `instances` are MIG GPU-instance ids with the ratio of time each was active, `slices` of how many
    compute slices each is, where its profile is told. `memory_mebibytes` is what processes hold.
    """

    uuid: str
    hardware: str = ""
    energy_joules: float | None = None
    power_watts: float | None = None
    limit_watts: float | None = None
    active_ratio: float | None = None
    used_ratio: float | None = None
    memory_mebibytes: float | None = None
    written: int | None = None
    instances: dict[str, float | None] = msgspec.field(default_factory=dict)
    slices: dict[str, float] = msgspec.field(default_factory=dict)

    @property
    def busy_ratio(self) -> float | None:
        """How much of the time the board was busy: its graphics engine, else what nvidia-smi calls utilisation."""
        return self.used_ratio if self.active_ratio is None else self.active_ratio


def boards(page: str) -> Mapping[str, Board]:
    """The GPUs of a page; rows of other things (NVSwitch, Grace CPU) carry no UUID and are passed by."""
    found: dict[str, Board] = {}
    for row in rows(page, NAMES):
        uuid = row.labels.get("UUID", "")
        if not uuid or (uuid not in found and len(found) >= MOST_BOARDS):
            continue
        board = found.setdefault(uuid, Board(uuid=uuid, hardware=row.labels.get("modelName", "")))
        _take(board, row)
    return found


def number(value: float | None) -> float | None:
    """The value, or None for what stands for no value: DCGM's blanks, NaN, infinity, what is below 0."""
    if value is None or not math.isfinite(value) or value < 0.0:
        return None
    blank = any(start <= value < start + width for start, width in zip(_BLANKS, _BLANK_WIDTH, strict=True))
    return None if blank else value


def slices_of(profile: str) -> float | None:
    """The compute slices of a MIG profile: "3g.40gb" and "3g.40gb+me" are 3; None for no such word."""
    size, unit, _ = profile.partition("g.")
    return float(size) if unit and size.isascii() and size.isdigit() and 0 < int(size) <= MOST_SLICES else None


def _take(board: Board, row: Row) -> None:
    value, instance = number(row.value), row.labels.get("GPU_I_ID", "")
    if instance:
        board.instances.setdefault(instance, None)
        size = slices_of(row.labels.get("GPU_I_PROFILE", ""))
        if size is not None:
            board.slices[instance] = size
    if value is None:
        return
    if row.name == ENERGY and board.energy_joules is None and value > 0.0:
        board.energy_joules, board.written = joules_from_millijoules(value), row.at_milliseconds
    elif row.name == POWER and board.power_watts is None and value > 0.0:
        board.power_watts = value
    elif row.name == LIMIT and board.limit_watts is None and value > 0.0:
        board.limit_watts = value
    elif row.name == ENGINE_ACTIVE and instance:
        board.instances[instance] = min(value, 1.0)
    elif row.name == ENGINE_ACTIVE:
        board.active_ratio = min(value, 1.0)
    elif row.name == UTILIZATION and not instance:
        board.used_ratio = min(value / 100.0, 1.0)
    elif row.name == MEMORY_USED and not instance:
        board.memory_mebibytes = value
