"""What processes beside the model servers used: worked by hand, and the law that the books close beside them."""

from math import fsum

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtual_energy_by_hand import Job, Reading
from virtual_energy_cases import split_of, sum_of

from collectors.readings import ActivityReading, Device, EnergyReading, HostProfile
from monitor.core.account import account
from monitor.core.attribution.virtual_energy import Foreign
from monitor.core.foreign import foreign_of
from monitor.core.points import ENERGY
from monitor.core.readings import Told
from monitor.core.usage import Usage
from monitor.core.usage_columns import columns_of

T = 1_728_000_000.0
CPU = Device(id="cpu-0", kind="cpu", idle_watts=100.0)
GPU = Device(id="g0", kind="gpu", idle_watts=50.0, instances=("MIG-1",))


def busy(device: str, consumer: str, seconds: float, start: float = 0.0, end: float = 10.0) -> ActivityReading:
    """Busy seconds of a consumer, in seconds from T."""
    return ActivityReading(device=device, start=T + start, end=T + end, consumer=consumer, busy_seconds=seconds)


def energy_rows(
    device: Device, watts: float, activities: list[ActivityReading], requests: list[Usage]
) -> dict[tuple[str, str], dict[str, object]]:
    """The energy rows of [T, T + 10), by account and team."""
    profile = HostProfile(host="h", devices=(device,))
    reading = EnergyReading(device=device.id, start=T, end=T + 10, energy_joules=10 * watts, method="counter")
    made = account(
        "h",
        T,
        T + 10,
        readings=[Told(reading, profile)],
        usages=columns_of(requests),
        activities=activities,
        nearby=lambda *_: [],
        intensity_at=lambda *_: None,
        revision=0,
    )
    names = (*ENERGY.tags, *ENERGY.fields)
    rows = [dict(zip(names, (*row.tags, *row.fields), strict=True)) for row in made.rows if row.measurement == "energy"]
    return {(str(row["account"]), str(row["team"])): row for row in rows}


def request(start: float, end: float, devices: tuple[str, ...] | None = ("g0",)) -> Usage:
    """A request of team blue whose model nobody knows."""
    return Usage(
        host="h", namespace="", request_id="r", model="x", team="blue", devices=devices, start=T + start, end=T + end
    )


def test_other_processes_have_their_part_of_a_cpu_beside_requests() -> None:
    """300 W, 100 W idle, others busy for three quarters: 1 500 of the 2 000 J above idle are theirs."""
    activities = [busy("cpu-0", "other", 30.0), busy("cpu-0", "server:vllm", 10.0)]
    rows = energy_rows(CPU, 300.0, activities, [request(0, 10)])
    assert rows["idle", ""]["energy_joules"] == 1_000.0
    assert rows["attributed", "blue"]["energy_joules"] == pytest.approx(500.0)
    assert rows["unattributed", ""]["other_process_joules"] == pytest.approx(1_500.0)
    assert rows["unattributed", ""]["unreported_joules"] == 0.0


def test_servers_alone_leave_a_cpu_to_the_requests() -> None:
    """No other process was busy: all that exceeds idle is the request's."""
    rows = energy_rows(CPU, 300.0, [busy("cpu-0", "server:vllm", 10.0)], [request(0, 10)])
    assert rows["attributed", "blue"]["energy_joules"] == pytest.approx(2_000.0)
    assert rows["unattributed", ""]["other_process_joules"] == 0.0


def test_on_a_gpu_other_processes_count_while_no_request_is_active() -> None:
    """300 W, 50 W idle: 5 s are the request's, of the other 5 s 1 250 J are other processes'."""
    rows = energy_rows(GPU, 300.0, [busy("g0", "other", 4.0)], [request(0, 5)])
    assert rows["attributed", "blue"]["energy_joules"] == pytest.approx(1_500.0)
    assert rows["idle", ""]["energy_joules"] == pytest.approx(250.0)
    assert rows["unattributed", ""]["other_process_joules"] == pytest.approx(1_250.0)


def test_a_request_of_unknown_device_counts_before_other_processes() -> None:
    """It may have been its work: unknown_device, not other_process."""
    rows = energy_rows(GPU, 300.0, [busy("g0", "other", 4.0)], [request(0, 10, devices=None)])
    assert rows["unattributed", ""]["unknown_device_joules"] == pytest.approx(2_500.0)
    assert rows["unattributed", ""]["other_process_joules"] == 0.0


def test_a_request_on_an_instance_is_on_its_board() -> None:
    """A MIG instance has no meter of its own."""
    rows = energy_rows(GPU, 300.0, [], [request(0, 10, devices=("MIG-1",))])
    assert rows["attributed", "blue"]["energy_joules"] == pytest.approx(3_000.0)


def test_half_an_interval_of_others_counts_for_its_half_of_the_window() -> None:
    """Busy over [-5, 5) only: of 2 000 J above idle and without requests 1 000 J are theirs, the rest is unreported."""
    rows = energy_rows(CPU, 300.0, [busy("cpu-0", "other", 7.0, start=-5.0, end=5.0)], [])
    assert rows["unattributed", ""]["other_process_joules"] == pytest.approx(1_000.0)
    assert rows["unattributed", ""]["unreported_joules"] == pytest.approx(1_000.0)


def test_of_intervals_that_overlap_the_earliest_counts() -> None:
    """A restarted watcher may tell of the same seconds twice."""
    told = [busy("g0", "other", 1.0, 0.0, 6.0), busy("g0", "other", 1.0, 4.0, 9.0), busy("g0", "other", 1.0, 6.0, 9.0)]
    foreign = foreign_of(told, GPU, frozenset(), T, T + 10)
    assert (foreign.start.tolist(), foreign.end.tolist()) == ([0.0, 6.0], [6.0, 9.0])


@given(
    watts=st.floats(0.0, 1_000.0),
    cuts=st.lists(st.floats(0.0, 10.0), min_size=2, max_size=6, unique=True),
    ratio=st.floats(0.0, 1.0),
    jobs=st.lists(st.tuples(st.floats(-5.0, 9.0), st.floats(0.1, 8.0)), max_size=4),
    shares_idle=st.booleans(),
)
def test_the_books_close_beside_other_processes(
    watts: float, cuts: list[float], ratio: float, jobs: list[tuple[float, float]], shares_idle: bool
) -> None:
    """Requests, idle and all reasons add up to the meter, and no part is negative."""
    edges = sorted(cuts)[: len(cuts) // 2 * 2]
    starts, ends = np.array(edges[::2]), np.array(edges[1::2])
    foreign = Foreign(start=starts, end=ends, ratio=np.full(len(starts), ratio))
    shared = split_of(
        [Reading(0.0, 10.0, watts, "counter")],
        [Job(start, start, start + length, 1.0, 0.0, 0.0, 0.0) for start, length in jobs],
        shares_idle=shares_idle,
        foreign=foreign,
    )
    assert sum_of(shared) == pytest.approx(10.0 * watts, rel=1e-9, abs=1e-9)
    assert min(shared.other_process.energy, shared.unreported.energy, *shared.energy.tolist()) >= -1e-9
    assert fsum(shared.energy) <= 10.0 * watts + 1e-6
