"""The RAPL meter on powercap trees of real files, joules worked by hand."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sysfs_tree import RANGE_MICROJOULES, HandClock, PowercapTree

from collectors.errors import Broken, Gone
from collectors.meter import Measured
from collectors.rapl import RaplMeter, diagnose
from collectors.readings import EnergyReading

FIXTURES = Path(__file__).parents[3] / "shared" / "data" / "fixtures-sysfs" / "procfs"
ABSENT = "the powercap fixture is not at ../shared/data of the repository: only generated trees are tested"


@pytest.fixture
def tree(tmp_path: Path) -> PowercapTree:
    return PowercapTree(tmp_path)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@contextmanager
def opened(tree: PowercapTree, clock: HandClock) -> Iterator[RaplMeter]:
    meter = meter_of(tree, clock)
    meter.open()
    yield meter
    meter.close()


def meter_of(tree: PowercapTree, clock: HandClock) -> RaplMeter:
    return RaplMeter(sysfs=tree.sysfs, procfs=tree.procfs, clock=clock, boot_seconds=clock.boot_seconds)


def joules(readings: Sequence[Measured]) -> dict[str, float]:
    """Device -> joules; each device once."""
    assert len({reading.device for reading in readings}) == len(readings)
    return {
        reading.device: pytest.approx(reading.energy_joules, abs=1e-6)
        for reading in readings
        if isinstance(reading, EnergyReading)
    }


def states(meter: RaplMeter) -> dict[str, str]:
    return {device.device: device.state for device in meter.health().devices}


def test_package_and_dram_give_what_their_counters_gained(tree: PowercapTree, clock: HandClock) -> None:
    """Two sockets with memory, core zones beside: four devices, each joule once."""
    for socket in (0, 1):
        tree.add(f"intel-rapl:{socket}", f"package-{socket}", microjoules=50_000_000 * (socket + 1))
        tree.add(f"intel-rapl:{socket}:0", "core", microjoules=5)
        tree.add(f"intel-rapl:{socket}:1", "dram", microjoules=9_000_000 * (socket + 1))
    with opened(tree, clock) as meter:
        assert [(device.id, device.kind) for device in meter.devices] == [
            ("cpu-0", "cpu"), ("cpu-1", "cpu"), ("dram-0", "dram"), ("dram-1", "dram"),
        ]  # fmt: skip
        assert meter.read() == []
        for zone, used in (("0", 120.5), ("1", 80.25), ("0:0", 99.0), ("0:1", 20.0), ("1:1", 21.0)):
            tree.advance(f"intel-rapl:{zone}", used)
        clock.pass_seconds(1.0)
        readings = meter.read()
        assert joules(readings) == {"cpu-0": 120.5, "cpu-1": 80.25, "dram-0": 20.0, "dram-1": 21.0}
        assert {(reading.start, reading.end) for reading in readings} == {(1_000_000.0, 1_000_001.0)}
        assert {reading.method for reading in readings if isinstance(reading, EnergyReading)} == {"counter"}
        assert set(states(meter).values()) == {"ok"}


def test_psys_counts_alone_where_there_is_no_package(tree: PowercapTree, clock: HandClock) -> None:
    """It is a node meter then; beside a package it is left out."""
    tree.add("intel-rapl:0", "psys", microjoules=1)
    with opened(tree, clock) as meter:
        assert [(device.id, device.kind) for device in meter.devices] == [("psys", "node")]
    tree.add("intel-rapl:1", "package-0", microjoules=1)
    with opened(tree, clock) as meter:
        assert [device.id for device in meter.devices] == ["cpu-0"]


def test_twin_of_memory_mapped_io_is_not_added(tree: PowercapTree, clock: HandClock) -> None:
    """intel-rapl and intel-rapl-mmio show one package, with counts of their own."""
    tree.add("intel-rapl-mmio:0", "package-0", microjoules=77_000_000)
    tree.add("intel-rapl:0", "package-0", microjoules=5_000_000)
    with opened(tree, clock) as meter:
        meter.read()
        tree.advance("intel-rapl:0", 40.0)
        tree.advance("intel-rapl-mmio:0", 41.0)
        clock.pass_seconds(1.0)
        assert joules(meter.read()) == {"cpu-0": 40.0}


def test_dies_with_counters_of_their_own_are_added(tree: PowercapTree, clock: HandClock) -> None:
    """package-0-die-1 is the device cpu-0-die-1."""
    tree.add("intel-rapl:0", "package-0-die-0", microjoules=5_000_000)
    tree.add("intel-rapl:1", "package-0-die-1", microjoules=9_000_000)
    with opened(tree, clock) as meter:
        meter.read()
        tree.advance("intel-rapl:0", 30.0)
        tree.advance("intel-rapl:1", 31.0)
        clock.pass_seconds(1.0)
        assert joules(meter.read()) == {"cpu-0-die-0": 30.0, "cpu-0-die-1": 31.0}


@pytest.mark.parametrize(
    "names", [("package-0-die-0", "package-0-die-1"), ("package-0", "package-1"), ("package-0",) * 2]
)
def test_dies_that_mirror_their_socket_count_once(tree: PowercapTree, clock: HandClock, names: tuple[str, str]) -> None:
    """68 W shown twice are 68 W, not 137 W (CodeCarbon issue 1274), also across the wrap."""
    tree.sockets(0)
    for number, name in enumerate(names):
        tree.add(f"intel-rapl:{number}", name, microjoules=RANGE_MICROJOULES - 100_000_000 + 200_000 * number)
    with opened(tree, clock) as meter:
        meter.read()
        used = []
        for _ in range(4):
            tree.advance("intel-rapl:0", 68.0)
            tree.advance("intel-rapl:1", 68.3)
            clock.pass_seconds(1.0)
            used.append(joules(meter.read()))
        assert [len(reading) for reading in used] == [1, 1, 1, 1]
        assert [list(reading.values()) for reading in used] == [[68.0]] * 4
        assert len(meter.devices) == len(meter.marks) == 1


def test_two_sockets_that_the_kernel_knows_are_never_mirrors(tree: PowercapTree, clock: HandClock) -> None:
    """Both counters begin at the same value; there are two sockets with processors."""
    tree.sockets(0, 0, 1, 1)
    tree.add("intel-rapl:0", "package-0", microjoules=1_000)
    tree.add("intel-rapl:1", "package-1", microjoules=1_000)
    with opened(tree, clock) as meter:
        meter.read()
        tree.advance("intel-rapl:0", 50.0)
        tree.advance("intel-rapl:1", 50.0)
        clock.pass_seconds(1.0)
        assert joules(meter.read()) == {"cpu-0": 50.0, "cpu-1": 50.0}


def test_zones_alike_by_chance_are_told_apart_once_they_differ(tree: PowercapTree, clock: HandClock) -> None:
    """No topology, equal at first: after three reads that differ the second one is metered."""
    tree.add("intel-rapl:0", "package-0", microjoules=1_000)
    tree.add("intel-rapl:1", "package-1", microjoules=1_000)
    with opened(tree, clock) as meter:
        seen = []
        for _ in range(6):
            tree.advance("intel-rapl:0", 50.0)
            tree.advance("intel-rapl:1", 90.0)
            clock.pass_seconds(1.0)
            seen.append(joules(meter.read()))
        assert seen[-1] == {"cpu-0": 50.0, "cpu-1": 90.0}
        assert "cpu-1" not in seen[2]
        assert meter.health().events[("cpu-1", "mirror_ended")] == 1


@settings(deadline=None, max_examples=60)
@given(
    start=st.integers(0, RANGE_MICROJOULES - 1),
    steps=st.lists(st.integers(1, 400_000_000), min_size=1, max_size=20),
)
def test_wrap_at_any_point_gives_the_joules_of_the_continuous_counter(start: int, steps: list[int]) -> None:
    """The sum of the readings is the sum of the steps, wherever the counter starts again."""
    with tempfile.TemporaryDirectory() as folder:
        tree, clock = PowercapTree(Path(folder)), HandClock()
        tree.add("intel-rapl:0", "package-0", microjoules=start, limit_watts=400)
        with opened(tree, clock) as meter:
            total = 0.0
            readings: list[Measured] = list(meter.read())
            count = start
            for step in steps:
                count = (count + step) % RANGE_MICROJOULES
                tree.set("intel-rapl:0", count)
                clock.pass_seconds(1.0)
                readings += meter.read()
                total += step / 1e6
            given_joules = sum(reading.energy_joules for reading in readings if isinstance(reading, EnergyReading))
            assert given_joules == pytest.approx(total, abs=1e-6)
            assert len(readings) == len(steps)


def test_time_that_may_hide_two_wraps_is_lost_and_named(tree: PowercapTree, clock: HandClock) -> None:
    """65 536 J of range at 270 W: 1.5 x 270 x 100 s = 40 500 J is over half of it, so nothing is said of 100 s."""
    tree.add("intel-rapl:0", "package-0", microjoules=5, range_microjoules=65_536_000_000, limit_watts=270)
    with opened(tree, clock) as meter:
        meter.read()
        tree.advance("intel-rapl:0", 20_000.0)
        clock.pass_seconds(100.0)
        assert meter.read() == []
        assert meter.health().events == {("cpu-0", "lost"): 1}
        tree.advance("intel-rapl:0", 100.0)
        clock.pass_seconds(1.0)
        assert joules(meter.read()) == {"cpu-0": 100.0}


def test_reset_loses_the_interval_it_falls_in_and_is_named(tree: PowercapTree, clock: HandClock) -> None:
    """The counter begins anew far from its end: 1 s is missing, the rest is there."""
    tree.add("intel-rapl:0", "package-0", microjoules=100_000_000_000, limit_watts=270)
    with opened(tree, clock) as meter:
        meter.read()
        readings: list[Measured] = []
        for count in (100_000_000, 200_000_000, 300_000_000):
            tree.set("intel-rapl:0", count)
            clock.pass_seconds(1.0)
            readings += meter.read()
        assert [(reading.start, reading.end) for reading in readings] == [
            (1_000_001.0, 1_000_002.0),
            (1_000_002.0, 1_000_003.0),
        ]
        assert meter.health().events == {("cpu-0", "reset"): 1}


def test_unknown_range_loses_a_wrap_and_is_never_negative(tree: PowercapTree, clock: HandClock) -> None:
    """max_energy_range_uj is not there (CodeCarbon issue 1309: negative energy): the wrap's second is missing."""
    tree.add("intel-rapl:0", "package-0", microjoules=262_143_300_000, range_microjoules=None)
    with opened(tree, clock) as meter:
        meter.read()
        readings: list[Measured] = []
        for count in (50_000_000, 100_000_000, 160_000_000):
            tree.set("intel-rapl:0", count)
            clock.pass_seconds(1.0)
            readings += meter.read()
        assert [reading.energy_joules for reading in readings if isinstance(reading, EnergyReading)] == [50.0, 60.0]
        assert meter.health().events == {("cpu-0", "reset"): 1}
        assert "max_energy_range_uj is not readable" in meter.health().devices[0].detail


def test_unknown_range_recovers_no_hole(tree: PowercapTree, clock: HandClock) -> None:
    """Over 31 s nobody knows whether it wrapped."""
    tree.add("intel-rapl:0", "package-0", microjoules=5, range_microjoules=None)
    with opened(tree, clock) as meter:
        meter.read()
        tree.advance("intel-rapl:0", 3_000.0)
        clock.pass_seconds(31.0)
        assert meter.read() == []
        assert meter.health().events == {("cpu-0", "lost"): 1}


def test_counter_that_stands_still_is_no_energy_of_zero(tree: PowercapTree, clock: HandClock) -> None:
    """DRAM that never counts (Scaphandre issue 108) is not responding; what it gains later covers the whole time."""
    tree.add("intel-rapl:0", "package-0", microjoules=5)
    tree.add("intel-rapl:0:0", "dram", microjoules=5)
    with opened(tree, clock) as meter:
        meter.read()
        for _ in range(12):
            tree.advance("intel-rapl:0", 10.0)
            clock.pass_seconds(1.0)
            assert joules(meter.read()) == {"cpu-0": 10.0}
        assert states(meter) == {"cpu-0": "ok", "dram-0": "not_responding"}
        assert meter.health().events == {("dram-0", "counter_stuck"): 1}
        tree.advance("intel-rapl:0:0", 26.0)
        clock.pass_seconds(1.0)
        assert [(reading.start, reading.end) for reading in meter.read()] == [(1_000_000.0, 1_000_013.0)]
        assert states(meter) == {"cpu-0": "ok", "dram-0": "ok"}


def test_garbage_in_the_counter_is_missing_and_its_neighbours_go_on(tree: PowercapTree, clock: HandClock) -> None:
    """A value that is no number costs nothing: the next reading covers both seconds."""
    tree.add("intel-rapl:0", "package-0", microjoules=5)
    tree.add("intel-rapl:1", "package-1", microjoules=60_000_000)
    with opened(tree, clock) as meter:
        meter.read()
        tree.set("intel-rapl:0", "-")
        tree.advance("intel-rapl:1", 10.0)
        clock.pass_seconds(1.0)
        assert joules(meter.read()) == {"cpu-1": 10.0}
        assert states(meter) == {"cpu-0": "not_responding", "cpu-1": "ok"}
        tree.set("intel-rapl:0", 70_000_005)
        clock.pass_seconds(1.0)
        assert joules(meter.read()) == {"cpu-0": 70.0}


def test_zone_that_goes_away_is_gone_and_goes_on_when_it_is_back(tree: PowercapTree, clock: HandClock) -> None:
    """It comes back in a folder of another number; what the counter gained within 30 s is measured."""
    tree.add("intel-rapl:0", "package-0", microjoules=5)
    tree.add("intel-rapl:1", "package-1", microjoules=60_000_000)
    with opened(tree, clock) as meter:
        meter.read()
        tree.remove("intel-rapl:1")
        tree.advance("intel-rapl:0", 10.0)
        clock.pass_seconds(1.0)
        assert joules(meter.read()) == {"cpu-0": 10.0}
        assert states(meter) == {"cpu-0": "ok", "cpu-1": "gone"}
        assert [device.id for device in meter.devices] == ["cpu-0"]
        tree.add("intel-rapl:5", "package-1", microjoules=260_000_000)
        tree.advance("intel-rapl:0", 10.0)
        clock.pass_seconds(10.0)
        assert joules(meter.read()) == {"cpu-0": 10.0, "cpu-1": 200.0}
        assert states(meter) == {"cpu-0": "ok", "cpu-1": "ok"}


@pytest.fixture
def shared_tree() -> Iterator[PowercapTree]:
    """A tree that another user may look into; pytest's own folders are closed to them."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield PowercapTree(Path(folder))


@contextmanager
def unprivileged() -> Iterator[None]:
    """As a user who owns nothing, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_permission_lost_in_the_middle_is_broken_and_no_zero(shared_tree: PowercapTree, clock: HandClock) -> None:
    """The driver made the file anew, for root alone: the device is broken with what mends it, the others go on."""
    shared_tree.add("intel-rapl:0", "package-0", microjoules=5)
    shared_tree.add("intel-rapl:1", "package-1", microjoules=60_000_000)
    with unprivileged():
        meter = meter_of(shared_tree, clock)
        meter.open()
        meter.read()
    counter = shared_tree.folder("intel-rapl:1") / "energy_uj"
    counter.unlink()
    counter.write_text("70000000\n")
    counter.chmod(0)
    shared_tree.advance("intel-rapl:0", 10.0)
    clock.pass_seconds(1.0)
    with unprivileged():
        assert joules(meter.read()) == {"cpu-0": 10.0}
    broken = meter.health().devices[1]
    assert (broken.device, broken.state) == ("cpu-1", "broken")
    assert "Permission denied" in broken.detail
    assert "group powercap" in broken.detail
    assert [device.id for device in meter.devices] == ["cpu-0", "cpu-1"]
    counter.chmod(0o444)
    clock.pass_seconds(1.0)
    with unprivileged():
        assert joules(meter.read()) == {"cpu-1": 10.0}
    assert meter.health().events == {("cpu-1", "broken"): 1}
    meter.close()


def test_no_permission_at_all_is_broken_at_once_and_the_doctor_names_each_zone(shared_tree: PowercapTree) -> None:
    """As the kernel leaves the files: for root alone."""
    shared_tree.add("intel-rapl:0", "package-0", microjoules=5)
    (shared_tree.folder("intel-rapl:0") / "energy_uj").chmod(0)
    with unprivileged():
        with pytest.raises(Broken, match=r"none of 1 RAPL zones.*group powercap.*wattribute doctor"):
            RaplMeter(sysfs=shared_tree.sysfs, procfs=shared_tree.procfs).open()
        (finding,) = diagnose(sysfs=shared_tree.sysfs, procfs=shared_tree.procfs)
    assert (finding.subject, finding.state) == ("cpu-0", "broken")
    assert "udev rule" in finding.mend


def test_host_without_rapl_is_gone(tree: PowercapTree) -> None:
    """No zone, and no powercap at all: said, with the module that may be missing."""
    with pytest.raises(Gone, match="no RAPL zone"):
        RaplMeter(sysfs=tree.sysfs, procfs=tree.procfs).open()
    (finding,) = diagnose(sysfs=tree.sysfs / "absent", procfs=tree.procfs)
    assert (finding.state, finding.mend) == ("missing", "modprobe intel_rapl_msr")


def test_doctor_says_each_zone(tree: PowercapTree) -> None:
    """Readable, mirrored, and without a range."""
    tree.add("intel-rapl:0", "package-0-die-0", microjoules=5, limit_watts=270)
    tree.add("intel-rapl:1", "package-0-die-1", microjoules=5)
    tree.add("intel-rapl:0:0", "dram", microjoules=9, range_microjoules=None)
    findings = {finding.subject: finding for finding in diagnose(sysfs=tree.sysfs, procfs=tree.procfs)}
    assert findings["cpu-0-die-0"].what == "intel-rapl:0 counts to 262143 J, at most 270 W are believed"
    assert findings["cpu-0-die-1"].what == "intel-rapl:1 shows the counter of cpu-0-die-0 and is not added"
    assert (findings["dram-0-die-0"].state, findings["cpu-0-die-0"].state) == ("warning", "ok")


@settings(deadline=None, max_examples=60)
@given(used=st.integers(1, 100_000_000), seconds=st.integers(31, 300), start=st.integers(0, RANGE_MICROJOULES - 1))
def test_restart_recovers_the_joules_of_the_continuous_counter(used: int, seconds: int, start: int) -> None:
    """270 W, 262 143 J: up to 323 s come back whole (1.5 x 270 x 300 = 121 500 J), also over the wrap."""
    with tempfile.TemporaryDirectory() as folder:
        tree, clock = PowercapTree(Path(folder)), HandClock()
        tree.add("intel-rapl:0", "package-0", microjoules=start, limit_watts=270)
        with opened(tree, clock) as meter:
            meter.read()
            marks = meter.marks
        tree.set("intel-rapl:0", (start + used * seconds) % RANGE_MICROJOULES)
        clock.pass_seconds(float(seconds))
        again = meter_of(tree, clock)
        again.resume(marks)
        again.open()
        (reading,) = again.read()
        assert isinstance(reading, EnergyReading)
        assert reading.energy_joules == pytest.approx(used * seconds / 1e6, abs=1e-6)
        assert (reading.method, reading.start, reading.end) == ("recovered", 1_000_000.0, 1_000_000.0 + seconds)
        again.close()


@pytest.mark.parametrize(("seconds", "boot_id", "word"), [(324.0, "boot-1", "lost"), (60.0, "boot-2", "reset")])
def test_restart_too_late_or_after_a_reboot_is_missing_and_named(
    tree: PowercapTree, clock: HandClock, seconds: float, boot_id: str, word: str
) -> None:
    """324 s x 1.5 x 270 W = 131 220 J is over half of 262 143 J; another boot's counter is another counter."""
    tree.add("intel-rapl:0", "package-0", microjoules=5, limit_watts=270)
    with opened(tree, clock) as meter:
        meter.read()
        marks = meter.marks
    tree.boot(boot_id)
    tree.advance("intel-rapl:0", 6_000.0)
    clock.pass_seconds(seconds)
    again = meter_of(tree, clock)
    again.resume(marks)
    again.open()
    assert again.read() == []
    assert again.health().events == {("cpu-0", word): 1}
    again.close()


def test_it_is_never_read_faster_than_once_a_second(tree: PowercapTree, clock: HandClock) -> None:
    """A shorter interval is refused, and a read right after a read gives nothing."""
    tree.add("intel-rapl:0", "package-0", microjoules=5)
    with pytest.raises(ValueError, match="once a second"):
        RaplMeter(sysfs=tree.sysfs, procfs=tree.procfs, interval_seconds=0.1)
    with opened(tree, clock) as meter:
        meter.read()
        tree.advance("intel-rapl:0", 10.0)
        clock.pass_seconds(0.1)
        assert meter.read() == []


@pytest.mark.parametrize(("told", "believed"), [(270, 270.0), (4090, 1000.0), (0, 1000.0), (41, 100.0), (None, 1000.0)])
def test_power_limit_is_believed_where_it_can_be_true(tree: PowercapTree, told: int | None, believed: float) -> None:
    """Firmware's 4 090 W and 0 W are no limits; one of 41 W is raised to what a short peak may be."""
    tree.add("intel-rapl:0", "package-0", limit_watts=told)
    (finding,) = diagnose(sysfs=tree.sysfs, procfs=tree.procfs)
    assert f"at most {believed:.0f} W" in finding.what


@pytest.mark.skipif(not FIXTURES.is_dir(), reason=ABSENT)
def test_captured_tree_wraps_21_7_kilojoules_on(tmp_path: Path, clock: HandClock) -> None:
    """package-0 at 240 422 J and package-10 in intel-rapl:a; 95 W are told, so 21 720.96 J take 160 s of 136 J."""
    tree = PowercapTree(tmp_path)
    for folder in (FIXTURES / "sys" / "class" / "powercap").glob("intel-rapl:*"):
        tree.add(folder.name, (folder / "name").read_text().strip())
        for file in folder.iterdir():
            (tree.folder(folder.name) / file.name).write_bytes(file.read_bytes())
    tree.sockets(0, 10)
    with opened(tree, clock) as meter:
        assert [device.id for device in meter.devices] == ["cpu-0", "cpu-10"]
        readings = list(meter.read())
        for _ in range(170):
            tree.advance("intel-rapl:0", 136.0)
            tree.advance("intel-rapl:a", 1.0)
            clock.pass_seconds(1.0)
            readings += meter.read()
        of_first = [r.energy_joules for r in readings if isinstance(r, EnergyReading) and r.device == "cpu-0"]
        assert of_first == pytest.approx([136.0] * 170, abs=1e-6)
        assert meter.health().events == {("cpu-0", "wrap"): 1}
