"""The NVML meter through a real library and its real child: every joule worked by hand. 1 J is 1 000 mJ of the fake."""

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import fake_nvml
import pytest
from fake_nvml import FakeNvml, uuid

from collectors.clock import monotonic
from collectors.errors import Broken, CollectorError, Gone, RetryLater
from collectors.meter import Measured
from collectors.nvml_process import NvmlMeter
from collectors.readings import ActivityReading, CounterMark, EnergyReading

START = 1_700_000_000.0


class Hands:
    """A clock that stands until it is turned."""

    def __init__(self) -> None:
        self.at = START

    def now(self) -> float:
        return self.at


class Bench:
    """A fake driver, a meter, and the time between its reads."""

    def __init__(self, folder: Path, gpus: int) -> None:
        self.nvml = FakeNvml(folder, gpus)
        self.hands = Hands()
        self.procfs = folder / "proc"
        self.life("boot-1")
        self.servers: set[int] = set()
        self.meter = self.new_meter()

    def new_meter(self) -> NvmlMeter:
        return NvmlMeter(
            clock=self.hands,
            ticks=self.hands.now,
            is_server=self.servers.__contains__,
            interval_seconds=0.02,
            deadline_seconds=1.5,
            open_seconds=0.6,
            slow_seconds=0.0,
            backoff_seconds=(0.1, 0.2),
            procfs=self.procfs,
        )

    def life(self, boot: str) -> None:
        path = self.procfs / "sys/kernel/random/boot_id"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(boot + "\n")

    def read(self, seconds: float = 1.0) -> list[Measured]:
        """One read, `seconds` of the log after the last."""
        self.hands.at += seconds
        return list(self.meter.read())

    def joules(self, seconds: float = 1.0) -> dict[str, tuple[str, float]]:
        """What one read says each device used: method and joules."""
        return energies(self.read(seconds))

    def until(self, seen: Callable[[list[Measured]], bool]) -> list[Measured]:
        """Reads again and again for at most five real seconds; everything that came."""
        came: list[Measured] = []
        deadline = monotonic() + 5.0
        while monotonic() < deadline:
            with contextlib.suppress(RetryLater):
                came += self.read(0.01)
            if seen(came):
                return came
            time.sleep(0.01)
        raise AssertionError(f"not seen in 5 s: {came}, {self.meter.health()}")

    def state(self, slot: int) -> str:
        return self.states()[uuid(slot)]

    def states(self) -> dict[str, str]:
        return {health.device: health.state for health in self.meter.health().devices}

    def events(self, device: str) -> dict[str, int]:
        return {word: n for (name, word), n in self.meter.health().events.items() if name == device}


def energies(measured: Sequence[Measured]) -> dict[str, tuple[str, float]]:
    return {m.device: (m.method, m.energy_joules) for m in measured if isinstance(m, EnergyReading)}


def moved(measured: Sequence[Measured]) -> dict[str, tuple[str, float]]:
    """The same without the readings before and after, in which nothing was used."""
    return energies([m for m in measured if isinstance(m, EnergyReading) and m.energy_joules > 0.0])


def children() -> list[int]:
    """The pids of this process's children that run the reader."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _parent(int(entry.name)) == os.getpid():
            with contextlib.suppress(OSError):
                if b"collectors.nvml_child" in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


def _parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


@pytest.fixture(params=[1])
def bench(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench(tmp_path, request.param)
    for name, value in made.nvml.environment.items():
        monkeypatch.setenv(name, value)
    yield made
    made.meter.close()
    assert children() == []
    made.nvml.close()


two_gpus = pytest.mark.parametrize("bench", [2], indirect=True)
no_gpu = pytest.mark.parametrize("bench", [0], indirect=True)


def test_a_counter_gives_its_difference(bench: Bench) -> None:
    """1 000 J, then 1 123.456 J a second later: 123.456 J in that second, and the first read closes no interval."""
    bench.meter.open()
    assert bench.read() == []
    bench.nvml.gpu(0).energy_mj += 123_456
    (reading,) = bench.read()
    assert isinstance(reading, EnergyReading)
    assert (reading.device, reading.method) == (uuid(0), "counter")
    assert reading.energy_joules == pytest.approx(123.456, abs=1e-9)
    assert reading.end - reading.start == pytest.approx(1.0, abs=0.1)
    (mark,) = bench.meter.marks
    assert (mark.raw_joules, mark.range_joules, mark.boot_id) == (1_123.456, None, "boot-1/590.48.01")


def test_one_field_values_call_per_gpu_and_read(bench: Bench) -> None:
    """A read asks the fields once, and neither the counter nor the power by a call of its own."""
    bench.meter.open()
    bench.read()
    before = bench.nvml.calls("fields")
    bench.read()
    assert bench.nvml.calls("fields") - before == 1
    assert bench.nvml.calls("energy") == bench.nvml.calls("power") == 0


def test_no_field_values_falls_back_to_the_calls(bench: Bench) -> None:
    """A driver that does not know the call at all is asked counter and power by themselves."""
    bench.nvml.gpu(0).answer("fields", fake_nvml.NOT_SUPPORTED)
    bench.meter.open()
    bench.read()
    bench.nvml.gpu(0).energy_mj += 50_000
    assert bench.joules() == {uuid(0): ("counter", 50.0)}


def test_no_counter_integrates_power(bench: Bench) -> None:
    """100 W, a second later 300 W: (100 + 300) / 2 x 1 s = 200 J, and said to be integrated."""
    gpu = bench.nvml.gpu(0)
    gpu.set_field("energy", 0, fake_nvml.NOT_SUPPORTED)
    gpu.answer("energy", fake_nvml.NOT_SUPPORTED)
    bench.meter.open()
    bench.read()
    gpu.set_field("average", 300_000)
    (reading,) = bench.read()
    assert isinstance(reading, EnergyReading)
    assert reading.method == "integrated"
    assert reading.energy_joules == pytest.approx(200.0, rel=0.02)
    bench.read()
    assert bench.nvml.calls("energy") == 1, "what a board lacks is not asked again"
    assert bench.meter.marks == ()


def test_neither_counter_nor_power_is_broken(bench: Bench) -> None:
    """N/A everywhere gives no zero joules: nothing, and a health that says so."""
    gpu = bench.nvml.gpu(0)
    for field in ("energy", "average", "instant"):
        gpu.set_field(field, 0, fake_nvml.NOT_SUPPORTED)
    gpu.answer("energy", fake_nvml.NOT_SUPPORTED)
    gpu.answer("power", fake_nvml.NOT_SUPPORTED)
    bench.meter.open()
    assert bench.read() == bench.read() == []
    (health,) = bench.meter.health().devices
    assert health.state == "broken"
    assert "neither energy nor power" in health.detail


@pytest.mark.parametrize("all_ones", [2**64 - 1, 2**63 - 1])
def test_an_all_ones_counter_is_no_count(bench: Bench, all_ones: int) -> None:
    """A sentinel between 1 000 J and 1 300 J costs nothing: the next value gives the 300 J of both seconds."""
    bench.meter.open()
    bench.read()
    bench.nvml.gpu(0).energy_mj = all_ones
    assert bench.joules() == {}
    bench.nvml.gpu(0).energy_mj = 1_300_000
    assert bench.joules() == {uuid(0): ("counter", 300.0)}
    assert bench.events(uuid(0)) == {"sentinel": 1}


def test_implausible_watts_are_named_and_not_added(bench: Bench) -> None:
    """A jump of 2 MJ in a second is 2 MW, above 1.5 x 700 W: dropped, named, and the next second counts from there."""
    bench.meter.open()
    bench.read()
    bench.nvml.gpu(0).energy_mj += 2_000_000_000
    assert bench.joules() == {}
    bench.nvml.gpu(0).energy_mj += 400_000
    assert bench.joules() == {uuid(0): ("counter", 400.0)}
    assert bench.events(uuid(0)) == {"implausible": 1}


def test_a_reloaded_driver_is_opened_anew_and_its_reset_named(bench: Bench) -> None:
    """The counter begins at 0 with another driver version: the interval of the reset is missing, the next is not."""
    bench.meter.open()
    bench.read()
    bench.nvml.reload_driver("595.71.05")
    bench.until(lambda _: bench.events(uuid(0)).get("reset") == 1)
    bench.nvml.gpu(0).energy_mj += 70_000
    assert bench.joules() == {uuid(0): ("counter", 70.0)}
    assert bench.meter.marks[0].boot_id == "boot-1/595.71.05"


def test_the_same_driver_reloaded_is_a_reset_by_its_fall(bench: Bench) -> None:
    """The version tells nothing, the fall from 1 000 J to 5 J does: one reset, and only what follows is counted."""
    bench.meter.open()
    bench.read()
    bench.nvml.reload_driver()
    bench.nvml.gpu(0).energy_mj = 5_000
    bench.until(lambda _: bench.state(0) == "waiting" and bench.nvml.calls("init") == 2)
    bench.nvml.gpu(0).energy_mj += 30_000
    came = [m for m in (*bench.read(), *bench.read()) if isinstance(m, EnergyReading)]
    assert math.fsum(m.energy_joules for m in came) == 30.0
    assert bench.events(uuid(0)) == {"reset": 1}


def test_ten_minutes_down_are_recovered_from_the_mark(bench: Bench) -> None:
    """1 000 J at the mark, 301 000 J ten minutes later: one recovered reading of 300 000 J over those 600 s."""
    mark = CounterMark(
        device=uuid(0), at=START - 599.0, raw_joules=1_000.0, range_joules=None, boot_id="boot-1/590.48.01"
    )
    bench.nvml.gpu(0).energy_mj = 301_000_000
    bench.meter.resume([mark])
    bench.meter.open()
    (reading,) = bench.read()
    assert isinstance(reading, EnergyReading)
    assert (reading.method, reading.energy_joules, reading.start) == ("recovered", 300_000.0, START - 599.0)
    assert reading.end == pytest.approx(START + 1.0, abs=0.1)


def test_a_mark_of_another_boot_is_a_reset(bench: Bench) -> None:
    """After a reboot the counter is another one, even where it has passed the old value."""
    bench.meter.resume(
        [CounterMark(device=uuid(0), at=START - 60.0, raw_joules=10.0, range_joules=None, boot_id="boot-0/590.48.01")]
    )
    bench.meter.open()
    assert bench.joules() == {}
    assert bench.events(uuid(0)) == {"reset": 1}


@two_gpus
def test_one_hung_gpu_keeps_no_other(bench: Bench) -> None:
    """The neighbour is read in the same read, the hung one is told, and its joules come when it is back."""
    bench.meter.open()
    bench.read()
    bench.nvml.gpu(0).hang = 1
    bench.nvml.gpu(0).energy_mj += 200_000
    bench.nvml.gpu(1).energy_mj += 100_000
    assert bench.joules() == {uuid(1): ("counter", 100.0)}
    assert (bench.state(0), bench.state(1)) == ("not_responding", "ok")
    bench.nvml.gpu(1).energy_mj += 10_000
    assert bench.joules() == {uuid(1): ("counter", 10.0)}
    bench.nvml.gpu(0).hang = 0
    came = bench.until(lambda came: uuid(0) in moved(came))
    assert moved(came)[uuid(0)] == ("counter", 200.0)
    assert bench.state(0) == "ok"
    bench.until(lambda _: len(children()) == 1)


@two_gpus
def test_stuck_children_do_not_pile_up(bench: Bench) -> None:
    """However often a hung GPU is asked again, it has one child, and the rest of the GPUs one."""
    bench.meter.open()
    bench.read()
    bench.nvml.gpu(0).hang = 1
    deadline = monotonic() + 5.0
    while monotonic() < deadline:
        with contextlib.suppress(RetryLater):
            bench.read(0.01)
        assert len(children()) <= 3  # the rest's, the hung one's, and one being killed
        time.sleep(0.05)
    assert bench.events(uuid(0))["timeout"] >= 1


@two_gpus
def test_all_hung_for_five_minutes_and_back_lose_no_joule(bench: Bench) -> None:
    """300 s at 300 W on one board and 100 W on the other: 90 000 J and 30 000 J, recovered, in one reading each."""
    bench.meter.open()
    bench.read()
    for slot in (0, 1):
        bench.nvml.gpu(slot).hang = 1
    with pytest.raises(RetryLater, match="no GPU answered"):
        bench.read()
    bench.hands.at += 300.0
    bench.nvml.gpu(0).energy_mj += 90_000_000
    bench.nvml.gpu(1).energy_mj += 30_000_000
    for slot in (0, 1):
        bench.nvml.gpu(slot).hang = 0
    came = bench.until(lambda came: len(moved(came)) == 2)
    assert moved(came) == {uuid(0): ("recovered", 90_000.0), uuid(1): ("recovered", 30_000.0)}
    assert bench.states() == {uuid(0): "ok", uuid(1): "ok"}


def test_a_hung_child_does_not_keep_close(bench: Bench) -> None:
    """close() with a hung child takes less than a second and leaves no process."""
    bench.meter.open()
    bench.read()
    bench.nvml.gpu(0).hang = 1
    with pytest.raises(RetryLater):
        bench.read()
    before = monotonic()
    bench.meter.close()
    assert monotonic() - before < 1.0
    assert children() == []


@two_gpus
def test_a_gpu_that_hangs_while_it_is_opened_keeps_no_other(bench: Bench) -> None:
    """Index 0 never opens: the other one is metered, and both are once it does."""
    bench.nvml.gpu(0).hang = 1
    bench.meter.open()
    bench.read()
    assert bench.states() == {uuid(1): "waiting", "gpu #0": "not_responding"}
    bench.nvml.gpu(1).energy_mj += 1_000
    assert bench.joules() == {uuid(1): ("counter", 1.0)}
    assert bench.states() == {uuid(1): "ok", "gpu #0": "not_responding"}
    bench.nvml.gpu(0).hang = 0
    bench.until(lambda _: bench.states() == {uuid(0): "waiting", uuid(1): "ok"})
    bench.nvml.gpu(0).energy_mj += 2_000
    assert bench.joules()[uuid(0)] == ("counter", 2.0)


@two_gpus
def test_a_whole_driver_that_hangs_later_is_not_responding(bench: Bench) -> None:
    """Every call and every new start hangs: both GPUs are told, and both come back with their joules."""
    bench.meter.open()
    bench.read()
    bench.nvml.control.init_hang = 1
    for slot in (0, 1):
        bench.nvml.gpu(slot).hang = 1
    bench.until(lambda _: set(bench.states().values()) == {"not_responding"})
    for slot in (0, 1):
        bench.nvml.gpu(slot).energy_mj += 2_000
        bench.nvml.gpu(slot).hang = 0
    bench.nvml.control.init_hang = 0
    came = bench.until(lambda came: len(moved(came)) == 2)
    assert moved(came) == {uuid(0): ("counter", 2.0), uuid(1): ("counter", 2.0)}


def test_a_driver_that_hangs_at_its_start_is_retried(bench: Bench) -> None:
    """open() gives up after its time, and works once the driver answers."""
    bench.nvml.control.init_hang = 1
    with pytest.raises(RetryLater, match="did not answer"):
        bench.meter.open()
    bench.nvml.control.init_hang = 0
    deadline = monotonic() + 5.0
    while monotonic() < deadline:
        with contextlib.suppress(RetryLater):
            bench.meter.open()
            break
        time.sleep(0.01)
    assert bench.read() == []


def test_a_slow_gpu_is_not_a_hung_one(bench: Bench) -> None:
    """10 ms for each call is slow; it answers, and no child is killed."""
    bench.nvml.gpu(0).delay_ms = 10
    bench.meter.open()
    bench.read()
    bench.nvml.gpu(0).energy_mj += 1_000
    bench.until(lambda came: moved(came) == {uuid(0): ("counter", 1.0)})
    assert bench.events(uuid(0)) == {}


def test_a_killed_child_is_replaced_in_the_next_read(bench: Bench) -> None:
    """kill -9 of the reader between two reads costs nothing: the counter goes on."""
    bench.meter.open()
    bench.read()
    (pid,) = children()
    os.kill(pid, signal.SIGKILL)
    bench.nvml.gpu(0).energy_mj += 42_000
    came = bench.until(lambda came: bool(moved(came)))
    assert moved(came) == {uuid(0): ("counter", 42.0)}


@two_gpus
def test_a_reader_that_crashes_at_one_gpu_goes_on_with_the_others(bench: Bench) -> None:
    """A segfault inside the driver's library at GPU 0 puts that one aside."""
    bench.meter.open()
    bench.read()
    bench.nvml.gpu(0).crash = 1
    bench.nvml.gpu(1).energy_mj += 9_000
    assert bench.joules() == {uuid(1): ("counter", 9.0)}
    health = {health.device: health for health in bench.meter.health().devices}[uuid(0)]
    assert health.state == "not_responding"
    assert "signal 11" in health.detail


def test_kill_9_of_the_daemon_leaves_no_child(bench: Bench) -> None:
    """The reader dies with the process that started it, also while it hangs in a call."""
    program = (
        "import time\n"
        "from collectors.clock import SystemClock\n"
        "from collectors.nvml_process import NvmlMeter\n"
        "meter = NvmlMeter(clock=SystemClock(), is_server=lambda pid: False, deadline_seconds=60.0)\n"
        "meter.open()\n"
        "print(meter._main.pid, flush=True)\n"
        "meter.read()\n"
    )
    daemon = subprocess.Popen(
        [sys.executable, "-c", program], env=bench.nvml.environ(), stdout=subprocess.PIPE, text=True
    )
    assert daemon.stdout is not None
    reader = int(daemon.stdout.readline())
    bench.nvml.gpu(0).hang = 1
    daemon.kill()
    daemon.wait(5.0)
    daemon.stdout.close()
    deadline = monotonic() + 5.0
    while Path(f"/proc/{reader}/cmdline").exists() and _runs(reader) and monotonic() < deadline:
        time.sleep(0.01)
    assert not _runs(reader)


def _runs(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@two_gpus
def test_a_renumbered_index_changes_nothing(bench: Bench) -> None:
    """After a reload the indices are swapped: each UUID keeps its own joules."""
    bench.meter.open()
    bench.read()
    bench.nvml.order(1, 0)
    bench.nvml.gpu(0).energy_mj += 11_000
    bench.nvml.gpu(1).energy_mj += 22_000
    (pid,) = children()
    os.kill(pid, signal.SIGKILL)
    came = bench.until(lambda came: len(moved(came)) == 2)
    assert moved(came) == {uuid(0): ("counter", 11.0), uuid(1): ("counter", 22.0)}


@two_gpus
def test_a_removed_gpu_is_gone_and_one_plugged_in_is_found(bench: Bench) -> None:
    """Removal ends one GPU and no other; back in its slot it goes on where its counter is."""
    bench.meter.open()
    bench.read()
    bench.nvml.gpu(1).removed = 1
    bench.until(lambda _: bench.state(1) == "gone")
    bench.nvml.gpu(0).energy_mj += 4_000
    assert bench.joules() == {uuid(0): ("counter", 4.0)}
    bench.nvml.gpu(1).removed = 0
    bench.nvml.gpu(1).energy_mj += 8_000
    came = bench.until(lambda came: uuid(1) in moved(came))
    assert moved(came)[uuid(1)] == ("counter", 8.0)
    bench.nvml.add(2)
    bench.until(lambda _: len(bench.meter.devices) == 3)


@two_gpus
def test_a_lost_gpu_is_told_and_its_neighbour_goes_on(bench: Bench) -> None:
    """XID 79: every call says that the GPU is lost; nothing is counted for it, and nothing is zero."""
    bench.meter.open()
    bench.read()
    lost = bench.nvml.gpu(0)
    for call in ("handle", "fields", "energy", "power", "reasons"):
        lost.answer(call, fake_nvml.GPU_IS_LOST)
    bench.nvml.gpu(1).energy_mj += 3_000
    assert bench.joules() == {uuid(1): ("counter", 3.0)}
    bench.until(lambda _: bench.state(0) == "broken" and bench.state(1) == "ok")
    details = [health.detail for health in bench.meter.health().devices if health.device == uuid(0)]
    assert "GPU is lost" in details[0]


def test_throttling_is_told_beside_the_energy(bench: Bench) -> None:
    """Reasons 0x4 | 0x20: software power cap and thermal slowdown, in the interval that ends with them."""
    bench.meter.open()
    bench.read()
    bench.nvml.gpu(0).reasons = 0x24
    (activity,) = [m for m in bench.read() if isinstance(m, ActivityReading)]
    assert (activity.consumer, activity.state) == ("", ("power_capped", "thermal_throttled"))
    assert activity.end - activity.start == pytest.approx(1.0, abs=0.1)


def test_processes_that_are_no_servers_are_other(bench: Bench) -> None:
    """50 % and 10 % of foreign processes over 1 s are 0.6 s; the server's 30 % and memory alone are none of it."""
    bench.servers.add(100)
    gpu = bench.nvml.gpu(0)
    gpu.set_processes((100, 1 << 30), (200, 1 << 30), (400, 2 << 30))
    bench.meter.open()
    bench.read()
    gpu.set_utilisation((100, 30), (200, 50), (300, 10))
    (activity,) = [m for m in bench.read() if isinstance(m, ActivityReading)]
    assert activity.consumer == "other"
    assert activity.busy_seconds == pytest.approx(0.6 * (activity.end - activity.start))
    assert bench.read() == [], "the same samples are not counted twice"
    assert bench.meter.processes == (
        (uuid(0), 100, float(1 << 30)),
        (uuid(0), 200, float(1 << 30)),
        (uuid(0), 400, float(2 << 30)),
    )


def test_mig_meters_the_parent_and_lists_the_instances(bench: Bench) -> None:
    """Two instances are on one device; nothing is metered for them, and no process is told apart."""
    bench.nvml.gpu(0).set_instances("MIG-a", "MIG-b")
    bench.meter.open()
    bench.read()
    bench.nvml.gpu(0).energy_mj += 6_000
    bench.nvml.gpu(0).set_utilisation((200, 50))
    assert energies(measured := bench.read()) == {uuid(0): ("counter", 6.0)}
    assert len(measured) == 1
    (device,) = bench.meter.devices
    assert device.instances == ("MIG-a", "MIG-b")


def test_a_grace_hopper_module_is_the_parent_and_never_added(bench: Bench) -> None:
    """GPU 400 J inside module 650 J: two readings, the module a node that contains the GPU."""
    gpu = bench.nvml.gpu(0)
    gpu.answer("c2c", 0)
    gpu.c2c = 1
    gpu.set_field("module_energy", 5_000_000)
    gpu.set_field("module_average", 600_000)
    gpu.set_field("module_limit", 1_000_000)
    bench.meter.open()
    bench.read()
    gpu.energy_mj += 400_000
    gpu.set_field("module_energy", 5_650_000)
    assert bench.joules() == {uuid(0): ("counter", 400.0), f"{uuid(0)}/module": ("counter", 650.0)}
    module, board = bench.meter.devices
    assert (module.id, module.kind, module.parent) == (f"{uuid(0)}/module", "node", None)
    assert (board.id, board.kind, board.parent) == (uuid(0), "gpu", module.id)
    assert {mark.device: mark.raw_joules for mark in bench.meter.marks} == {board.id: 1_400.0, module.id: 5_650.0}


def test_no_permission_is_broken_and_says_what_mends_it(bench: Bench) -> None:
    """Not one joule, and a health that names the files."""
    for call in ("fields", "energy", "power", "reasons"):
        bench.nvml.gpu(0).answer(call, fake_nvml.NO_PERMISSION)
    bench.meter.open()
    assert bench.read() == []
    (health,) = bench.meter.health().devices
    assert (health.state, "/dev/nvidia" in health.detail) == ("broken", True)


@no_gpu
def test_a_driver_without_gpus_is_gone(bench: Bench) -> None:
    """Nothing to meter is an expected end."""
    with pytest.raises(Gone, match="no GPU"):
        bench.meter.open()


@pytest.mark.parametrize(
    ("code", "text"), [(fake_nvml.DRIVER_NOT_LOADED, "modprobe"), (fake_nvml.LIB_RM_VERSION_MISMATCH, "reboot")]
)
def test_a_refused_start_says_what_mends_it(bench: Bench, code: int, text: str) -> None:
    """The library is there and the driver is not, or not its own."""
    bench.nvml.control.init_code = code
    with pytest.raises(Broken, match=text):
        bench.meter.open()


def test_a_driver_that_goes_away_and_comes_back(bench: Bench) -> None:
    """An upgrade: the library is refused for a while, then reads go on with the counter from 0."""
    bench.meter.open()
    bench.read()
    bench.nvml.control.init_code = fake_nvml.LIB_RM_VERSION_MISMATCH
    bench.nvml.reload_driver("595.71.05")
    with contextlib.suppress(RetryLater):
        bench.read()
    bench.until(lambda _: bench.state(0) == "not_responding")
    bench.nvml.control.init_code = 0
    bench.until(lambda _: bench.events(uuid(0)) == {"reset": 1})
    bench.nvml.gpu(0).energy_mj += 5_000
    assert bench.joules() == {uuid(0): ("counter", 5.0)}


def test_no_library_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without NVIDIA's driver is no error."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    meter = NvmlMeter(clock=Hands(), is_server=lambda _: False)
    with pytest.raises(CollectorError) as caught:
        meter.open()
    meter.close()
    if not Path("/dev/nvidiactl").exists():
        assert isinstance(caught.value, Gone)
        assert "no NVIDIA driver on this host" in str(caught.value)
