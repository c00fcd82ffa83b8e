"""What a run of tests/crash.py left in the topic of request energy, and what the embedded path says of the same."""

import json
from collections.abc import Iterator
from math import fsum
from typing import Any

from crash import CrashRun
from kafka import KafkaConsumer, TopicPartition

from monitor.core.points import REQUEST_ENERGY
from monitor.roles.embedded import STORE_FILE
from monitor.roles.request_energy import MOST_ENTRIES, REQUEST_ENERGY_SCHEMA
from monitor.store.sqlite import SqliteStore


def newest_entries(run: CrashRun) -> dict[str, dict[str, Any]]:
    """By request, the entry of the highest revision. What was said twice must have been the same."""
    newest: dict[str, dict[str, Any]] = {}
    said: set[tuple[str, int, str]] = set()
    for host, entry in _entries(run):
        assert entry["host"] == host
        said.add((entry["request_id"], entry["revision"], json.dumps(entry, sort_keys=True)))
        if entry["revision"] >= newest.get(entry["request_id"], entry)["revision"]:
            newest[entry["request_id"]] = entry
    assert len({(request, revision) for request, revision, _ in said}) == len(said)
    return newest


def embedded_joules(run: CrashRun) -> dict[str, float]:
    """By request, the sum over its windows in the undisturbed run's books."""
    embedded = SqliteStore(run.folder / "undisturbed" / "books" / STORE_FILE, read_only=True)
    windows: dict[str, list[float]] = {}
    for row in embedded.read(REQUEST_ENERGY, float("-inf"), float("inf")):
        windows.setdefault(row.tags[2], []).append(float(row.fields[0] or 0.0))
    embedded.close()
    return {request: fsum(joules) for request, joules in windows.items()}


def _entries(run: CrashRun) -> Iterator[tuple[str, dict[str, Any]]]:
    """(key, entry) of all that the topic holds, in its order."""
    topic = run.fleet.config.kafka.topics.request_energy
    consumer = KafkaConsumer(bootstrap_servers=run.kafka.bootstrap, enable_auto_commit=False)
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
                    yield from ((message.key.decode(), entry) for entry in batch)
    finally:
        consumer.close()
