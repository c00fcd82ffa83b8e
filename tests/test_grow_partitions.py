"""The procedure for more partitions, as docs/fleet.md has it, on real servers in the middle of a small fleet's run.

The books of all hosts are those of an undisturbed run, nothing is too late, and each precondition that fails is named.
"""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from crash import CrashRun
from fleet import WATTRIBUTE
from fleet_faults import SMALL, SOAK_ONLY, FaultHouse, assert_undisturbed
from kafka import TopicPartition
from request_entries import embedded_joules, newest_entries

from monitor.config.sections import Config
from monitor.log.kafka_feed import KafkaFeed
from monitor.roles.aggregate_group import partition_of
from monitor.roles.growing import Growing

pytestmark = pytest.mark.filterwarnings(
    # kafka-python drops the socket of a connection that it gives up halfway
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
PLAN = replace(SMALL, seed=9, hosts=6, aggregators=2, speed=6.0, patience_seconds=300.0)
BEFORE, AFTER = PLAN.partitions, 5


def grow(run: CrashRun, *more: str, partitions: int = AFTER) -> tuple[int, str]:
    """Exit code and words of the command."""
    command = [WATTRIBUTE, "topics", "grow", "--partitions", str(partitions), *more]
    done = subprocess.run(
        [*command, "--config", str(run.fleet.config_file)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def procedure(run: CrashRun) -> None:
    """Collectors and ingest stop, a mark passes, aggregators stop, it is done, all start again."""
    fleet = run.fleet
    code, said = grow(run, "--ready")
    assert code == 1
    assert "ingest" in said
    for name in [*run.named("collect"), *run.named("ingest")]:
        stop(run, name)
    code, said = grow(run, "--ready")
    assert (code, "let the aggregators run until the next mark" in said) == (1, True), said
    fleet.tick_all((newest_stamp(run) // PLAN.mark_seconds + 1) * PLAN.mark_seconds)
    wait_until_ready(run)
    code, said = grow(run)
    assert (code, "stop every process of role aggregate" in said) == (1, True), said
    for name in run.named("aggregate"):
        stop(run, name)
    code, said = grow(run, partitions=BEFORE)
    assert code == 1, said
    cut_off(fleet.config)
    code, said = grow(run)
    assert (code, f"have {AFTER} partitions" in said) == (0, True), said
    fleet.partitions = AFTER
    fleet.write_config()
    for kind in ("aggregate", "ingest", "collect"):
        for name in run.named(kind):
            run.start_process(name)


def cut_off(config: Config) -> None:
    """An attempt that ends when the records are copied, also into partitions that were there before."""

    class CutOff(Exception):
        pass

    def say(said: str) -> None:
        if "records were copied" in said:
            raise CutOff

    growing = Growing(config)
    with pytest.raises(CutOff):
        growing.carry_out(growing.plan(AFTER, aggregators_run=False), say)


def wait_until_ready(run: CrashRun) -> None:
    """As an operator would: asks again and again."""
    for _ in range(6):
        code, said = grow(run, "--ready")
        if code == 0:
            return
    raise AssertionError(said)


def newest_stamp(run: CrashRun) -> float:
    """Of all that stands in readings and usage, a second too early at most."""
    topics = run.fleet.config.kafka.topics
    feed = KafkaFeed(run.fleet.config.kafka)
    try:
        parts = [TopicPartition(topic, number) for topic in (topics.readings, topics.usage) for number in range(BEFORE)]
        return max(feed.last_stamp(part, 0.0) or 0.0 for part in parts) + 1.0
    finally:
        feed.close()


def stop(run: CrashRun, name: str) -> None:
    """In good order."""
    process = run.fleet.processes[name]
    process.terminate()
    process.wait(30)


@SOAK_ONLY
def test_more_partitions_in_the_middle_of_a_run(faults: FaultHouse, tmp_path: Path) -> None:
    """Two partitions become five while the gateway goes on: every host's books are those of an undisturbed run."""
    hosts = [f"host-{number:02d}" for number in range(PLAN.hosts)]
    moved = [host for host in hosts if partition_of(host, BEFORE) != partition_of(host, AFTER)]
    assert 0 < len(moved) < len(hosts)

    def kill(run: CrashRun) -> None:
        for name in run.named("aggregate"):
            run.fleet.kill(name)
            run.start_process(name)

    run = faults.crash_run(PLAN, tmp_path, (8.0, procedure), (36.0, kill))
    outcome = run.run()
    assert_undisturbed(outcome)
    assert run.fleet.claims().keys() >= {partition_of(host, AFTER) for host in hosts}
    joules = {request: entry["energy_joules"] for request, entry in newest_entries(run).items()}
    assert joules == embedded_joules(run)


def test_nothing_grows_before_anything_is_accounted(faults: FaultHouse, tmp_path: Path) -> None:
    """Topics without commits: it says what to do instead."""
    run = faults.crash_run(PLAN, tmp_path)
    run.fleet = run._make_fleet()
    run.fleet.make_places()
    code, said = grow(run)
    assert (code, said.startswith("not ready: the facts tell no terms of the books")) == (1, True), said
