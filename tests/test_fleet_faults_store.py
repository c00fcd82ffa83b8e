"""Faults of InfluxDB and of the way to it, in a small fleet on real servers: the books are the undisturbed ones."""

import http.client
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from crash import CrashRun, Plan
from fleet_faults import AGGREGATORS, SMALL, SOAK_ONLY, Ears, FaultHouse, assert_undisturbed
from servers.http_front import Answer, fronted
from servers.influxd import ORG, TOKEN, InfluxServer

from monitor.log.codec import Restate, restate_record
from monitor.log.kafka_writer import KafkaWriter

pytestmark = pytest.mark.filterwarnings(
    # kafka-python drops the socket of a connection that it gives up halfway
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
BUSY = replace(SMALL, requests_per_second=1_000.0, speed=4.0, patience_seconds=900.0)
WRITE = "/api/v2/write"


@pytest.mark.parametrize("plan", [pytest.param(SMALL, id="20/s"), pytest.param(BUSY, id="1000/s", marks=SOAK_ONLY)])
def test_a_store_that_is_down_for_long(faults: FaultHouse, tmp_path: Path, plan: Plan) -> None:
    """F6: nothing is claimed and no memory is taken while it is away; then everything is written as it was to be."""
    seen: dict[str, Any] = {}

    def cut(run: CrashRun) -> None:
        ears = Ears(run, *AGGREGATORS)
        faults.influx_link.down()
        ears.wait_for("nothing answers there")
        seen.update(claims=run.fleet.claims(), bytes=_resident_bytes(run))

    def mend(run: CrashRun) -> None:
        assert run.fleet.claims() == seen["claims"]
        assert _resident_bytes(run) < seen["bytes"] + 48 * 2**20  # two ledgers' fetch buffers may fill meanwhile
        faults.influx_link.up()

    disturbances = (plan.span_seconds / 2, cut), (plan.span_seconds + 1.0, mend)
    assert_undisturbed(faults.crash_run(plan, tmp_path, *disturbances, influx_url=faults.linked_influx_url).run())


@SOAK_ONLY
def test_a_token_that_is_rotated(faults: FaultHouse, tmp_path: Path) -> None:
    """F7: the old one is refused first, and the file has the new one later; no process is started anew."""
    old, new = _new_token(faults.influx), _new_token(faults.influx)
    file = tmp_path / "token"
    file.write_text(old["token"])

    def revoke(run: CrashRun) -> None:
        ears = Ears(run, *AGGREGATORS)
        faults.influx.ask("DELETE", f"/api/v2/authorizations/{old['id']}")
        ears.wait_for(f"put a valid token into {file}")

    def hand_out(_run: CrashRun) -> None:
        file.write_text(new["token"])

    disturbances = (6.0, revoke), (12.0, hand_out)
    assert_undisturbed(faults.crash_run(SMALL, tmp_path, *disturbances, token_file=file).run())


def test_a_bucket_that_is_deleted_and_made_again(faults: FaultHouse, tmp_path: Path) -> None:
    """F7: what was written before is lost with it, and brought back from the log by an order to restate."""

    def delete(run: CrashRun) -> None:
        run.wait_for("windows to be written", lambda: len(run.fleet.claims()) == SMALL.partitions)
        ears = Ears(run, *AGGREGATORS)
        name = run.fleet.config.influxdb.bucket
        bucket = faults.influx.ask("GET", f"/api/v2/buckets?name={name}")["buckets"][0]["id"]
        faults.influx.ask("DELETE", f"/api/v2/buckets/{bucket}")
        ears.wait_for("run `wattribute store setup`")
        run.fleet.run("store", "setup")

    def bring_back(run: CrashRun) -> None:
        begin, settled = SMALL.start, run.settled()
        hosts = [f"host-{number:02d}" for number in range(SMALL.hosts)]
        orders = [Restate(host=host, start=begin, end=settled, reason="the bucket was lost") for host in hosts]
        writer = KafkaWriter(run.fleet.config.kafka)
        writer.append(
            [restate_record(order) for order in orders], settled
        )  # as the command does, by the replay's clock
        writer.close()
        run.settle(settled + SMALL.mark_seconds)

    outcome = faults.crash_run(SMALL, tmp_path, (10.0, delete), last=bring_back).run()
    assert_undisturbed(outcome)
    assert outcome.restatements >= SMALL.hosts


@SOAK_ONLY
def test_one_line_that_the_store_refuses(faults: FaultHouse, tmp_path: Path) -> None:
    """F7: that row is left out, counted and told; every other one is there."""
    parts = (b"energy,", b"host=host-00", b"device=gpu0", b"model=llama-8b", b"team=search", b" 1767600060")

    def refuse(path: str, body: bytes) -> Answer | None:
        bad = path.startswith(WRITE) and any(all(part in line for part in parts) for line in body.splitlines())
        return (422, {}, b'{"code":"unprocessable entity","message":"field type conflict"}') if bad else None

    with fronted(faults.influx.port) as front:
        front.judge = refuse
        run = faults.crash_run(SMALL, tmp_path, influx_url=front.url)
        outcome = run.run()
    assert len(outcome.missing) == 1
    assert "1767600060.0, ('host-00', 'gpu0', 'gpu', 'attributed', 'llama-8b', 'search'" in outcome.missing[0]
    assert outcome.surplus == []
    assert outcome.measured_joules == pytest.approx(outcome.recorded_joules, rel=1e-9)
    assert any("the store will never take a row" in run.fleet.said(name) for name in AGGREGATORS)


@SOAK_ONLY
def test_answers_that_are_lost_after_the_write(faults: FaultHouse, tmp_path: Path) -> None:
    """F7: for a third of the run no answer of the store arrives whole; the same bytes are written again."""
    disturbances = (
        (6.0, lambda _run: faults.influx_link.add("limit_data", bytes=5)),
        (13.0, lambda _run: faults.influx_link.clear()),
    )
    assert_undisturbed(faults.crash_run(SMALL, tmp_path, *disturbances, influx_url=faults.linked_influx_url).run())


def test_a_store_that_freezes_with_writes_in_flight(faults: FaultHouse, tmp_path: Path) -> None:
    """F7: longer than a write may take; what it had in hand lands when it goes on, beside the second try."""

    def freeze(run: CrashRun) -> None:
        ears = Ears(run, *AGGREGATORS)
        faults.influx.freeze()
        ears.wait_for_one("no answer in time")
        faults.influx.thaw()

    assert_undisturbed(faults.crash_run(SMALL, tmp_path, (6.0, freeze)).run())


def test_an_older_body_that_lands_after_a_newer_one(faults: FaultHouse, tmp_path: Path) -> None:
    """F7: a first account arrives minutes behind the restated one; the next mark finds it and mends it."""
    plan = replace(SMALL, late_ratio=0.1)
    held: list[tuple[str, bytes]] = []
    lock = threading.Lock()

    def hold(path: str, body: bytes) -> Answer | None:
        with lock:
            is_of_books = path.startswith(WRITE) and b"\nenergy," in b"\n" + body
            if not is_of_books or len(held) >= 20 or (path, body) in held:
                return None
            held.append((path, body))
        return 503, {"Retry-After": "0"}, b'{"code":"unavailable","message":"held"}'

    def land(run: CrashRun) -> None:
        assert held
        whole = run.fleet.books()
        for path, body in held:
            _post(faults.influx, path, body)
        assert run.fleet.books() != whole
        run.settle(run.settled() + plan.mark_seconds)

    with fronted(faults.influx.port) as front:
        front.judge = hold
        outcome = faults.crash_run(plan, tmp_path, influx_url=front.url, last=land).run()
    assert_undisturbed(outcome)


@SOAK_ONLY
def test_a_stop_in_the_middle_of_a_write(faults: FaultHouse, tmp_path: Path) -> None:
    """F2: SIGTERM to every process while the store is slow; all end in good order, and their successors go on."""

    def stop_all(run: CrashRun) -> None:
        faults.influx_link.add("latency", "upstream", latency=1_500)
        run.wait_for("windows to be written", lambda: bool(run.fleet.claims()))
        names = [*run.named("aggregate"), *run.named("ingest"), *run.named("collect")]
        for name in names:
            run.fleet.processes[name].terminate()
        for name in names:
            assert run.fleet.processes[name].wait(60) == 0, run.fleet.said(name)[-2_000:]
            run.start_process(name)
        faults.influx_link.clear()

    run = faults.crash_run(SMALL, tmp_path, (8.0, stop_all), influx_url=faults.linked_influx_url)
    assert_undisturbed(run.run())


def _resident_bytes(run: CrashRun) -> int:
    """The larger of the aggregators."""
    return max(int(psutil.Process(run.fleet.processes[name].pid).memory_info().rss) for name in AGGREGATORS)


def _post(influx: InfluxServer, path: str, body: bytes) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", influx.port, timeout=30)
    try:
        connection.request("POST", path, body, {"Authorization": f"Token {TOKEN}"})
        assert connection.getresponse().status == 204
    finally:
        connection.close()


def _new_token(influx: InfluxServer) -> Mapping[str, Any]:
    """One with all rights that setting up and writing need."""
    org = influx.ask("GET", f"/api/v2/orgs?org={ORG}")["orgs"][0]["id"]
    rights = [
        {"action": action, "resource": {"type": kind, "orgID": org}}
        for action in ("read", "write")
        for kind in ("buckets", "dbrp")
    ]
    rights.append({"action": "read", "resource": {"type": "orgs", "id": org}})
    found: Mapping[str, Any] = influx.ask("POST", "/api/v2/authorizations", {"orgID": org, "permissions": rights})
    return found
