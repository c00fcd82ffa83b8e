"""Snapshots of the facts: whoever begins at one answers like one who read everything, from its moment on."""

from collections.abc import Sequence
from itertools import accumulate
from typing import get_args

import msgspec
import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from msgspec.structs import replace

from collectors.errors import Rejected
from collectors.units import SECONDS_PER_DAY
from monitor.core.attribution.learning import FitSums, sums_of, total
from monitor.core.attribution.priors import PRIOR
from monitor.core.attribution.units import UnitSums, unit_sums_of
from monitor.core.attribution.work import Work
from monitor.core.emissions.factors import Intensity
from monitor.core.facts import Fact, Facts
from monitor.core.lessons import PERIOD_SECONDS, Lesson, UnitLesson
from monitor.core.membership import Accounting
from monitor.core.serving import Deployment, FoundServer, HostServers
from monitor.core.still_needed import still_needed
from monitor.log.codec import accounting_record, deployment_record, intensity_record, lesson_record, servers_record
from monitor.log.protocol import Append, LogRecord
from monitor.log.snapshots import PART_BYTES, SNAPSHOT_SCHEMA, Assembly, Snapshot, is_snapshot, snapshot_records
from monitor.roles.control import FactsReader
from monitor.roles.snapshots import snapshot_of

T = SECONDS_PER_DAY * 20_000.0
"""Midnight."""
DAY = SECONDS_PER_DAY


class Listed:
    """A log of facts in memory; counts the records that it was asked for."""

    def __init__(self, records: Sequence[LogRecord]) -> None:
        self.records, self.given = list(records), 0

    def facts(self, after: int = 0) -> list[LogRecord]:
        found = [record for record in self.records if record.offset > after]
        self.given += len(found)
        return found


def mix(zone: str, grams: float) -> Intensity:
    return Intensity(zone=zone, grams_per_kwh=grams, source="s")


def sums(factor: float) -> FitSums:
    """40 windows, half of them much computing and half much reading, of boards that cost this part of the priors."""
    works = [Work(1e15, 1e11), Work(1e13, 5e12)] * 20
    prices = PRIOR.joules_per_flop * factor, PRIOR.joules_per_byte * factor
    return total(sums_of(work, work.flops * prices[0] + work.bytes * prices[1]) for work in works)


def lesson(period: int, partition: str = "0/2", factor: float = 0.8, taught_after: float = 1_500.0) -> Lesson:
    """Of the period that begins so many periods after T."""
    start = T + PERIOD_SECONDS * period
    return Lesson(gpu="L4", partition=partition, start=start, taught_at=start + taught_after, sums=sums(factor))


def unit_lesson(of: Lesson) -> UnitLesson:
    """Of the same boards and period: 40 windows, each of 4 images that took 8 s and 1 200 J."""
    added = UnitSums()
    for _ in range(40):
        added = added.plus(unit_sums_of(4.0, 8.0, 1_200.0))
    return UnitLesson(
        gpu=of.gpu,
        model="painter",
        unit="image",
        partition=of.partition,
        start=of.start,
        taught_at=of.taught_at,
        sums=added,
    )


def append_of(fact: Fact) -> Append:
    if isinstance(fact, Lesson | UnitLesson):
        return lesson_record(fact)
    if isinstance(fact, Deployment):
        return deployment_record(fact)
    if isinstance(fact, HostServers):
        return servers_record(fact)
    return intensity_record(fact) if isinstance(fact, Intensity) else accounting_record(fact)


def record_of(append: Append, offset: int, stamp: float) -> LogRecord:
    return LogRecord(stream="facts", offset=offset, stamp=stamp, key=append.key, schema=append.schema, body=append.body)


def log_of(facts: Sequence[tuple[float, Fact]]) -> list[LogRecord]:
    """Records as a log gives them: the stamp is the running maximum."""
    log_times = accumulate((stamp for stamp, _ in facts), max)
    return [
        record_of(append_of(fact), place + 1, log_time)
        for place, ((_, fact), log_time) in enumerate(zip(facts, log_times, strict=True))
    ]


def reader_at(records: Sequence[LogRecord], snapshot: Snapshot) -> tuple[FactsReader, Listed]:
    log = Listed(records)
    return FactsReader(log, lambda: snapshot), log


ZONES, MODELS, HOSTS, GPUS = ("DE", "FR"), ("llama", "qwen"), ("a", "b"), ("L4", "H100")


def answers(facts: Facts, at: float) -> list[object]:
    """To every question about a moment that a computation asks."""
    return [
        facts.accounting(),
        [facts.intensity(zone, at) for zone in ZONES],
        [list(facts.places(model, name, at)) for model in MODELS for name in ("", "chat", "batch")],
        [facts.scalars(gpu, at) for gpu in GPUS],
    ]


def inner_answers(facts: Facts, at: float) -> list[object]:
    """What commands and role control ask of its parts."""
    return [
        facts.serving.deployments(at),
        [facts.serving.servers(host, at) for host in HOSTS],
        [facts.learned.fit(gpu, at) for gpu in GPUS],
        [facts.learned.unit_fits(gpu, at) for gpu in GPUS],
    ]


few_hosts = st.lists(st.sampled_from(HOSTS), unique=True, max_size=2).map(tuple)
lessons = st.builds(
    lesson,
    st.sampled_from((-145, -144, -143, -111, -110, -3, 0, 1, 2, 33)),
    st.sampled_from(("0/1", "0/2", "1/2")),
    st.sampled_from((0.7, 0.8, 0.9)),
    st.sampled_from((1_500.0, 40_000.0)),
).flatmap(lambda each: st.sampled_from(GPUS).map(lambda gpu: replace(each, gpu=gpu)))
any_fact: st.SearchStrategy[Fact] = st.one_of(
    st.builds(mix, st.sampled_from(ZONES), st.sampled_from((100.0, 200.0, 300.0))),
    st.builds(lambda window: Accounting(window_seconds=window), st.sampled_from((10.0, 20.0))),
    st.builds(
        lambda name, model, hosts: Deployment(name=name, model=model, hosts=hosts),
        st.sampled_from(("chat", "batch")),
        st.sampled_from(MODELS),
        few_hosts,
    ),
    st.builds(
        lambda host, model: HostServers(host=host, servers=(FoundServer(name="vllm", models=(model,)),)),
        st.sampled_from(HOSTS),
        st.sampled_from(MODELS),
    ),
    lessons,
    lessons.map(unit_lesson),
)
steps = st.sampled_from((-30.0, 0.0, 20.0, 59.0, 60.0, 600.0, 20_000.0))
logs = st.lists(st.tuples(steps, any_fact), min_size=1, max_size=60).map(
    lambda pairs: [
        (T + stamp, fact) for stamp, (_, fact) in zip(accumulate(step for step, _ in pairs), pairs, strict=True)
    ]
)


def moments_of(records: Sequence[LogRecord]) -> list[float]:
    """Those at which anything may change, and the ones just before."""
    stamps = {record.stamp for record in records}
    turns = {*stamps, *(stamp + 60.0 for stamp in stamps)}
    periods = {T + PERIOD_SECONDS * period for period in range(-60, 300, 20)}
    return sorted({*turns, *(turn - 0.5 for turn in turns), *periods, T + 10 * DAY})


@given(logs, st.data())
def test_who_begins_at_a_snapshot_answers_like_one_who_read_everything(
    facts: list[tuple[float, Fact]], data: st.DataObject
) -> None:
    """About its moment and every later one, without reading what stood before; also at a snapshot of a snapshot.

    About earlier ones too: all facts are read for the first of these.
    """
    records = log_of(facts)
    first = data.draw(st.integers(1, len(records)))
    second = data.draw(st.integers(first, len(records)))
    everything = FactsReader(Listed(records))()
    one = snapshot_of(records[:first])
    assert one is not None
    two = snapshot_of([*one.records, *records[first:second]]) if second > first else one
    assert two is not None
    event("leaves some out" if len(two.records) < second else "leaves none out")
    for snapshot, count in ((one, first), (two, second)):
        reader, log = reader_at(records, snapshot)
        begun = reader()
        for at in moments_of(records):
            if at >= snapshot.taken_at:
                assert answers(begun, at) == answers(everything, at)
                assert inner_answers(begun, at) == inner_answers(everything, at)
        assert log.given == len(records) - count
        for at in moments_of(records):
            assert answers(begun, at) == answers(everything, at)
        assert reader().accounting() == everything.accounting()


@given(logs)
def test_a_snapshot_comes_back_from_its_parts(facts: list[tuple[float, Fact]]) -> None:
    """To the last bit, whatever stands between them, and a part that was sent again."""
    snapshot = snapshot_of(log_of(facts))
    assert snapshot is not None
    parts = snapshot_records(snapshot)
    assembly = Assembly()
    found = [assembly.add(snapshot.through + 1, part.body) for part in [*parts[:1], *parts]]
    assert [each for each in found if each] == ([snapshot] * 2 if len(parts) == 1 else [snapshot])


def test_every_kind_of_fact_has_a_rule() -> None:
    """A kind without one would stay in every snapshot for ever."""
    of_each = (mix("DE", 1.0), Accounting(), CHAT, HostServers(host="a", servers=()), lesson(0), unit_lesson(lesson(0)))
    assert {type(fact) for fact in of_each} == set(get_args(Fact))
    twice = [(T, fact) for fact in of_each for _ in range(2)]
    assert still_needed(twice, T + 40 * DAY) == [1, 2, 4, 5, 7]  # the newest, but the first terms, and no old lesson


CHAT = Deployment(name="chat", model="llama", hosts=("a",))


def test_the_mixes_of_a_zone_by_hand() -> None:
    """Of log times 0, 100 and 200 at 170: 100's is in force from 160 on, 200's will be."""
    facts = [(0.0, mix("DE", 1.0)), (100.0, mix("DE", 2.0)), (200.0, mix("DE", 3.0))]
    assert still_needed(facts, 170.0) == [1, 2]
    assert still_needed(facts, 159.0) == [0, 1, 2]
    assert still_needed(facts, 260.0) == [2]


def test_lessons_of_the_last_day_stay() -> None:
    """At noon those that begin at yesterday's noon or later: 145 of two days."""
    taught = [(T + 600.0 * period + 1_500.0, lesson(period)) for period in range(288)]
    assert still_needed(taught, T + 1.5 * DAY) == list(range(72, 288))
    assert len(still_needed(taught[:217], T + 1.5 * DAY)) == 145


def test_deployments_keep_the_order_in_which_they_were_first_stated() -> None:
    """The first one of a model places what names none, also when it was stated anew behind the second."""
    batch, moved = Deployment(name="batch", model="llama", hosts=("b",)), replace(CHAT, hosts=("c",))
    records = log_of([(T, CHAT), (T + 100, batch), (T + 200, moved), (T + 400, mix("DE", 1.0))])
    snapshot = snapshot_of(records)
    assert snapshot is not None
    reader, _ = reader_at(records, snapshot)
    assert [place.host for place in reader().places("llama", "", T + 400)] == ["c"]


def test_what_another_version_knows_stays_and_what_is_broken_does_not() -> None:
    """A newer process may have stated it; a leader of this version must not hide it from the others."""
    newer = Append(stream="facts", key="k", schema="silence.v1", body=b"?")
    broken = replace(intensity_record(mix("DE", 1.0)), body=b"?")
    old_part = replace(newer, schema=SNAPSHOT_SCHEMA)
    good = intensity_record(mix("FR", 2.0))
    records = [record_of(each, place + 1, T) for place, each in enumerate([newer, broken, good, old_part])]
    snapshot = snapshot_of(records)
    assert snapshot is not None
    assert [each.schema for each in snapshot.records] == ["silence.v1", "intensity.v1"]
    assert (snapshot.taken_at, snapshot.through) == (T, 4)
    assert snapshot_of(records[3:]) is None


def big_snapshot() -> Snapshot:
    """10 000 hosts' servers: more than a record may hold."""
    models = tuple(f"house/a-model-with-a-name-{number}" for number in range(3))
    facts: list[tuple[float, Fact]] = [
        (T + host, HostServers(host=f"gpu-{host:05}", servers=(FoundServer(name="vllm-8000", models=models),)))
        for host in range(10_000)
    ]
    snapshot = snapshot_of(log_of(facts))
    assert snapshot is not None
    return snapshot


def test_a_large_one_is_in_parts_and_torn_it_is_none() -> None:
    """Every part is well below 1 MiB; with any of them missing nothing is whole, and the next one is found."""
    snapshot = big_snapshot()
    parts = snapshot_records(snapshot)
    assert len(parts) >= 6
    assert max(len(part.body) for part in parts) < PART_BYTES + 1_024
    for missing in (0, 3, len(parts) - 1):
        assembly = Assembly()
        torn = [part for number, part in enumerate(parts) if number != missing]
        assert [assembly.add(20_000, part.body) for part in torn] == [None] * len(torn)
        assert [assembly.add(20_100, part.body) for part in torn[:1]] == [None]
        (small,) = snapshot_records(Snapshot(taken_at=T, through=5, records=()))
        assert assembly.add(20_200, small.body) == Snapshot(taken_at=T, through=5, records=())
        assert assembly.add(20_300, parts[missing].body) == snapshot


def _with(part: Append, other: dict[str, object]) -> bytes:
    """A part's body with other fields."""
    return msgspec.msgpack.encode(msgspec.msgpack.decode(part.body) | other)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"taken_at": T + 1.0}, "bad_value"),
        ({"taken_at": float("nan")}, "bad_value"),
        ({"facts": []}, "bad_value"),
        ({"part": 1}, "bad_value"),
        ({"through": 50}, "bad_value"),
        ({"through": 0}, "bad_value"),
        ({"through": "x"}, "undecodable"),
    ],
)
def test_one_that_says_what_cannot_be_is_refused(changed: dict[str, object], reason: str) -> None:
    """Of parts that are not those of its id, in no order, or from behind itself: with its reason."""
    snapshot = snapshot_of(log_of([(T, mix("DE", 1.0))]))
    assert snapshot is not None
    (part,) = snapshot_records(snapshot)
    assert Assembly().add(50, part.body) == snapshot
    with pytest.raises(Rejected) as told:
        Assembly().add(50, _with(part, changed))
    assert told.value.reason == reason


def test_parts_are_no_facts_and_no_error() -> None:
    """Whoever reads everything passes them by."""
    facts = log_of([(T, mix("DE", 1.0))])
    snapshot = snapshot_of(facts)
    assert snapshot is not None
    (part,) = snapshot_records(snapshot)
    parts = [record_of(part, 2, T + 5)]
    assert [is_snapshot(record) for record in [*facts, *parts]] == [False, True]
    assert FactsReader(Listed([*facts, *parts]))().intensity("DE", T) == mix("DE", 1.0)
