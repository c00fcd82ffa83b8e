"""The ledger on small logs worked by hand: horizon 900 s, a mark every 900 s, windows of 10 s."""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from collectors.readings import ActivityReading, Device, EnergyReading, HostProfile
from collectors.units import SECONDS_PER_DAY, SECONDS_PER_HOUR
from monitor.core.facts import Facts
from monitor.core.membership import Accounting
from monitor.core.points import (
    ENERGY,
    HOLE,
    METER,
    PROVISIONAL_ENERGY,
    PROVISIONAL_METER,
    RESTATEMENT,
    TOO_LATE,
    USAGE,
    Measurement,
    Row,
)
from monitor.core.usage import Usage
from monitor.ledger.ledger import Ledger
from monitor.log.codec import ReadingBatch, Restate, readings_record, restate_record, tick_record, usage_record
from monitor.log.protocol import Append
from monitor.log.sqlite import SqliteLog
from monitor.store.protocol import StoreUnavailable
from monitor.store.sqlite import SqliteStore

T = SECONDS_PER_DAY * 20_000.0
"""Midnight, a mark, the start of a window."""
TERMS = Accounting(restate_seconds=3_600.0)
GPU = Device(id="g0", kind="gpu", idle_watts=50.0)
PROFILE = HostProfile(host="h", devices=(GPU,))


class Books:
    """A log, a store, and ledgers over them, one life after the other."""

    def __init__(self, folder: Path, name: str = "books") -> None:
        self.path = folder / f"{name}.log"
        self.log = SqliteLog(self.path)
        self.store = SqliteStore(folder / f"{name}.db")
        self.ledger = self.begin()

    def begin(self) -> Ledger:
        """A new life."""
        self.ledger = Ledger(self.log, self.store, TERMS, lambda: Facts([]))
        return self.ledger

    def take(self, *records: Append) -> None:
        """Appends these and reads to the end."""
        self.log.append(records, 0.0)
        while self.ledger.step():
            pass
        self.ledger.step()

    def rows(self, measurement: Measurement) -> list[Row]:
        """All rows of a measurement, times from T."""
        found = self.store.read(measurement, float("-inf"), float("inf"))
        return [Row(row.measurement, row.time - T, row.tags, row.fields) for row in found]

    def field(self, measurement: Measurement, name: str) -> list[tuple[float, object]]:
        """(time from T, value) of one field of all rows."""
        place = measurement.fields.index(name)
        return [(row.time, row.fields[place]) for row in self.rows(measurement)]

    def attributed(self) -> list[tuple[float, object, object]]:
        """(time from T, joules, revision) of the attributed rows."""
        return [(row.time, row.fields[0], row.fields[-1]) for row in self.rows(ENERGY) if "attributed" in row.tags]

    def close(self) -> None:
        """Lets go of the files."""
        self.store.close()
        self.log.close()


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    """Empty books."""
    found = Books(tmp_path)
    yield found
    found.close()


def read(at: float, start: float, joules: float, *, length: float = 10.0, profile: HostProfile = PROFILE) -> Append:
    """A batch of one reading of g0 that stands at a log time; times from T."""
    reading = EnergyReading(
        device="g0", start=T + start, end=T + start + length, energy_joules=joules, method="counter"
    )
    return readings_record(ReadingBatch(profile=profile, readings=(reading,)), T + at)


def asked(at: float, request_id: str, start: float, end: float, *, team: str = "blue", host: str = "h") -> Append:
    """A request that stands at a log time."""
    usage = Usage(
        host=host,
        namespace="",
        request_id=request_id,
        model="x",
        team=team,
        devices=("g0",),
        start=T + start,
        end=T + end,
    )
    return usage_record(host, [usage], T + at)


def tick(at: float) -> Append:
    """Log time goes on."""
    return tick_record("", T + at)


def test_a_window_is_final_exactly_one_horizon_after_its_end(books: Books) -> None:
    """[0, 10) is not final at 909.9 s, and is at 910 s; all rows are there, idle and unattributed at zero included."""
    books.take(read(10, 0, 3_000), asked(10, "a", 0, 10), tick(909.9))
    assert books.rows(METER) == []
    books.take(tick(910))
    assert books.field(METER, "energy_joules") == [(0.0, 3_000.0)]
    assert books.ledger.watermark == T + 10.0
    accounts = [(row.tags[3], row.fields[0]) for row in books.rows(ENERGY)]
    assert accounts == [("attributed", 3_000.0), ("idle", 0.0), ("unattributed", 0.0)]


def test_a_record_at_the_line_is_late_and_restated_at_the_next_mark(books: Books) -> None:
    """A request at 909.9 s is in the final account; one at 910 s only in that of 1 800 s, revision and reason said."""
    books.take(read(10, 0, 3_000), asked(909.9, "a", 0, 9), asked(910, "b", 0, 9, team="red"), tick(1_799.9))
    assert books.attributed() == [(0.0, 2_700.0, 0)]
    books.take(tick(1_800))
    mark = int(T + 1_800)
    assert books.attributed() == [(0.0, 1_350.0, mark), (0.0, 1_350.0, mark)]
    assert books.field(METER, "revision") == [(0.0, mark)]
    restatement = books.rows(RESTATEMENT)
    assert restatement == [
        Row("restatement", 1_800.0, ("h",), (0.0, 1.0, 0.0, 1.0, 2_700.0, 2_700.0, "1 late request", T, T, "0", mark))
    ]


def test_a_record_at_a_mark_belongs_to_the_next_one(books: Books) -> None:
    """What stands at 1 800 s is not in the account of that mark but in the one of 2 700 s."""
    books.take(read(10, 0, 3_000), asked(1_800, "a", 0, 10), tick(2_699))
    assert books.attributed() == []
    books.take(tick(2_700))
    assert books.attributed() == [(0.0, 3_000.0, int(T + 2_700))]


def test_rows_that_a_later_account_has_not_are_written_with_zeros(books: Books) -> None:
    """A late reading tells another kind of the device: rows of the old kind stay, at zero, and the books close."""
    cpu = HostProfile(host="h", devices=(Device(id="g0", kind="cpu", idle_watts=0.0),))
    books.take(
        read(10, 0, 500, length=5), asked(10, "a", 0, 9), read(1_000, 5, 700, length=5, profile=cpu), tick(1_800)
    )
    joules = {(row.tags[2], row.tags[3]): row.fields[0] for row in books.rows(ENERGY)}
    assert joules == {
        ("gpu", "attributed"): 0.0,
        ("gpu", "idle"): 0.0,
        ("gpu", "unattributed"): 0.0,
        ("cpu", "attributed"): pytest.approx(1_060.0),
        ("cpu", "idle"): 0.0,
        ("cpu", "unattributed"): pytest.approx(140.0),
    }
    assert [(row.tags[2], row.fields[0]) for row in books.rows(METER)] == [("cpu", 1_200.0), ("gpu", 0.0)]


def test_what_is_too_old_to_restate_is_listed_with_its_energy(books: Books) -> None:
    """At the mark of 4 500 s [870, 880) is older than 3 600 s, [890, 900) is not: one noticed, the other restated."""
    books.take(read(890, 880, 100), tick(1_900), read(4_000, 870, 77), read(4_000, 890, 33, length=5), tick(4_500))
    assert books.field(METER, "energy_joules") == [(880.0, 100.0), (890.0, 33.0)]
    too_late = Row(
        "too_late", 4_500.0, ("h",), (2.0, 0.0, 110.0, 1.0, "2 late readings", T + 870, T + 870, int(T + 4_500))
    )
    assert books.rows(TOO_LATE) == [too_late]
    assert books.field(RESTATEMENT, "first_window") == [(4_500.0, T + 890)]


def test_an_order_restates_what_did_not_change_too(books: Books) -> None:
    """`restate` is a record late like any other: at the next mark the rows are written again, and it says who asked."""
    order = Restate(host="h", start=T, end=T + 20, reason="meter exchanged")
    books.take(
        read(10, 0, 3_000), read(20, 10, 3_000), read(30, 20, 1_000), restate_record(order, T + 1_000), tick(1_800)
    )
    mark = int(T + 1_800)
    assert books.field(METER, "revision") == [(0.0, mark), (10.0, mark), (20.0, 0)]
    assert books.field(RESTATEMENT, "reason") == [(1_800.0, "meter exchanged")]


@pytest.mark.parametrize("new_life", [False, True])
def test_a_restating_finds_what_stood_long_before_its_window(books: Books, *, new_life: bool) -> None:
    """A request of [5 000, 5 009) from a clock that is 80 minutes ahead; its host's reading comes late."""
    books.take(asked(100, "a", 5_000, 5_009), tick(5_920))
    assert books.attributed() == []
    if new_life:
        books.begin()
    books.take(read(6_000, 5_000, 3_000), tick(6_300))
    assert books.attributed() == [(5_000.0, 2_700.0, int(T + 6_300))]


def test_what_no_mark_restated_is_never_read_back(books: Books, tmp_path: Path) -> None:
    """Two late requests of one mark, a minute apart: the windows between them are not looked at by the next reader."""
    books.take(
        *[read(10 * i + 10, 10 * i, 1_000) for i in range(8)],
        asked(1_000, "a", 0, 9),
        asked(1_000, "b", 60, 69),
        tick(1_800),
    )
    revised = [(time, revision) for time, _, revision in books.attributed() if revision]
    assert revised == [(0.0, int(T + 1_800)), (60.0, int(T + 1_800))]
    assert books.field(RESTATEMENT, "restated_windows") == [(1_800.0, "0,6")]
    books.begin()
    books.take(tick(2_700), tick(3_600))
    assert books.ledger.progress.mended == 0
    assert [time for time, revision in books.field(METER, "revision") if revision == 0] == [10, 20, 30, 40, 50, 70]


def test_duplicates_change_nothing(books: Books, tmp_path: Path) -> None:
    """On time or late, a record that stands twice counts once and restates nothing."""
    once = [read(10, 0, 3_000), asked(10, "a", 0, 9)]
    books.take(*once, *once, read(700, 0, 3_000), asked(950, "a", 0, 9), read(1_700, 0, 3_000), tick(2_700))
    other = Books(tmp_path, "other")
    other.take(*once, tick(2_700))
    assert list(books.store.dump([ENERGY, METER, USAGE, RESTATEMENT])) == list(
        other.store.dump([ENERGY, METER, USAGE, RESTATEMENT])
    )
    assert books.rows(RESTATEMENT) == []
    assert books.log.rejected() == {}
    other.close()


def test_contradictions_are_dead_letters_and_not_accounted(books: Books) -> None:
    """Other joules under one device and start, another team under one request: the first of each counts."""
    books.take(read(10, 0, 3_000), asked(10, "a", 0, 10), read(20, 0, 9), asked(20, "a", 0, 10, team="red"), tick(910))
    assert books.attributed() == [(0.0, 3_000.0, 0)]
    assert books.log.rejected() == {"conflict": 2}
    assert [letter.position.split(".")[1] for _, letter in books.log.rejections()] == ["0", "0"]


def test_an_id_is_reused_after_a_horizon(books: Books) -> None:
    """Over 900 s after it, other content under its id is another request."""
    books.take(asked(10, "a", 0, 10), asked(910.5, "a", 905, 910, team="red"), tick(1_900))
    assert books.field(USAGE, "requests") == [(10.0, 1.0), (910.0, 1.0)]
    assert books.log.rejected() == {}


def test_readings_that_overlap_are_named(books: Books) -> None:
    """The one that starts later is left out of the account, also at a mark, and is a dead letter."""
    books.take(read(10, 0, 1_000), read(11, 5, 99, length=2), read(1_000, 7, 98, length=2), tick(1_800))
    assert books.field(METER, "energy_joules") == [(0.0, 1_000.0)]
    letters = [(letter.reason, letter.position) for _, letter in books.log.rejections()]
    assert letters == [("overlap", f"g0@{T + 5}"), ("overlap", f"g0@{T + 7}")]


def test_a_poisoned_record_is_passed_by(books: Books) -> None:
    """A body that is no message, a schema that nobody knows, a row that the disk changed: named; the rest counts."""
    broken = Append(stream="readings", key="h", schema="readings.v1", body=b"\xc1", stamp=T + 5)
    unknown = Append(stream="usage", key="h", schema="gossip.v1", body=b"", stamp=T + 5)
    books.log.append([broken, unknown, read(6, 0, 1, length=1), read(10, 0, 3_000)], 0.0)
    with sqlite3.connect(books.path) as connection:
        connection.execute("UPDATE log SET body = x'00' WHERE offset = 3")
    connection.close()
    books.take(tick(910))
    assert books.field(METER, "energy_joules") == [(0.0, 3_000.0)]
    assert books.log.rejected() == {"corrupt": 1, "undecodable": 1, "unknown_schema": 1}


def test_a_wrong_clock_does_not_touch_every_window_there_is(books: Books) -> None:
    """A reading since 1970, a request for ever, one that ends in three hours: dead letters at once, not a long wait."""
    books.take(
        read(10, -T, 5, length=T + 10.0),
        asked(10, "a", 0, 1e12),
        asked(10, "b", 0, 3 * SECONDS_PER_HOUR),
        restate_record(Restate(host="h", start=0.0, end=T, reason="all"), T + 10),
        tick(910),
    )
    assert books.log.rejected() == {"future": 2, "too_long": 2}
    assert books.rows(METER) == []


def test_no_number_is_too_large_for_the_store(books: Books) -> None:
    """Joules whose sum overflows, tokens that no database integer holds, a weight of nothing: refused, not fatal."""
    usage = Usage(host="h", namespace="", request_id="a", model="x", team="b", start=T, end=T + 9, input_tokens=2**63)
    light = Usage(host="h", namespace="", request_id="b", model="x", team="b", start=T, end=T + 9, weight=1e-320)
    books.take(read(10, 0, 1e308), read(10, 5, 1e308), usage_record("h", [usage], T + 10), tick(900))
    books.take(usage_record("h", [light], T + 905), read(906, 0, 100), tick(910))
    assert books.log.rejected() == {"bad_value": 4}
    assert books.field(METER, "energy_joules") == [(0.0, 100.0)]


def test_a_log_cut_off_at_its_start_makes_nothing_final_before_it(books: Books) -> None:
    """The log begins at 1 005 s and nobody has committed: [990, 1 010) may have lost records, [1 010, ...) has not."""
    books.take(read(10, 0, 1), tick(1_000))
    commit = books.log.committed()
    assert commit is not None
    books.log.append([tick(1_002), read(1_005, 990, 7), read(1_010, 1_000, 7), read(1_020, 1_010, 3)], 0.0)
    books.log.commit(commit := type(commit)(positions={"readings": 3, "usage": 4}, watermark=0, mark=0, log_time=0))
    books.log.trim(T + 1_005)
    with sqlite3.connect(books.path) as connection:
        connection.execute("DELETE FROM commits")
    connection.close()
    before = books.rows(METER)
    books.begin()
    assert books.ledger.watermark == T + 1_010.0
    books.take(tick(2_000))
    assert books.rows(METER) == [*before, *[row for row in books.rows(METER) if row.time == 1_010.0]]
    assert books.field(METER, "energy_joules")[-1] == (1_010.0, 3.0)


def test_a_death_before_the_first_commit_makes_no_hole(books: Books) -> None:
    """The log begins at 1 000 s with readings of before: the first life stores [500, 510) and is gone."""
    books.log.append([read(1_000, 500, 7), read(1_000, 700, 9), tick(1_410)], 0.0)
    books.log.commit = _killed  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        books.ledger.step()
    del books.log.commit  # type: ignore[method-assign]
    books.begin()
    books.take(tick(1_610))
    assert books.field(METER, "energy_joules") == [(500.0, 7.0), (700.0, 9.0)]
    assert books.rows(HOLE) == []


def _killed(_commit: object) -> None:
    raise KeyboardInterrupt


def test_a_new_life_reads_little_again_and_writes_the_same(books: Books, tmp_path: Path) -> None:
    """After six hours: at most two horizons, a mark interval and two minutes of log time."""
    hours = [read(at, at - 10, 100.0) for at in range(10, 6 * 3_600, 10)]
    for begin in range(0, len(hours), 500):
        books.take(*hours[begin : begin + 500])
        assert books.begin().progress.reread_seconds <= 2 * 900.0 + 900.0 + 120.0
    books.take(tick(25_200))
    assert books.ledger.progress.reread_records <= 282
    other = Books(tmp_path, "other")
    other.take(*hours, tick(25_200))
    assert list(books.store.dump([ENERGY, METER])) == list(other.store.dump([ENERGY, METER]))
    other.close()


def test_late_contradictions_are_judged_the_same_by_a_new_life(books: Books, tmp_path: Path) -> None:
    """Late, and 895 s later other content behind a mark: a conflict also for who begins again after both."""
    first = [read(1_010, 1_000, 1_000), asked(2_745, "a", 1_000, 1_009)]
    then = [asked(3_640, "a", 1_000, 1_009, team="red"), read(3_650, 1_020, 10), tick(3_660)]
    books.take(*first, *then)
    books.begin()
    books.take(tick(4_500))
    other = Books(tmp_path, "other")
    other.take(*first, *then, tick(4_500))
    for each in (books, other):
        assert each.log.rejected() == {"conflict": 1}
        assert each.field(RESTATEMENT, "late_requests") == [(3_600.0, 1.0), (4_500.0, 0.0)]
    other.close()


def test_a_conflict_stays_one_where_a_new_life_reads_it_without_what_it_contradicts(books: Books) -> None:
    """At 2 700 s nothing open needs a record before that, so the new life begins at 1 800 s, behind the first `a`."""
    books.take(asked(1_000, "a", 0, 9), asked(1_890, "a", 1_880, 1_889, team="red"), read(2_700, 2_690, 5))
    books.begin()
    books.take(tick(3_000))
    assert books.field(USAGE, "requests") == [(0.0, 1.0)]
    assert books.log.rejected() == {"conflict": 1}


@pytest.mark.parametrize("reborn", [False, True])
def test_an_older_account_that_lands_late_is_mended_at_the_next_mark(books: Books, *, reborn: bool) -> None:
    """Final rows, and the roll-up made of them, come in behind the restated ones: both are put right, by whom ever."""
    books.take(read(2_010, 2_000, 100), asked(2_010, "a", 2_000, 2_009), tick(4_500))
    old = [row for each in (ENERGY, METER, USAGE) for row in books.store.read(each, T, T + 3_600)]
    rolled = [row for each in (ENERGY, METER, USAGE) for row in books.store.read(each, T, T + 1, resolution="hour")]
    books.take(asked(4_501, "b", 2_000, 2_009, team="red"), tick(5_400))
    expected = list(books.store.dump([ENERGY, METER, USAGE, RESTATEMENT]))
    books.store.write(old)
    books.store.write(rolled, resolution="hour")
    if reborn:
        books.begin()
    books.take(tick(6_299))
    assert list(books.store.dump([ENERGY, METER, USAGE, RESTATEMENT])) != expected
    books.take(tick(6_300))
    assert list(books.store.dump([ENERGY, METER, USAGE, RESTATEMENT])) == expected
    assert books.ledger.progress.mended == 1


def test_a_new_life_does_not_count_half_of_a_mark(books: Books) -> None:
    """Two late requests of one mark, one of them before the place where the new life begins: the notice says two."""
    books.take(read(10, 0, 1_000), asked(1_000, "a", 0, 9), asked(1_700, "b", 0, 9), tick(1_800))
    books.take(read(2_300, 2_290, 5), tick(2_750))
    noticed = books.rows(RESTATEMENT)
    books.begin()
    books.take(tick(3_600))
    assert books.rows(RESTATEMENT) == noticed
    assert books.field(RESTATEMENT, "late_requests") == [(1_800.0, 2.0)]


def test_roll_ups_follow_a_restatement(books: Books) -> None:
    """An hour of one window of 100 J is rolled up once it is over, and again when a late reading brings 50 J."""
    books.take(read(10, 0, 100), tick(4_499))
    assert books.store.read(METER, T, T + 1, resolution="hour") == []
    books.take(tick(4_500))
    assert [row.fields[0] for row in books.store.read(METER, T, T + 1, resolution="hour")] == [100.0]
    books.take(read(4_501, 2_000, 50), tick(5_400))
    assert [row.fields[0] for row in books.store.read(METER, T, T + 1, resolution="hour")] == [150.0]
    assert books.store.rolled_up(T, T + 1, "hour").keys() == {T}


def test_a_day_is_rolled_up_though_its_last_hours_are_empty(books: Books) -> None:
    """A host that is off in the evening: the day has its row once it is over."""
    books.take(read(10, 0, 100), *(tick(at) for at in range(3_600, 26 * 3_600, 3_600)))
    assert [row.fields[0] for row in books.store.read(METER, T, T + 1, resolution="day")] == [100.0]


def test_who_else_was_busy_changes_what_is_shown(books: Books) -> None:
    """300 W, 100 W idle: told later that others were busy for three quarters, the request's 2 000 J become 500."""
    cpu = Device(id="c0", kind="cpu", idle_watts=100.0)
    profile = HostProfile(host="h", devices=(cpu,))
    energy = EnergyReading(device="c0", start=T, end=T + 10, energy_joules=3_000.0, method="counter")
    books.take(
        readings_record(ReadingBatch(profile=profile, readings=(energy,)), stamp=T + 11),
        asked(12, "a", 0, 10),
    )
    attributed = [row for row in books.rows(PROVISIONAL_ENERGY) if "attributed" in row.tags]
    assert [row.fields[0] for row in attributed] == [pytest.approx(2_000.0)]
    busy = tuple(
        ActivityReading(device="c0", start=T, end=T + 10, consumer=consumer, busy_seconds=seconds)
        for consumer, seconds in (("other", 30.0), ("server:vllm", 10.0))
    )
    books.take(readings_record(ReadingBatch(profile=profile, readings=(), activities=busy), stamp=T + 21))
    attributed = [row for row in books.rows(PROVISIONAL_ENERGY) if "attributed" in row.tags]
    assert [row.fields[0] for row in attributed] == [pytest.approx(500.0)]
    books.take(tick(1_000))
    assert [(at, joules) for at, joules, _ in books.attributed()] == [(0.0, pytest.approx(500.0))]


def test_who_else_was_busy_is_restated_where_it_came_late(books: Books) -> None:
    """Told behind the window's line, as an outage can have it: the final 2 000 J are 500 from the next mark on."""
    profile = HostProfile(host="h", devices=(Device(id="c0", kind="cpu", idle_watts=100.0),))
    energy = EnergyReading(device="c0", start=T, end=T + 10, energy_joules=3_000.0, method="counter")
    busy = tuple(
        ActivityReading(device="c0", start=T, end=T + 10, consumer=consumer, busy_seconds=seconds)
        for consumer, seconds in (("other", 30.0), ("server:vllm", 10.0))
    )
    books.take(
        readings_record(ReadingBatch(profile=profile, readings=(energy,)), stamp=T + 11),
        asked(12, "a", 0, 10),
        readings_record(ReadingBatch(profile=profile, readings=(), activities=busy), stamp=T + 910),
        tick(1_799),
    )
    assert books.attributed() == [(0.0, pytest.approx(2_000.0), 0)]
    books.take(tick(1_800))
    assert books.attributed() == [(0.0, pytest.approx(500.0), int(T + 1_800))]
    (told,) = books.rows(RESTATEMENT)
    sums = dict(zip(RESTATEMENT.fields, told.fields, strict=True))
    assert (sums["old_energy_joules"], sums["new_energy_joules"]) == (pytest.approx(2_000.0), pytest.approx(500.0))
    assert sums["reason"] == "2 late readings of who used a device"


def test_provisional_rows_appear_and_go(books: Books) -> None:
    """[0, 10) is shown once it is over, again when a request comes, and goes when it is final."""
    books.take(read(9, 0, 3_000, length=9))
    assert books.rows(PROVISIONAL_METER) == []
    books.take(tick(10))
    assert books.field(PROVISIONAL_METER, "energy_joules") == [(0.0, 3_000.0)]
    assert "attributed" not in {row.tags[3] for row in books.rows(PROVISIONAL_ENERGY)}
    books.take(asked(12, "a", 0, 9))
    assert "attributed" in {row.tags[3] for row in books.rows(PROVISIONAL_ENERGY)}
    assert books.rows(METER) == []
    books.take(tick(910))
    assert books.rows(PROVISIONAL_METER) == books.rows(PROVISIONAL_ENERGY) == []
    assert books.field(METER, "energy_joules") == [(0.0, 3_000.0)]


def test_what_a_reader_showed_goes_though_another_one_makes_it_final(books: Books) -> None:
    """Shown, killed, begun again when the window is final at once: no provisional row is left behind."""
    books.take(tick(0), read(10, 0, 3_000), tick(20))
    assert books.field(PROVISIONAL_METER, "energy_joules") == [(0.0, 3_000.0)]
    books.begin()
    books.take(tick(2_000))
    assert books.rows(PROVISIONAL_METER) == []
    assert books.field(METER, "energy_joules") == [(0.0, 3_000.0)]


class Failing(SqliteStore):
    """A store whose disk is full for a while."""

    full = False

    def write(self, rows: Sequence[Row], **named: object) -> None:
        """Refuses while the disk is full."""
        if self.full:
            raise StoreUnavailable("full")
        super().write(rows, **named)  # type: ignore[arg-type]


def test_a_store_that_is_down_loses_nothing(tmp_path: Path) -> None:
    """While it refuses nothing is committed; the same ledger goes on when it is back, late records included."""
    log, store = SqliteLog(tmp_path / "log"), Failing(tmp_path / "db")
    ledger = Ledger(log, store, TERMS, lambda: Facts([]), show_provisional=False)
    log.append([read(10, 0, 100), asked(1_000, "a", 0, 9), tick(1_790)], 0.0)
    ledger.step()
    committed = log.committed()
    log.append([tick(1_800), tick(4_600)], 0.0)
    store.full = True
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            ledger.step()
    assert log.committed() == committed
    store.full = False
    ledger.step()
    assert [row.fields[-1] for row in store.read(METER, T, T + 1)] == [int(T + 1_800)]
    assert store.rolled_up(T, T + 1, "hour").keys() == {T}
    store.close()
    log.close()
