"""Activity of MIG instances by GPM counters, through a real library and its real child. Every second worked by hand."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from math import fsum
from pathlib import Path

import fake_nvml
import pytest
from fake_nvml import FakeNvml, uuid
from hypothesis import given
from hypothesis import strategies as st

from collectors.meter import Measured
from collectors.nvml_instances import InstanceTrack, slices_of, units_of
from collectors.nvml_process import NvmlMeter
from collectors.nvml_samples import Active, MigInstance
from collectors.readings import ActivityReading

START = 1_700_000_000.0


class Bench:
    """Boards, a meter whose every read is a slow one, and a clock that stands until a read."""

    def __init__(self, folder: Path, gpus: int) -> None:
        self.at = START
        self.nvml = FakeNvml(folder, gpus)
        self.meter = NvmlMeter(
            clock=self,
            ticks=self.now,
            is_server=lambda _: False,
            deadline_seconds=20.0,
            open_seconds=20.0,
            slow_seconds=0.0,
            procfs=folder,
        )

    def now(self) -> float:
        return self.at

    def read(self, seconds: float = 1.0) -> list[ActivityReading]:
        """The activities of one read, `seconds` after the last."""
        self.at += seconds
        return activities(self.meter.read())

    def told(self, seconds: float = 1.0) -> dict[str, float]:
        """How active each instance was in one interval, the same for all of them, that ends with this read."""
        found = self.read(seconds)
        assert len({(each.start, each.end) for each in found}) <= 1
        return {each.consumer: round(each.busy_seconds / (each.end - each.start), 6) for each in found}


def activities(measured: Sequence[Measured]) -> list[ActivityReading]:
    return [each for each in measured if isinstance(each, ActivityReading)]


@pytest.fixture(params=[1])
def bench(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench(tmp_path, request.param)
    for name, value in made.nvml.environment.items():
        monkeypatch.setenv(name, value)
    yield made
    made.meter.close()
    made.nvml.close()


def test_each_instance_is_told_by_its_uuid(bench: Bench) -> None:
    """3 slices always active, 4 a quarter of the time: 1 s and 0.25 s of a second, from the second read on."""
    gpu = bench.nvml.gpu(0)
    gpu.set_instances("MIG-a", "MIG-b", slices=(3, 4))
    gpu.set_activity(g1=100.0, g2=25.0)
    bench.meter.open()
    assert bench.told() == {}, "one sample tells nothing"
    assert bench.told() == {"instance:MIG-a": 1.0, "instance:MIG-b": 0.25}
    gpu.set_activity(g1=0.0, g2=130.0)
    assert bench.told(3.0) == {"instance:MIG-a": 0.0, "instance:MIG-b": 1.0}, "0 is told; more than all is all"
    (device,) = bench.meter.devices
    assert (device.instances, device.instance_slices, device.instance_units) == (("MIG-a", "MIG-b"), (3.0, 4.0), ())


def test_intervals_follow_each_other_without_a_gap(bench: Bench) -> None:
    """The books leave a board one where a tenth of its time is not told."""
    bench.nvml.gpu(0).set_instances("MIG-a")
    bench.nvml.gpu(0).set_activity(g1=50.0)
    bench.meter.open()
    bench.read()
    first, second = *bench.read(1.0), *bench.read(2.0)
    assert first.end == second.start
    assert second.end > first.end > first.start


def test_compute_instances_of_one_gpu_instance_are_one(bench: Bench) -> None:
    """Two in a GPU instance of 4 slices, 60 % active: both are told that, each has 2 slices, and they are marked."""
    gpu = bench.nvml.gpu(0)
    gpu.set_instances("MIG-a", "MIG-b", "MIG-c", units=(5, 5, 2), slices=(4, 4, 3))
    gpu.set_activity(g5=60.0, g2=10.0)
    bench.meter.open()
    bench.read()
    before = bench.nvml.calls("gpm_sample"), bench.nvml.calls("gpm_metrics")
    assert bench.told() == {"instance:MIG-a": 0.6, "instance:MIG-b": 0.6, "instance:MIG-c": 0.1}
    after = bench.nvml.calls("gpm_sample"), bench.nvml.calls("gpm_metrics")
    assert (after[0] - before[0], after[1] - before[1]) == (2, 2), "one sample and one answer for each GPU instance"
    (device,) = bench.meter.devices
    assert (device.instance_slices, device.instance_units) == ((2.0, 2.0, 3.0), (5, 5, 2))


@pytest.mark.parametrize("what", ["metric", "sample", "no number"])
def test_what_fails_of_one_instance_is_not_told_of_any(bench: Bench, what: str) -> None:
    """Never 0, and never the others alone. After a sample that failed one second more: the next would tell of two."""
    gpu = bench.nvml.gpu(0)
    gpu.set_instances("MIG-a", "MIG-b")
    gpu.set_activity(g1=100.0, g2=25.0)
    bench.meter.open()
    bench.read()
    if what == "metric":
        gpu.unit_code[2] = fake_nvml.UNKNOWN
    elif what == "sample":
        gpu.answer("gpm_sample", fake_nvml.UNKNOWN)
    else:
        gpu.set_activity(g2=float("nan"))
    assert bench.told() == {}
    gpu.unit_code[2] = 0
    gpu.answer("gpm_sample", 0)
    gpu.set_activity(g2=25.0)
    assert bench.told() == ({} if what == "sample" else {"instance:MIG-a": 1.0, "instance:MIG-b": 0.25})
    assert bench.told() == {"instance:MIG-a": 1.0, "instance:MIG-b": 0.25}


def test_samples_follow_the_instances_and_none_is_left(bench: Bench) -> None:
    """Two buffers for each GPU instance, however many rounds; freed when it goes, made again when it comes."""
    gpu = bench.nvml.gpu(0)
    gpu.set_activity(g1=10.0, g2=20.0, g3=30.0)
    kept = []
    bench.meter.open()
    for instances in (("MIG-a", "MIG-b", "MIG-c"), ("MIG-a",), ("MIG-a", "MIG-b"), ()):
        gpu.set_instances(*instances)
        for _ in range(4):
            bench.read()
        kept.append(bench.nvml.control.gpm_samples)
    assert kept == [6, 2, 4, 0]
    gpu.set_instances("MIG-a", "MIG-b")
    bench.read()
    assert bench.told() == {"instance:MIG-a": 0.1, "instance:MIG-b": 0.2}


def test_an_instance_that_comes_costs_one_round_and_one_that_goes_none(bench: Bench) -> None:
    """Of the new one there is no sample yet, so nothing is told of that second."""
    gpu = bench.nvml.gpu(0)
    gpu.set_instances("MIG-a")
    gpu.set_activity(g1=10.0, g2=20.0)
    bench.meter.open()
    bench.read()
    assert bench.told() == {"instance:MIG-a": 0.1}
    gpu.set_instances("MIG-a", "MIG-b")
    assert bench.told() == {}
    assert bench.told() == {"instance:MIG-a": 0.1, "instance:MIG-b": 0.2}
    gpu.set_instances("MIG-a")
    assert bench.told() == {"instance:MIG-a": 0.1}


@pytest.mark.parametrize("lacks", ["the counters", "the call"])
def test_a_board_without_gpm_is_asked_once(bench: Bench, lacks: str) -> None:
    """An A100, or a driver that does not know the call: instances and sizes are there, activity is not."""
    gpu = bench.nvml.gpu(0)
    gpu.set_instances("MIG-a", "MIG-b", slices=(3, 4))
    if lacks == "the call":
        gpu.set_activity(g1=10.0)
        gpu.answer("gpm_support", fake_nvml.NOT_SUPPORTED)
    bench.meter.open()
    assert [bench.told(), bench.told(), bench.told()] == [{}, {}, {}]
    assert (bench.nvml.calls("gpm_support"), bench.nvml.calls("gpm_sample")) == (1, 0)
    assert bench.nvml.control.gpm_samples == 0
    assert bench.meter.devices[0].instance_slices == (3.0, 4.0)


def test_a_driver_that_refuses_for_a_while_is_asked_again(bench: Bench) -> None:
    """Instances are told from the second round after it."""
    gpu = bench.nvml.gpu(0)
    gpu.set_instances("MIG-a")
    gpu.set_activity(g1=10.0)
    gpu.answer("gpm_support", fake_nvml.UNKNOWN)
    bench.meter.open()
    assert [bench.told(), bench.told()] == [{}, {}]
    gpu.answer("gpm_support", 0)
    assert [bench.told(), bench.told()] == [{}, {"instance:MIG-a": 0.1}]


def test_a_board_without_mig_is_not_asked(bench: Bench) -> None:
    """Its processes tell who is busy."""
    bench.nvml.gpu(0).set_activity(g1=10.0)
    bench.meter.open()
    bench.read()
    assert bench.nvml.calls("gpm_support") == 0


def test_instances_whose_place_is_not_told_are_listed_all_the_same(bench: Bench) -> None:
    """No GPU instance, no size, no activity; requests on them still find their board."""
    gpu = bench.nvml.gpu(0)
    gpu.set_instances("MIG-a", "MIG-b")
    gpu.set_activity(g1=10.0, g2=20.0)
    gpu.answer("instance", fake_nvml.UNKNOWN)
    bench.meter.open()
    assert [bench.told(), bench.told()] == [{}, {}]
    (device,) = bench.meter.devices
    assert (device.instances, device.instance_slices, device.instance_units) == (("MIG-a", "MIG-b"), (), ())


def test_a_new_reader_tells_nothing_of_the_time_before_it(bench: Bench) -> None:
    """The old one's samples died with it: the second of the first round is missing, the next is told."""
    gpu = bench.nvml.gpu(0)
    gpu.set_instances("MIG-a")
    gpu.set_activity(g1=50.0)
    bench.meter.open()
    bench.read()
    assert bench.told() == {"instance:MIG-a": 0.5}
    lane = bench.meter._main
    assert lane is not None
    os.kill(lane.pid, signal.SIGKILL)
    lane.wait_reaped(float("inf"))
    assert bench.told() == {}
    assert bench.told() == {"instance:MIG-a": 0.5}


@pytest.mark.parametrize("bench", [2], indirect=True)
def test_boards_are_told_apart(bench: Bench) -> None:
    """The same number on two boards is two GPU instances."""
    for slot, percent in ((0, 10.0), (1, 90.0)):
        bench.nvml.gpu(slot).set_instances(f"MIG-{slot}")
        bench.nvml.gpu(slot).set_activity(g1=percent)
    bench.meter.open()
    bench.read()
    found = {(each.device, each.consumer): each.busy_seconds / (each.end - each.start) for each in bench.read()}
    assert found == pytest.approx({(uuid(0), "instance:MIG-0"): 0.1, (uuid(1), "instance:MIG-1"): 0.9})


def test_there_is_a_round_a_second_and_at_each_slow_read(tmp_path: Path) -> None:
    """Asked each half second: at 0, 1 and 2 s, and at 2.5 s because it must; `since` says what each is counted from."""
    nvml = FakeNvml(tmp_path, 1)
    nvml.gpu(0).set_instances("MIG-a")
    nvml.gpu(0).set_activity(g1=40.0)
    program = (
        "import json, pynvml\n"
        "from collectors.nvml_gpm import InstanceActivity\n"
        "from collectors.nvml_samples import MigInstance\n"
        "pynvml.nvmlInit()\n"
        "activity = InstanceActivity(pynvml.nvmlDeviceGetHandleByIndex(0))\n"
        "activity.follow([MigInstance(uuid='MIG-a', gpu_instance=1)])\n"
        "rounds = [activity.read(half / 2, must=half == 5) for half in range(6)]\n"
        "print(json.dumps([each and (each.since, each.ratios) for each in rounds]))\n"
    )
    told = subprocess.run([sys.executable, "-c", program], env=nvml.environ(), capture_output=True, check=True)
    nvml.close()
    assert json.loads(told.stdout) == [[None, []], None, [0.0, [[1, 0.4]]], None, [1.0, [[1, 0.4]]], [2.0, [[1, 0.4]]]]


def test_the_busiest_since_the_last_look_needs_every_moment() -> None:
    """Rounds at 1, 2 and 3 s, a look at 3 s: 0.4. None where a round was missed, or the look is later than the last."""
    mig = [MigInstance(uuid="MIG-a", gpu_instance=1)]

    def look(*rounds: tuple[float | None, float, float], at: float) -> float | None:
        track = InstanceTrack("g")
        track.take(Active(), 0.0, 0.0, mig)
        track.look(0.0)
        for since, tick, ratio in rounds:
            track.take(Active(since=since, ratios=((1, ratio),)), tick, tick, mig)
        return track.look(at)

    assert look((0.0, 1.0, 0.1), (1.0, 2.0, 0.4), (2.0, 3.0, 0.0), at=3.0) == 0.4
    assert look((0.0, 1.0, 0.1), (1.5, 2.0, 0.4), (2.0, 3.0, 0.0), at=3.0) is None
    assert look((0.0, 1.0, 0.1), (1.0, 2.0, 0.4), at=3.0) is None


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=7))
def test_sizes_of_all_instances_are_those_of_the_gpu_instances(places: list[tuple[int, bool]]) -> None:
    """GPU instance n has n slices, however many compute instances share it; with one not told there are no sizes."""
    mig = [
        MigInstance(uuid=f"MIG-{at}", gpu_instance=number, slices=float(number) if is_told else None)
        for at, (number, is_told) in enumerate(places)
    ]
    sizes, units = slices_of(mig), units_of(mig)
    numbers = [number for number, _ in places]
    assert units == (tuple(numbers) if len(set(numbers)) < len(numbers) else ())
    if all(is_told for _, is_told in places):
        assert fsum(sizes) == pytest.approx(sum(set(numbers)))
    else:
        assert sizes == ()
