"""NVML -> raw samples. Runs in the meter's child process only: any call here may hang for ever in the driver.

One nvmlDeviceGetFieldValues per GPU and read, each value with its own return code; where a board or an old driver does
not know a field, the call of its own that does. Units and shapes: nvml.h as nvidia-ml-py 13.615.71 declares it.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import pynvml

from collectors.clock import boot_seconds
from collectors.nvml_gpm import InstanceActivity
from collectors.nvml_samples import (
    NOT_SUPPORTED,
    GpuFacts,
    GpuRead,
    MigInstance,
    Opened,
    Plan,
    SlowFacts,
    Step,
    Unopened,
)
from collectors.units import joules_from_millijoules, watts_from_milliwatts

_GPU, _MODULE = 0, 1  # scopes of a field
_ENERGY, _AVERAGE, _INSTANT, _MAX_LIMIT, _LIMIT = 83, 185, 186, 188, 190
_FAST: Final = ((_ENERGY, _GPU), (_AVERAGE, _GPU), (_INSTANT, _GPU))
_FAST_MODULE: Final = ((_ENERGY, _MODULE), (_AVERAGE, _MODULE), (_INSTANT, _MODULE))
_SLOW: Final = ((_LIMIT, _GPU), (_MAX_LIMIT, _GPU))
_SLOW_MODULE: Final = ((_LIMIT, _MODULE), (_MAX_LIMIT, _MODULE))

_UNKNOWN_CALL: Final = frozenset({NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND})
_NO_SAMPLES: Final = frozenset({pynvml.NVML_SUCCESS, pynvml.NVML_ERROR_NOT_FOUND})
_ALL_ONES: Final = frozenset({2**64 - 1, 2**63 - 1})
_VALUE_OF_TYPE: Final = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")

Values = dict[tuple[int, int], float]


class Board:
    """One opened GPU, and what has been found out about it. `lacks` are the calls that it does not support."""

    def __init__(self, handle: Any, facts: GpuFacts, *, is_module: bool) -> None:
        self.handle = handle
        self.facts = facts
        self.is_module = is_module
        self.lacks: set[str] = set()
        self.seen_microseconds = int(time.time() * 1e6)
        self.failure: pynvml.NVMLError | None = None
        self.activity = InstanceActivity(handle)

    def ask(self, call: str, *arguments: Any) -> Any:
        """What the call gives; None where it is not supported (then never asked again) or fails (the first is kept)."""
        if call in self.lacks:
            return None
        try:
            return getattr(pynvml, call)(self.handle, *arguments)
        except pynvml.NVMLError as error:
            if error.value in _UNKNOWN_CALL:
                self.lacks.add(call)
            else:
                self.failure = self.failure or error
            return None


def open_boards(plan: Plan, told: Callable[[Step], None]) -> tuple[Opened, list[Board]]:
    """Starts NVML and opens the GPUs of the plan; says each before it is touched. Raises pynvml.NVMLError."""
    told(Step(token=""))
    pynvml.nvmlInit()
    driver = str(pynvml.nvmlSystemGetDriverVersion())
    count = int(pynvml.nvmlDeviceGetCount())
    tokens = plan.only or [f"#{index}" for index in range(count)]
    boards: list[Board] = []
    unopened: list[Unopened] = []
    for token in tokens:
        if token in plan.skip:
            continue
        told(Step(token=token))
        try:
            boards.append(_open(token))
        except pynvml.NVMLError as error:
            unopened.append(Unopened(token=token, code=error.value, text=str(error)))
    facts = tuple(board.facts for board in boards)
    return Opened(driver=driver, count=count, gpus=facts, unopened=tuple(unopened)), boards


def count_gpus() -> int | None:
    """How many the driver counts now; None where it does not say."""
    try:
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return None


def _open(token: str) -> Board:
    if token.startswith("#"):
        handle = pynvml.nvmlDeviceGetHandleByIndex(int(token[1:]))
    else:
        handle = pynvml.nvmlDeviceGetHandleByPciBusId(token)
    pci = pynvml.nvmlDeviceGetPciInfo(handle).busId
    persistence = _optional(pynvml.nvmlDeviceGetPersistenceMode, handle)
    facts = GpuFacts(
        token=token,
        uuid=str(pynvml.nvmlDeviceGetUUID(handle)),
        pci=pci.decode() if isinstance(pci, bytes) else str(pci),
        name=str(pynvml.nvmlDeviceGetName(handle)),
        persistence=None if persistence is None else bool(persistence),
    )
    return Board(handle, facts, is_module=bool(_is_c2c(handle)))


def _is_c2c(handle: Any) -> bool | None:
    info = _optional(pynvml.nvmlDeviceGetC2cModeInfoV, handle)
    return None if info is None else bool(getattr(info, "isC2cEnabled", info))


def _optional(call: Callable[[Any], Any], handle: Any) -> Any:
    try:
        return call(handle)
    except pynvml.NVMLError:
        return None


def read_board(board: Board, *, slow: bool) -> GpuRead:
    """One read of one GPU; never raises for what the driver says, that is in `code`."""
    board.failure = None
    values = _field_values(board, slow=slow)
    energy = _energy_joules(board, values)
    tick = boot_seconds()
    power = _power_watts(board, values)
    failure = board.failure
    instances = _instances(board) if slow else ()
    if slow:
        board.activity.follow(instances)
    active = board.activity.read(tick, must=slow)
    reasons = board.ask("nvmlDeviceGetCurrentClocksEventReasons")
    if reasons is None:  # the call's name before driver 535
        reasons = board.ask("nvmlDeviceGetCurrentClocksThrottleReasons")
    module_energy = values.get((_ENERGY, _MODULE))
    module_power = values.get((_AVERAGE, _MODULE), values.get((_INSTANT, _MODULE)))
    return GpuRead(
        token=board.facts.token,
        uuid=board.facts.uuid,
        tick=tick,
        energy_joules=energy,
        power_watts=power,
        module_energy_joules=None if module_energy is None else joules_from_millijoules(module_energy),
        module_power_watts=None if module_power is None else watts_from_milliwatts(module_power),
        reasons=int(reasons or 0),
        code=0 if failure is None else failure.value,
        text="" if failure is None else str(failure),
        slow=_slow_facts(board, values, instances) if slow else None,
        active=active,
    )


def _field_values(board: Board, *, slow: bool) -> Values:
    fields: Sequence[tuple[int, int]] = _FAST + (_FAST_MODULE if board.is_module else ())
    if slow:
        fields = (*fields, *_SLOW, *(_SLOW_MODULE if board.is_module else ()))
    answers = board.ask("nvmlDeviceGetFieldValues", list(fields)) or ()
    return {
        field: _number(answer)
        for field, answer in zip(fields, answers, strict=False)
        if answer.nvmlReturn == pynvml.NVML_SUCCESS
    }


def _number(answer: Any) -> float:
    """The member of the union that the answer says it is; NaN for the all-ones that some boards give for "unknown"."""
    kind = answer.valueType
    number = getattr(answer.value, _VALUE_OF_TYPE[kind] if kind < len(_VALUE_OF_TYPE) else "ullVal")
    return math.nan if number in _ALL_ONES else float(number)


def _energy_joules(board: Board, values: Values) -> float | None:
    millijoules = values.get((_ENERGY, _GPU))
    if millijoules is None:
        counted = board.ask("nvmlDeviceGetTotalEnergyConsumption")
        millijoules = math.nan if counted in _ALL_ONES else counted
    return None if millijoules is None else joules_from_millijoules(millijoules)


def _power_watts(board: Board, values: Values) -> float | None:
    """The average first: on recent boards the instant value sees a quarter of the time (arXiv 2312.02741)."""
    milliwatts = values.get((_AVERAGE, _GPU), values.get((_INSTANT, _GPU)))
    if milliwatts is None:
        milliwatts = board.ask("nvmlDeviceGetPowerUsage")
    return None if milliwatts is None else watts_from_milliwatts(milliwatts)


def _slow_facts(board: Board, values: Values, instances: tuple[MigInstance, ...]) -> SlowFacts:
    limits = [values[field] for field in _SLOW if field in values]
    if not limits:
        enforced = board.ask("nvmlDeviceGetEnforcedPowerLimit")
        limits = [] if enforced is None else [float(enforced)]
    module = [values[field] for field in _SLOW_MODULE if field in values]
    return SlowFacts(
        limit_watts=watts_from_milliwatts(max(limits)) if limits else None,
        module_limit_watts=watts_from_milliwatts(max(module)) if module else None,
        instances=instances,
        untold=board.activity.why if instances else "",
        busy=None if instances else _busy(board),
        processes=_processes(board),
    )


def _instances(board: Board) -> tuple[MigInstance, ...]:
    """Its MIG devices; they have no energy and no power of their own."""
    mode = board.ask("nvmlDeviceGetMigMode")
    if not mode or mode[0] != pynvml.NVML_DEVICE_MIG_ENABLE:
        return ()
    found = []
    for place in range(board.ask("nvmlDeviceGetMaxMigDeviceCount") or 0):
        try:
            instance = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(board.handle, place)
            uuid = str(pynvml.nvmlDeviceGetUUID(instance))
        except pynvml.NVMLError:  # an empty place
            continue
        attributes = _optional(pynvml.nvmlDeviceGetAttributes, instance)
        found.append(
            MigInstance(
                uuid=uuid,
                gpu_instance=_optional(pynvml.nvmlDeviceGetGpuInstanceId, instance),
                slices=None if attributes is None else float(attributes.gpuInstanceSliceCount),
            )
        )
    return tuple(found)


def _busy(board: Board) -> tuple[tuple[int, float], ...] | None:
    """The mean SM share of each process since the last call.

    Without the last time stamp the driver averages over a buffer of its own length. An idle board answers NOT_FOUND,
    or succeeds with nothing, which pynvml raises as NVMLError(0): both are no samples.
    """
    now = int(time.time() * 1e6)
    since = min(board.seen_microseconds, now)  # the wall clock may have been set back
    try:
        samples = pynvml.nvmlDeviceGetProcessUtilization(board.handle, since)
    except pynvml.NVMLError as error:
        board.seen_microseconds = since
        return () if error.value in _NO_SAMPLES else None
    shares: dict[int, list[float]] = {}
    for sample in samples:
        if sample.timeStamp > since:
            shares.setdefault(sample.pid, []).append(min(sample.smUtil, 100) / 100.0)
            board.seen_microseconds = max(board.seen_microseconds, sample.timeStamp)
    return tuple((pid, math.fsum(share) / len(share)) for pid, share in sorted(shares.items()))


def _processes(board: Board) -> tuple[tuple[int, float], ...]:
    running = board.ask("nvmlDeviceGetComputeRunningProcesses") or ()
    return tuple((int(process.pid), float(process.usedGpuMemory or 0)) for process in running)
