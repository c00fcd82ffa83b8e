"""What every log promises: one suite, run over each implementation."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from collectors.units import UnixSeconds
from monitor.core.attribution.learning import FitSums
from monitor.core.attribution.units import UnitSums
from monitor.core.lessons import TaughtUnit
from monitor.log.protocol import Append, Commit, DeadLetter, Log, LogRecord, Stream
from monitor.log.sqlite import SqliteLog

Factory = Callable[[Path], Log]


def _sqlite(folder: Path) -> Log:
    return SqliteLog(folder / "log.db")


@pytest.fixture(params=[_sqlite], ids=["sqlite"], scope="module")
def factory(request: pytest.FixtureRequest) -> Factory:
    made: Factory = request.param
    return made


@pytest.fixture
def log(factory: Factory, tmp_path: Path) -> Iterator[Log]:
    made = factory(tmp_path)
    yield made
    made.close()


def _append(
    stream: Stream, body: str = "x", key: str = "h1", stamp: UnixSeconds | None = None, schema: str = "test.v1"
) -> Append:
    return Append(stream=stream, key=key, schema=schema, body=body.encode(), stamp=stamp)


def _bodies(records: list[LogRecord]) -> list[str]:
    return [record.body.decode() for record in records]


def _commit(positions: dict[str, int], watermark: float = 0.0) -> Commit:
    return Commit(positions=positions, watermark=watermark, mark=0.0, log_time=0.0)


def _letter(position: str, reason: str = "undecodable", detail: str = "no json") -> DeadLetter:
    return DeadLetter(source="file", position=position, reason=reason, detail=detail, sha256="ab", at=1.0)


def test_a_record_comes_back_as_it_was_appended(log: Log) -> None:
    """Key and schema in any script, every byte of the body, the stamp to the last bit."""
    record = Append(stream="usage", key="hôst|\n機", schema="test.v1", body=bytes(range(256)))
    log.append([record], now=0.1 + 0.2)
    (found,) = log.read({}, 10)
    assert (found.stream, found.key, found.schema, found.body) == ("usage", "hôst|\n機", "test.v1", record.body)
    assert found.stamp == 0.30000000000000004


def test_readings_and_usage_are_read_in_step_and_facts_apart(log: Log) -> None:
    """Records of both streams come in the order they were appended, facts only from `facts`."""
    log.append([_append("readings", "a"), _append("facts", "f"), _append("usage", "b")], 1.0)
    log.append([_append("readings", "c"), _append("facts", "g")], 2.0)
    assert _bodies(log.read({}, 10)) == ["a", "b", "c"]
    facts = log.facts()
    assert _bodies(facts) == ["f", "g"]
    assert _bodies(log.facts(after=facts[0].offset)) == ["g"]
    assert log.facts(after=facts[1].offset) == []


def test_each_stream_is_read_from_its_own_position(log: Log) -> None:
    """A stream that is further on gives nothing before its position, and `limit` pages without loss."""
    log.append(
        [_append(stream, f"{stream[0]}{number}") for number in range(3) for stream in ("readings", "usage")], 1.0
    )
    offsets = {record.body: record.offset for record in log.read({}, 10)}
    positions = {"readings": offsets[b"r2"], "usage": offsets[b"u1"]}
    assert _bodies(log.read(positions, 10)) == ["u1", "r2", "u2"]
    assert _bodies(log.read(positions, 2)) == ["u1", "r2"]
    assert log.read({stream: offset + 100 for stream, offset in positions.items()}, 10) == []


def test_nothing_is_appended_when_there_is_nothing(log: Log) -> None:
    """An empty log has no time, no start, no end but its first offset."""
    log.append([], 5.0)
    assert (log.log_time(), log.start(), log.committed(), log.read({}, 1), log.facts()) == (None, None, None, [], [])
    assert log.position_at("readings", 0.0) == log.position_at("usage", 9.0)


@given(stamps=st.lists(st.tuples(st.floats(-1e9, 1e9), st.none() | st.floats(-1e9, 1e9)), min_size=1, max_size=12))
@example(stamps=[(-0.0, None)])
def test_stamps_are_the_running_maximum(
    factory: Factory, tmp_path_factory: pytest.TempPathFactory, stamps: list[tuple[float, float | None]]
) -> None:
    """A record stands at the greatest of all stamps up to it, its own before `now`, also over a restart."""
    folder = tmp_path_factory.mktemp("log")
    expected: list[float] = []
    for now, own in stamps[: len(stamps) // 2]:
        expected.append(max([*expected[-1:], now if own is None else own]))
    first = factory(folder)
    for now, own in stamps[: len(stamps) // 2]:
        first.append([_append("readings", stamp=own)], now)
    first.close()
    second = factory(folder)
    for now, own in stamps[len(stamps) // 2 :]:
        expected.append(max([*expected[-1:], now if own is None else own]))
        second.append([_append("usage", stamp=own)], now)
    assert [record.stamp for record in second.read({}, 100)] == expected
    assert second.log_time() == expected[-1]
    second.close()


def test_a_stamp_that_is_no_moment_is_refused(log: Log) -> None:
    """Infinity would be the log's time for ever; the whole batch is refused and log time stays."""
    log.append([_append("usage")], 7.0)
    for bad in (float("inf"), float("nan")):
        with pytest.raises(ValueError, match="stamp"):
            log.append([_append("usage", stamp=8.0), _append("usage", stamp=bad)], 9.0)
    assert log.log_time() == 7.0
    assert len(log.read({}, 10)) == 1


def test_the_newest_record_of_a_key(log: Log) -> None:
    """By stream and key, and by schema where that is asked for."""
    log.append([_append("usage", "a", schema="usage.v1"), _append("usage", "t", schema="tick.v1")], 1.0)
    log.append([_append("usage", "b", key="h2"), _append("readings", "c")], 2.0)
    assert [found.body for found in [log.last("usage", "h1")] if found] == [b"t"]
    assert [found.body for found in [log.last("usage", "h1", "usage.v1")] if found] == [b"a"]
    assert log.last("readings", "h2") is None
    assert log.last("usage", "h1", "other.v1") is None


def test_the_position_at_a_log_time(log: Log) -> None:
    """The stream's first record at that log time or later; past the end a new record stands at or behind it."""
    for stamp in (10.0, 20.0, 20.0, 30.0):
        log.append([_append("readings", f"r{stamp:.0f}"), _append("facts"), _append("usage", f"u{stamp:.0f}")], stamp)
    records = log.read({}, 100)
    readings = [record for record in records if record.stream == "readings"]
    assert log.position_at("readings", 0.0) == readings[0].offset
    assert log.position_at("readings", 10.5) == log.position_at("readings", 20.0) == readings[1].offset
    usage = next(record for record in records if record.body == b"u30")
    assert log.position_at("usage", 25.0) == usage.offset
    end = {stream: log.position_at(stream, 31.0) for stream in ("readings", "usage")}
    assert log.read(end, 10) == []
    log.append([_append("readings", "new"), _append("usage", "new too")], 31.0)
    assert _bodies(log.read(end, 10)) == ["new", "new too"]


def test_the_newest_commit_counts(factory: Factory, tmp_path: Path) -> None:
    """It is there after a restart, to the last bit."""
    log = factory(tmp_path)
    log.commit(_commit({"readings": 3, "usage": 5}, watermark=0.1))
    newest = Commit(
        positions={"readings": 7, "usage": 9},
        watermark=0.1 + 0.2,
        mark=900.0,
        log_time=950.5,
        lessons={"H100": FitSums(windows=3, flops_joules=0.1)},
        unit_lessons=(TaughtUnit("H100", "painter", "image", UnitSums(windows=2, units_joules=0.3)),),
    )
    log.commit(newest)
    log.close()
    again = factory(tmp_path)
    assert again.committed() == newest
    again.close()


def test_a_dead_letter_is_counted_once(log: Log) -> None:
    """Its identity is source and position: the first one stays as it is."""
    log.reject([_letter("1"), _letter("2", reason="future")])
    log.reject([_letter("1", reason="other"), _letter("3")])
    assert log.rejected() == {"future": 1, "undecodable": 2}
    numbered = log.rejections()
    assert [letter for _, letter in numbered] == [_letter("1"), _letter("2", reason="future"), _letter("3")]
    assert log.rejections(limit=1, after=numbered[0][0]) == [numbered[1]]
    log.reject([])


def test_trim_keeps_what_is_committed_and_facts(log: Log) -> None:
    """Only records that are older and stand before the committed positions go; without a commit none."""
    for stamp in (10.0, 20.0, 30.0, 40.0):
        log.append([_append("readings", f"r{stamp:.0f}"), _append("facts"), _append("usage", f"u{stamp:.0f}")], stamp)
    assert log.start() == (10.0, False)
    assert log.trim(100.0) == 0
    positions = {stream: log.position_at(stream, moment) for stream, moment in (("readings", 40.0), ("usage", 30.0))}
    log.commit(_commit(positions))
    assert log.trim(20.0) == 2
    assert log.start() == (20.0, True)
    assert log.trim(100.0) == 3
    assert _bodies(log.read({}, 10)) == ["u30", "r40", "u40"]
    assert len(log.facts()) == 4


def test_offsets_and_stamps_go_on_after_everything_was_trimmed(factory: Factory, tmp_path: Path) -> None:
    """No offset is used twice, and log time does not step back, also over a restart."""
    log = factory(tmp_path)
    log.append([_append("readings"), _append("usage")], 50.0)
    used = [record.offset for record in log.read({}, 10)]
    end = {stream: log.position_at(stream, 51.0) for stream in ("readings", "usage")}
    log.commit(_commit(end))
    assert log.trim(1_000.0) == 2
    assert (log.read({}, 10), log.start(), log.log_time()) == ([], None, 50.0)
    log.close()
    again = factory(tmp_path)
    assert again.log_time() == 50.0
    again.append([_append("readings")], 40.0)
    (found,) = again.read(end, 10)
    assert found.offset > max(used)
    assert (found.stamp, again.start()) == (50.0, (50.0, True))
    again.close()
