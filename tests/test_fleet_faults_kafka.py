"""Faults of brokers and of group members, in a small fleet on real servers: the books are the undisturbed ones."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest
from crash import CrashRun, Plan
from fleet_faults import AGGREGATORS, SMALL, SOAK_ONLY, Ears, FaultHouse, assert_undisturbed
from kafka import KafkaConsumer, TopicPartition
from kafka.structs import OffsetAndMetadata

pytestmark = pytest.mark.filterwarnings(
    # kafka-python drops the socket of a connection that it gives up halfway
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
SIX_HOURS = replace(
    SMALL,
    minutes=360.0,
    requests_per_second=0.2,
    read_every_seconds=10,
    speed=1_080.0,
    horizon_seconds=900.0,
    mark_seconds=3_600.0,
    partitions=1,
    late_ratio=0.0,
    patience_seconds=600.0,
)
ONE_HOUR = replace(SIX_HOURS, minutes=60.0, speed=180.0)


@SOAK_ONLY
def test_a_broker_that_is_restarted_costs_nothing(faults: FaultHouse, tmp_path: Path) -> None:
    """F8: stopped in good order in the middle, and back on the same files; everybody finds it again."""
    assert_undisturbed(faults.crash_run(SMALL, tmp_path, (8.0, lambda run: run.kafka.restart())).run())


def test_all_brokers_down_at_boot(faults: FaultHouse, tmp_path: Path) -> None:
    """F8: every process starts before Kafka does, says so, and goes on by itself when it comes."""

    def kafka_comes(run: CrashRun) -> None:
        names = [*run.named("aggregate"), *run.named("ingest"), *run.named("collect")]
        run.wait_for("their first words", lambda: all(run.kafka.bootstrap in run.fleet.said(name) for name in names))
        assert all(run.fleet.processes[name].poll() is None for name in names)
        run.kafka.start()

    run = faults.crash_run(SMALL, tmp_path, (-1.0, lambda run: run.kafka.stop()), (0.0, kafka_comes))
    assert_undisturbed(run.run())


def test_an_aggregator_that_slept_longer_than_its_session(faults: FaultHouse, tmp_path: Path) -> None:
    """F15: SIGSTOP in the middle of its work, the other takes its partition over; SIGCONT, and nothing is torn."""

    def sleep_until_replaced(run: CrashRun) -> None:
        other = Ears(run, "aggregate-1")
        run.fleet.processes["aggregate-0"].send_signal(signal.SIGSTOP)
        other.wait_for('"partitions": [0, 1]')

    def wake(run: CrashRun) -> None:
        run.fleet.processes["aggregate-0"].send_signal(signal.SIGCONT)

    outcome = faults.crash_run(SMALL, tmp_path, (6.0, sleep_until_replaced), (16.0, wake)).run()
    assert_undisturbed(outcome)
    assert outcome.resumed > 0


@SOAK_ONLY
def test_an_aggregator_that_slept_with_its_write_under_way(faults: FaultHouse, tmp_path: Path) -> None:
    """F15: the store is slow, and the write of a member that was replaced long ago ends last."""

    def sleep_in_a_write(run: CrashRun) -> None:
        faults.influx_link.add("latency", "upstream", latency=1_500)
        other = Ears(run, "aggregate-1")
        run.wait_for("windows to be written", lambda: bool(run.fleet.claims()))
        run.fleet.processes["aggregate-0"].send_signal(signal.SIGSTOP)
        other.wait_for('"partitions": [0, 1]')
        faults.influx_link.clear()

    def wake(run: CrashRun) -> None:
        run.fleet.processes["aggregate-0"].send_signal(signal.SIGCONT)

    disturbances = (6.0, sleep_in_a_write), (18.0, wake)
    assert_undisturbed(faults.crash_run(SMALL, tmp_path, *disturbances, influx_url=faults.linked_influx_url).run())


@pytest.mark.parametrize(
    "plan", [pytest.param(ONE_HOUR, id="one hour"), pytest.param(SIX_HOURS, id="six hours", marks=SOAK_ONLY)]
)
def test_a_host_cut_off_for_hours_is_restated_to_the_joule(faults: FaultHouse, tmp_path: Path, plan: Plan) -> None:
    """F10: its requests keep coming through the gateway, its readings come all at once at the end."""
    begin, end = -1.0, plan.span_seconds + 1.0
    disturbances = (begin, lambda _run: faults.kafka_link.down()), (end, lambda _run: faults.kafka_link.up())
    outcome = faults.crash_run(plan, tmp_path, *disturbances, linked=["collect-0"]).run()
    assert_undisturbed(outcome)
    assert outcome.restatements > 0


@SOAK_ONLY
def test_events_that_come_hours_late_are_restated(faults: FaultHouse, tmp_path: Path) -> None:
    """F10: one in fifty comes one to three hours behind its end."""
    late = replace(SMALL, late_ratio=0.02, late_seconds=(3_600.0, 10_800.0), mark_seconds=900.0)
    outcome = faults.crash_run(late, tmp_path).run()
    assert_undisturbed(outcome)
    assert outcome.restatements > 0


@SOAK_ONLY
def test_a_gateways_topic_that_is_read_again_counts_nothing_twice(faults: FaultHouse, tmp_path: Path) -> None:
    """F9: ingest is sent back to the first event when the last has been accounted."""

    def read_again(run: CrashRun) -> None:
        run.wait_for("the events to be read", lambda: run.fleet.ingest_lag() == 0)
        run.fleet.processes["ingest-0"].terminate()
        assert run.fleet.processes["ingest-0"].wait(60) == 0
        _rewind(run)
        assert run.fleet.ingest_lag() > 0
        run.start_process("ingest-0")

    outcome = faults.crash_run(SMALL, tmp_path, (SMALL.span_seconds, read_again)).run()
    assert_undisturbed(outcome)


@SOAK_ONLY
def test_an_aggregator_of_other_terms_keeps_out(faults: FaultHouse, tmp_path: Path) -> None:
    """F15: beside those of the fleet one that was configured anew refuses, says why, and never holds a partition."""

    def stranger(run: CrashRun) -> None:
        config = tmp_path / "stranger.toml"
        config.write_text(run.fleet.config_file.read_text().replace('horizon = "60s"', 'horizon = "90s"'))
        run.fleet.start("stranger", "aggregate", config=config)
        Ears(run, "stranger").wait_for("horizon_seconds is 90.0, but the books are kept under 60.0")

    def held_none(run: CrashRun) -> None:
        assert "partitions assigned" not in run.fleet.said("stranger")

    assert_undisturbed(faults.crash_run(SMALL, tmp_path, (6.0, stranger), last=held_none).run())


def test_toxics_of_every_kind_on_both_links(faults: FaultHouse, tmp_path: Path) -> None:
    """F18: Kafka and InfluxDB behind networks that are slow, torn, silent and gone, one after the other."""
    toxics: tuple[tuple[str, dict[str, int]], ...] = (
        ("latency", {"latency": 400, "jitter": 300}),
        ("bandwidth", {"rate": 30}),
        ("slow_close", {"delay": 500}),
        ("timeout", {"timeout": 300}),
        ("reset_peer", {"timeout": 100}),
        ("slicer", {"average_size": 64, "size_variation": 32, "delay": 100}),
        ("limit_data", {"bytes": 5_000}),
    )

    def set_in(kind: str, attributes: dict[str, int]) -> None:
        for link in (faults.kafka_link, faults.influx_link):
            link.clear()
            link.add(kind, **attributes)

    def cut(_run: CrashRun) -> None:
        for link in (faults.kafka_link, faults.influx_link):
            link.clear()
            link.down()

    def heal(_run: CrashRun) -> None:
        faults.kafka_link.clear()
        faults.influx_link.clear()

    steps = [(2.0 * number + 3.0, lambda _run, each=each: set_in(*each)) for number, each in enumerate(toxics)]
    run = faults.crash_run(
        SMALL,
        tmp_path,
        *steps,
        (17.0, cut),
        (20.0, heal),
        linked=[*AGGREGATORS, "ingest-0", "collect-0", "collect-1"],
        influx_url=faults.linked_influx_url,
    )
    assert_undisturbed(run.run())


def _rewind(run: CrashRun) -> None:
    """Puts the ingests' group back to the first message."""
    fleet = run.fleet
    group = f"{fleet.config.kafka.group}-ingest"
    consumer = KafkaConsumer(bootstrap_servers=fleet.bootstrap, group_id=group, enable_auto_commit=False)
    try:
        parts = [TopicPartition(fleet.gateway_topic, number) for number in range(fleet.partitions)]
        consumer.assign(parts)
        consumer.commit({part: OffsetAndMetadata(0, "", -1) for part in parts})
    finally:
        consumer.close()
