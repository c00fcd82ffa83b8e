"""The topic of request energy on real servers: what a consumer joins to its own request log, aggregators killed.

The small run of tests/fleet_faults.py: two hosts, four minutes, 4 800 requests, some of them twice and some late.
"""

import json
from dataclasses import replace
from math import fsum
from pathlib import Path
from typing import Any

import pytest
from crash import CrashRun, arrivals
from fleet_faults import SMALL, FaultHouse, assert_undisturbed
from kafka import KafkaConsumer, TopicPartition

from monitor.core.points import ENERGY, REQUEST_ENERGY
from monitor.roles.embedded import STORE_FILE
from monitor.roles.request_energy import MOST_ENTRIES, REQUEST_ENERGY_SCHEMA
from monitor.store.open import open_store
from monitor.store.sqlite import SqliteStore

pytestmark = pytest.mark.filterwarnings(
    # kafka-python drops the socket of a connection that it gives up halfway
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
EVER = float("-inf"), float("inf")


def test_a_request_log_joins_what_each_request_used(faults: FaultHouse, tmp_path: Path) -> None:
    """Every request once, its joules those of the embedded path to the last digit, together all that was attributed."""

    def kill(run: CrashRun) -> None:
        for name in run.named("aggregate"):
            run.fleet.kill(name)
            run.start_process(name)

    plan = replace(SMALL, seed=6)
    run = faults.crash_run(plan, tmp_path, (8.0, kill), (15.0, kill))
    assert_undisturbed(run.run())
    newest: dict[str, dict[str, Any]] = {}
    said: set[tuple[str, int, str]] = set()
    for host, entry in entries_of(run):
        assert entry["host"] == host
        said.add((entry["request_id"], entry["revision"], json.dumps(entry, sort_keys=True)))
        if entry["revision"] >= newest.get(entry["request_id"], entry)["revision"]:
            newest[entry["request_id"]] = entry
    assert len({(request, revision) for request, revision, _ in said}) == len(said)  # said twice, it was the same
    assert {entry["revision"] > 0 for entry in newest.values()} == {False, True}

    request_log = {event["request_id"]: event for event in (json.loads(raw) for _, _, raw in arrivals(plan))}
    assert newest.keys() == request_log.keys()
    for request, event in request_log.items():
        assert {name: newest[request][name] for name in event if name != "devices"} == {
            name: value for name, value in event.items() if name != "devices"
        }
    embedded = SqliteStore(tmp_path / "undisturbed" / "books" / STORE_FILE, read_only=True)
    windows: dict[str, list[float]] = {}
    for row in embedded.read(REQUEST_ENERGY, *EVER):
        windows.setdefault(row.tags[2], []).append(float(row.fields[0] or 0.0))
    embedded.close()
    assert {request: entry["energy_joules"] for request, entry in newest.items()} == {
        request: fsum(joules) for request, joules in windows.items()
    }
    store = open_store(run.fleet.config, tmp_path / "none")
    attributed = fsum(float(row.fields[0] or 0.0) for row in store.read(ENERGY, *EVER) if "attributed" in row.tags)
    store.close()
    assert fsum(entry["energy_joules"] for entry in newest.values()) == pytest.approx(attributed, rel=1e-9)


def entries_of(run: CrashRun) -> list[tuple[str, dict[str, Any]]]:
    """(key, entry) of all that the topic holds, in its order."""
    topic = run.fleet.config.kafka.topics.request_energy
    consumer = KafkaConsumer(bootstrap_servers=run.kafka.bootstrap, enable_auto_commit=False)
    found = []
    try:
        parts = [TopicPartition(topic, number) for number in range(run.plan.partitions)]
        consumer.assign(parts)
        consumer.seek_to_beginning(*parts)
        ends = consumer.end_offsets(parts)
        while any(consumer.position(part) < ends[part] for part in parts):
            for messages in consumer.poll(500).values():
                for message in messages:
                    assert message.headers == [("schema", REQUEST_ENERGY_SCHEMA.encode())]
                    batch = json.loads(message.value)
                    assert 0 < len(batch) <= MOST_ENTRIES
                    found += [(message.key.decode(), entry) for entry in batch]
    finally:
        consumer.close()
    return found
