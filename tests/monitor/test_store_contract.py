"""What every store promises: one suite, run over each implementation."""

import math
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from accounting_model.tables import MemoryStore, Tables
from books_rows import energy, meter, request, usage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers.influxd import InfluxServer

from monitor.core.points import (
    ENERGY,
    MEASUREMENTS,
    METER,
    PROVISIONAL,
    PROVISIONAL_ENERGY,
    PROVISIONAL_METER,
    REQUEST_ENERGY,
    USAGE,
    Row,
)
from monitor.store.influx import InfluxStore
from monitor.store.influx_setup import Setup
from monitor.store.protocol import Store, StoreUnavailable
from monitor.store.retention import Retention
from monitor.store.sqlite import SqliteStore

DAY = 86_400.0
EVER = (float("-inf"), float("inf"))
RETENTION = Retention(
    windows_seconds=2 * DAY,
    requests_seconds=DAY,
    provisional_seconds=3_600.0,
    hours_seconds=10 * DAY,
    days_seconds=100 * DAY,
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
FLOATS = st.none() | st.floats(allow_nan=False, allow_infinity=False)
ROWS = st.builds(
    Row,
    st.just("energy"),
    st.integers(10**6, 4 * 10**9).map(float),
    st.tuples(*(TEXTS for _ in ENERGY.tags)),
    st.tuples(
        *(FLOATS for _ in ENERGY.sums),
        *(st.none() | (TEXTS if kind is str else st.integers(-(2**63), 2**63 - 1)) for kind in ENERGY.types[-4:]),
    ),
)
FOR_EVER = Retention(
    windows_seconds=math.inf,
    requests_seconds=math.inf,
    provisional_seconds=math.inf,
    hours_seconds=math.inf,
    days_seconds=math.inf,
)


def _sqlite(folder: Path) -> SqliteStore:
    return SqliteStore(folder / "store.db", retention=RETENTION)


def refuse(line: str, reason: str) -> None:
    """These tests write nothing that a server may refuse."""
    raise AssertionError(f"{reason}: {line}")


@pytest.fixture(params=["sqlite", "memory", "influxdb2", "influxdb1"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store; of InfluxDB, one in buckets of its own that keep everything."""
    if request.param == "sqlite":
        made: Store = _sqlite(tmp_path)
    elif request.param == "memory":  # what the model of the accounting writes to
        made = MemoryStore(Tables())
    else:
        server: InfluxServer = request.getfixturevalue("influxd" if request.param == "influxdb2" else "influxdb1")
        client = server.settings(tmp_path.name)
        setup = Setup(client)
        list(setup.mend(FOR_EVER))
        setup.close()
        made = InfluxStore(client, quarantine=refuse)
    yield made
    made.close()


def test_rows_come_back_as_they_were_written(store: Store) -> None:
    """Floats to the last bit, text in any script, integers as integers, None as None."""
    row = energy(
        10.0, 0.1 + 0.2, team='tëam,"1" =x\\', model="模型\n2", labels='{"a":"b"}', location_grams=None, revision=7
    )
    store.write([row])
    assert store.read(ENERGY, 0.0, 20.0) == [row]


def test_every_measurement_has_a_place(store: Store) -> None:
    """A row of each measurement that points knows is stored and read."""
    for measurement in MEASUREMENTS.values():
        row = Row(
            measurement.name,
            5.0,
            tuple(f"t{number}" for number in range(len(measurement.tags))),
            (*(0.5 for _ in measurement.sums), *(kind(3) for kind in measurement.types[len(measurement.sums) :])),
        )
        if measurement in PROVISIONAL:
            store.replace_provisional("t0", 5.0, [row])
        else:
            store.write([row])
        assert store.read(measurement, *EVER) == [row]


def test_an_interval_holds_its_start_and_not_its_end(store: Store) -> None:
    """Rows at 10, 20 and 30: [10, 30) has two."""
    store.write([meter(time, 1.0) for time in (10.0, 20.0, 30.0)])
    assert [row.time for row in store.read(METER, 10.0, 30.0)] == [10.0, 20.0]


def test_a_row_written_again_is_replaced_whole(store: Store) -> None:
    """A field that the second row does not know is not left over from the first."""
    store.write([energy(10.0, 1.0, gap_joules=5.0), energy(20.0, 2.0)])
    again = energy(10.0, 3.0, gap_joules=None, revision=900)
    store.write([again])
    assert store.read(ENERGY, *EVER) == [again, energy(20.0, 2.0)]


def test_rows_come_in_the_order_of_time_and_tags(store: Store) -> None:
    """Whatever order they were written in; tags by code point."""
    rows = [usage(time, 1.0, team=team) for time in (10.0, 20.0) for team in ("", "B", "a", "ä", "😀")]
    store.write(rows[::-1])
    assert store.read(USAGE, *EVER) == rows


@pytest.mark.parametrize("measurement", [ENERGY, REQUEST_ENERGY], ids=lambda each: each.name)
def test_pages_are_the_whole(store: Store, measurement: object) -> None:
    """Pages of three, each behind the last row of the one before, give what one read gives."""
    rows = [
        energy(time, 1.0, team=team) if measurement is ENERGY else request(time, team, 1.0)
        for time in (10.0, 20.0, 30.0)
        for team in "abcdefg"
    ]
    store.write(rows)
    measurement = ENERGY if measurement is ENERGY else REQUEST_ENERGY
    paged: list[Row] = []
    while page := store.read(measurement, 10.0, 40.0, limit=3, after=paged[-1] if paged else None):
        assert len(page) <= 3
        paged += page
    assert paged == rows


def test_rows_are_found_by_their_tags(store: Store) -> None:
    """`where` takes rows whose every named tag is among the values; no value finds no row."""
    store.write([energy(10.0, 1.0, team=team, host=host) for team in "abc" for host in ("h1", "h2")])
    found = store.read(ENERGY, *EVER, where={"team": ["a", "c"], "host": {"h2"}})
    assert [(row.tags[5], row.tags[0]) for row in found] == [("a", "h2"), ("c", "h2")]
    assert store.read(ENERGY, *EVER, where={"team": []}) == []
    with pytest.raises(ValueError, match="no tag 'colour'"):
        store.read(ENERGY, *EVER, where={"colour": ["red"]})


def test_any_number_of_values_and_none_at_all_find_rows(store: Store) -> None:
    """250 values of a tag find 250 rows; "" finds the row that has no team."""
    teams = [f"t{number:03}" for number in range(300)]
    store.write([energy(10.0, 1.0, team=team) for team in ("", *teams)])
    assert [row.tags[5] for row in store.read(ENERGY, *EVER, where={"team": teams[:250]})] == teams[:250]
    assert [row.tags[5] for row in store.read(ENERGY, *EVER, where={"team": teams[:250]}, limit=7)] == teams[:7]
    assert [row.tags[5] for row in store.read(ENERGY, *EVER, where={"team": [""]})] == [""]


def test_a_stream_is_what_one_read_gives(store: Store) -> None:
    """12 000 rows of one time between others: none lost, none twice, in order; so with pages of any size."""
    many = [energy(20.0, 1.0, team=f"t{number:05}") for number in range(12_000)]
    rows = [energy(10.0, 1.0), *many, energy(30.0, 1.0), energy(40.0, 1.0)]
    store.write(rows)
    assert list(store.stream(ENERGY, 0.0, 40.0)) == rows[:-1]
    assert list(store.stream(ENERGY, *EVER, where={"team": ["", "t00007"]})) == [rows[0], many[7], *rows[-2:]]
    paged: list[Row] = []
    while page := store.read(ENERGY, 0.0, 40.0, limit=4_999, after=paged[-1] if paged else None):
        paged += page
    assert paged == rows[:-1]


def test_a_request_is_found_by_its_id(store: Store) -> None:
    """All windows of one request, by its id alone."""
    store.write([request(time, f"r{number}", 1.0) for time in (10.0, 20.0) for number in range(50)])
    assert [row.time for row in store.read(REQUEST_ENERGY, *EVER, where={"request_id": ["r7"]})] == [10.0, 20.0]


def test_resolutions_do_not_mix(store: Store) -> None:
    """An hourly row is read as hourly row only, and marks of hours and days are apart."""
    store.write([energy(0.0, 1.0)])
    store.write([energy(0.0, 60.0)], resolution="hour")
    store.mark_rolled_up([0.0, 3_600.0], "hour", ["h1"])
    store.mark_rolled_up([0.0], "hour", ["h1"])
    assert store.read(ENERGY, *EVER, resolution="hour") == [energy(0.0, 60.0)]
    assert store.read(ENERGY, *EVER, resolution="day") == []
    assert store.rolled_up(0.0, 3_600.0, "hour") == {0.0: {"h1"}}
    assert store.rolled_up(0.0, 1e6, "hour") == {0.0: {"h1"}, 3_600.0: {"h1"}}
    assert store.rolled_up(0.0, 1e6, "day") == {}
    store.mark_rolled_up([0.0], "hour", ["h2", "hös t"])
    assert store.rolled_up(0.0, 3_600.0, "hour") == {0.0: {"h1", "h2", "hös t"}}


def test_the_span_is_the_first_and_the_last_time(store: Store) -> None:
    """None in an empty store."""
    assert store.span(METER) is None
    store.write([meter(time, 1.0) for time in (20.0, 10.0, 40.0)])
    assert store.span(METER) == (10.0, 40.0)
    assert store.span(METER, resolution="hour") is None


def test_each_host_has_a_newest_row(store: Store) -> None:
    """How far the books of every host are."""
    store.write([meter(10.0, 1.0), meter(20.0, 1.0, device="gpu1"), meter(15.0, 1.0, host="h2")])
    assert store.last_times(METER, "host") == {"h1": 20.0, "h2": 15.0}
    assert store.last_times(REQUEST_ENERGY, "host") == {}


def test_hosts_are_those_with_rows_in_the_interval(store: Store) -> None:
    """[10, 20) has h1 and not h2, whose row is at 20."""
    store.write([meter(10.0, 1.0), meter(20.0, 1.0, host="h2"), meter(20.0, 1.0, device="gpu1")])
    assert store.hosts(METER, 10.0, 20.0) == {"h1"}
    assert store.hosts(METER, *EVER) == {"h1", "h2"}
    assert store.hosts(USAGE, *EVER) == frozenset()


def test_the_newest_provisional_row_is_one_that_still_counts(store: Store) -> None:
    """h1's window at 20 was taken away again: its newest is at 10. The span knows that too."""
    for time in (10.0, 20.0):
        store.replace_provisional("h1", time, [meter(time, 1.0, PROVISIONAL_METER)])
    store.replace_provisional("h1", 20.0, [])
    store.replace_provisional("h2", 30.0, [energy(30.0, 1.0, host="h2", measurement=PROVISIONAL_ENERGY)])
    assert store.last_times(PROVISIONAL_METER, "host") == {"h1": 10.0}
    assert store.span(PROVISIONAL_METER) == (10.0, 10.0)
    assert store.hosts(PROVISIONAL_ENERGY, *EVER) == {"h2"}


def test_many_requests_of_one_window_stay_apart(store: Store) -> None:
    """5 000 requests of one model and team, written again with 5 more that came late: each of them once."""
    rows = [request(10.0, f"r{number:04}", 1.0) for number in range(5_005)]
    store.write(rows[:2_500] + rows[2_505:])
    store.write(rows)
    assert store.read(REQUEST_ENERGY, *EVER) == rows
    assert store.last_times(REQUEST_ENERGY, "host") == {"h1": 10.0}
    assert store.span(REQUEST_ENERGY) == (10.0, 10.0)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=5, unique_by=lambda row: (row.time, row.tags)))
def test_any_row_comes_back_to_the_last_bit(store: Store, rows: list[Row]) -> None:
    """Any text in any script in tags and fields, any finite float, any integer of 64 bits."""
    store.write(rows)
    for row in rows:
        assert row in store.read(ENERGY, row.time, row.time + 1.0)
    first, last = min(row.time for row in rows), max(row.time for row in rows)
    found = store.read(ENERGY, first, last + 1.0, where={"team": {row.tags[5] for row in rows}})
    assert [row for row in found if row in rows] == sorted(rows, key=lambda row: (row.time, row.tags))


def test_provisional_rows_of_a_window_are_replaced_together(store: Store) -> None:
    """A row that the newer account lacks is gone; other hosts and windows stay."""
    old = [energy(10.0, 1.0, team=team, measurement=PROVISIONAL_ENERGY) for team in "ab"]
    others = [
        energy(10.0, 1.0, host="h2", measurement=PROVISIONAL_ENERGY),
        energy(20.0, 1.0, measurement=PROVISIONAL_ENERGY),
    ]
    store.replace_provisional("h1", 10.0, old)
    store.replace_provisional("h2", 10.0, others[:1])
    store.replace_provisional("h1", 20.0, others[1:])
    new = [energy(10.0, 2.0, team="b", measurement=PROVISIONAL_ENERGY), meter(10.0, 2.0, PROVISIONAL_METER)]
    store.replace_provisional("h1", 10.0, new)
    assert store.read(PROVISIONAL_ENERGY, *EVER) == [new[0], *others]
    store.replace_provisional("h1", 10.0, [])
    assert store.read(PROVISIONAL_ENERGY, *EVER) == others
    assert store.read(PROVISIONAL_METER, *EVER) == []


def test_provisional_windows_are_replaced_together(store: Store) -> None:
    """Three hosts' windows in one call, one of them emptied: as three calls would leave them."""
    rows = {host: meter(10.0, 1.0, PROVISIONAL_METER, host=host) for host in ("h1", "h2", "h3")}
    for host, row in rows.items():
        store.replace_provisional(host, 10.0, [row])
    newer = meter(10.0, 5.0, PROVISIONAL_METER)
    more = meter(20.0, 6.0, PROVISIONAL_METER)
    store.replace_provisional_pages({("h1", 10.0): [newer], ("h1", 20.0): [more], ("h2", 10.0): []})
    assert store.read(PROVISIONAL_METER, *EVER) == [newer, rows["h3"], more]


def test_a_write_is_whole_or_not_at_all(store: Store) -> None:
    """A row with too few fields is a mistake of ours; its neighbours are not stored without it."""
    with pytest.raises(Exception, match=r"bind|shorter"):
        store.write([meter(10.0, 1.0), Row("meter", 20.0, ("h1", "gpu0", "gpu"), (1.0,))])
    assert store.read(METER, *EVER) == []
    store.write([meter(10.0, 1.0)])
    assert len(store.read(METER, *EVER)) == 1


class TestSqlite:
    """What only the embedded store promises: it deletes by itself what is past its retention, and is a file."""

    def test_what_is_past_its_retention_goes(self, tmp_path: Path) -> None:
        """At day 3: windows go after 2 days where their hour is rolled up, requests after 1, provisional after 1 h."""
        store = _sqlite(tmp_path)
        store.write([meter(0.0, 1.0), meter(3_600.0, 1.0), meter(2 * DAY, 1.0), request(0.0, "r", 1.0)])
        store.write([meter(2 * DAY, 1.0, PROVISIONAL_METER)])
        store.write([meter(0.0, 1.0)], resolution="hour")
        store.mark_rolled_up([0.0], "hour", ["h1"])
        assert store.trim(3 * DAY) == 3
        assert [row.time for row in store.read(METER, *EVER)] == [3_600.0, 2 * DAY]
        assert store.read(METER, *EVER, resolution="hour") == [meter(0.0, 1.0)]
        assert store.read(REQUEST_ENERGY, *EVER) == []
        assert store.read(PROVISIONAL_METER, *EVER) == []
        store.close()

    def test_hours_go_when_their_day_is_kept(self, tmp_path: Path) -> None:
        """Past 10 days hourly rows go with their marks where the day is rolled up; past 100 days everything does."""
        store = _sqlite(tmp_path)
        store.write([meter(0.0, 1.0), meter(DAY, 1.0)], resolution="hour")
        store.write([meter(0.0, 1.0)], resolution="day")
        store.mark_rolled_up([0.0, DAY], "hour", ["h1"])
        store.mark_rolled_up([0.0], "day", ["h1"])
        assert store.trim(20 * DAY) == 1
        assert store.rolled_up(0.0, 2 * DAY, "hour") == {DAY: {"h1"}}
        assert store.rolled_up(0.0, 2 * DAY, "day") == {0.0: {"h1"}}
        assert store.trim(200 * DAY) == 2
        assert store.span(METER, resolution="day") is None
        store.close()

    def test_a_reader_in_another_process_sees_what_is_written(self, tmp_path: Path) -> None:
        """While the writer has the database open, a read-only reader elsewhere reads committed rows."""
        writer = _sqlite(tmp_path)
        writer.write([meter(10.0, 1.5)])
        code = (
            "from pathlib import Path\nfrom monitor.store.sqlite import SqliteStore\n"
            "from monitor.core.points import METER\n"
            f"print(SqliteStore(Path({str(tmp_path / 'store.db')!r}), read_only=True).read(METER, 0, 99)[0].fields[0])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "1.5\n"
        writer.close()

    def test_a_field_that_points_gained_is_added_to_an_old_database(self, tmp_path: Path) -> None:
        """Old rows do not know the field; a read-only reader of the old file says what to do instead of guessing."""
        _sqlite(tmp_path).close()
        with sqlite3.connect(tmp_path / "store.db") as raw:
            raw.execute("ALTER TABLE meter DROP COLUMN covered_seconds")
            raw.execute("INSERT INTO meter_series (host, device, kind) VALUES ('h1', 'gpu0', 'gpu')")
            raw.execute("INSERT INTO meter (time, series, energy_joules) VALUES (10.0, 1, 2.0)")
        raw.close()
        with pytest.raises(StoreUnavailable, match="meter has no covered_seconds"):
            SqliteStore(tmp_path / "store.db", read_only=True)
        store = _sqlite(tmp_path)
        [row] = store.read(METER, *EVER)
        assert row.fields[METER.fields.index("energy_joules")] == 2.0
        assert row.fields[METER.fields.index("covered_seconds")] is None
        store.close()

    def test_a_file_that_is_no_store_is_named(self, tmp_path: Path) -> None:
        """The error says which file, what happened and what to do."""
        (tmp_path / "store.db").write_text("this is not a database, it is a note to nobody at all" * 30)
        with pytest.raises(StoreUnavailable, match=r"store\.db: cannot open the store: .*; move|damaged"):
            _sqlite(tmp_path)
        with pytest.raises(StoreUnavailable, match="check that the folder exists"):
            SqliteStore(tmp_path / "none" / "store.db", read_only=True)

    def test_a_second_writer_is_refused_and_nothing_is_lost(self, tmp_path: Path) -> None:
        """While another connection writes, ours is told so."""
        store = _sqlite(tmp_path)
        store._connection.execute("PRAGMA busy_timeout = 1")  # type: ignore[attr-defined]
        other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="another process writes"):
            store.write([meter(10.0, 1.0)])
        other.execute("ROLLBACK")
        other.close()
        store.write([meter(10.0, 1.0)])
        assert len(store.read(METER, *EVER)) == 1
        store.close()

    def test_equal_stores_dump_equal_lines(self, tmp_path: Path) -> None:
        """Whatever the order of the writes; roll-ups are in it too."""
        rows = [energy(time, 1.5, team=team) for time in (10.0, 20.0) for team in "ab"]
        dumps = []
        for name, written in (("one", rows), ("two", rows[::-1])):
            (tmp_path / name).mkdir()
            store = SqliteStore(tmp_path / name / "store.db")
            for row in written:
                store.write([row])
            store.write([energy(0.0, 6.0)], resolution="hour")
            dumps.append(list(store.dump([METER, ENERGY])))
            store.close()
        assert dumps[0] == dumps[1]
        assert len(dumps[0]) == 5
        assert dumps[0][0] == (
            "energy,host=h1,device=gpu0,kind=gpu,account=attributed,team=a"
            " energy_joules=1.5,metered_joules=1.5,steps_joules=0.0,learned_joules=0.0,location_grams=0.15"
            ',estimated_start_joules=0.0,factor="FR 2023",revision=0i 10000000000'
        )
        assert dumps[0][4].startswith("energy_hour,host=h1")
