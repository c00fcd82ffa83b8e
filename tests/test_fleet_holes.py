"""What Kafka lost before it was accounted: missing in the books, named with its hosts and times, and never guessed."""

import json
import signal
from ast import literal_eval
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from crash import CrashRun
from fleet_faults import AGGREGATORS, SMALL, SOAK_ONLY, Ears, FaultHouse, assert_undisturbed
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from collectors.clock import rfc3339
from monitor.query import holes_of
from monitor.store.open import open_store

pytestmark = pytest.mark.filterwarnings(
    # kafka-python drops the socket of a connection that it gives up halfway
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
PUNCTUAL = replace(SMALL, minutes=6.0, late_ratio=0.0, speed=8.0, horizon_seconds=100.0, mark_seconds=50.0)
"""What comes late for a window near a hole cannot be restated: the log does not hold all of it any more. 45 seconds."""
Holes = Mapping[str, tuple[float, float]]
"""Of each host the start of what is missing, and its end."""


def test_retention_that_passed_the_committed_offset(faults: FaultHouse, tmp_path: Path) -> None:
    """While no aggregator ran Kafka deleted what was not accounted yet."""

    def stop(run: CrashRun) -> None:
        _wait_for_books(run)
        for name in AGGREGATORS:
            run.fleet.processes[name].terminate()
            assert run.fleet.processes[name].wait(60) == 0

    def delete_and_start(run: CrashRun) -> None:
        _delete_records(run)
        for name in AGGREGATORS:
            run.start_process(name)

    _assert_named(
        faults.crash_run(PUNCTUAL, tmp_path, (0.0, _ready), (20.0, stop), (28.0, delete_and_start), last=_told)
    )


@SOAK_ONLY
def test_retention_that_passes_a_running_aggregator(faults: FaultHouse, tmp_path: Path) -> None:
    """It is asleep, and what it would read next is deleted meanwhile."""

    def stop(run: CrashRun) -> None:
        _wait_for_books(run)
        for name in AGGREGATORS:
            run.fleet.processes[name].send_signal(signal.SIGSTOP)

    def delete(run: CrashRun) -> None:
        _delete_records(run)
        for name in AGGREGATORS:
            run.fleet.processes[name].send_signal(signal.SIGCONT)

    _assert_named(faults.crash_run(PUNCTUAL, tmp_path, (0.0, _ready), (20.0, stop), (32.0, delete), last=_told))


def test_a_topic_that_is_deleted_and_made_again(faults: FaultHouse, tmp_path: Path) -> None:
    """`usage` under everybody's feet, while it is written and read."""

    def make_anew(run: CrashRun) -> None:
        _wait_for_books(run)
        topic = run.fleet.config.kafka.topics.usage
        admin = KafkaAdminClient(bootstrap_servers=run.fleet.bootstrap)
        try:
            admin.delete_topics([topic], timeout_ms=30_000)
            run.wait_for("the topic to be gone", lambda: topic not in admin.list_topics())
        finally:
            admin.close()
        run.fleet.run("topics", "create")

    _assert_named(faults.crash_run(PUNCTUAL, tmp_path, (0.0, _ready), (22.0, make_anew), last=_told))


@SOAK_ONLY
def test_more_partitions_than_the_books_were_kept_with(faults: FaultHouse, tmp_path: Path) -> None:
    """Refused with the name of the procedure, as hosts have moved; what is in the books stays as it is."""

    def grow(run: CrashRun) -> None:
        ears = Ears(run, *AGGREGATORS)
        topics = run.fleet.config.kafka.topics
        admin = KafkaAdminClient(bootstrap_servers=run.fleet.bootstrap)
        try:
            admin.create_partitions({topics.readings: 3, topics.usage: 3}, timeout_ms=30_000)
        finally:
            admin.close()
        run.fleet.partitions = 3  # as somebody does who reads that the topics differ from the configuration
        run.fleet.write_config()
        for name in AGGREGATORS:
            run.fleet.processes[name].terminate()
            assert run.fleet.processes[name].wait(60) == 0
            run.start_process(name)
        ears.wait_for_one("docs/fleet.md, 'More partitions', has the procedure")
        ears.wait_for_one("have 3 partitions, but the books were kept with 2")

    assert_undisturbed(faults.crash_run(SMALL, tmp_path, last=grow).run())


def _ready(run: CrashRun) -> None:
    """Ingest reads from the first event on, so that none is late."""
    group = f"{run.fleet.config.kafka.group}-ingest"
    admin = KafkaAdminClient(bootstrap_servers=run.fleet.bootstrap)

    def stable() -> bool:
        try:
            return bool(admin.describe_groups([group])[group]["group_state"] == "Stable")
        except KafkaError:
            return False

    try:
        run.wait_for("ingest to join its group", stable)
    finally:
        admin.close()


def _wait_for_books(run: CrashRun) -> None:
    """Each host has a final window: hosts of which the books know nothing can't be named."""

    def known() -> bool:
        claims = run.fleet.claims().values()
        return len(claims) == run.plan.partitions and all((c.watermark or 0.0) > run.plan.start for c in claims)

    run.wait_for("windows to be final", known)


def _delete_records(run: CrashRun) -> None:
    """As retention does it: everything that stands in both topics now."""
    topics = run.fleet.config.kafka.topics
    parts = [TopicPartition(t, n) for t in (topics.readings, topics.usage) for n in range(run.fleet.partitions)]
    consumer = KafkaConsumer(bootstrap_servers=run.fleet.bootstrap)
    admin = KafkaAdminClient(bootstrap_servers=run.fleet.bootstrap)
    try:
        admin.delete_records(consumer.end_offsets(parts), timeout_ms=30_000)
    finally:
        admin.close()
        consumer.close()


def _holes(run: CrashRun) -> Holes:
    store = open_store(run.fleet.config, run.folder / "none")
    try:
        return {each.host: (each.start, each.end) for each in holes_of(store)}
    finally:
        store.close()


def _told(run: CrashRun) -> None:
    """`wattribute report` and the daemons' own status name each hole, and a report of another time does not."""
    holes = _holes(run)
    start, end = run.plan.start, run.plan.start + run.plan.minutes * 60
    asked = run.fleet.ask("report", "--from", rfc3339(start), "--to", rfc3339(end))
    for host, (first, behind) in holes.items():
        assert f"{host} is missing from {rfc3339(first)} to {rfc3339(behind)}" in asked.stderr
    before = run.fleet.ask("report", "--from", rfc3339(start - 3_600), "--to", rfc3339(start))
    assert "is missing" not in before.stderr
    told: Holes = {}
    for name in AGGREGATORS:  # each what it found itself
        status = json.loads(run.fleet.ask("status", "--address", run.fleet.metrics[name], "--json").stdout)
        told = {**told, **{each["host"]: (each["start"], each["end"]) for each in status["ledger"]["holes"]}}
    assert told == holes


def _assert_named(run: CrashRun) -> None:
    """Both hosts have a hole; its windows are missing, and every other window is the undisturbed one's."""
    outcome = run.run()
    holes = _holes(run)
    assert holes.keys() == {"host-00", "host-01"}
    assert (outcome.surplus, outcome.too_late) == ([], 0)
    missing = set(_windows(outcome.missing))
    first = {host: min(start for each, start in missing if each == host) for host in holes}
    inside = {(host, start) for host, start in _windows(run.wanted) if holes[host][0] <= start < holes[host][1]}
    assert missing <= inside
    # What was stored and not claimed yet when the log was lost is there, and right.
    assert all(start < first[host] for host, start in inside - missing)


def _windows(lines: list[str]) -> list[tuple[str, float]]:
    """(host, start) of rows of windows."""
    rows = map(literal_eval, lines)
    return [(tags[0], start) for _, resolution, start, tags, _ in rows if resolution == "window"]
