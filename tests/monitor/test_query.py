import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from books_rows import energy, hole, made, meter, request, usage
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.points import PROVISIONAL_ENERGY, PROVISIONAL_METER, PROVISIONAL_USAGE, RESTATEMENT, TOO_LATE, Row
from monitor.core.questions import (
    AllocationQuery,
    BadQuery,
    Denied,
    Missing,
    Principal,
    RequestsQuery,
    WindowsQuery,
)
from monitor.core.resolution import Segment, segments
from monitor.query import Query, every_request, every_window
from monitor.store.retention import Retention
from monitor.store.rollup import write_rollups
from monitor.store.sqlite import SqliteStore

HOUR, DAY = 3_600.0, 86_400.0
ADMIN = Principal(name="root", role="admin")
TEAM_A = Principal(name="ann", role="team", teams=frozenset("a"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    made_store = SqliteStore(tmp_path / "store.db", retention=Retention(windows_seconds=DAY))
    yield made_store
    made_store.close()


def _query(store: SqliteStore) -> Query:
    return Query(store, rejected=lambda: {"bad_json": 2})


def _window(time: float, host: str = "h1") -> list[Row]:
    """10 J measured: 6 J team a, 2 J team b, 1 J idle, 1 J unattributed; a request of each team ends."""
    return [
        meter(time, 10.0, host=host),
        energy(time, 6.0, host=host, model="m", team="a"),
        energy(time, 2.0, host=host, model="m", team="b"),
        energy(time, 1.0, "idle", host=host),
        energy(time, 1.0, "unattributed", host=host, unreported_joules=1.0),
        usage(time, 1.0, host=host, model="m", team="a"),
        usage(time, 1.0, host=host, model="m", team="b"),
    ]


def _provisional(time: float, host: str = "h1") -> list[Row]:
    names = {"energy": PROVISIONAL_ENERGY, "meter": PROVISIONAL_METER, "usage": PROVISIONAL_USAGE}
    return [msgspec.structs.replace(row, measurement=names[row.measurement].name) for row in _window(time, host)]


def _joules(query: Query, principal: Principal = ADMIN, **named: object) -> dict[tuple[str, ...], float]:
    page = query.allocation(principal, AllocationQuery(**({"by": ("team",)} | named)))  # type: ignore[arg-type]
    return {line.line.key: line.line.energy_joules for line in page.lines}


def test_an_interval_is_covered_by_the_coarsest_rows() -> None:
    """22:30 of day 0 to 01:10 of day 2 with everything rolled up: windows, an hour, a day, an hour, windows."""
    found = segments(22.5 * HOUR, 2 * DAY + HOUR + 600, days=[0.0, DAY, 2 * DAY], hours=[n * HOUR for n in range(72)])
    assert found == [
        Segment(22.5 * HOUR, 23 * HOUR, "window"),
        Segment(23 * HOUR, DAY, "hour"),
        Segment(DAY, 2 * DAY, "day"),
        Segment(2 * DAY, 2 * DAY + HOUR, "hour"),
        Segment(2 * DAY + HOUR, 2 * DAY + HOUR + 600, "window"),
    ]


@given(
    st.integers(0, 400).map(lambda n: n * 900.0),
    st.integers(1, 400).map(lambda n: n * 900.0),
    st.sets(st.integers(0, 5).map(lambda n: n * DAY)),
    st.sets(st.integers(0, 150).map(lambda n: n * HOUR)),
)
def test_segments_cover_an_interval_once(start: float, length: float, days: set[float], hours: set[float]) -> None:
    """They follow one another without a hole from start to end."""
    found = segments(start, start + length, days=days, hours=hours)
    assert [found[0].start, *(each.end for each in found)] == [*(each.start for each in found), start + length]


def test_roll_ups_are_read_where_they_answer(store: SqliteStore) -> None:
    """Two days of a window an hour, rolled up, two windows changed since: they are read only where no whole hour is."""
    hours = [number * HOUR for number in range(48)]
    for hour in hours:
        store.write(_window(hour + 1_800.0))
    write_rollups(store, hours, [0.0, DAY])
    store.write([energy(47.5 * HOUR, 600.0, model="m", team="a"), energy(0.5 * HOUR, 600.0, model="m", team="a")])
    assert _joules(_query(store), start=0.0, end=2 * DAY)["a",] == 48 * 6.0
    assert _joules(_query(store), start=0.0, end=2 * DAY - 60.0)["a",] == 47 * 6.0 + 600.0
    assert _joules(_query(store), start=60.0, end=2 * DAY)["a",] == 47 * 6.0 + 600.0
    steps = _query(store).allocation(ADMIN, AllocationQuery(start=0.0, end=2 * DAY, by=("team",), step=DAY))
    assert [(line.start, line.line.energy_joules) for line in steps.lines if line.line.key == ("a",)] == [
        (0.0, 144.0),
        (DAY, 144.0),
    ]
    fine = _query(store).allocation(ADMIN, AllocationQuery(start=0.0, end=DAY, by=("team",), step=1_800.0))
    assert [line.start for line in fine.lines if line.line.key == ("a",)] == [hour + 1_800.0 for hour in hours[:24]]


def test_part_of_an_hour_whose_windows_are_gone_is_refused(store: SqliteStore) -> None:
    """The answer would be silently low; the error names the hour and what to change."""
    hours = [number * HOUR for number in range(24)]
    for hour in hours:
        store.write(_window(hour))
    write_rollups(store, hours, [0.0])
    store.trim(10 * DAY)
    query = _query(store)
    assert _joules(query, start=0.0, end=DAY)["b",] == 48.0
    with pytest.raises(BadQuery, match=r"start: only whole hours \(UTC\) are kept of the time at 1970-01-01T00:00"):
        _joules(query, start=60.0, end=DAY)
    with pytest.raises(BadQuery, match="end: only whole hours"):
        _joules(query, start=0.0, end=DAY - 60.0)
    with pytest.raises(BadQuery, match="step: only whole hours"):
        _joules(query, start=0.0, end=DAY, step=600.0)


def test_provisional_rows_stand_behind_each_hosts_last_final_window(store: SqliteStore) -> None:
    """h1 is final at 0 and 10 with stale provisional rows, provisional at 20; h2 is provisional only: 5 windows."""
    for time in (0.0, 10.0):
        store.write(_window(time))
    for time in (0.0, 10.0, 20.0):
        store.replace_provisional("h1", time, _provisional(time))
    for time in (0.0, 10.0):
        store.replace_provisional("h2", time, _provisional(time, "h2"))
    page = _query(store).allocation(ADMIN, AllocationQuery(start=0.0, end=100.0, by=("host", "team")))
    found = {line.line.key: (line.line.energy_joules, line.line.provisional_joules) for line in page.lines}
    assert found["h1", "a"] == (18.0, 6.0)
    assert found["h2", "a"] == (12.0, 12.0)
    assert page.totals is not None
    assert (page.totals.measured_joules, page.totals.provisional_joules) == (50.0, 30.0)
    assert page.totals.imbalance_joules == 0.0
    final = AllocationQuery(start=0.0, end=100.0, by=("team",), include_provisional=False)
    assert _query(store).allocation(ADMIN, final).totals.measured_joules == 20.0  # type: ignore[union-attr]


def test_a_host_filter_narrows_the_books(store: SqliteStore) -> None:
    """Two hosts, one asked for: half of everything, totals too."""
    store.write(_window(0.0) + _window(0.0, "h2"))
    page = _query(store).allocation(
        ADMIN, AllocationQuery(start=0.0, end=10.0, by=("team",), filters={"host": frozenset(["h2"])})
    )
    assert page.totals is not None
    assert (page.totals.measured_joules, page.lines[0].line.energy_joules) == (10.0, 6.0)


def test_a_team_sees_its_own_lines_alone(store: SqliteStore) -> None:
    """Its share of the host's idle is 0.75 J, as for the admin; other teams, idle, totals and windows are not shown."""
    store.write([*_window(0.0), request(0.0, "r1", 6.0, team="a"), request(0.0, "r2", 2.0, team="b")])
    query = _query(store)
    page = query.allocation(TEAM_A, AllocationQuery(start=0.0, end=10.0, by=("model",), share_idle="host"))
    assert [(line.line.key, line.line.energy_joules, line.line.idle_share_joules) for line in page.lines] == [
        (("m",), 6.0, 0.75)
    ]
    assert page.totals is None
    assert [each.request_id for each in query.requests(TEAM_A, RequestsQuery(start=0.0, end=10.0)).requests] == ["r1"]
    status = query.status(TEAM_A)
    assert (status.rejected, status.restatements, status.too_late) == (None, None, None)
    with pytest.raises(Denied, match="may not see team b"):
        _joules(query, TEAM_A, start=0.0, end=10.0, filters={"team": frozenset("ab")})
    with pytest.raises(Denied, match="may not see team b"):
        query.requests(TEAM_A, RequestsQuery(start=0.0, end=10.0, filters={"team": frozenset("b")}))
    with pytest.raises(Denied, match="read and admin"):
        query.windows(TEAM_A, WindowsQuery(start=0.0, end=10.0))


def test_pages_of_lines_are_the_whole(store: SqliteStore) -> None:
    """One line a page, page after page, gives the lines of one page in their order."""
    store.write(_window(0.0) + _window(10.0))
    query = AllocationQuery(start=0.0, end=20.0, by=("team",), step=10.0)
    whole = _query(store).allocation(ADMIN, query)
    paged, after = [], None
    while True:
        page = _query(store).allocation(ADMIN, msgspec.structs.replace(query, limit=1, after=after))
        paged += page.lines
        assert page.totals == whole.totals
        if (after := page.next) is None:
            break
    assert tuple(paged) == whole.lines
    assert len(paged) == 8


def test_each_window_of_each_host_has_its_books(store: SqliteStore) -> None:
    """10 = 8 + 1 + 1; a window with 1 J too little on the right side is 10 % off, and paging loses none."""
    store.write(_window(0.0) + _window(0.0, "h2") + _window(10.0))
    store.write([energy(10.0, 0.0, "idle")])
    store.replace_provisional("h1", 20.0, _provisional(20.0))
    found = list(every_window(_query(store), ADMIN, WindowsQuery(start=0.0, end=100.0, limit=2)))
    assert [(each.time, each.host, each.imbalance_ratio, each.provisional) for each in found] == [
        (0.0, "h1", 0.0, False),
        (0.0, "h2", 0.0, False),
        (10.0, "h1", 0.1, False),
        (20.0, "h1", 0.0, True),
    ]
    first = found[0]
    assert (first.measured_joules, first.attributed_joules, first.idle_joules, first.unattributed_joules) == (
        10,
        8,
        1,
        1,
    )


def test_a_request_is_added_up_over_windows_and_hosts(store: SqliteStore) -> None:
    """3 J + 4 J on h1 and 5 J on h2 are one request of 12 J."""
    times = {"start": 5.0, "end": 15.0}
    store.write([request(0.0, "r", 3.0, **times), request(10.0, "r", 4.0, **times, metered_joules=1.0)])
    store.write([request(10.0, "r", 5.0, host="h2", **times)])
    [line] = _query(store).requests(ADMIN, RequestsQuery(start=0.0, end=20.0)).requests
    assert (line.energy_joules, line.emissions_grams, line.hosts, line.whole) == (
        12.0,
        0.3 + 0.4 + 0.5,
        ("h1", "h2"),
        True,
    )
    assert line.measured_ratio == 9.0 / 12.0
    [part] = _query(store).requests(ADMIN, RequestsQuery(start=10.0, end=20.0)).requests
    assert (part.energy_joules, part.whole) == (9.0, False)


def test_an_id_used_again_is_another_request(store: SqliteStore) -> None:
    """Same id, later start: two requests."""
    store.write([request(0.0, "r", 3.0), request(5_000.0, "r", 4.0)])
    found = _query(store).requests(ADMIN, RequestsQuery(start=0.0, end=1e4)).requests
    assert [each.energy_joules for each in found] == [3.0, 4.0]


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 5)), min_size=1, max_size=30), st.integers(1, 7))
def test_pages_of_requests_hold_each_once(spans: list[tuple[int, int]], limit: int) -> None:
    """Whatever windows they span and however long the pages are; their sum is the rows' sum."""
    folder = tempfile.TemporaryDirectory()
    store = SqliteStore(Path(folder.name) / "store.db")
    rows = [
        request((first + more) * 10.0, f"r{number}", 1.5, start=first * 10.0 + 1, end=(first + length) * 10.0 + 5)
        for number, (first, length) in enumerate(spans)
        for more in range(length + 1)
    ]
    store.write(rows)
    query = RequestsQuery(start=20.0, end=120.0, limit=limit)
    found = list(every_request(_query(store), ADMIN, query))
    expected = {row.tags[2] for row in rows if 20.0 <= row.time < 120.0}
    assert sorted(each.request_id for each in found) == sorted(expected)
    assert math.fsum(each.energy_joules for each in found) == 1.5 * sum(20.0 <= row.time < 120.0 for row in rows)
    store.close()
    folder.cleanup()


def test_status_tells_how_far_the_books_are(store: SqliteStore) -> None:
    """Final and provisional by host, rejected by reason, and what was restated or came too late."""
    store.write(_window(0.0) + _window(10.0, "h2"))
    store.replace_provisional("h1", 10.0, _provisional(10.0))
    store.write(
        [made(RESTATEMENT, 900.0, {"host": "h1"}, {"reason": "late requests", "windows": 3.0, "late_requests": 2.0})]
    )
    store.write([made(TOO_LATE, 1_800.0, {"host": "h1"}, {"late_energy_joules": 7.0})])
    status = _query(store).status(ADMIN)
    assert status.final_until == {"h1": 0.0, "h2": 10.0}
    assert status.provisional_until == {"h1": 10.0}
    assert status.rejected == {"bad_json": 2}
    assert status.spans["meter"] == (0.0, 10.0)
    assert status.restatements is not None
    assert status.too_late is not None
    assert [(each.mark, each.host, each.reason, each.windows) for each in status.restatements] == [
        (900.0, "h1", "late requests", 3.0)
    ]
    assert [(each.mark, each.late_energy_joules) for each in status.too_late] == [(1_800.0, 7.0)]
    assert _query(store).status(ADMIN, since=1_000.0).restatements == ()


def test_status_names_what_the_log_lost(store: SqliteStore) -> None:
    """All holes, whenever they were, in order; to a team too, whose sums lack them as well."""
    store.write([*_window(0.0), hole(50.0, 30.0, "h2"), hole(10.0, 40.0)])
    lost = "usage was made anew"
    wanted = (
        Missing(host="h1", start=10.0, end=50.0, reason=lost),
        Missing(host="h2", start=50.0, end=80.0, reason=lost),
    )
    assert _query(store).status(ADMIN, since=math.inf).holes == wanted
    assert _query(store).status(TEAM_A).holes == wanted


@pytest.mark.parametrize(
    ("field", "named"),
    [
        ("end", {"end": 0.0}),
        ("start", {"start": math.nan}),
        ("by", {"by": ("colour",)}),
        ("by", {"by": ("label:",)}),
        ("by", {"by": ("team", "team")}),
        ("filters", {"filters": {"account": frozenset("x")}}),
        ("share_idle", {"share_idle": "all"}),
        ("step", {"step": 0.0}),
        ("step", {"step": 1e-3}),
        ("limit", {"limit": 0}),
        ("after", {"after": "?"}),
        ("after", {"after": "e30="}),
    ],
)
def test_a_bad_question_names_its_field(store: SqliteStore, field: str, named: dict[str, object]) -> None:
    """So that a form, a command line and an API can point at it."""
    with pytest.raises(BadQuery) as caught:
        _joules(_query(store), **({"start": 0.0, "end": 100.0} | named))
    assert caught.value.field == field
