"""A CPU that several model servers used is theirs by their processor time: worked by hand, and the books close."""

from collections.abc import Sequence
from math import fsum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.readings import ActivityReading, Device, DeviceKind, EnergyReading, EngineReading, HostProfile
from monitor.core.account import account
from monitor.core.attribution.methods import DEFAULT_METHOD
from monitor.core.points import ENERGY, METER
from monitor.core.readings import Told
from monitor.core.usage import Usage
from monitor.core.usage_columns import columns_of

T = 1_728_000_000.0
OTHER = "other"


def busy(consumer: str, seconds: float, start: float = 0.0, end: float = 10.0, cpu: str = "cpu0") -> ActivityReading:
    """Processor time of a consumer, in seconds from T."""
    return ActivityReading(device=cpu, start=T + start, end=T + end, consumer=consumer, busy_seconds=seconds)


def serves(server: str, model: str) -> EngineReading:
    """What tells that this server has the model."""
    return EngineReading(server=server, model=model, devices=(), start=T, end=T + 10.0)


def request(model: str, start: float = 0.0, end: float = 10.0, name: str = "") -> Usage:
    """A request of that model, whose team is called like it."""
    return Usage(
        host="h",
        namespace="",
        request_id=name or model,
        model=model,
        team=model,
        devices=("g0",),
        start=T + start,
        end=T + end,
    )


BOTH = (serves("a", "x"), serves("b", "y"))
SIX_AND_THREE = (busy("server:a", 6.0), busy("server:b", 3.0))


def paid(
    requests: Sequence[Usage],
    activities: Sequence[ActivityReading] = SIX_AND_THREE,
    engines: Sequence[EngineReading] = BOTH,
    *,
    kind: DeviceKind = "cpu",
    method: str = DEFAULT_METHOD,
) -> dict[str, float]:
    """Joules of each team, of 110 W over 10 s with 20 W idle: 900 J above it."""
    device = Device(id=f"{kind}0", kind=kind, idle_watts=20.0)
    others = (Device(id=name, kind="cpu", idle_watts=20.0) for name in ("cpu0", "cpu1"))
    profile = HostProfile(host="h", devices=(device, *(other for other in others if other.id != device.id)))
    reading = EnergyReading(device=device.id, start=T, end=T + 10.0, energy_joules=1_100.0, method="counter")
    rows = account(
        "h",
        T,
        T + 10.0,
        readings=[Told(reading, profile)],
        usages=columns_of(requests),
        activities=activities,
        engines=engines,
        nearby=lambda *_: [],
        intensity_at=lambda *_: None,
        method=method,
        revision=0,
    ).rows
    measured = fsum(float(row.fields[0] or 0.0) for row in rows if row.measurement == METER.name)
    energy = [(row.tags, float(row.fields[0] or 0.0)) for row in rows if row.measurement == ENERGY.name]
    assert fsum(joules for _, joules in energy) == pytest.approx(measured, rel=1e-12)
    account_at, team_at = ENERGY.tags.index("account"), ENERGY.tags.index("team")
    return {tags[team_at]: joules for tags, joules in energy if tags[account_at] == "attributed"}


@pytest.mark.parametrize("kind", ["cpu", "dram"])
def test_each_server_s_requests_pay_by_its_processor_time(kind: DeviceKind) -> None:
    """6 s and 3 s: of 900 J above idle 600 J and 300 J, however many requests each had."""
    assert paid([request("x"), request("y")], kind=kind) == {"x": pytest.approx(600.0), "y": pytest.approx(300.0)}
    three = [request("x"), request("y"), request("y", name="second")]
    assert paid(three, kind=kind) == {"x": pytest.approx(600.0), "y": pytest.approx(300.0)}


def test_other_processes_have_theirs_first() -> None:
    """9 s of others beside 9 s of servers: half of 900 J is theirs, 300 J and 150 J the servers'."""
    found = paid([request("x"), request("y")], [*SIX_AND_THREE, busy(OTHER, 9.0)])
    assert found == {"x": pytest.approx(300.0), "y": pytest.approx(150.0)}


def test_processor_time_is_of_the_time_in_which_a_server_had_requests() -> None:
    """b had one over [0, 5), so its 3 s lie there: 0.6 to a's 0.6 of each second, half of 450 J; then a is alone."""
    found = paid([request("x"), request("y", end=5.0)])
    assert found == {"x": pytest.approx(225.0 + 450.0), "y": pytest.approx(225.0)}


def test_of_an_interval_that_reaches_beyond_the_window_the_part_within_counts() -> None:
    """Half of 12 s and of 6 s over [-5, 5); in [5, 10) 1 s and 3 s: 300 + 112.5 J and 150 + 337.5 J."""
    told = [
        *(busy("server:a", 12.0, -5.0, 5.0), busy("server:b", 6.0, -5.0, 5.0)),
        *(busy("server:a", 1.0, 5.0, 10.0), busy("server:b", 3.0, 5.0, 10.0)),
        *(busy("server:a", 9.0, 6.0, 12.0), busy("server:b", 0.1, 6.0, 12.0)),
    ]
    found = paid([request("x"), request("y")], told)
    assert found == {"x": pytest.approx(412.5), "y": pytest.approx(487.5)}


def test_two_sockets_are_added_up() -> None:
    """a was busy on both, 3 s and 3 s, b for 3 s on one; what is told of a GPU is not asked."""
    told = [busy("server:a", 3.0), busy("server:a", 3.0, cpu="cpu1"), busy("server:b", 3.0, cpu="cpu1")]
    found = paid([request("x"), request("y")], [*told, busy("server:b", 9.0, cpu="g0")])
    assert found == {"x": pytest.approx(600.0), "y": pytest.approx(300.0)}


def test_a_server_that_was_told_not_to_be_busy_pays_nothing() -> None:
    """0 s is not "not told": of 900 J b's request has none, though it was active."""
    found = paid([request("x"), request("y")], [busy("server:a", 6.0), busy("server:b", 0.0)])
    assert found == {"x": pytest.approx(900.0, abs=1e-3), "y": pytest.approx(0.0, abs=1e-3)}


@pytest.mark.parametrize(
    ("engines", "activities"),
    [
        pytest.param((), SIX_AND_THREE, id="no server tells its model"),
        pytest.param(BOTH[:1], SIX_AND_THREE, id="one does not"),
        pytest.param((serves("a", "x"), serves("a", "y")), SIX_AND_THREE, id="one server has both"),
        pytest.param((*BOTH, serves("b", "x")), SIX_AND_THREE, id="servers of one model are one"),
        pytest.param(BOTH, (), id="nothing tells who was busy"),
        pytest.param(BOTH, SIX_AND_THREE[:1], id="one server was not seen"),
    ],
)
def test_where_the_host_tells_too_little_parts_are_equal(
    engines: Sequence[EngineReading], activities: Sequence[ActivityReading]
) -> None:
    """The rule that needs nothing."""
    found = paid([request("x"), request("y")], activities, engines)
    assert found == {"x": pytest.approx(450.0), "y": pytest.approx(450.0)}


@pytest.mark.parametrize("method", ["virtual-energy-priors.5", "token-share.4", "time-share.4"])
def test_other_methods_keep_to_equal_parts(method: str) -> None:
    """They are what others do, or the priors alone."""
    found = paid([request("x"), request("y")], method=method)
    assert found == {"x": pytest.approx(450.0), "y": pytest.approx(450.0)}


def test_the_rest_of_a_node_is_shared_equally() -> None:
    """Fans and power supplies go by no processor's time."""
    found = paid([request("x"), request("y")], kind="node")
    assert found == {"x": pytest.approx(450.0), "y": pytest.approx(450.0)}


times = st.floats(-5.0, 15.0)


@given(
    st.lists(st.tuples(st.sampled_from("xyz"), times, times), max_size=5),
    st.lists(st.tuples(st.sampled_from(["server:a", "server:b", OTHER]), st.floats(0.0, 40.0), times), max_size=6),
    st.lists(st.sampled_from([*BOTH, serves("c", "z"), serves("b", "z"), serves("a", "")]), max_size=4),
)
def test_whatever_is_told_the_books_close(
    jobs: list[tuple[str, float, float]], told: list[tuple[str, float, float]], engines: list[EngineReading]
) -> None:
    """Measured = attributed + idle + unattributed (`paid` asks), and nobody pays less than nothing."""
    requests = [request(model, min(times), max(times), name=str(number)) for number, (model, *times) in enumerate(jobs)]
    activities = [busy(consumer, seconds, start, start + 4.0) for consumer, seconds, start in told]
    assert all(joules >= -1e-9 for joules in paid(requests, activities, engines).values())
