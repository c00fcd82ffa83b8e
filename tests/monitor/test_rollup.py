import math
from pathlib import Path

import pytest
from books_rows import energy, meter, usage
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.points import ENERGY, METER, USAGE, Row
from monitor.core.rollup import parent_changes, roll_up
from monitor.store.rollup import write_rollups
from monitor.store.sqlite import SqliteStore

DAY = 86_400.0
HOUR = 3_600.0


def _field(row: Row, name: str) -> object:
    return row.fields[ENERGY.fields.index(name)]


def test_a_series_becomes_one_row() -> None:
    """1 J and 2 J of team a are 3 J, 4 J of team b stay apart; the newest revision counts."""
    rows = [energy(0.0, 1.0, team="a"), energy(0.0, 4.0, team="b"), energy(10.0, 2.0, team="a", revision=900)]
    assert roll_up(ENERGY, rows, 0.0) == [
        energy(0.0, 3.0, team="a", location_grams=0.1 + 0.2, revision=900),
        energy(0.0, 4.0, team="b"),
    ]


def test_unknown_is_left_out_of_a_sum_and_stays_unknown_alone() -> None:
    """None and 2 g are 2 g; None and None are None, not 0."""
    [row] = roll_up(ENERGY, [energy(0.0, 1.0, location_grams=None), energy(1.0, 1.0, location_grams=2.0)], 0.0)
    assert _field(row, "location_grams") == 2.0
    assert _field(row, "gap_joules") is None


@pytest.mark.parametrize(
    ("factors", "rolled_up"),
    [
        (("FR", "FR"), "FR"),
        (("FR", "DE"), "mixed"),
        (("FR", None), "mixed, some missing"),
        (("mixed", "mixed, some missing"), "mixed, some missing"),
        ((None, None), None),
    ],
)
def test_a_fact_that_differs_says_so(factors: tuple[str | None, ...], rolled_up: str | None) -> None:
    """The same factor stays; of two, neither is taken for both."""
    [row] = roll_up(ENERGY, [energy(float(n), 1.0, factor=factor) for n, factor in enumerate(factors)], 0.0)
    assert _field(row, "factor") == rolled_up


@given(st.lists(st.floats(0, 1e12), min_size=1, max_size=30), st.randoms())
def test_order_and_grouping_of_rows_do_not_matter(joules: list[float], random: object) -> None:
    """Shuffled rows give the same bits: the exactly rounded sum."""
    rows = [energy(float(number), value) for number, value in enumerate(joules)]
    [straight] = roll_up(ENERGY, rows, 0.0)
    random.shuffle(rows)  # type: ignore[attr-defined]
    assert roll_up(ENERGY, rows, 0.0) == [straight]
    assert _field(straight, "energy_joules") == math.fsum(joules)


def test_a_meter_that_comes_under_another_is_seen() -> None:
    """ "" and None both mean that nothing contains it."""
    assert not parent_changes([meter(0.0, 1.0), meter(1.0, 1.0, parent=None), meter(0.0, 1.0, device="x", parent="n")])
    assert parent_changes([meter(0.0, 1.0), meter(1.0, 1.0, parent="node")])


def test_hours_are_made_of_windows_and_days_of_hours(tmp_path: Path) -> None:
    """25 hours of a 1 J and a 2 J window: 3 J each hour, 72 J in the first day; a restated window changes both."""
    store = SqliteStore(tmp_path / "store.db")
    hours = [number * HOUR for number in range(25)]
    for hour in hours:
        store.write([meter(hour, 1.0), meter(hour + 10.0, 2.0), energy(hour, 1.0), energy(hour + 10.0, 2.0)])
        store.write([usage(hour, 1.0, team="a")])
    write_rollups(store, hours, [0.0])
    assert store.rolled_up(0.0, 10 * DAY, "hour") == {hour: {"h1"} for hour in hours}
    assert store.rolled_up(0.0, 10 * DAY, "day") == {0.0: {"h1"}}
    assert [row.fields[0] for row in store.read(METER, 0.0, DAY, resolution="hour")] == [3.0] * 24
    assert [row.fields[0] for row in store.read(METER, 0.0, DAY, resolution="day")] == [72.0]
    assert [row.fields[0] for row in store.read(USAGE, 0.0, DAY, resolution="day")] == [24.0]

    store.write([meter(10.0, 5.0, revision=900)])
    write_rollups(store, [0.0], [0.0])
    [day] = store.read(METER, 0.0, DAY, resolution="day")
    assert day.fields[0] == 75.0
    assert day.fields[METER.fields.index("revision")] == 900
    store.close()


def test_an_hour_in_which_a_meter_came_under_another_stays_in_windows(tmp_path: Path) -> None:
    """Neither that hour nor its day is rolled up: their sums would not be the measured energy."""
    store = SqliteStore(tmp_path / "store.db")
    store.write([meter(0.0, 1.0), meter(10.0, 1.0, parent="node"), meter(HOUR, 1.0, parent="node")])
    write_rollups(store, [0.0, HOUR, 2 * HOUR], [0.0])
    assert store.rolled_up(0.0, DAY, "hour") == {HOUR: {"h1"}}
    assert store.rolled_up(0.0, DAY, "day") == {}
    store.close()
