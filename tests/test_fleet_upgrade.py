"""Members of the next version beside those of this one, and back again: the books are the undisturbed ones."""

import struct
from pathlib import Path

import msgspec
import pytest
from crash import CrashRun
from fleet_faults import SMALL, SOAK_ONLY, FaultHouse, assert_undisturbed

from monitor.core.facts import Facts
from monitor.core.usage import Placed
from monitor.log.codec import usage_record
from monitor.log.kafka_writer import KafkaWriter
from monitor.log.protocol import Append
from monitor.log.usage_wire import UsageBatch, batch_of
from monitor.roles.ingest_kafka import GROUP_SUFFIX, source_topics
from monitor.roles.placement import Placer
from monitor.roles.topic_events import Refusals
from monitor.roles.topic_reader import TopicReader

pytestmark = pytest.mark.filterwarnings(
    # kafka-python drops the socket of a connection that it gives up halfway
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
MESSAGES = 60
"""Of 20 events each, of some 245: what the ingest of the next version takes."""


@SOAK_ONLY
def test_an_ingest_of_the_next_version_comes_and_goes(faults: FaultHouse, tmp_path: Path) -> None:
    """F15: a part of the usage stands in the log as usage.v3, with fields that nobody here knows; some of it twice."""
    written: list[int] = []

    def upgrade(run: CrashRun) -> None:
        run.fleet.processes["ingest-0"].terminate()
        assert run.fleet.processes["ingest-0"].wait(60) == 0

    def back(run: CrashRun) -> None:
        written.append(_ingest_of_the_next_version(run))
        run.start_process("ingest-0")

    outcome = faults.crash_run(SMALL, tmp_path, (4.0, upgrade), (SMALL.span_seconds + 1.0, back)).run()
    assert_undisturbed(outcome)
    assert written[0] > MESSAGES


def _ingest_of_the_next_version(run: CrashRun) -> int:
    """Takes messages where the group stands, as one of its members; returns how many events it wrote."""
    config = run.fleet.config
    topic = source_topics(config)[run.fleet.gateway_topic]
    reader = TopicReader(config.kafka, [run.fleet.gateway_topic], config.kafka.group + GROUP_SUFFIX)
    writer, placer = KafkaWriter(config.kafka), Placer(Facts([]))
    taken = events = 0
    try:
        while taken < MESSAGES:
            for messages in reader.poll().values():
                taken += len(messages)
                for message in messages:
                    at, refused = message.timestamp / 1_000, Refusals()
                    usages: list[Placed] = []
                    events += topic.read([message], placer, at, usages, refused)
                    assert not refused.letters
                    writer.send([_next_version(usage, at) for usage in usages], at)
                    writer.send([_next_version(usage, at) for usage in usages[:3]], at)
            writer.flush(0.0)
            reader.settle()
    finally:
        reader.close()
        writer.close()
    return events


def _next_version(part: Placed, stamp: float) -> Append:
    """With a field and a figure more in the batch, and a fact more in the route."""
    now = usage_record(part.host or "", [part], stamp)
    wire = msgspec.msgpack.decode(now.body)
    wire["shard"] = {"of": [1, 2]}
    wire["reasoning_tokens"] = struct.pack("<d", 17.0)
    wire["routes"][0].append("a fact of its route")
    told = msgspec.msgpack.decode(msgspec.msgpack.encode(wire), type=UsageBatch)
    assert told.usages() == batch_of(told.host, [part]).usages()
    return msgspec.structs.replace(now, schema="usage.v3", body=msgspec.msgpack.encode(wire))
