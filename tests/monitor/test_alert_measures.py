"""What alert rules measure, by hand from small books, and how windows are judged one after the other."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from books_rows import energy, meter, usage

from monitor.alerts.coverage import Seen, seen
from monitor.alerts.evaluate import evaluate, judged_end
from monitor.alerts.kept import Kept, KeptAlert, Told
from monitor.alerts.measures import Instance, SpanBooks
from monitor.alerts.state import AlertState
from monitor.config.output_sections import Alert
from monitor.core.points import PROVISIONAL_ENERGY, PROVISIONAL_METER, PROVISIONAL_USAGE, Row
from monitor.core.questions import Principal
from monitor.query import Query
from monitor.store.sqlite import SqliteStore

NOON = 1_700_049_600.0  # 2023-11-15T12:00:00Z
DAY = 86_400.0
ASKER = Principal(name="alerts", role="read")
PROVISIONAL = {"energy": PROVISIONAL_ENERGY, "meter": PROVISIONAL_METER, "usage": PROVISIONAL_USAGE}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    made = SqliteStore(tmp_path / "store.db")
    yield made
    made.close()


def _rule(measure: str, *per: str, **named: Any) -> Alert:
    facts: dict[str, Any] = {"name": "rule", "above": 5.0, "over_seconds": 20.0, "webhook_url_file": Path("url")}
    return Alert(measure=measure, per=per, **facts | named)  # type: ignore[arg-type]


RULES = [_rule("power_watts", "team"), _rule("joules_per_output_token", "model"), _rule("power_watts", "host", "team")]


def _window(time: float, host: str = "h1", covered: float = 10.0) -> list[Row]:
    """1 000 J: 600 J of team a with 10 tokens out, 150 J of team b, 200 J idle, 50 J unattributed; 0.1 g/J."""
    return [
        meter(time, 1_000.0, host=host, covered_seconds=covered),
        meter(time, 300.0, host=host, device="gpu0-part", parent="gpu0"),
        energy(time, 600.0, host=host, model="m", team="a"),
        energy(time, 150.0, host=host, model="n", team="b"),
        energy(time, 200.0, "idle", host=host),
        energy(time, 50.0, "unattributed", host=host),
        usage(time, 2.0, host=host, model="m", team="a"),
    ]


def _fill(store: SqliteStore, times: range, host: str = "h1", **named: Any) -> None:
    store.write([row for offset in times for row in _window(NOON + offset, host, **named)])


def _books(store: SqliteStore, start: float, end: float, devices: dict[Any, Seen] | None = None) -> SpanBooks:
    query = Query(store, rejected=dict)
    return SpanBooks(query, ASKER, RULES, devices or {}, start=NOON + start, end=NOON + end, window_seconds=10.0)


@pytest.mark.parametrize(
    ("rule", "values"),
    [
        (_rule("power_watts"), {(): 200.0}),
        (_rule("power_watts", "host"), {("h1",): 100.0, ("h2",): 100.0}),
        (_rule("power_watts", "team"), {("a",): 120.0, ("b",): 30.0}),
        (
            _rule("power_watts", "host", "team"),
            {(h, t): w for h in ("h1", "h2") for t, w in (("a", 60.0), ("b", 15.0))},
        ),
        (_rule("emissions_grams_per_hour"), {(): 2_000.0 * 0.1 / 10 * 3_600}),
        (_rule("emissions_grams_per_hour", "model"), {("m",): 432_000.0 / 10, ("n",): 10_800.0}),
        (_rule("joules_per_output_token", "team"), {("a",): 60.0, ("b",): None}),
        (_rule("joules_per_output_token"), {(): 75.0}),
        (_rule("idle_ratio", "host"), {("h1",): 0.2, ("h2",): 0.2}),
        (_rule("unattributed_ratio"), {(): 0.05}),
        (_rule("missing_ratio", "host"), {("h1",): 0.0, ("h2",): 0.0}),
    ],
    ids=lambda each: f"{each.measure}-{'-'.join(each.per)}" if isinstance(each, Alert) else "",
)
def test_a_measure_is_what_the_books_say(store: SqliteStore, rule: Alert, values: dict[Instance, float | None]) -> None:
    """Two hosts with the same two windows; what a meter contains is not counted beside it."""
    _fill(store, range(0, 20, 10))
    _fill(store, range(0, 20, 10), "h2")
    books = _books(store, 0, 20)
    told = {instance: books.value(rule, instance, NOON + 20) for instance in books.instances(rule)}
    assert told == {key: value if value is None else pytest.approx(value, rel=1e-12) for key, value in values.items()}


def test_provisional_windows_are_counted(store: SqliteStore) -> None:
    """What is not final yet is what an alert is about."""
    rows = [msgspec.structs.replace(row, measurement=PROVISIONAL[row.measurement].name) for row in _window(NOON)]
    store.replace_provisional("h1", NOON, rows)
    assert _books(store, 0, 10).value(_rule("power_watts", over_seconds=10.0), (), NOON + 10) == 100.0


def test_too_little_measured_is_not_known_and_only_missing_is_told(store: SqliteStore) -> None:
    """A device read for 8 of 10 s is 20 % missing; no other figure is made of it, neither of its host nor of all."""
    _fill(store, range(0, 20, 10), covered=8.0)
    _fill(store, range(0, 20, 10), "h2")
    books = _books(store, 0, 20)
    assert books.value(_rule("missing_ratio", "host"), ("h1",), NOON + 20) == pytest.approx(0.2)
    assert books.value(_rule("missing_ratio"), (), NOON + 20) == pytest.approx(0.1)
    assert books.value(_rule("power_watts", "host"), ("h1",), NOON + 20) is None
    assert books.value(_rule("power_watts", "host"), ("h2",), NOON + 20) == 100.0


def test_the_watts_of_a_host_are_those_of_the_time_it_was_measured(store: SqliteStore) -> None:
    """1 000 J in 9.5 of 10 s are 105.3 W, not 100."""
    _fill(store, range(0, 20, 10), covered=9.5)
    assert _books(store, 0, 20).value(_rule("power_watts"), (), NOON + 20) == pytest.approx(1_000.0 / 9.5)


def test_a_host_that_is_cut_off_is_missing_and_a_new_one_is_not(store: SqliteStore) -> None:
    """h1 was there before and writes no row; h2 came 10 s ago."""
    _fill(store, range(10, 20, 10), "h2")
    books = _books(store, 0, 20, {("h1", "gpu0", "gpu"): Seen(NOON - 100, NOON - 10)})
    missing = {key: books.value(_rule("missing_ratio", "host"), key, NOON + 20) for key in (("h1",), ("h2",), ("h3",))}
    assert missing == {("h1",): 1.0, ("h2",): 0.0, ("h3",): None}


def test_devices_that_are_gone_or_contained_are_not_expected(store: SqliteStore) -> None:
    """A day without a reading, or a meter around it, and nobody misses it."""
    _fill(store, range(0, 10, 10))
    before = {("h0", "gpu0", "gpu"): Seen(NOON - 2 * DAY, NOON - DAY), ("h1", "gpu0-part", "gpu"): Seen(NOON - 9, NOON)}
    assert _books(store, 0, 10, before).devices == {("h1", "gpu0", "gpu"): Seen(NOON, NOON)}
    assert seen({}, []) == {}


def test_energy_without_a_factor_or_requests_without_tokens_make_no_figure(store: SqliteStore) -> None:
    """Of 1 000 J 200 have no factor; of two requests one did not tell its tokens."""
    store.write(
        [
            meter(NOON, 1_000.0),
            energy(NOON, 800.0, model="m", team="a"),
            energy(NOON, 200.0, "idle", location_grams=None, factor=None),
            usage(NOON, 2.0, model="m", team="a", untold_requests=1.0),
        ]
    )
    books = _books(store, 0, 10)
    short = {"over_seconds": 10.0}
    assert books.value(_rule("emissions_grams_per_hour", **short), (), NOON + 10) is None
    assert books.value(_rule("emissions_grams_per_hour", "team", **short), ("a",), NOON + 10) == 28_800.0
    assert books.value(_rule("joules_per_output_token", "team", **short), ("a",), NOON + 10) is None


def test_a_team_that_used_nothing_has_zero_and_is_not_missing(store: SqliteStore) -> None:
    """The hosts were measured, so nothing is known of it: its power was 0 W."""
    _fill(store, range(0, 20, 10))
    assert _books(store, 0, 20).value(_rule("power_watts", "team"), ("gone",), NOON + 20) == 0.0


def _evaluate(store: SqliteStore, rule: Alert, kept: Kept, now: float) -> Kept:
    return evaluate(Query(store, rejected=dict), ASKER, [rule], kept, now=NOON + now, window_seconds=10.0)


def _states(kept: Kept) -> dict[Instance, AlertState]:
    return {alert.instance: alert.state for rule in kept.rules for alert in rule.alerts}


def test_windows_are_judged_a_minute_after_they_closed_in_turn(store: SqliteStore) -> None:
    """Windows that come in a heap give what they would have given one by one."""
    rule = _rule("power_watts", "team", above=50.0, over_seconds=10.0, for_seconds=20.0)
    kept = Kept()
    _fill(store, range(0, 70, 10))
    kept = _evaluate(store, rule, kept, 75.0)
    assert kept.judged_until == NOON + 10
    _fill(store, range(70, 130, 10))
    assert _evaluate(store, rule, kept, 75.0) is kept
    kept = _evaluate(store, rule, kept, 135.0)
    assert kept.judged_until == NOON + 70
    assert {key: (state.phase, state.fired_at) for key, state in _states(kept).items()} == {
        ("a",): ("firing", NOON + 30),
        ("b",): ("inactive", None),
    }


def test_where_the_books_stand_still_the_clock_goes_on(store: SqliteStore) -> None:
    """Five minutes after the last window of all hosts their power is not known, and they are missing."""
    _fill(store, range(0, 10, 10))
    kept = _evaluate(store, _rule("missing_ratio", "host", above=0.5), Kept(), 75.0)
    assert kept.judged_until == NOON - 50
    kept = _evaluate(store, _rule("missing_ratio", "host", above=0.5), kept, 400.0)
    assert kept.judged_until == NOON + 40
    assert _states(kept)["h1",].phase == "firing"
    watts = _evaluate(store, _rule("power_watts", "host"), msgspec.structs.replace(kept, judged_until=NOON), 400.0)
    state = _states(watts)["h1",]
    assert (state.value, state.missing_since) == (100.0, NOON + 20)


def test_a_host_whose_clock_is_ahead_moves_no_other(store: SqliteStore) -> None:
    """Its windows of the next hour are not judged before their time."""
    _fill(store, range(3_600, 3_610, 10))
    status = Query(store, rejected=dict).status(ASKER)
    assert judged_end(status, NOON, 10.0) == (NOON - 60) / 10


def test_a_firing_host_that_was_taken_away_is_resolved_after_a_day(store: SqliteStore) -> None:
    """Not before: until then nobody knows."""
    rule = _rule("power_watts", "host")
    _fill(store, range(0, 70, 10))
    kept = _evaluate(store, rule, Kept(), 75.0)
    firing = msgspec.structs.replace(_states(kept)["h1",], active_since=NOON, fired_at=NOON, missing_since=NOON)
    rules = [msgspec.structs.replace(kept.rules[0], alerts=(KeptAlert(instance=("h9",), state=firing),))]
    kept = msgspec.structs.replace(kept, rules=tuple(rules))
    _fill(store, range(70, 80, 10))
    assert _states(_evaluate(store, rule, kept, 85.0))["h9",].phase == "firing"
    _fill(store, range(86_400, 86_480, 10))
    assert _states(_evaluate(store, rule, kept, 86_485.0))["h9",].phase == "resolved"


def test_a_resolved_alert_is_listed_until_its_receiver_has_known_for_a_while(store: SqliteStore) -> None:
    """A quarter of an hour, or a day where it cannot be told; a quiet instance as long as there is one."""
    rule = _rule("power_watts", "team", above=1e6)
    _fill(store, range(0, 70, 10))
    quiet = AlertState(at=NOON - 2_000, value=1.0, fired_at=NOON - 2_000, resolved_at=NOON - 1_000)
    told = Told(fired_at=NOON - 2_000, resolved_at=NOON - 1_000, sent_at=NOON)
    kept = _evaluate(store, rule, Kept(), 75.0)
    alerts = (
        KeptAlert(instance=("untold",), state=quiet),
        KeptAlert(instance=("told",), state=quiet, told=told),
        KeptAlert(instance=("gone",), state=AlertState(at=NOON, value=1.0)),
    )
    kept = msgspec.structs.replace(kept, rules=(msgspec.structs.replace(kept.rules[0], alerts=alerts),))
    _fill(store, range(70, 80, 10))
    assert set(_states(_evaluate(store, rule, kept, 85.0))) == {("a",), ("b",), ("untold",)}
