"""What a ledger may expect of any partition's log: one suite, over the embedded log and over a real Kafka.

In Kafka a record is given when the other stream has come as far, so each test ends its log with a tick in both streams.
"""

import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kafka import KafkaConsumer, TopicPartition
from kafka.structs import OffsetAndMetadata
from servers.kafka import KafkaServer

from collectors.clock import SystemClock
from monitor.config.output_sections import Kafka, KafkaTopics
from monitor.log.codec import TICK_SCHEMA, tick_record
from monitor.log.kafka_client import admin
from monitor.log.kafka_feed import KafkaFeed, OffsetsGone
from monitor.log.kafka_partition import KafkaPartition
from monitor.log.kafka_writer import KafkaWriter
from monitor.log.protocol import Append, Commit, LogRecord, PartitionLog, Stream
from monitor.log.sqlite import SqliteLog

T = 1_700_000_000.0
"""Stamps are whole milliseconds, which is all that Kafka keeps."""


class Made(ABC):
    """A log that a test may write, close and open again."""

    log: PartitionLog

    @abstractmethod
    def append(self, *records: Append) -> None:
        """All of them, at their stamps."""

    @abstractmethod
    def reopen(self) -> PartitionLog:
        """The same log in another process's hands."""

    def settled(self) -> list[LogRecord]:
        """Everything before now, in step: both streams are moved on, and what moved them is left out."""
        self.append(*(tick_record("", T + 1e6, stream=stream) for stream in ("readings", "usage")))
        return self.rest({})

    def rest(self, positions: dict[str, int], limit: int = 7) -> list[LogRecord]:
        """What stands at and behind these positions, page by page."""
        positions, found = dict(positions), []
        while records := self.log.read(positions, limit):
            assert len(records) <= limit
            found += records
            positions |= {record.stream: record.offset + 1 for record in records}
        return [record for record in found if record.schema != TICK_SCHEMA]


class InSqlite(Made):
    """The embedded log."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "log.db"
        self._writing = self.log = SqliteLog(self._path)

    def append(self, *records: Append) -> None:
        self._writing.append(records, T)

    def reopen(self) -> PartitionLog:
        self._writing.close()
        self._writing = self.log = SqliteLog(self._path)
        return self.log

    def close(self) -> None:
        self._writing.close()


class InKafka(Made):
    """Partition 1 of 3, in topics of its own on a real broker."""

    def __init__(self, server: KafkaServer) -> None:
        tag = uuid.uuid4().hex[:8]
        topics = KafkaTopics(readings=f"{tag}.r", usage=f"{tag}.u", dead_letters=f"{tag}.d")
        self._kafka = Kafka(bootstrap_servers=(server.bootstrap,), clock="records", topics=topics)
        self._topics: dict[Stream, str] = {"readings": topics.readings, "usage": topics.usage}
        self._create = partial(server.create_topic, partitions=3, message_timestamp_type="CreateTime", retention_ms=-1)
        for topic in self._topics.values():
            self._create(topic)
        self._writer, self._commits = KafkaWriter(self._kafka), _Commits(server.bootstrap, tag)
        self.log = self._opened()

    def append(self, *records: Append) -> None:
        self._writer.append(records, T, partition=1)

    def reopen(self) -> PartitionLog:
        self._feed.close()
        self.log = self._opened()
        return self.log

    def close(self) -> None:
        for each in (self._feed, self._spare, self._writer, self._commits):
            each.close()

    def delete(self, stream: Stream, before: int) -> None:
        """As retention does it."""
        with admin(self._kafka) as client:
            client.delete_records({TopicPartition(self._topics[stream], 1): before})

    def make_anew(self, stream: Stream) -> None:
        """The topic is deleted and made again."""
        with admin(self._kafka) as client:
            client.delete_topics([self._topics[stream]])
        self._create(self._topics[stream])
        self._writer.close()
        self._writer = KafkaWriter(self._kafka)  # the old one's client knows the old topic

    def _opened(self) -> KafkaPartition:
        self._feed, self._spare = KafkaFeed(self._kafka), KafkaFeed(self._kafka)
        return KafkaPartition(
            self._kafka,
            1,
            3,
            feed=self._feed,
            spare=lambda: self._spare,
            commits=self._commits,
            reject=self._writer.reject,
            clock=SystemClock(),
            patience_seconds=20.0,
        )


class _Commits:
    """The commits of a group without members."""

    def __init__(self, bootstrap: str, group: str) -> None:
        self._consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False)

    def commit(self, offsets: "dict[TopicPartition, tuple[int, str]]") -> None:
        self._consumer.commit({part: OffsetAndMetadata(*each, -1) for part, each in offsets.items()})

    def committed(self, parts: Sequence[TopicPartition]) -> "dict[TopicPartition, tuple[int, str] | None]":
        found = {part: self._consumer.committed(part, metadata=True) for part in parts}
        return {part: None if each is None else (each.offset, each.metadata) for part, each in found.items()}

    def close(self) -> None:
        self._consumer.close()


@pytest.fixture(params=["sqlite", "kafka"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Made]:
    """A log of each kind."""
    if request.param == "sqlite":
        found: InSqlite | InKafka = InSqlite(tmp_path)
    else:
        server = request.getfixturevalue("kafka")
        found = InKafka(server)
    yield found
    found.close()


def said(stream: Stream, text: str, at: float, key: str = "h1", schema: str = "test.v1") -> Append:
    """A record at T + `at`."""
    return Append(stream=stream, key=key, schema=schema, body=text.encode(), stamp=T + at)


def bodies(records: list[LogRecord]) -> list[str]:
    """What they say."""
    return [record.body.decode() for record in records]


def test_a_record_comes_back_as_it_was_appended(made: Made) -> None:
    """Key and schema in any script, every byte of the body, the stamp to the millisecond."""
    body = bytes(range(256))
    made.append(Append(stream="usage", key="hôst|\n機", schema="prüfung.v1", body=body, stamp=T + 0.123))
    (found,) = made.settled()
    assert (found.stream, found.key, found.schema, found.body) == ("usage", "hôst|\n機", "prüfung.v1", body)
    assert found.stamp == T + 0.123


def test_an_empty_log_has_nothing(made: Made) -> None:
    """No time, no start, no commit, no hole, and its reader has caught up at once."""
    assert made.log.read({}, 5) == []
    assert made.log.caught_up()
    assert (made.log.log_time(), made.log.start(), made.log.committed(), made.log.hole()) == (None, None, None, None)


def test_streams_are_read_in_step(made: Made) -> None:
    """By log time, whatever was written first; within a stream in its own order."""
    made.append(*(said("readings", f"r{at}", at) for at in (0, 10, 20, 20, 30)))
    made.append(*(said("usage", f"u{at}", at) for at in (5, 15, 25)))
    if isinstance(made, InSqlite):  # one sequence for both: what is written later stands later
        assert [body[0] for body in bodies(made.settled())] == ["r"] * 5 + ["u"] * 3
    else:
        assert bodies(made.settled()) == ["r0", "u5", "r10", "u15", "r20", "r20", "u25", "r30"]


def test_stamps_never_step_back(made: Made) -> None:
    """A record that is stamped earlier than one before it stands at the log time of that one."""
    made.append(*(said("usage", str(at), at) for at in (10, 5, 20, 19)))
    assert [record.stamp - T for record in made.settled()] == [10, 10, 20, 20]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stamps=st.lists(st.tuples(st.sampled_from(["readings", "usage"]), st.integers(0, 50)), max_size=20))
def test_any_order_of_stamps_reads_in_step(kafka: KafkaServer, stamps: list[tuple[Stream, int]]) -> None:
    """In Kafka each stream's stamps are its own running maximum, and both together never step back."""
    made = InKafka(kafka)
    try:
        made.append(*(said(stream, str(number), at) for number, (stream, at) in enumerate(stamps)))
        found = made.settled()
        assert [record.stamp for record in found] == sorted(record.stamp for record in found)
        for wanted in ("readings", "usage"):
            mine = [at for stream, at in stamps if stream == wanted]
            highest = [max(mine[: number + 1]) for number in range(len(mine))]
            assert [record.stamp - T for record in found if record.stream == wanted] == highest
    finally:
        made.close()


def test_each_stream_is_read_from_its_own_position(made: Made) -> None:
    """A reader that stands further on in one stream gets none of that stream's earlier records."""
    for at in range(3):
        made.append(said("readings", f"r{at}", at), said("usage", f"u{at}", at))
    offsets = {record.body: record.offset for record in made.settled()}
    positions = {"readings": offsets[b"r2"], "usage": offsets[b"u1"]}
    assert bodies(made.rest(positions)) == ["u1", "r2", "u2"]
    assert bodies(made.rest(positions, limit=1)) == ["u1", "r2", "u2"]


def test_the_position_at_a_log_time(made: Made) -> None:
    """The stream's first record at that log time or later; past its end what comes next is found."""
    made.append(*(said("readings", f"r{at}", at) for at in (10, 20, 20, 30)), said("usage", "u30", 30))
    readings = [record for record in made.settled() if record.stream == "readings"]
    assert made.log.position_at("readings", T) == readings[0].offset
    assert made.log.position_at("readings", T + 10.5) == made.log.position_at("readings", T + 20) == readings[1].offset
    assert made.log.position_at("readings", float("-inf")) <= readings[0].offset
    end = {stream: made.log.position_at(stream, T + 2e6) for stream in ("readings", "usage")}
    assert made.rest(end) == []


def test_the_newest_commit_counts(made: Made) -> None:
    """To the last bit, infinities included, also in another process's hands."""
    made.append(*(said(stream, "x", at) for at in range(5) for stream in ("readings", "usage")))
    made.settled()
    first = Commit(
        positions={"readings": 1, "usage": 0}, watermark=float("-inf"), mark=0.0, log_time=float("-inf"), partitions=3
    )
    made.log.commit(first)
    newest = Commit(
        positions={"readings": 3, "usage": 2},
        watermark=0.1 + 0.2,
        mark=900.0,
        log_time=T - 0.1,
        partitions=3,
        beginning=T - 1e5 / 3,
    )
    made.log.commit(newest)
    assert made.reopen().committed() == newest
    assert made.log.hole() is None


def test_another_look_disturbs_nobody(made: Made) -> None:
    """A reader that reads again from the start, halfway through, leaves the first one where it is."""
    made.append(*(said("readings", f"r{at}", at) for at in range(6)))
    made.append(*(said("usage", f"u{at}", 10 + at) for at in range(2)))
    made.append(*(tick_record("", T + 1e6, stream=stream) for stream in ("readings", "usage")))
    records = made.log.read({}, 3)
    positions = {record.stream: record.offset + 1 for record in records}
    again = made.log.again()
    try:
        looked = again.read({stream: again.position_at(stream, T) for stream in ("readings", "usage")}, 100)
    finally:
        again.close()
    assert bodies([record for record in looked if record.schema != TICK_SCHEMA])[:6] == [f"r{at}" for at in range(6)]
    assert bodies(records) + bodies(made.rest(positions)) == [*(f"r{at}" for at in range(6)), "u0", "u1"]


def test_where_a_log_starts(made: Made) -> None:
    """The oldest stamp, and that nothing before it is gone."""
    made.append(said("usage", "u", 7), said("readings", "r", 9))
    assert made.log.start() == (T + 7, False)


@pytest.fixture
def in_kafka(kafka: KafkaServer) -> Iterator[InKafka]:
    """For what an embedded log cannot suffer."""
    made = InKafka(kafka)
    yield made
    made.close()


def claimed(usage: int) -> Commit:
    """A commit of nothing but places."""
    return Commit(positions={"readings": 0, "usage": usage}, watermark=T, mark=T, log_time=T - 1.0)


def test_a_named_hole_is_passed_over_and_no_other(in_kafka: InKafka) -> None:
    """What is deleted before the ledger asks is a hole with a name; deleted after that it is no silent jump."""
    in_kafka.append(*(said("usage", str(number), number) for number in range(9)))
    in_kafka.settled()
    in_kafka.log.commit(claimed(2))
    in_kafka.delete("usage", 4)
    log = in_kafka.reopen()
    log.start()
    assert (hole := log.hole()) is not None
    assert hole.end == T + 4
    in_kafka.delete("usage", 6)
    with pytest.raises(OffsetsGone, match="offset 4 was to be read next, and offsets 6 to 10 are there"):
        log.read(claimed(2).positions, 100)
    assert (hole := log.hole()) is not None
    assert hole.end == T + 6
    assert bodies(in_kafka.rest({"readings": 0, "usage": 2})) == ["6", "7", "8"]


def test_a_log_that_is_cut_off_is_read_from_where_it_starts(in_kafka: InKafka) -> None:
    """Without a commit: from the start that the ledger was told of, and none further on."""
    in_kafka.append(*(said("usage", str(number), number) for number in range(9)))
    in_kafka.settled()
    in_kafka.delete("usage", 4)
    log = in_kafka.reopen()
    assert log.start() == (T + 4, True)
    in_kafka.delete("usage", 6)
    with pytest.raises(OffsetsGone):
        log.read({}, 100)
    assert log.start() == (T + 6, True)
    assert bodies(in_kafka.rest({})) == ["6", "7", "8"]


def test_a_topic_that_was_made_anew_is_read_from_its_start(in_kafka: InKafka) -> None:
    """Also where it holds more records than the old one did when it was committed."""
    in_kafka.append(*(said("usage", str(number), number) for number in range(3)))
    in_kafka.settled()
    in_kafka.log.commit(claimed(2))
    in_kafka.make_anew("usage")
    in_kafka.append(*(said("usage", f"new {number}", 100 + number) for number in range(5)))
    log = in_kafka.reopen()
    log.start()
    assert (hole := log.hole()) is not None
    assert hole.end == T + 100
    in_kafka.append(tick_record("", T + 1e6, stream="usage"))
    assert bodies(in_kafka.rest({"readings": 0, "usage": 2})) == [f"new {number}" for number in range(5)]
