"""What `wattribute doctor` says of NVIDIA's GPUs: each one readable or why not, and the command that mends it."""

import sys
from pathlib import Path
from typing import Literal

from collectors.boot_id import boot_id
from collectors.clock import monotonic
from collectors.errors import Broken
from collectors.meter import Finding
from collectors.nvml_driver import mend, refusal
from collectors.nvml_lane import Lane
from collectors.nvml_samples import LIBRARY_NOT_FOUND, GpuFacts, GpuRead, Opened, Plan, Refused

AREA = "nvml"

FindingState = Literal["ok", "missing", "warning", "broken"]


def diagnose(*, procfs: Path = Path("/proc"), deadline_seconds: float = 10.0) -> list[Finding]:
    """Opens every GPU and reads it once, in a child that is left behind where the driver hangs. Never raises."""
    try:
        lane = Lane(Plan())
    except Broken as error:
        return [Finding(area="GPU", subject="driver", state="broken", what=str(error), mend=f"ls -l {sys.executable}")]
    try:
        result = lane.wait_opened(monotonic() + deadline_seconds)
        if isinstance(result, Refused):
            return [_refused(result)]
        if result is None:
            return [_hangs(lane.standing_at, deadline_seconds)]
        lane.ask(slow=True)
        frames = lane.collect(monotonic() + deadline_seconds)
        reads = {frame.token: frame for frame in frames if isinstance(frame, GpuRead)}
        found = _driver(result, procfs)
        for gpu in result.gpus:
            found += _gpu(gpu, reads.get(gpu.token), deadline_seconds)
        return found
    finally:
        lane.kill()
        lane.wait_reaped(monotonic() + 0.5)


def _refused(refused: Refused) -> Finding:
    if refused.code == LIBRARY_NOT_FOUND:
        return Finding(area=AREA, subject="driver", state="missing", what=str(refusal(refused)))
    what = f"NVML refuses to start: {refused.text}"
    return Finding(area=AREA, subject="driver", state="broken", what=what, mend=mend(refused.code))


def _hangs(token: str, seconds: float) -> Finding:
    where = f"GPU {token}" if token.startswith("#") else token or "the driver"
    return Finding(
        area=AREA,
        subject=where,
        state="broken",
        what=f"{where} did not answer within {seconds:g} s",
        mend="dmesg | grep -i -E 'xid|nvrm' says why; a reboot mends it",
    )


def _driver(opened: Opened, procfs: Path) -> list[Finding]:
    found = [
        Finding(area=AREA, subject="driver", state="ok", what=f"driver {opened.driver}, {opened.count} GPU(s)")
        if opened.count
        else Finding(area=AREA, subject="driver", state="missing", what=f"driver {opened.driver} has no GPU")
    ]
    if not boot_id(procfs):
        what = f"{procfs}/sys/kernel/random/boot_id is not readable: a reboot is only seen by a counter that falls"
        found.append(Finding(area=AREA, subject="boot id", state="warning", what=what))
    found += [
        Finding(
            area=AREA,
            subject=f"GPU {gpu.token}",
            state="broken",
            what=f"cannot be opened: {gpu.text}",
            mend=mend(gpu.code),
        )
        for gpu in opened.unopened
    ]
    return found


def _gpu(gpu: GpuFacts, read: GpuRead | None, seconds: float) -> list[Finding]:
    if read is None:
        return [_hangs(gpu.uuid, seconds)]
    found = [_energy(gpu, read)]
    if gpu.persistence is False:
        what = "persistence mode is off: whenever nobody uses the GPU its driver unloads and the counter begins at 0"
        found.append(_of(gpu, "warning", what, "nvidia-smi -pm 1, or the service nvidia-persistenced"))
    slow = read.slow
    if slow is not None and slow.instances:
        what = f"MIG: {len(slow.instances)} instances, metered as one GPU"
        if slow.untold:
            what += f" and shared as one: how active each of them is cannot be told ({slow.untold})"
        else:
            what += " and split by how active each of them is (GPM counters)"
        found.append(_of(gpu, "warning" if slow.untold else "ok", what))
    elif slow is not None and slow.busy is None:
        found.append(_of(gpu, "warning", "per-process utilisation is not readable: other processes are not told apart"))
    if slow is not None and slow.limit_watts is None:
        found.append(_of(gpu, "warning", "no power limit is readable: only values above 2 250 W count as implausible"))
    return found


def _energy(gpu: GpuFacts, read: GpuRead) -> Finding:
    power = "" if read.power_watts is None else f", {read.power_watts:.0f} W now"
    if read.energy_joules is not None:
        return _of(gpu, "ok", f"{gpu.name}: energy counter{power}")
    if read.power_watts is not None:
        return _of(gpu, "ok", f"{gpu.name}: no energy counter, so power is integrated{power}")
    why = read.text or "Not Supported"
    return _of(
        gpu, "broken", f"{gpu.name}: neither energy nor power can be read ({why})", mend(read.code) if read.code else ""
    )


def _of(gpu: GpuFacts, state: FindingState, what: str, mend: str = "") -> Finding:
    return Finding(area=AREA, subject=gpu.uuid, state=state, what=what, mend=mend)
