"""A board with MIG: its energy goes to its instances by their activity, then to their requests. Worked by hand."""

from collections.abc import Sequence
from math import fsum

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.dcgm_board import BoardTrack
from collectors.dcgm_page import Board, boards, slices_of
from collectors.nvml_gpu import MeteredGpu
from collectors.nvml_samples import Active, GpuFacts, GpuRead, MigInstance, SlowFacts
from collectors.readings import ActivityReading, Device, EnergyReading, HostProfile
from monitor.core.account import account
from monitor.core.explain import Part, watching
from monitor.core.points import ENERGY
from monitor.core.readings import Told
from monitor.core.usage import Usage
from monitor.core.usage_columns import columns_of

T = 1_728_000_000.0
SMALL, LARGE = "g/1", "g/2"
BOARD = Device(id="g", kind="gpu", idle_watts=70.0, instances=(SMALL, LARGE), instance_slices=(3.0, 4.0))


def busy(ratio: float | None, instance: str, start: float = 0.0, end: float = 10.0) -> list[ActivityReading]:
    """That instance's activity; none where it is not told."""
    if ratio is None:
        return []
    seconds = ratio * (end - start)
    return [
        ActivityReading(device="g", start=T + start, end=T + end, consumer=f"instance:{instance}", busy_seconds=seconds)
    ]


def test_activities_that_overlap_by_microseconds_hold_all_the_same() -> None:
    """A scrape's interval begins where the steady clock says, which the wall clock has seen a little differently.

    30 J and 172.5 J a second to the small instance, as with exact edges.
    """
    each_second = [
        activity
        for second in range(10)
        for instance, ratio in ((SMALL, 1.0), (LARGE, 0.25))
        for activity in busy(ratio, instance, second - 5e-6, second + 1.0 + 5e-6)
    ]
    told = books([request("a", SMALL), request("b", LARGE)], each_second)
    assert told["a"] == pytest.approx(2_025.0, rel=1e-4)
    assert told["b"] == pytest.approx(975.0, rel=1e-4)


def request(request_id: str, *devices: str, start: float = 0.0, end: float = 10.0) -> Usage:
    """Of a model that nobody knows: it pays equal parts alone."""
    return Usage(
        request_id=request_id,
        model="x",
        start=T + start,
        end=T + end,
        namespace="",
        team=request_id,
        host="h",
        devices=devices,
    )


def books(
    requests: Sequence[Usage],
    activities: Sequence[ActivityReading],
    *,
    board: Device = BOARD,
    watts: Sequence[float] = (300.0,),
) -> dict[str, float]:
    """Joules of 10 s by team, "idle" and "unattributed"; `watts` in readings of equal length."""
    length = 10.0 / len(watts)
    profile = HostProfile(host="h", devices=(board,))
    readings = [
        Told(
            EnergyReading(
                device="g",
                start=T + at * length,
                end=T + (at + 1) * length,
                energy_joules=each * length,
                method="counter",
            ),
            profile,
        )
        for at, each in enumerate(watts)
    ]
    found = account(
        "h",
        T,
        T + 10.0,
        readings=readings,
        usages=columns_of(list(requests)),
        activities=activities,
        nearby=lambda _device, _start, _end: [],
        intensity_at=lambda _zone, _at: None,
        revision=0,
    )
    rows = [row for row in found.rows if row.measurement == ENERGY.name]
    team, kind = ENERGY.tags.index("team"), ENERGY.tags.index("account")
    return {row.tags[team] or row.tags[kind]: float(row.fields[0] or 0.0) for row in rows}


def test_each_instance_has_its_part() -> None:
    """300 W, 70 W idle. The small one (3 slices) is always active, the large one (4) a quarter of the time.

    230 W go 3 : 1, so 30 + 172.5 W and 40 + 57.5 W. A and B share the small one; without a request on the large one its
    40 W are idle and its 57.5 W nobody's.
    """
    activities = [*busy(1.0, SMALL), *busy(0.25, LARGE)]
    a, b, c = request("A", SMALL), request("B", SMALL, end=5.0), request("C", LARGE)
    assert books([a], activities) == pytest.approx({"A": 2_025.0, "idle": 400.0, "unattributed": 575.0})
    assert books([a, c], activities) == pytest.approx({"A": 2_025.0, "C": 975.0, "idle": 0.0, "unattributed": 0.0})
    assert books([a, b], activities) == pytest.approx(
        {"A": 1_518.75, "B": 506.25, "idle": 400.0, "unattributed": 575.0}
    )


def test_instances_known_together_only_are_one() -> None:
    """The small one as two, each told that it is always active, 1.5 slices each: what A and B used in it above.

    As two of their own they would have half each, and B would leave half of that when it is gone.
    """
    first, second = "g/1a", "g/1b"
    board = Device(
        id="g",
        kind="gpu",
        idle_watts=70.0,
        instances=(first, LARGE, second),
        instance_slices=(1.5, 4.0, 1.5),
        instance_units=(1, 2, 1),
    )
    activities = [*busy(1.0, first), *busy(1.0, second), *busy(0.25, LARGE)]
    requests = [request("A", first), request("B", second, end=5.0)]
    expected = {"A": 1_518.75, "B": 506.25, "idle": 400.0, "unattributed": 575.0}
    assert books(requests, activities, board=board) == pytest.approx(expected)
    both = [request("A", first, second), request("B", second, end=5.0)]
    assert books(both, activities, board=board) == pytest.approx(expected), "on two that are one it is there once"


def test_rounds_of_the_driver_reach_the_books() -> None:
    """300 J a second, "MIG-a" of 3 slices always active, "MIG-b" of 4 a quarter of it, under the driver's names."""
    gpu = MeteredGpu(GpuFacts(token="#0", uuid="g", pci="", name="NVIDIA H100 80GB HBM3"), boot_id="b", marks={})
    mig = (
        MigInstance(uuid="MIG-a", gpu_instance=1, slices=3.0),
        MigInstance(uuid="MIG-b", gpu_instance=2, slices=4.0),
    )
    activities = []
    for second in range(11):
        read = GpuRead(
            token="#0",
            uuid="g",
            tick=float(second),
            energy_joules=300.0 * second,
            slow=SlowFacts(limit_watts=700.0, instances=mig) if second in (0, 10) else None,
            active=Active(since=second - 1.0, ratios=((1, 1.0), (2, 0.25))) if second else Active(),
        )
        told = gpu.take(read, T + second, float(second), lambda _pid: True)
        activities += [each for each in told if isinstance(each, ActivityReading)]
    (device,) = gpu.devices
    board = msgspec.structs.replace(device, idle_watts=70.0)
    requests = [request("A", "MIG-a"), request("C", "MIG-b")]
    assert books(requests, activities, board=board, watts=[300.0] * 10) == pytest.approx(
        {"A": 2_025.0, "C": 975.0, "idle": 0.0, "unattributed": 0.0}
    )


def test_activity_that_changes_within_the_window() -> None:
    """5 s each of one alone: 30 + 230 W, then 40 + 230 W; the other's idle part is its requests' while they wait."""
    activities = [
        *busy(0.5, SMALL, end=5.0),
        *busy(0.0, LARGE, end=5.0),
        *busy(0.0, SMALL, start=5.0),
        *busy(0.9, LARGE, start=5.0),
    ]
    told = books([request("A", SMALL), request("C", LARGE)], activities)
    assert told == pytest.approx({"A": 1_450.0, "C": 1_550.0, "idle": 0.0, "unattributed": 0.0})


def test_sizes_that_are_not_told_are_taken_as_equal() -> None:
    """35 W idle each, 230 W as 4 : 1."""
    board = Device(id="g", kind="gpu", idle_watts=70.0, instances=(SMALL, LARGE))
    told = books([request("A", SMALL), request("C", LARGE)], [*busy(1.0, SMALL), *busy(0.25, LARGE)], board=board)
    assert told == pytest.approx({"A": 2_190.0, "C": 810.0, "idle": 0.0, "unattributed": 0.0})


def test_an_idle_board_is_split_by_size() -> None:
    """60 W are below the 70 W that it rests at: 3 : 4, whoever was active, and nothing above."""
    told = books([request("A", SMALL)], [*busy(0.0, SMALL), *busy(0.0, LARGE)], watts=(60.0,))
    assert told == pytest.approx({"A": 600.0 * 3 / 7, "idle": 600.0 * 4 / 7, "unattributed": 0.0})


def test_a_request_on_two_instances_pays_in_both() -> None:
    """Alone on both it pays the board."""
    told = books([request("A", SMALL, LARGE)], [*busy(1.0, SMALL), *busy(0.25, LARGE)])
    assert told == pytest.approx({"A": 3_000.0, "idle": 0.0, "unattributed": 0.0})


@pytest.mark.parametrize(
    ("requests", "activities"),
    [
        ((request("A", SMALL), request("C", "g")), [*busy(1.0, SMALL), *busy(0.25, LARGE)]),
        ((request("A", SMALL), request("C", LARGE)), []),
        ((request("A", SMALL), request("C", LARGE)), busy(1.0, SMALL)),
        ((request("A", SMALL), request("C", LARGE)), [*busy(1.0, SMALL, end=8.0), *busy(0.2, LARGE, end=8.0)]),
    ],
    ids=[
        "a request names the board alone",
        "nothing is known",
        "one with a request is not known",
        "known for 8 of 10 s",
    ],
)
def test_where_too_little_is_known_the_board_stays_one(
    requests: Sequence[Usage], activities: Sequence[ActivityReading]
) -> None:
    """Both pay equal parts of it, as on any other GPU."""
    assert books(requests, activities) == pytest.approx({"A": 1_500.0, "C": 1_500.0, "idle": 0.0, "unattributed": 0.0})


@given(
    watts=st.lists(st.floats(0.0, 700.0), min_size=1, max_size=12),
    small=st.floats(0.0, 1.0),
    large=st.floats(0.0, 1.0),
    cut=st.floats(0.5, 9.5),
    ends=st.tuples(st.floats(0.1, 10.0), st.floats(0.1, 10.0)),
    units=st.sampled_from([(), (1, 2), (1, 1), (1,)]),
)
def test_what_the_board_used_is_what_all_pay(
    *, watts: list[float], small: float, large: float, cut: float, ends: tuple[float, float], units: tuple[int, ...]
) -> None:
    """Whatever the activity, where its intervals end, and who asks."""
    activities = [
        *busy(small, SMALL, end=cut),
        *busy(large, LARGE, end=cut),
        *busy(large, SMALL, start=cut),
        *busy(small, LARGE, start=cut),
    ]
    requests = [request("A", SMALL, end=ends[0]), request("C", LARGE, start=10.0 - ends[1])]
    told = books(requests, activities, watts=watts, board=msgspec.structs.replace(BOARD, instance_units=units))
    measured = fsum(watts) * 10.0 / len(watts)
    assert fsum(told.values()) == pytest.approx(measured, rel=1e-9, abs=1e-9)
    assert min(told.values()) >= -1e-9


def test_it_is_flagged() -> None:
    """Nothing of it is exact, though one request was alone on the board; `explain` says how the board was split."""
    told: list[Part] = []
    profile = HostProfile(host="h", devices=(BOARD,))
    reading = EnergyReading(device="g", start=T, end=T + 10.0, energy_joules=3_000.0, method="counter")
    for activities in ([*busy(1.0, SMALL), *busy(0.25, LARGE)], []):
        account(
            "h",
            T,
            T + 10.0,
            readings=[Told(reading, profile)],
            usages=columns_of([request("A", SMALL)]),
            activities=activities,
            nearby=lambda _device, _start, _end: [],
            intensity_at=lambda _zone, _at: None,
            revision=0,
            watch=watching(("", "A", 0, T), T, 10.0, told.append),
        )
    assert [(part.by_instance, part.energy_joules, part.exact_joules) for part in told] == [
        (True, pytest.approx(2_025.0), 0.0),
        (False, pytest.approx(3_000.0), pytest.approx(3_000.0)),
    ]
    assert (told[0].idle_joules, told[0].unattributed_joules) == (pytest.approx(400.0), pytest.approx(575.0))


def test_sizes_come_from_the_profiles_on_the_page() -> None:
    """Of all instances or of none; a word that is no profile is no size."""
    words = ("3g.40gb", "3g.40gb+me", "7g.80gb", "", "0g.1gb", "big", "999g.1gb")
    assert [slices_of(each) for each in words] == [3.0, 3.0, 7.0, None, None, None, None]
    rows = [
        f'DCGM_FI_PROF_GR_ENGINE_ACTIVE{{UUID="g",GPU_I_PROFILE="{profile}",GPU_I_ID="{number}"}} 0.5\n'
        for number, profile in ((2, "4g.40gb"), (1, "3g.40gb"))
    ]
    (device,) = (BoardTrack(board, boot_id="b", mark=None).device for board in boards("".join(rows)).values())
    assert (device.instances, device.instance_slices) == (("g/1", "g/2"), (3.0, 4.0))
    unsized = Board(uuid="g", instances={"1": 0.5, "2": 0.5}, slices={"1": 3.0})
    assert BoardTrack(unsized, boot_id="b", mark=None).device.instance_slices == ()
