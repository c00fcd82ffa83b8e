"""The band around a sum of joules, worked by hand, and that sums of sums have the same."""

from collections.abc import Sequence
from math import hypot, nan, sqrt

import pytest
from books_rows import energy, meter
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.allocation import allocate
from monitor.core.allocation_lines import AllocationLine, AllocationRules
from monitor.core.band import Doubt, Gains, tier
from monitor.core.points import ENERGY, Row
from monitor.core.rollup import roll_up

HERE = ("h1", "gpu0")


def doubt(*rows: tuple[tuple[str, str], float, float, tuple[float, float], float]) -> Doubt:
    """Of these rows."""
    found = Doubt()
    for row in rows:
        found.add(*row)
    return found


def test_a_gain_is_a_tolerance() -> None:
    """1 000 J of a sensor that may tell 5 % too much or too little: 1 000 / 1.05 to 1 000 / 0.95."""
    band = doubt((HERE, 1_000.0, 1_000.0, (0.0, 0.0), 0.0)).band(Gains())
    assert (band.low_joules, band.high_joules, band.split_joules) == (952.381, 1_052.63, 0.0)


def test_the_split_comes_on_top() -> None:
    """Moves of 30 J and 40 J: 1.645 x 50 J = 82.25 J on either side."""
    band = doubt((HERE, 1_000.0, 1_000.0, (30.0, 40.0), 0.0)).band(Gains())
    assert (band.low_joules, band.high_joules, band.split_joules) == (870.131, 1_134.88, 82.25)


def test_moves_add_up_with_their_sign_and_variances_as_they_are() -> None:
    """Two windows of one team: moves of 10 J each are 20 J, variances of 100 J^2 each are 200 J^2."""
    row = (HERE, 500.0, 500.0, (10.0, 0.0), 100.0)
    assert doubt(row, row).band(Gains()).split_joules == pytest.approx(1.645 * sqrt(400.0 + 200.0), rel=1e-5)
    back = (HERE, 500.0, 500.0, (-10.0, 0.0), 0.0)
    assert doubt((HERE, 500.0, 500.0, (10.0, 0.0), 0.0), back).band(Gains()).split_joules == 0.0


def test_gains_of_devices_are_their_own_and_of_one_device_the_same() -> None:
    """1 000 J on each of two devices: 47.619 J each are 67.344 J; 2 000 J on one: 95.238 J. A known one has its own."""
    there = ("h1", "gpu1")
    one = (HERE, 1_000.0, 1_000.0, (0.0, 0.0), 0.0)
    other = (there, 1_000.0, 1_000.0, (0.0, 0.0), 0.0)
    assert doubt(one, other).band(Gains()).low_joules == pytest.approx(
        2_000.0 - hypot(1_000 / 21, 1_000 / 21), rel=1e-5
    )
    assert doubt(one, one).band(Gains()).low_joules == pytest.approx(2_000.0 / 1.05, rel=1e-5)
    assert doubt(one, other).band(Gains(of={HERE: 0.0, there: 0.0})).low_joules == 2_000.0
    assert doubt(one, other).band(Gains(of={("h1", ""): 0.0})).high_joules == 2_000.0


def test_modelled_joules_may_be_off_by_more() -> None:
    """100 J of a model, +-30 %: 76.9231 to 142.857."""
    band = doubt((HERE, 100.0, 0.0, (0.0, 0.0), 0.0)).band(Gains())
    assert (band.low_joules, band.high_joules) == (76.9231, 142.857)


def test_a_host_is_as_sure_as_its_worst_device() -> None:
    """Rows of requests name no device."""
    gains = Gains(of={("h1", ""): 0.02, ("h1", "gpu1"): 0.1, ("h2", "gpu0"): 0.3})
    assert (gains.at(("h1", "")), gains.at(("h1", "gpu0")), gains.at(("h1", "gpu1"))) == (0.1, 0.02, 0.1)
    assert (gains.at(("h2", "")), gains.at(("h2", "gpu1")), gains.at(("h3", ""))) == (0.3, 0.05, 0.05)


def test_what_nobody_knows_is_no_band() -> None:
    """A part whose error is not known makes the sum's not known."""
    band = doubt((HERE, 1.0, 1.0, (0.0, 0.0), nan), (HERE, 1.0, 1.0, (0.0, 0.0), 1.0)).band(Gains())
    assert (band.low_joules, band.high_joules, band.split_joules) == (None, None, None)
    unmetered = doubt((HERE, 1.0, nan, (0.0, 0.0), 0.0)).band(Gains())
    assert (unmetered.low_joules, unmetered.high_joules) == (None, None)


@pytest.mark.parametrize(
    ("joules", "name"),
    [
        ((600.0, 600.0, 400.0, 100.0, 50.0), "measured"),
        ((600.0, 600.0, 100.0, 450.0, 400.0), "learned_with_steps"),
        ((600.0, 600.0, 100.0, 450.0, 0.0), "learned_from_events"),
        ((600.0, 600.0, 100.0, 0.0, 500.0), "prior"),
        ((600.0, 200.0, 600.0, 0.0, 0.0), "modelled"),
    ],
)
def test_the_tier_is_what_most_rests_on(joules: tuple[float, float, float, float, float], name: str) -> None:
    """Of 600 J: metered, exact, learned, steps."""
    assert tier(*joules) == name


def split_row(time: float, joules: float, team: str, flop: float, variance: float | None) -> Row:
    """A row of a team with a doubt."""
    parts = {"exact_joules": 0.0, "learned_joules": joules, "steps_joules": joules}
    sums = {"flop_sensitivity_joules": flop, "byte_sensitivity_joules": 0.0, "split_variance": variance}
    return energy(time, joules, team=team, **parts, **sums)


PAIR = [split_row(0.0, 600.0, "a", 10.0, 300.0), split_row(0.0, 400.0, "b", -10.0, 100.0)]


def lines(rows: list[Row], *by: str) -> dict[tuple[str, ...], AllocationLine]:
    """By key."""
    return {line.key: line for line in allocate([*rows, meter(0.0, 1_000.0)], AllocationRules(by=by)).lines}


def test_all_that_a_device_used_is_off_by_its_meter_alone() -> None:
    """Team a: 10 J moved, and 300 x (1 - 300/400) = 75 J^2; b the same; both together neither."""
    teams, all_of_it = lines(PAIR, "team"), lines(PAIR)[()]
    split = 1.645 * sqrt(100.0 + 75.0)
    assert (teams["a",].low_joules, teams["a",].high_joules) == pytest.approx((600 / 1.05 - split, 600 / 0.95 + split))
    assert (teams["b",].low_joules, teams["b",].high_joules) == pytest.approx((400 / 1.05 - split, 400 / 0.95 + split))
    assert (all_of_it.low_joules, all_of_it.high_joules) == (952.381, 1_052.63)
    assert teams["a",].tier == "learned_with_steps"
    chosen = allocate(PAIR, AllocationRules(by=("team",), filters={"team": frozenset({"a"})})).lines
    assert [(line.low_joules, line.high_joules) for line in chosen] == [
        (teams["a",].low_joules, teams["a",].high_joules)
    ]


def test_the_totals_may_be_off_by_what_the_top_meters_are() -> None:
    """A node of 1 000 J that contains a GPU of 700 J: the node's sensor counts."""
    meters = [meter(0.0, 1_000.0, device="node", kind="node"), meter(0.0, 700.0, parent="node")]
    totals = allocate(meters, AllocationRules(by=())).totals
    assert (totals.measured_low_joules, totals.measured_high_joules) == (952.381, 1_052.63)


NODE = [
    energy(0.0, 700.0, team="a", split_variance=0.0, flop_sensitivity_joules=0.0, byte_sensitivity_joules=0.0),
    *(
        energy(
            0.0,
            joules,
            team=team,
            device="node",
            kind="node",
            split_variance=0.0,
            flop_sensitivity_joules=0.0,
            byte_sensitivity_joules=0.0,
        )
        for team, joules in (("a", 150.0), ("b", 150.0))
    ),
]
USUAL = Gains()
METERS = [meter(0.0, 1_000.0, device="node", kind="node"), meter(0.0, 700.0, parent="node")]


def bands(*by: str, gains: Gains = USUAL, rows: Sequence[Row] = (*NODE, *METERS)) -> dict[str, tuple[float, ...]]:
    """(low, high) by the first of the key, "" where there is none."""
    found = allocate(rows, AllocationRules(by=by, gains=gains)).lines
    return {"".join(line.key[:1]): (line.low_joules or nan, line.high_joules or nan) for line in found}


def test_the_rest_of_a_node_is_off_by_all_meters_that_it_is_made_of() -> None:
    """300 J: below 1 000 J x 0.05/1.05 and 700 J x 0.05/0.95, above the other way round; the GPU by itself."""
    by_device = bands("device")
    rest = 300.0 - hypot(1_000 / 21, 700 / 19), 300.0 + hypot(1_000 / 19, 700 / 21)
    assert by_device["node"] == pytest.approx(rest, rel=1e-5)
    assert by_device["gpu0"] == pytest.approx((700 / 1.05, 700 / 0.95), rel=1e-5)
    assert bands("device", rows=[*NODE, METERS[0]])["node"] == pytest.approx((300 / 1.05, 300 / 0.95), rel=1e-5)


def test_a_node_with_all_that_is_in_it_is_off_by_its_meter_alone() -> None:
    """What the GPU's meter tells too much, the rest has too little."""
    assert bands()[""] == pytest.approx((1_000 / 1.05, 1_000 / 0.95), rel=1e-5)


def test_half_of_the_rest_takes_half_of_each_meter() -> None:
    """Team b: 150 J, of 500 J and -350 J. Team a has the 700 J too: of 500 J and +350 J. A sure GPU leaves the node."""
    by_team = bands("team")
    assert by_team["b"][0] == pytest.approx(150.0 - hypot(500 / 21, 350 / 19), rel=1e-5)
    assert by_team["a"][0] == pytest.approx(850.0 - hypot(500 / 21, 350 / 21), rel=1e-5)
    sure = bands("team", gains=Gains(of={HERE: 0.0}))
    assert sure["b"] == pytest.approx((150.0 - 500 / 21, 150.0 + 500 / 19), rel=1e-5)


def test_rows_of_older_books_have_no_band() -> None:
    """Written before there were doubts: not known, also of an hour in which one such row lies."""
    old = energy(10.0, 600.0, team="a")
    assert lines([old], "team")["a",].low_joules is None
    [hour] = roll_up(ENERGY, [PAIR[0], old], 0.0)
    assert hour.fields[ENERGY.fields.index("split_variance")] is None
    assert lines([hour], "team")["a",].high_joules is None


shares = st.tuples(st.floats(1.0, 1e4), st.floats(-1e2, 1e2), st.floats(0.0, 1e3))


@given(st.lists(st.tuples(shares, shares), min_size=1, max_size=12))
def test_an_hour_has_the_band_of_its_windows(windows: list[tuple[tuple[float, float, float], ...]]) -> None:
    """Reports of hours and days are made from sums: the same band, to its six digits."""
    rows = [
        split_row(10.0 * number, joules, team, flop, variance)
        for number, pair in enumerate(windows)
        for team, (joules, flop, variance) in zip("ab", pair, strict=True)
    ]
    hours = roll_up(ENERGY, rows, 0.0)
    fine, coarse = lines(rows, "team"), lines(hours, "team")
    for key in fine:
        assert coarse[key].low_joules == pytest.approx(fine[key].low_joules, rel=2e-5, abs=1e-2)
        assert coarse[key].high_joules == pytest.approx(fine[key].high_joules, rel=2e-5, abs=1e-2)
