"""The CPU model on small /proc trees, watts and joules worked by hand."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import pytest
from sysfs_tree import HandClock

from collectors.cpu_info import CpuInfo, plain_model, read_cpu_info
from collectors.cpu_model import CpuModelMeter, cpu_power, diagnose, power_watts
from collectors.cpu_power import DEFAULT_WATTS_PER_THREAD, PARTS, part_of
from collectors.cpu_time import cpu_time, ticks_per_second
from collectors.errors import Broken, RetryLater
from collectors.meter import Measured
from collectors.readings import EnergyReading

XEON_STAT = Path(__file__).parents[3] / "shared" / "data" / "fixtures-sysfs" / "scaphandre-xeon-bisocket-proc-stat.txt"


class Proc:
    """A <procfs> with `threads` processors, their time moved by the test."""

    def __init__(self, root: Path, *, model: str, sockets: int, threads: int, is_virtual: bool = False) -> None:
        self.root, self._threads, self._busy, self._stolen = root, threads, 0, 0
        flags = "flags\t\t: fpu vme" + (" hypervisor" if is_virtual else "")
        blocks = (
            f"processor\t: {number}\nmodel name\t: {model}\nphysical id\t: {number * sockets // threads}\n{flags}\n"
            for number in range(threads)
        )
        (root / "cpuinfo").write_text("\n".join(blocks))
        self.work(0.0)

    def work(self, busy_seconds: float, stolen_seconds: float = 0.0) -> None:
        """So much more processor time."""
        self._busy += round(busy_seconds * ticks_per_second())
        self._stolen += round(stolen_seconds * ticks_per_second())
        rows = [f"cpu  {self._busy} 0 0 123456 789 0 0 {self._stolen} {self._busy} 0"]
        rows += [f"cpu{number} 0 0 0 0 0 0 0 0 0 0" for number in range(self._threads)]
        (self.root / "stat").write_text("\n".join([*rows, "intr 1 2 3", "btime 1"]) + "\n")


def meter_of(proc: Proc, clock: HandClock, tdp_watts: float | None = None) -> CpuModelMeter:
    meter = CpuModelMeter(procfs=proc.root, tdp_watts=tdp_watts, clock=clock, boot_seconds=clock.boot_seconds)
    meter.open()
    meter.read()
    return meter


def told(readings: Sequence[Measured]) -> list[tuple[float, float, float, str]]:
    return [(r.start, r.end, round(r.energy_joules, 6), r.method) for r in readings if isinstance(r, EnergyReading)]


def test_power_is_a_line_between_idle_and_tdp(tmp_path: Path) -> None:
    """Two Platinum 8480+ of 350 W, a quarter of 4 threads busy for 2 s: 700 x (0.1 + 0.9 / 4) = 227.5 W, 455 J."""
    proc, clock = Proc(tmp_path, model="Intel(R) Xeon(R) Platinum 8480+", sockets=2, threads=4), HandClock()
    meter = meter_of(proc, clock)
    (device,) = meter.devices
    assert (device.id, device.kind, device.hardware) == ("cpu", "cpu", "Intel Xeon Platinum 8480+")
    assert (device.idle_watts, device.idle_source) == (70.0, "table")
    proc.work(2.0)
    clock.pass_seconds(2.0)
    assert told(meter.read()) == [(1_000_000.0, 1_000_002.0, 455.0, "modelled")]
    clock.pass_seconds(1.0)
    assert told(meter.read()) == [(1_000_002.0, 1_000_003.0, 70.0, "modelled")]
    assert meter.health().devices[0].detail == "modelled, not measured: TDP from 2 x Intel Xeon Platinum 8480+"


def test_cutting_an_interval_changes_no_sum(tmp_path: Path) -> None:
    """1 s busy and 1 s idle give what 2 s half busy give: 100 W of TDP, 55 W x 2 s = 110 J."""
    proc, clock = Proc(tmp_path, model="x", sockets=1, threads=1), HandClock()
    fine, coarse = meter_of(proc, clock, 100.0), meter_of(proc, clock, 100.0)
    readings: list[Measured] = []
    for busy in (1.0, 0.0):
        proc.work(busy)
        clock.pass_seconds(1.0)
        readings += fine.read()
    assert sum(joules for *_, joules, _ in told(readings)) == pytest.approx(110.0)
    assert [joules for *_, joules, _ in told(coarse.read())] == [110.0]


def test_stolen_time_is_idle_here(tmp_path: Path) -> None:
    """The hypervisor ran somebody else for a second: 10 W of 100 W."""
    proc, clock = Proc(tmp_path, model="x", sockets=1, threads=1), HandClock()
    meter = meter_of(proc, clock, 100.0)
    proc.work(0.0, stolen_seconds=1.0)
    clock.pass_seconds(1.0)
    assert [joules for *_, joules, _ in told(meter.read())] == [10.0]


def test_virtual_machine_has_its_threads_part_of_the_tdp(tmp_path: Path) -> None:
    """16 of the 192 threads of an EPYC 9654 (360 W) are 30 W, however many sockets the hypervisor makes up."""
    model = "AMD EPYC 9654 96-Core Processor"
    Proc(tmp_path, model=model, sockets=16, threads=16, is_virtual=True)
    power = cpu_power(read_cpu_info(tmp_path))
    assert power.tdp_watts == 30.0
    assert power.source == "16 threads of an AMD EPYC 9654 (360 W, 192 threads)"


def test_unknown_part_has_a_figure_per_thread_and_the_doctor_says_so(tmp_path: Path) -> None:
    """8 threads x 3 W = 24 W, until an operator tells better."""
    Proc(tmp_path, model="Intel(R) Xeon(R) Processor @ 2.30GHz", sockets=1, threads=8, is_virtual=True)
    (finding,) = diagnose(procfs=tmp_path)
    assert finding.state == "warning"
    assert '2 W idle to 24 W: "Intel Xeon" is not in the table: 8 threads x 3 W' in finding.what
    assert "tdp_watts" in finding.mend
    (told_better,) = diagnose(procfs=tmp_path, tdp_watts=90.0)
    assert told_better.state == "ok"


def test_a_gap_is_missing_and_counted(tmp_path: Path) -> None:
    """31 s without a read: nothing is said of them, and what follows is there again."""
    proc, clock = Proc(tmp_path, model="x", sockets=1, threads=1), HandClock()
    meter = meter_of(proc, clock, 100.0)
    clock.pass_seconds(31.0)
    assert meter.read() == []
    assert meter.health().events == {("cpu", "power_gap"): 1}
    clock.pass_seconds(1.0)
    assert told(meter.read()) == [(1_000_031.0, 1_000_032.0, 10.0, "modelled")]


def test_a_set_clock_changes_no_energy(tmp_path: Path) -> None:
    """The wall clock goes back an hour: 1 s stays 1 s, and ends where the clock now is."""
    proc, clock = Proc(tmp_path, model="x", sockets=1, threads=1), HandClock()
    meter = meter_of(proc, clock, 100.0)
    clock.pass_seconds(1.0)
    clock.step(-3_600.0)
    assert told(meter.read()) == [(996_400.0, 996_401.0, 10.0, "modelled")]
    assert meter.health().events == {("cpu", "clock_step"): 1}


def test_time_that_goes_back_is_missing(tmp_path: Path) -> None:
    """A processor went offline and took its time along."""
    proc, clock = Proc(tmp_path, model="x", sockets=1, threads=1), HandClock()
    proc.work(100.0)
    meter = meter_of(proc, clock, 100.0)
    proc.work(-50.0)
    clock.pass_seconds(1.0)
    assert meter.read() == []
    assert meter.health().events == {("cpu", "reset"): 1}


def test_without_proc_there_is_no_model(tmp_path: Path) -> None:
    """At the start somebody must look; later it may come back."""
    with pytest.raises(Broken, match="tells no processor time"):
        CpuModelMeter(procfs=tmp_path).open()
    proc, clock = Proc(tmp_path, model="x", sockets=1, threads=1), HandClock()
    meter = meter_of(proc, clock, 100.0)
    (tmp_path / "stat").write_text("")
    with pytest.raises(RetryLater, match="no sum of all processors"):
        meter.read()
    assert diagnose(procfs=tmp_path)[0].state == "broken"


def test_busy_time_counts_guests_once_and_no_stolen_time() -> None:
    """user 100 (60 of it guests'), nice 20, system 30, irq 5, softirq 5: 160 ticks; idle, iowait, 7 stolen are not."""
    time = cpu_time("cpu  100 20 30 900 50 5 5 7 60 0\ncpu0 0 0\ncpu1 0 0\nintr 5\n")
    assert (time.busy_seconds * ticks_per_second(), time.threads) == (160.0, 2)


@pytest.mark.skipif(not XEON_STAT.is_file(), reason="no captured /proc/stat at ../shared/data of the repository")
def test_captured_two_socket_xeon_is_read() -> None:
    """Its first line, summed by hand: 254 764 110 + 11 797 + 179 539 978 + 0 + 8 670 797 ticks."""
    time = cpu_time(XEON_STAT.read_text())
    assert time.busy_seconds * ticks_per_second() == pytest.approx(442_986_682)


@pytest.mark.parametrize(
    ("told_name", "plain"),
    [
        ("Intel(R) Xeon(R) Platinum 8358 CPU @ 2.60GHz", "Intel Xeon Platinum 8358"),
        ("Intel(R) Xeon(R) CPU E5-2698 v4 @ 2.20GHz", "Intel Xeon E5-2698 v4"),
        ("AMD EPYC 7742 64-Core Processor", "AMD EPYC 7742"),
        ("INTEL(R) XEON(R) PLATINUM 8570", "INTEL XEON PLATINUM 8570"),
    ],
)
def test_processors_are_known_by_their_plain_names(told_name: str, plain: str) -> None:
    """As /proc/cpuinfo tells them, in either case, and AMD's single-socket twins."""
    assert plain_model(told_name) == plain
    assert part_of(plain) is not None
    assert part_of("AMD EPYC 9654P") == PARTS["AMD EPYC 9654"]
    assert part_of("AMD Ryzen 9") is None


def test_figure_per_thread_is_the_middle_of_the_large_parts() -> None:
    """Within 0.1 W; a table that grows must keep it true."""
    large = [part.tdp_watts / part.threads for part in PARTS.values() if part.threads >= 64]
    assert median(large) == pytest.approx(DEFAULT_WATTS_PER_THREAD, abs=0.1)


def test_what_the_operator_says_goes_first() -> None:
    """600 W for both sockets; without it two parts of 360 W."""
    info = CpuInfo(model="AMD EPYC 9654", threads=384, sockets=2, is_virtual=False)
    assert cpu_power(info, tdp_watts=600.0).tdp_watts == 600.0
    assert cpu_power(info).tdp_watts == 720.0
    assert power_watts(600.0, 1.0) == 600.0
