"""In a fleet each hand rolls up its own hosts only, in its own time; a reader counts each joule once all the same."""

import sqlite3
import tempfile
from collections.abc import Collection
from pathlib import Path

import pytest
from books_rows import energy, meter, usage
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.core.questions import AllocationQuery, Principal
from monitor.query import Query
from monitor.store.protocol import Store, StoreUnavailable
from monitor.store.rollup import write_rollups
from monitor.store.sqlite import SqliteStore

HOUR, DAY = 3_600.0, 86_400.0
ADMIN = Principal(name="root", role="admin")
HOSTS = ("h1", "h2", "h3")
HOURS = range(50)


def _fill(store: Store, hosts_at: dict[int, Collection[str]]) -> None:
    """A window at each half hour of the hosts that are there: 1, 2 or 4 J measured and attributed, a request each."""
    rows = []
    for hour, hosts in hosts_at.items():
        time = hour * HOUR + 1_800.0
        for host in hosts:
            joules = float(2 ** HOSTS.index(host))
            rows += [meter(time, joules, host=host), energy(time, joules, host=host, model="m", team=host)]
            rows.append(usage(time, 1.0, host=host, model="m", team=host))
    store.write(rows)


def _measured(store: Store, **named: object) -> tuple[float, float]:
    """Joules and requests of the whole answer."""
    query = Query(store, rejected=dict)
    asked = AllocationQuery(**({"by": ("team",), "limit": 1_000} | named))  # type: ignore[arg-type]
    page = query.allocation(ADMIN, asked)
    assert page.totals is not None
    joules = sum(line.line.energy_joules for line in page.lines)
    assert page.totals.measured_joules == joules
    return joules, sum(line.line.requests or 0.0 for line in page.lines)


def test_an_hour_is_rolled_up_for_some_hosts_and_in_windows_for_others(tmp_path: Path) -> None:
    """Two hours of three hosts, 7 J each. h1 is rolled up in both, h2 in the first, h3 in none: 14 J however asked."""
    store = SqliteStore(tmp_path / "store.db")
    _fill(store, {0: HOSTS, 1: HOSTS})
    write_rollups(store, [0.0, HOUR], [], owns=lambda host: host == "h1")
    write_rollups(store, [0.0], [], owns=lambda host: host == "h2")
    assert store.rolled_up(0.0, DAY, "hour") == {0.0: {"h1", "h2"}, HOUR: {"h1"}}
    assert _measured(store, start=0.0, end=2 * HOUR) == (14.0, 6.0)
    for host, joules in zip(HOSTS, (2.0, 4.0, 8.0), strict=True):
        assert _measured(store, start=0.0, end=2 * HOUR, filters={"host": (host,)}) == (joules, 2.0)
    store.write([energy(1_800.0, 100.0, host="h2", model="m", team="h2")])  # seen only where windows are read
    assert _measured(store, start=0.0, end=2 * HOUR) == (14.0, 6.0)
    store.close()


def test_a_roll_up_whose_mark_was_not_written_is_not_read_beside_its_windows(tmp_path: Path) -> None:
    """The hand that rolled h2 up was killed before its mark: h2 is read in windows, its roll-up not at all."""
    store = SqliteStore(tmp_path / "store.db")
    _fill(store, {0: HOSTS})
    write_rollups(store, [0.0], [], owns=lambda host: host == "h1")
    store.write([energy(0.0, 2.0, host="h2", model="m", team="h2"), meter(0.0, 2.0, host="h2")], resolution="hour")
    assert _measured(store, start=0.0, end=HOUR) == (7.0, 3.0)
    store.close()


QUESTIONS = st.tuples(
    st.integers(0, 49).map(lambda half: half * 1_800.0),
    st.integers(1, 100).map(lambda half: half * 1_800.0),
    st.sampled_from([None, HOUR, DAY]),
    st.sampled_from([(), ("h2",), ("h1", "h3")]),
)


@settings(deadline=None, max_examples=60)
@given(
    hosts_at=st.dictionaries(st.sampled_from(HOURS), st.sets(st.sampled_from(HOSTS), min_size=1), min_size=1),
    hands=st.lists(
        st.tuples(
            st.sets(st.sampled_from(HOSTS)),
            st.sets(st.sampled_from(HOURS)),
            st.sets(st.sampled_from([0.0, DAY, 2 * DAY])),
        ),
        max_size=4,
    ),
    asked=st.lists(QUESTIONS, min_size=1, max_size=8),
)
def test_every_joule_counts_once_whoever_rolled_up_what(
    hosts_at: dict[int, set[str]],
    hands: list[tuple[set[str], set[int], set[float]]],
    asked: list[tuple[float, float, float | None, tuple[str, ...]]],
) -> None:
    """Any hosts at any hours, rolled up by any hands for any hours and days: the answer is that of the windows."""
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "store.db")
        _fill(store, hosts_at)
        for owned, hours, days in hands:
            write_rollups(store, [hour * HOUR for hour in hours], days, owns=owned.__contains__)
        for start, length, step, hosts in asked:
            end = start + length if step is None else start + length // step * step + step
            found = _measured(store, start=start, end=end, step=step, filters={"host": hosts} if hosts else {})
            inside = [
                host
                for hour, there in hosts_at.items()
                for host in there
                if start <= hour * HOUR + 1_800.0 < end and (not hosts or host in hosts)
            ]
            assert found == (float(sum(2 ** HOSTS.index(host) for host in inside)), float(len(inside)))
        store.close()


def test_marks_of_an_older_database_are_of_the_hosts_that_have_rows_there(tmp_path: Path) -> None:
    """Marks had no host. A reader says what to do; a writer gives each its hosts, and answers stay the same."""
    path = tmp_path / "store.db"
    store = SqliteStore(path)
    _fill(store, {0: HOSTS, 1: ("h1",)})
    write_rollups(store, [0.0, HOUR], [0.0])
    store.close()
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE old (resolution TEXT, start REAL, PRIMARY KEY (resolution, start))")
        raw.execute("INSERT INTO old SELECT DISTINCT resolution, start FROM rolled_up")
        raw.execute("DROP TABLE rolled_up")
        raw.execute("ALTER TABLE old RENAME TO rolled_up")
    raw.close()
    with pytest.raises(
        StoreUnavailable, match=r"rolled_up has no host: .* start the daemon of this version on it once"
    ):
        SqliteStore(path, read_only=True)
    store = SqliteStore(path)
    assert store.rolled_up(0.0, DAY, "hour") == {0.0: set(HOSTS), HOUR: {"h1"}}
    assert store.rolled_up(0.0, DAY, "day") == {0.0: set(HOSTS)}
    assert _measured(store, start=0.0, end=DAY) == (8.0, 4.0)
    store.close()
    SqliteStore(path, read_only=True).close()
