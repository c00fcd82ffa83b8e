import math
from typing import Any

import pytest
from books_rows import energy, meter, usage
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.allocation import allocate
from monitor.core.allocation_lines import Allocation, AllocationLine, AllocationRules
from monitor.core.exact import ExactSum
from monitor.core.points import ENERGY, METER, PROVISIONAL_ENERGY, PROVISIONAL_METER, USAGE, Row
from monitor.core.rollup import roll_up

# One host h1 with two GPUs, one host h2 with one. h1: team a 600 J, team b 200 J, idle 80 J + 40 J, unattributed 30 J.
# h2: idle 50 J only. Measured 950 J + 50 J.
FLEET = [
    energy(0.0, 600.0, model="m", team="a", labels='{"use_case":"chat"}'),
    energy(0.0, 150.0, model="m", team="b"),
    energy(0.0, 50.0, model="n", team="b", device="gpu1", metered_joules=0.0),
    energy(0.0, 80.0, "idle"),
    energy(0.0, 40.0, "idle", device="gpu1"),
    energy(0.0, 30.0, "unattributed", device="gpu1", gap_joules=10.0, unreported_joules=20.0),
    energy(0.0, 50.0, "idle", host="h2"),
    meter(0.0, 830.0),
    meter(0.0, 120.0, device="gpu1", metered_joules=70.0),
    meter(0.0, 50.0, host="h2"),
    usage(0.0, 6.0, model="m", team="a", labels='{"use_case":"chat"}'),
    usage(0.0, 2.0, model="m", team="b"),
    usage(0.0, 1.0, model="n", team="b"),
]


def _lines(allocation: Allocation, *names: str) -> dict[tuple[str, ...], tuple[Any, ...]]:
    return {line.key: tuple(getattr(line, name) for name in names) for line in allocation.lines}


def test_teams_idle_and_unattributed_are_lines() -> None:
    """Team a used 600 J in 6 requests, b 200 J in 3, of which 50 J were modelled; 170 J are idle, 30 J unattributed."""
    found = allocate(FLEET, AllocationRules(by=("team",)))
    assert _lines(found, "energy_joules", "requests", "input_tokens", "measured_ratio", "emissions_grams") == {
        ("a",): (600.0, 6.0, 60.0, 1.0, 60.0),
        ("b",): (200.0, 3.0, 30.0, 0.75, 20.0),
        ("__idle__",): (170.0, None, None, 1.0, 17.0),
        ("__unattributed__",): (30.0, None, None, 1.0, 3.0),
    }
    totals = found.totals
    assert (totals.measured_joules, totals.attributed_joules, totals.idle_joules) == (1000.0, 800.0, 170.0)
    assert (totals.unattributed_joules, totals.imbalance_joules, totals.measured_ratio) == (30.0, 0.0, 0.95)
    assert totals.unattributed_reasons == {"unknown_device": 0, "other_process": 0, "gap": 10.0, "unreported": 20.0}
    assert (found.factors, found.first, found.last) == (("FR 2023",), 0.0, 0.0)


def test_idle_of_a_host_is_shared_on_it() -> None:
    """120 J of h1 by 600 to 200: 90 J and 30 J. Nobody used h2, so its 50 J stay idle."""
    found = allocate(FLEET, AllocationRules(by=("team",), share_idle="host", include_idle=False))
    assert _lines(found, "energy_joules", "idle_share_joules", "idle_share_grams") == {
        ("a",): (600.0, 90.0, 9.0),
        ("b",): (200.0, 30.0, 3.0),
        ("__idle__",): (50.0, 0.0, 0.0),
        ("__unattributed__",): (30.0, 0.0, 0.0),
    }


def test_idle_of_the_fleet_is_shared_by_all() -> None:
    """170 J by 600 to 200: 127.5 J and 42.5 J; no idle line is left."""
    found = allocate(FLEET, AllocationRules(by=("team",), share_idle="fleet", include_unattributed=False))
    assert _lines(found, "idle_share_joules") == {("a",): (127.5,), ("b",): (42.5,)}


def test_an_owner_pays_for_the_idle_of_its_devices() -> None:
    """b owns gpu1 of h1 (40 J), c owns h2's GPU (50 J) and used nothing; 80 J have no owner."""
    owners = {("h1", "gpu1"): "b", ("h2", "gpu0"): "c"}
    rules = AllocationRules(by=("team",), share_idle="owner", owners=owners, include_unattributed=False)
    assert _lines(allocate(FLEET, rules), "energy_joules", "idle_share_joules", "requests") == {
        ("a",): (600.0, 0.0, 6.0),
        ("b",): (200.0, 40.0, 3.0),
        ("c",): (0.0, 50.0, 0.0),
        ("__idle__",): (80.0, 0.0, None),
    }
    by_model = AllocationRules(by=("model", "team"), share_idle="owner", owners=owners, include_unattributed=False)
    assert _lines(allocate(FLEET, by_model), "idle_share_joules")["__idle__", "c"] == (50.0,)


def test_a_label_is_a_dimension() -> None:
    """What has no such label is `__none__`."""
    found = allocate(FLEET, AllocationRules(by=("label:use_case", "model"), include_idle=False))
    assert _lines(found, "energy_joules", "requests") == {
        ("chat", "m"): (600.0, 6.0),
        ("__none__", "m"): (150.0, 2.0),
        ("__none__", "n"): (50.0, 1.0),
        ("__unattributed__", "__unattributed__"): (30.0, None),
    }


def test_places_keep_their_names_on_every_line() -> None:
    """By host, h1 has three lines, told apart by account; a device's lines know no requests."""
    found = allocate(FLEET, AllocationRules(by=("host",)))
    assert [(line.key, line.account, line.energy_joules) for line in found.lines] == [
        (("h1",), "attributed", 800.0),
        (("h1",), "idle", 120.0),
        (("h2",), "idle", 50.0),
        (("h1",), "unattributed", 30.0),
    ]
    by_device = allocate(FLEET, AllocationRules(by=("device",), include_idle=False, include_unattributed=False))
    assert _lines(by_device, "energy_joules", "requests") == {("gpu0",): (750.0, None), ("gpu1",): (50.0, None)}


def test_filters_choose_lines_and_change_no_share() -> None:
    """Team b's share of h1's idle stays 30 J though only b is shown; totals stay the fleet's."""
    found = allocate(FLEET, AllocationRules(by=("team",), share_idle="host", filters={"team": frozenset("b")}))
    assert _lines(found, "energy_joules", "idle_share_joules", "requests") == {("b",): (200.0, 30.0, 3.0)}
    assert found.totals.measured_joules == 1000.0


def test_a_meter_within_another_is_not_measured_twice() -> None:
    """The node meter's 100 J contain the GPU's 60 J."""
    rows = [meter(0.0, 100.0, device="node", kind="node"), meter(0.0, 60.0, parent="node")]
    assert allocate(rows, AllocationRules(by=())).totals.measured_joules == 100.0


def test_energy_without_a_factor_is_named() -> None:
    """2 J without a factor beside 1 J with one: 0.1 g, and 2 J in no gram; of nothing known they are None."""
    rows = [energy(0.0, 1.0, team="a"), energy(0.0, 2.0, team="a", device="gpu1", location_grams=None, factor=None)]
    rows.append(energy(0.0, 4.0, team="b", location_grams=None, factor=None))
    found = allocate(rows, AllocationRules(by=("team",)))
    assert _lines(found, "emissions_grams", "factorless_joules") == {("a",): (0.1, 2.0), ("b",): (None, 4.0)}
    tenth_hour = roll_up(ENERGY, [energy(0.0, 1.0), energy(10.0, 2.0, location_grams=None, factor=None)], 0.0)
    [line] = allocate(tenth_hour, AllocationRules(by=())).lines
    assert (line.emissions_grams, line.factorless_joules) == (0.1, 3.0)


def test_shared_idle_brings_its_grams_and_its_unknown() -> None:
    """30 J idle, 10 J of them without a factor: 2 g over three to one are 1.5 g and 0.5 g, 7.5 J and 2.5 J without."""
    rows = [energy(0.0, 3.0, team="a"), energy(0.0, 1.0, team="b"), energy(0.0, 20.0, "idle")]
    rows.append(energy(0.0, 10.0, "idle", device="gpu1", location_grams=None, factor=None))
    found = allocate(rows, AllocationRules(by=("team",), share_idle="host"))
    assert _lines(found, "idle_share_joules", "idle_share_grams", "factorless_joules") == {
        ("a",): (22.5, 1.5, 7.5),
        ("b",): (7.5, 0.5, 2.5),
    }


def test_tokens_that_nobody_told_are_not_zero() -> None:
    """Unknown tokens are None; beside known ones they are counted as untold requests."""
    rows = [usage(0.0, 1.0, team="a", input_tokens=None, untold_requests=1.0), usage(0.0, 1.0, team="b")]
    rows.append(usage(10.0, 2.0, team="b", input_tokens=None, untold_requests=2.0))
    found = allocate(rows, AllocationRules(by=("team",)))
    assert _lines(found, "requests", "input_tokens", "untold_requests") == {
        ("a",): (1.0, None, 1.0),
        ("b",): (3.0, 10.0, 2.0),
    }


def test_what_rests_on_an_estimated_start_is_told_from_what_was_told() -> None:
    """7 J of 10 J were placed by an estimate; two of a's three requests told when an engine began."""
    rows = [energy(0.0, 10.0, team="a", estimated_start_joules=7.0), energy(0.0, 5.0, team="b")]
    rows += [usage(0.0, 3.0, team="a", scheduled_requests=2.0), usage(0.0, 1.0, team="b", scheduled_requests=0.0)]
    found = allocate(rows, AllocationRules(by=("team",)))
    assert _lines(found, "estimated_start_joules", "scheduled_requests", "requests") == {
        ("a",): (7.0, 2.0, 3.0),
        ("b",): (0.0, 0.0, 1.0),
    }


def test_what_an_older_row_does_not_hold_is_not_known() -> None:
    """Team a has a row from before; b's idle is no part of it. An hour that was rolled up over both says the same."""
    later = {"steps_joules": 1.0, "learned_joules": 2.0, "estimated_start_joules": 3.0}
    old = dict.fromkeys(later)
    rows = [energy(0.0, 10.0, team="a", **old), energy(10.0, 10.0, team="a", **later)]
    rows += [energy(10.0, 5.0, team="b", **later), energy(0.0, 4.0, "idle", **old)]
    told = [usage(0.0, 1.0, team="a", scheduled_requests=None), usage(10.0, 1.0, team="a", scheduled_requests=1.0)]
    told.append(usage(10.0, 1.0, team="b", scheduled_requests=1.0))
    for each in (rows, roll_up(ENERGY, rows, 0.0)):
        for used in (told, roll_up(USAGE, told, 0.0)):
            found = allocate([*each, *used], AllocationRules(by=("team",), share_idle="host", include_idle=False))
            assert _lines(found, *later, "scheduled_requests", "energy_joules", "requests") == {
                ("a",): (None, None, None, None, 20.0, 2.0),
                ("b",): (1.0, 2.0, 3.0, 1.0, 5.0, 1.0),
            }


def test_provisional_energy_is_part_of_the_sum_and_named() -> None:
    """1 J final and 2 J provisional are 3 J, 2 J of them provisional."""
    rows = [energy(0.0, 1.0, team="a"), energy(10.0, 2.0, team="a", measurement=PROVISIONAL_ENERGY)]
    rows += [meter(0.0, 1.0), meter(10.0, 2.0, measurement=PROVISIONAL_METER)]
    found = allocate(rows, AllocationRules(by=("team",)))
    assert _lines(found, "energy_joules", "provisional_joules") == {("a",): (3.0, 2.0)}
    assert (found.totals.measured_joules, found.totals.provisional_joules) == (3.0, 2.0)


@pytest.mark.parametrize("share_idle", ["host", "fleet"])
def test_idle_among_lines_that_used_nothing_stays_idle(share_idle: Any) -> None:
    """Zero rows of a team are no reason to charge it."""
    found = allocate(
        [energy(0.0, 0.0, team="a"), energy(0.0, 5.0, "idle")], AllocationRules(by=("team",), share_idle=share_idle)
    )
    assert _lines(found, "energy_joules", "idle_share_joules") == {("a",): (0.0, 0.0), ("__idle__",): (5.0, 0.0)}


JOULES = st.floats(0.0, 1e9)
ACCOUNTS = st.sampled_from(["attributed", "attributed", "idle", "unattributed"])
NAMES = st.sampled_from(["a", "b", "c"])


@st.composite
def books(draw: st.DrawFn) -> list[Row]:
    """Rows of some hours that close: each device's meter row is the exact sum of its energy rows."""
    rows, measured = {}, {}
    for _ in range(draw(st.integers(1, 25))):
        time, account, host = draw(st.integers(0, 5)) * 600.0, draw(ACCOUNTS), draw(st.sampled_from(["h1", "h2"]))
        named = {"model": draw(NAMES), "team": draw(NAMES)} if account == "attributed" else {}
        device = draw(st.sampled_from(["gpu0", "gpu1"]))
        row = energy(time, draw(JOULES), account, host=host, device=device, **named)
        rows[time, row.tags] = row
    for row in rows.values():
        measured.setdefault((row.time, *row.tags[:2]), []).append(row.fields[0])
    meters = [
        meter(time, math.fsum(parts), host=host, device=device) for (time, host, device), parts in measured.items()
    ]
    return [*rows.values(), *meters, usage(0.0, 1.0, team="a")]


RULES = st.builds(
    AllocationRules,
    by=st.lists(st.sampled_from(["model", "team", "host", "device", "label:x"]), unique=True).map(tuple),
    share_idle=st.sampled_from(["false", "host", "fleet", "owner"]),
    owners=st.just({("h1", "gpu0"): "a", ("h2", "gpu1"): "d"}),
)


@given(books(), RULES)
def test_lines_add_up_to_what_was_measured(rows: list[Row], rules: AllocationRules) -> None:
    """Whatever the dimensions and the policy: no joule is lost or made, and the totals are the same."""
    found = allocate(rows, rules)
    lines = math.fsum(part for line in found.lines for part in (line.energy_joules, line.idle_share_joules))
    assert lines == pytest.approx(found.totals.measured_joules, rel=1e-12, abs=0.0)
    assert found.totals == allocate(rows, AllocationRules(by=())).totals


@given(books(), RULES, st.randoms())
def test_the_order_of_rows_changes_no_digit(rows: list[Row], rules: AllocationRules, random: Any) -> None:
    """Shuffled rows give equal lines, bit by bit."""
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert allocate(shuffled, rules) == allocate(rows, rules)


@given(books(), RULES)
def test_rolled_up_rows_give_the_same_lines(rows: list[Row], rules: AllocationRules) -> None:
    """Hourly rows instead of windows: equal to 1e-12."""
    rolled = [
        row
        for measurement in (ENERGY, METER, USAGE)
        for row in roll_up(measurement, [each for each in rows if each.measurement == measurement.name], 0.0)
    ]
    from_rolled, from_rows = allocate(rolled, rules), allocate(rows, rules)
    assert [line.key for line in from_rolled.lines] == [line.key for line in from_rows.lines]
    for one, other in zip(from_rolled.lines, from_rows.lines, strict=True):
        _close(one, other)


def _close(one: AllocationLine, other: AllocationLine) -> None:
    assert one.energy_joules == pytest.approx(other.energy_joules, rel=1e-12, abs=0.0)
    assert one.idle_share_joules == pytest.approx(other.idle_share_joules, rel=1e-12, abs=0.0)


@given(st.lists(st.floats(-1e15, 1e15), max_size=40), st.integers(1, 300))
def test_a_sum_in_bounded_memory_is_exact(values: list[float], times: int) -> None:
    """Up to 12 000 parts and their replacement by a few: the digits of math.fsum."""
    total = ExactSum()
    for _ in range(times):
        for value in values:
            total.add(value)
    assert total.value() == math.fsum(values * times)


def test_how_long_was_measured_tells_nothing_from_not_known() -> None:
    """0 J of a meter that was read for 10 s is a measured nothing; without a row nobody knows."""
    rules = AllocationRules(by=("team",))
    assert allocate([], rules).totals.covered_device_seconds == 0.0
    told = allocate([meter(0.0, 0.0), meter(10.0, 0.0)], rules).totals
    assert (told.measured_joules, told.covered_device_seconds) == (0.0, 20.0)
