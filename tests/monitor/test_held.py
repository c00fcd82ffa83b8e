"""A board at its power limit: how it shows, and what it makes of prices. Worked by hand."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.readings import ActivityReading, Device, EnergyReading, HostProfile, ModelFacts
from monitor.core.account import account
from monitor.core.attribution.hardware import hardware_of
from monitor.core.attribution.models import TokenCost
from monitor.core.attribution.priors import PRIOR, marginals
from monitor.core.attribution.virtual_energy import Meter
from monitor.core.held import held_watts, told_capped
from monitor.core.points import REQUEST_ENERGY
from monitor.core.readings import Told
from monitor.core.usage import Usage
from monitor.core.usage_columns import columns_of

STEADY = (318.0, 322.0, 320.0, 319.0, 321.0, 320.0)
ONE_LOW = (*STEADY[:5], 250.0)
T = 1_728_000_000.0
GPU = Device(id="g0", kind="gpu", hardware="NVIDIA H100 80GB HBM3", idle_watts=110.0)


def meter(watts: Sequence[float], method: str = "counter", lasts: float = 1.0) -> Meter:
    """Readings of 1 s, one after the other."""
    count = len(watts)
    start = np.arange(count) * lasts
    return Meter(
        start=start,
        end=start + lasts,
        watts=np.array(watts, dtype=np.float64),
        lasts_seconds=np.full(count, lasts),
        recovered=np.full(count, method == "recovered"),
        modelled=np.full(count, method == "modelled"),
    )


def level(
    watts: Sequence[float] = STEADY,
    busy: Sequence[tuple[float, float]] = ((0.0, 10.0),),
    *,
    limit: float | None = 700.0,
    told: bool = False,
    method: str = "counter",
) -> float | None:
    """At what power such a board is held, with requests at these times."""
    begin, end = np.array(busy, dtype=np.float64).reshape(-1, 2).T
    return held_watts(meter(watts, method), begin, end, limit, told=told)


def test_power_that_stays_the_same_is_a_limit() -> None:
    """Six readings within 1 % of their mean."""
    assert level() == pytest.approx(320.0)


@pytest.mark.parametrize(
    "busy",
    [
        pytest.param([(-5.0, 3.0), (2.0, 20.0)], id="one request after the other"),
        pytest.param([(4.0, 20.0), (-5.0, 4.0)], id="in any order"),
        pytest.param([(0.0, 6.0), (1.0, 2.0)], id="one within another"),
        pytest.param([(0.0, 2.5), (2.54, 6.0)], id="a gap of less than a twentieth"),
    ],
)
def test_busy_is_some_request_throughout(busy: list[tuple[float, float]]) -> None:
    """Whoever it is."""
    assert level(busy=busy) == pytest.approx(320.0)


def test_quiet_and_half_busy_readings_do_not_count() -> None:
    """110 W while nobody is there, 200 W where a request begins."""
    assert level((110.0, 200.0, *STEADY), busy=[(1.5, 8.0)]) == pytest.approx(320.0)


@pytest.mark.parametrize(
    ("watts", "facts"),
    [
        pytest.param(ONE_LOW, {}, id="power that varies"),
        pytest.param((290.0, 350.0, 320.0, 300.0, 340.0, 320.0), {}, id="up and down by a tenth"),
        pytest.param(STEADY[:4], {}, id="too few readings"),
        pytest.param((), {}, id="none"),
        pytest.param(STEADY, {"busy": ()}, id="nobody there"),
        pytest.param(STEADY, {"busy": [(0.0, 0.9), (5.5, 6.0)]}, id="seldom busy"),
        pytest.param(STEADY, {"method": "modelled"}, id="a model's power, which says nothing"),
        pytest.param(STEADY, {"method": "recovered", "told": True}, id="out of a hole"),
        pytest.param(tuple(each / 2.0 for each in STEADY), {}, id="160 W of 700: no limit is set so low"),
    ],
)
def test_what_shows_no_limit(watts: tuple[float, ...], facts: dict[str, object]) -> None:
    """None is not a level of 0."""
    assert level(watts, **facts) is None  # type: ignore[arg-type]


def test_a_board_of_unknown_limit_may_have_any() -> None:
    """160 W of nobody knows what."""
    assert level(tuple(each / 2.0 for each in STEADY), limit=None) == pytest.approx(160.0)


def test_what_the_driver_tells_needs_no_proof() -> None:
    """(318 + 322 + 320 + 319 + 321 + 250) / 6 = 308.33 W; also of a single reading."""
    assert level(ONE_LOW, told=True) == pytest.approx(1_850 / 6)
    assert level((300.0,), told=True) == pytest.approx(300.0)
    assert level((300.0,), busy=(), told=True) is None


@given(st.permutations((*STEADY, 140.0, 95.0)))
def test_the_order_of_readings_does_not_matter(watts: list[float]) -> None:
    """A level, or none, of the same readings."""
    assert level(watts, busy=[(0.0, 8.0)]) is None
    assert level(watts, busy=[(0.0, 8.0)], told=True) == pytest.approx((1_920 + 235) / 8)


def told(start: float, end: float, *state: str, device: str = "g0") -> ActivityReading:
    """What the driver says of the board, from T on."""
    return ActivityReading(device=device, start=T + start, end=T + end, state=state)


@pytest.mark.parametrize(
    ("activities", "expected"),
    [
        pytest.param([told(0, 5, "power_capped")], True, id="half of the window"),
        pytest.param([told(0, 4.9, "power_capped")], False, id="less"),
        pytest.param([told(0, 3, "power_capped"), told(1, 4, "power_capped")], False, id="twice told is told once"),
        pytest.param([told(-5, 3, "power_capped", "x"), told(8, 20, "power_capped")], True, id="both ends, 3 + 2 s"),
        pytest.param([told(0, 10, "thermal_throttled")], False, id="heat lowers the clock, not the power alone"),
        pytest.param([told(0, 10, "power_capped", device="g1")], False, id="another board"),
        pytest.param([], False, id="nothing told"),
    ],
)
def test_what_the_driver_tells(activities: list[ActivityReading], expected: bool) -> None:
    """Of the window [T, T + 10)."""
    assert told_capped(activities, GPU, T, T + 10.0) is expected


COST = TokenCost(flops_per_token=1.6e10, kv_bytes_per_token=131_072.0, weight_bytes=16e9, source="given")
H100 = hardware_of("H100")
assert H100 is not None


def test_at_a_limit_idle_power_goes_by_the_joules_of_the_work() -> None:
    """320 W, of which 210 W work: 320/210 times 0.0192 J, 131 072 B x 0.18e-9 J and 16e9 B x 0.18e-9 J."""
    found = marginals(COST, H100, 110.0, held_watts=320.0)
    assert found.prefill_joules == found.decode_joules == pytest.approx(0.0192 * 320 / 210, rel=1e-12)
    assert found.context_joules == pytest.approx(2.359296e-5 * 320 / 210, rel=1e-12)
    assert found.step_joules == pytest.approx(2.88 * 320 / 210, rel=1e-12)


@pytest.mark.parametrize("held", [110.0, 90.0, 420.0, 600.0])
def test_a_level_that_says_no_more_than_the_roofline_changes_nothing(held: float) -> None:
    """420/310 is 1.355, not 1.1 times the roofline's 1.243 of a byte; and there is no work at idle power or below."""
    assert marginals(COST, H100, 110.0, held_watts=held) == marginals(COST, H100, 110.0, PRIOR)


def shares(watts: Sequence[float], *activities: ActivityReading, method: str = "virtual-energy.5") -> list[float]:
    """Joules of a request that makes 50 000 tokens in a window of 10 s, and of one that makes 10 000."""
    profile = HostProfile(
        host="h", devices=(GPU,), models=(ModelFacts(name="m", parameters=8e9, kv_bytes_per_token=0.0),)
    )
    readings = [
        Told(
            EnergyReading(device="g0", start=T + each, end=T + each + 1, energy_joules=joules, method="counter"),
            profile,
        )
        for each, joules in enumerate(watts)
    ]
    usages = [
        Usage(
            host="h",
            namespace="",
            request_id=name,
            model="m",
            team=name,
            devices=("g0",),
            start=T,
            first_token=T,
            end=T + 10,
            input_tokens=0,
            output_tokens=made,
        )
        for name, made in (("a", 50_000), ("b", 10_000))
    ]
    rows = account(
        "h",
        T,
        T + 10,
        readings=readings,
        usages=columns_of(usages),
        activities=activities,
        nearby=lambda _device, _start, _end: [],
        intensity_at=lambda _zone, _at: None,
        method=method,
        revision=0,
    ).rows
    return [row.fields[0] for row in rows if row.measurement == REQUEST_ENERGY.name]  # type: ignore[misc]


VARYING = (250.0, 390.0) * 5
HELD = [960 * 320 / 210 + (3_200 - 1_152 * 320 / 210) / 2, 192 * 320 / 210 + (3_200 - 1_152 * 320 / 210) / 2]
"""3 200 J: own 1 462.9 J and 292.6 J, and 722.3 J of the rest each."""
FREE = [1_157.730 + (3_200 - 1_389.277) / 2, 231.546 + (3_200 - 1_389.277) / 2]
"""Own by the roofline, 0.02315461 J a token."""


def test_the_split_of_a_board_that_is_held() -> None:
    """Steady power shows it; where power varies the driver's word does. Sums stay what was measured."""
    assert shares([320.0] * 10) == pytest.approx(HELD)
    assert shares(VARYING) == pytest.approx(FREE, rel=1e-6)
    assert shares(VARYING, told(0, 10, "power_capped")) == pytest.approx(HELD)


def test_other_methods_do_not_ask_for_it() -> None:
    """Equal parts stay equal; by the priors it is the same here, as nothing was learned."""
    assert shares([320.0] * 10, method="time-share.4") == pytest.approx([1_600.0, 1_600.0])
    assert shares([320.0] * 10, method="virtual-energy-priors.5") == pytest.approx(HELD)
