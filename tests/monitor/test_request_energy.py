"""Entries of whole requests, on small logs worked by hand: windows of 10 s, horizon 900 s, a mark every 900 s.

The GPU draws 300 J in each window, of which a request that is alone on it pays all.
"""

from collections.abc import Iterator, Sequence
from math import fsum, inf
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers.influxd import InfluxServer

from collectors.readings import Device, EnergyReading, HostProfile
from collectors.units import SECONDS_PER_DAY
from monitor.config.books_sections import Store as StoreSection
from monitor.config.output_sections import Kafka
from monitor.config.sections import Config
from monitor.core.facts import Facts
from monitor.core.membership import Accounting
from monitor.core.points import ENERGY, METER, REQUEST_ENERGY, RESTATEMENT, USAGE
from monitor.core.questions import Principal, RequestsQuery
from monitor.core.request_energy import Entries, RequestEnergy, request_row
from monitor.core.usage import Usage
from monitor.ledger.ledger import Ledger
from monitor.log.codec import ReadingBatch, Restate, readings_record, restate_record, tick_record, usage_record
from monitor.log.kafka_writer import KafkaWriter
from monitor.log.protocol import Append
from monitor.log.sqlite import SqliteLog
from monitor.query import Query
from monitor.roles.request_energy import MOST_ENTRIES, RequestEnergySink, batches
from monitor.store.influx import InfluxStore
from monitor.store.influx_setup import Setup
from monitor.store.quarantine import Quarantine
from monitor.store.retention import Retention
from monitor.store.sqlite import SqliteStore

T = SECONDS_PER_DAY * 20_000.0
"""Midnight, a mark, the start of a window."""
TERMS = Accounting(restate_seconds=7_200.0)
PROFILE = HostProfile(host="h", devices=(Device(id="g0", kind="gpu", idle_watts=0.0),))


class Lives:
    """A log, a store, and ledgers over them, one life after the other; what they said of requests."""

    def __init__(self, folder: Path, name: str = "lives") -> None:
        self.log, self.store = SqliteLog(folder / f"{name}.log"), SqliteStore(folder / f"{name}.db")
        self.said: list[RequestEnergy] = []
        self.begin()

    def begin(self) -> None:
        """A new life."""
        self.ledger = Ledger(self.log, self.store, TERMS, lambda: Facts([]), finished=self.said.extend)

    def take(self, *records: Append) -> None:
        """Appends these and reads to the end."""
        self.log.append(records, 0.0)
        while self.ledger.step():
            pass

    def entries(self) -> list[tuple[str, float | None, int]]:
        """(request, joules, revision from T, 0 for a first entry) in the order in which they were said."""
        return [
            (each.request_id, each.energy_joules, each.revision - int(T) if each.revision else 0) for each in self.said
        ]

    def close(self) -> None:
        """Lets go of the files."""
        self.store.close()
        self.log.close()


@pytest.fixture
def lives(tmp_path: Path) -> Iterator[Lives]:
    """Nothing yet."""
    found = Lives(tmp_path)
    yield found
    found.close()


def read(at: float, start: float, joules: float = 300.0) -> Append:
    """A reading of ten seconds of g0 that stands at a log time; times from T."""
    reading = EnergyReading(device="g0", start=T + start, end=T + start + 10, energy_joules=joules, method="counter")
    return readings_record(ReadingBatch(profile=PROFILE, readings=(reading,)), T + at)


def asked(at: float, request_id: str, start: float, end: float, *, team: str = "blue") -> Append:
    """A request that stands at a log time."""
    usage = Usage(
        host="h",
        namespace="n",
        request_id=request_id,
        model="x",
        team=team,
        devices=("g0",),
        start=T + start,
        end=T + end,
        output_tokens=7,
        labels={"use_case": "chat"},
    )
    return usage_record("h", [usage], T + at)


def tick(at: float) -> Append:
    """Log time goes on."""
    return tick_record("", T + at)


def minutes(start: float, end: float) -> list[Append]:
    """A reading of each window, on time."""
    return [read(at + 10, at) for at in range(int(start), int(end), 10)]


def test_a_request_within_one_window_is_told_when_that_is_final(lives: Lives) -> None:
    """Who it was, how long, what it used, and how well that is known."""
    lives.take(read(10, 0), asked(10, "a", 0, 9), tick(909))
    assert lives.said == []
    lives.take(tick(910))
    [entry] = lives.said
    assert (entry.namespace, entry.request_id, entry.attempt, entry.host) == ("n", "a", 0, "h")
    assert (entry.model, entry.team, entry.labels, entry.output_tokens) == ("x", "blue", {"use_case": "chat"}, 7)
    assert (entry.start, entry.end, entry.windows, entry.measured_windows) == (T, T + 9, 1, 1)
    assert (entry.energy_joules, entry.metered_joules, entry.exact_joules) == (270.0, 270.0, 270.0)
    assert (entry.measured_ratio, entry.exact_ratio, entry.location_grams, entry.revision) == (1.0, 1.0, None, 0)


def test_the_store_gets_no_row_of_a_request_beside_it(lives: Lives) -> None:
    """The windows' rows are all there, those of single requests are not."""
    lives.take(read(10, 0), asked(10, "a", 0, 9), tick(910))
    assert [len(lives.store.read(each, T, T + 10)) for each in (METER, ENERGY, USAGE, REQUEST_ENERGY)] == [1, 3, 1, 0]


def test_a_request_over_three_windows_is_their_sum_whenever_lives_end(lives: Lives) -> None:
    """5 s to 25 s: 150 + 300 + 150 J, told once its last window is final, also by lives that begin in between."""
    lives.take(*minutes(0, 30), asked(26, "a", 5, 25))
    for at in (910, 920, 925, 929.9):
        lives.take(tick(at))
        lives.begin()
    assert lives.said == []
    lives.take(tick(930))
    assert lives.entries() == [("a", 600.0, 0)]
    assert (lives.said[0].windows, lives.said[0].measured_windows) == (3, 3)


def test_a_life_that_ends_before_it_has_committed_says_it_again(lives: Lives) -> None:
    """At least once, and the same; a life after the commit says nothing."""
    lives.take(*minutes(0, 30), asked(26, "a", 5, 25))
    lives.log.append([tick(930)], 0.0)
    lives.log.commit = _killed  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        lives.ledger.step()
    del lives.log.commit
    lives.begin()
    lives.take(tick(931))
    lives.begin()
    lives.take(tick(940))
    assert lives.entries() == [("a", 600.0, 0)] * 2


def _killed(_commit: object) -> None:
    raise KeyboardInterrupt


def test_a_request_known_behind_its_first_window_is_told_at_a_mark(lives: Lives) -> None:
    """0 s to 25 s, heard of at 915 s: [0, 10) is final by then; all of it comes with the mark of 1 800 s."""
    lives.take(*minutes(0, 30), asked(915, "a", 0, 25), tick(1_799))
    lives.begin()
    assert lives.said == []
    lives.take(tick(1_800))
    assert lives.entries() == [("a", 750.0, 1_800)]


def test_a_mark_that_comes_before_the_last_window_is_final_does_not_tell(lives: Lives) -> None:
    """0 s to 895 s, heard of at 915 s but not final before 1 800 s: the mark behind that tells, also in a new life."""
    lives.take(*minutes(0, 900), asked(915, "a", 0, 895), tick(1_799.9))
    lives.take(tick(1_800), tick(2_500))
    lives.begin()
    assert lives.said == []
    lives.take(tick(2_700))
    assert lives.entries() == [("a", 26_850.0, 2_700)]
    assert lives.said[0].windows == 90


def test_a_request_longer_than_the_horizon_is_told_at_a_mark(lives: Lives) -> None:
    """0 s to 1 000 s, heard of at once: half an hour later, with all its windows."""
    lives.take(*minutes(0, 1_010), asked(1_011, "a", 0, 1_000), tick(1_899.9))
    lives.begin()
    lives.take(tick(1_950))
    lives.begin()
    assert lives.said == []
    lives.take(tick(2_700))
    assert lives.entries() == [("a", 30_000.0, 2_700)]


def test_what_is_restated_is_told_again_with_the_mark(lives: Lives) -> None:
    """A reading of [10, 20) comes late: the request over three windows has it from 1 800 s on, the other has not."""
    lives.take(
        read(10, 0), read(30, 20), asked(26, "a", 5, 25), asked(40, "b", 30, 35), read(1_000, 10, 500.0), tick(1_800)
    )
    assert lives.entries() == [("a", 300.0, 0), ("b", None, 0), ("a", 800.0, 1_800)]
    assert [each.measured_windows for each in lives.said] == [2, 0, 3]


def test_a_late_request_takes_from_those_that_were_there(lives: Lives) -> None:
    """Both share [0, 10); the first is told anew, so that all of them together never exceed the meter."""
    lives.take(read(10, 0), asked(10, "a", 0, 10), read(20, 10), asked(950, "b", 0, 10), tick(1_800))
    assert sorted(lives.entries()) == [("a", 150.0, 1_800), ("a", 300.0, 0), ("b", 150.0, 1_800)]


def test_a_window_restated_before_the_request_ends_is_in_its_first_entry(lives: Lives) -> None:
    """[880, 900) is measured late and restated at 1 800 s; the request goes on until 935 s, final at 1 840 s."""
    lives.take(*minutes(900, 950), asked(941, "a", 880, 935), read(1_795, 880), read(1_797, 890), tick(1_800))
    assert lives.said == []
    lives.take(tick(1_840))
    assert lives.entries() == [("a", 600.0 + 300.0 * 3 + 150.0, 0)]


def test_duplicates_say_nothing_new(lives: Lives) -> None:
    """On time, or so late that a mark looks at it."""
    once = [*minutes(0, 30), asked(26, "a", 5, 25)]
    lives.take(*once, asked(27, "a", 5, 25), asked(921, "a", 5, 25), asked(1_000, "a", 5, 25), tick(1_800))
    assert lives.entries() == [("a", 600.0, 0)]
    assert lives.store.read(RESTATEMENT, 0.0, T + 9_999) == []


def test_an_order_tells_again_what_did_not_change(lives: Lives) -> None:
    """`restate` of [10, 20): the request in it is told again, with the windows around it."""
    order = restate_record(Restate(host="h", start=T + 10, end=T + 20, reason="asked"), T + 1_000)
    lives.take(*minutes(0, 30), asked(26, "a", 5, 25), order, tick(1_800))
    assert lives.entries() == [("a", 600.0, 0), ("a", 600.0, 1_800)]


def test_what_is_read_again_is_bounded_with_long_requests_too(lives: Lives) -> None:
    """Requests of two minutes all the time: two horizons, a mark interval and two minutes of log time at most."""
    for begin in range(0, 3 * 3_600, 300):
        records: list[Append] = []
        for at in range(begin, begin + 300, 10):
            records += [read(at + 10, at), asked(at + 11, f"r{at}", at - 110, at + 10)]
        lives.take(*sorted(records, key=lambda each: each.stamp or 0.0))
        lives.begin()
        assert lives.ledger.progress.reread_seconds <= 2 * 900.0 + 900.0 + 120.0


@given(
    joules=st.lists(st.floats(0.0, 9_000.0), min_size=40, max_size=40),
    asked_for=st.lists(
        st.tuples(st.floats(0.0, 300.0), st.floats(0.0, 90.0), st.sampled_from([0.5, 30.0, 880.0, 1_200.0])),
        min_size=1,
        max_size=12,
    ),
    late=st.sets(st.integers(0, 39), max_size=3),
)
@settings(deadline=None, max_examples=40)
def test_entries_hold_all_that_was_attributed(
    joules: list[float], asked_for: list[tuple[float, float, float]], late: set[int]
) -> None:
    """Whatever came late, the newest entries of all requests add up to the attributed energy of all windows."""
    records = [read(at * 10 + (1_500 if at in late else 10), at * 10, energy) for at, energy in enumerate(joules)]
    records += [
        asked(start + length + delay, f"r{number}", start, start + length)
        for number, (start, length, delay) in enumerate(asked_for)
    ]
    with TemporaryDirectory() as folder:
        lives = Lives(Path(folder))
        lives.take(*sorted(records, key=lambda each: each.stamp or 0.0), tick(1_800), tick(2_700), tick(3_600))
        rows = lives.store.read(ENERGY, T, T + 900)
        lives.close()
    newest = {each.request_id: each for each in sorted(lives.said, key=lambda each: each.revision)}
    assert newest.keys() == {f"r{number}" for number in range(len(asked_for))}
    attributed = fsum(float(row.fields[0] or 0.0) for row in rows if "attributed" in row.tags)
    assert fsum(each.energy_joules or 0.0 for each in newest.values()) == pytest.approx(attributed, rel=1e-9, abs=1e-6)


def test_entries_go_out_in_batches_of_one_host() -> None:
    """JSON arrays of at most 500, in their order, each with the latest end in it."""
    entries = [_entry("h", number) for number in range(MOST_ENTRIES + 1)] + [_entry("i", 7)]
    found = list(batches(entries))
    assert [(host, end, body[:1], body.count(b'"request_id"')) for host, end, body in found] == [
        ("h", 499.0, b"[", 500),
        ("h", 500.0, b"[", 1),
        ("i", 7.0, b"[", 1),
    ]


def test_long_entries_go_out_in_smaller_batches() -> None:
    """Three of 200 kB on one host are more than half a megabyte: two and one, still an array each and in order."""
    entries = [msgspec.structs.replace(_entry("h", end), labels={"note": "x" * 200_000}) for end in (3.0, 2.0, 1.0)]
    found = [(end, [each.end for each in _read(body)]) for _, end, body in batches(entries)]
    assert found == [(3.0, [3.0, 2.0]), (1.0, [1.0])]


def _read(body: bytes) -> list[RequestEnergy]:
    return msgspec.json.decode(body, type=list[RequestEnergy])


def test_entries_that_came_together_are_one_sequence(lives: Lives) -> None:
    """Two requests that end in one window and one in the next: as many as they are, from either end, in slices."""
    taken: list[Sequence[RequestEnergy]] = []
    lives.ledger = Ledger(lives.log, lives.store, TERMS, lambda: Facts([]), finished=taken.append)
    lives.take(*minutes(0, 30), asked(26, "a", 5, 25), asked(26, "b", 6, 26), asked(36, "c", 7, 35), tick(990))
    every = Entries()
    for each in taken:
        every.add(each)
    every.add(())
    assert len(every) == 3
    assert [each.request_id for each in every] == ["a", "b", "c"]
    assert [every[place].request_id for place in (0, 2, -1, -3)] == ["a", "c", "c", "a"]
    assert [each.request_id for each in every[1:]] == ["b", "c"]
    assert list(every) == [every[place] for place in range(3)]
    with pytest.raises(IndexError):
        every[3]


def test_an_entry_is_a_row_at_the_end_of_its_request(lives: Lives) -> None:
    """As the store keeps it: at the request's end, tags and fields in their order."""
    lives.take(*minutes(0, 30), asked(26, "a", 5, 25), tick(930))
    row = request_row(lives.said[0])
    assert (row.time, row.tags) == (T + 25, ("h", "n", "a", "0", "x", "blue", "", '{"use_case":"chat"}'))
    named = dict(zip(REQUEST_ENERGY.fields, row.fields, strict=True))
    assert (named["energy_joules"], named["start"], named["end"], named["revision"]) == (600.0, T + 5, T + 25, 0)


def test_the_bucket_holds_a_point_per_request_at_its_end(influxd: InfluxServer, tmp_path: Path) -> None:
    """Those of one second stand beside each other, what is said again overwrites, and a query finds each once."""
    bucket = influxd.settings(tmp_path.name, requests=True)
    setup = Setup(bucket)
    list(setup.mend(Retention(requests_seconds=inf)))
    setup.close()
    store = InfluxStore(bucket, quarantine=Quarantine())
    config = Config(
        influxdb=bucket, store=StoreSection(kind="influxdb"), kafka=Kafka(request_energy=False, bootstrap_servers=())
    )
    sink = RequestEnergySink(config, KafkaWriter(config.kafka), store)
    entries = [_entry("h", T + each / 256.0) for each in range(512)]
    sink(entries)
    sink([msgspec.structs.replace(each, energy_joules=2.0, revision=int(T + 900)) for each in entries])
    rows = store.read(REQUEST_ENERGY, T, T + 2.0)
    assert [row.time for row in rows] == [each.end for each in entries]
    assert {row.fields[0] for row in rows} == {2.0}
    query = Query(store, rejected=dict)
    page = query.requests(Principal(name="root", role="admin"), RequestsQuery(start=T + 1.0, end=T + 2.0, limit=200))
    rest = query.requests(
        Principal(name="root", role="admin"), RequestsQuery(start=T + 1.0, end=T + 2.0, limit=200, after=page.next)
    )
    found = [*page.requests, *rest.requests]
    assert [each.request_id for each in found] == [each.request_id for each in entries[256:]]
    store.close()


def _entry(host: str, end: float) -> RequestEnergy:
    return RequestEnergy(
        namespace="n",
        request_id=f"r{end!r}",
        attempt=0,
        host=host,
        model="x",
        team="blue",
        deployment="",
        labels={},
        status="ok",
        weight=1.0,
        start=0.0,
        first_token=None,
        end=end,
        input_tokens=None,
        cached_input_tokens=None,
        output_tokens=None,
        work=None,
        energy_joules=1.0,
        marginal_joules=0.0,
        metered_joules=1.0,
        recovered_joules=0.0,
        exact_joules=0.0,
        steps_joules=0.0,
        learned_joules=0.0,
        flop_sensitivity_joules=0.0,
        byte_sensitivity_joules=0.0,
        split_variance=None,
        location_grams=None,
        measured_ratio=1.0,
        exact_ratio=0.0,
        factor="",
        windows=1,
        measured_windows=1,
        revision=0,
    )
