"""Until when requests waited in an engine's queue, where no event tells: worked by hand on an H100."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from late_request import COST, LATE, T
from msgspec.structs import replace

from collectors.readings import Device, EnergyReading, EngineReading, HostProfile
from monitor.core.account import account
from monitor.core.account_work import Watched
from monitor.core.attribution.hardware import hardware_of
from monitor.core.demand import demand_of
from monitor.core.points import ENERGY, REQUEST_ENERGY
from monitor.core.queueing import seated
from monitor.core.readings import Told
from monitor.core.usage import Usage
from monitor.core.usage_columns import columns_of


def told(
    waiting: Sequence[float | None], begin: float = 1.0, server: str = "vllm", model: str = "m"
) -> list[EngineReading]:
    """Readings of a second each, the first from `begin` on."""
    return [
        EngineReading(
            server=server, model=model, devices=("g0",), start=T + begin + n, end=T + begin + n + 1, waiting=count
        )
        for n, count in enumerate(waiting)
    ]


def began(usage: Usage, engines: Sequence[EngineReading]) -> float | None:
    """Seconds of the window at which an engine is estimated to have begun, None where that is as told."""
    demand = demand_of(columns_of([usage]), T)
    hardware = hardware_of("NVIDIA H100 80GB HBM3")
    assert hardware is not None
    found = seated(demand, np.array([0]), engines, lambda _model: COST, hardware, window_begin=T)
    active, estimated = found.demand.active.tolist(), found.estimated.tolist()
    assert estimated == [active != demand.active.tolist()]
    return active[0] if estimated[0] else None


def test_the_docstrings_request() -> None:
    """The first second in which nobody waits ends at 6; a queue that goes on leaves half a second for the prompt."""
    assert began(LATE, told([4, 3, 3, 2, 0])) == pytest.approx(6.0)
    assert began(LATE, told([1] * 8)) == pytest.approx(8.5)
    assert began(LATE, told([1] * 7 + [0])) == pytest.approx(8.5)


def test_one_that_came_in_an_earlier_window_waits_from_the_windows_beginning_on() -> None:
    """Readings of this window alone are known here."""
    earlier = replace(LATE, start=T - 30.0)
    assert began(earlier, told([2, 2, 1, 0], begin=0.0)) == pytest.approx(4.0)
    assert began(earlier, told([0, 2, 2], begin=0.0)) is None


@pytest.mark.parametrize(
    ("usage", "engines"),
    [
        pytest.param(replace(LATE, scheduled=T + 1.5), told([4, 3, 0]), id="told, and it did not wait"),
        pytest.param(replace(LATE, first_token=None), told([4, 3, 0]), id="no first token"),
        pytest.param(LATE, told([0, 5, 5]), id="nobody waited when it came"),
        pytest.param(LATE, told([None, 5, 5]), id="who waited is not known"),
        pytest.param(LATE, [], id="no engine"),
        pytest.param(LATE, told([5, 5], model="n"), id="another model's queue"),
        pytest.param(LATE, told([5, 5]) + told([0, 0], server="another"), id="of two servers which one is not told"),
        pytest.param(replace(LATE, first_token=T + 1.9), told([5, 5]), id="less time than the prompt took"),
    ],
)
def test_where_nothing_is_estimated(usage: Usage, engines: Sequence[EngineReading]) -> None:
    """It counts as begun when it came, or when it was told to."""
    assert began(usage, engines) is None


@given(
    st.lists(st.sampled_from([0.0, 1.0, 7.0, None]), max_size=10),
    st.integers(-50, 90),
    st.integers(0, 100),
    st.integers(0, 200),
)
def test_never_before_it_came_nor_behind_its_first_token(
    waiting: list[float | None], came: int, first: int, tokens: int
) -> None:
    """Whatever the readings tell; and where it is moved, somebody waited."""
    start, until = T + came / 10.0, T + (came + first) / 10.0
    usage = replace(LATE, start=start, first_token=until, end=until + 1.0, input_tokens=100 * tokens)
    found = began(usage, told(waiting, begin=0.0))
    if found is not None:
        assert start - T <= found <= until - T
        assert any(waiting)


def shares(waiting: float | None) -> tuple[list[float], list[bool], float]:
    """Joules of two requests of a model of which nothing is known: one of 10 s, one that has its first token at 8 s.

    Of which an engine's start was estimated, and what the books say of such joules.
    """
    device = Device(id="g0", kind="gpu", hardware="NVIDIA H100 80GB HBM3", idle_watts=50.0)
    reading = EnergyReading(device="g0", start=T, end=T + 10, energy_joules=1_000.0, method="counter")
    first = replace(LATE, start=T, scheduled=T, first_token=T + 1, end=T + 10)
    second = replace(LATE, request_id="s", start=T + 0.5, first_token=T + 8, end=T + 10)
    seen: list[Watched] = []
    found = account(
        "h",
        T,
        T + 10,
        readings=[Told(reading, HostProfile(host="h", devices=(device,)))],
        usages=columns_of([first, second]),
        engines=told([waiting] * 7 + [0], begin=0.0),
        nearby=lambda _device, _start, _end: [],
        intensity_at=lambda _zone, _at: None,
        revision=0,
        watch=seen.append,
    )
    energy = REQUEST_ENERGY.fields.index("energy_joules")
    joules = [float(row.fields[energy]) for row in found.rows if row.measurement == REQUEST_ENERGY.name]
    place = ENERGY.fields.index("estimated_start_joules")
    estimated = [float(row.fields[place] or 0.0) for row in found.rows if row.measurement == ENERGY.name]
    return joules, seen[0].estimated_start.tolist(), sum(estimated)


def test_who_waits_pays_nothing() -> None:
    """100 W: 8 s are the first one's alone, 2 s are shared. Without a queue 0.5 s are its own and 9.5 s shared."""
    assert shares(3.0) == ([pytest.approx(900.0), pytest.approx(100.0)], [False, True], pytest.approx(100.0))
    assert shares(0.0) == ([pytest.approx(525.0), pytest.approx(475.0)], [False, False], 0.0)
    assert shares(None) == ([pytest.approx(525.0), pytest.approx(475.0)], [False, False], 0.0)
