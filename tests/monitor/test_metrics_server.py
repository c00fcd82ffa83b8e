"""The daemon's own server and what it tells: real sockets on the loopback, a snapshot made by hand."""

import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import pytest
from daemon_snapshots import NOON, daemon
from prometheus_client.parser import text_string_to_metric_families

from collectors.errors import Broken
from monitor.metrics_server import CONNECTIONS, MetricsServer
from monitor.metrics_text import render
from monitor.selfmetrics import DaemonSnapshot, LedgerSnapshot, ShipSnapshot, Spread, nested

BASE_UNITS = ("seconds", "joules", "watts", "bytes", "ratio", "grams")
NO_UNIT = {"build_info", "ready", "role_up", "meter_up", "device_up", "source_up", "alerts_firing", "alerts_missing"}
NO_UNIT |= {"log_partitions", "log_waiting_records"}


@contextmanager
def _serving(snapshot: Callable[[], DaemonSnapshot] = daemon, listen: str = "127.0.0.1:0") -> Iterator[str]:
    server = MetricsServer(listen, snapshot)
    server.start()
    try:
        yield server.address
    finally:
        server.stop()


def _ask(address: str, path: str, method: str = "GET") -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection(address, timeout=10)
    connection.request(method, path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.getheader("Content-Type") or "", body


def _values(text: str) -> dict[str, dict[frozenset[tuple[str, str]], float]]:
    values: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            values.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return values


def test_metrics_tell_the_snapshot() -> None:
    """Each figure under its name and labels, as a Prometheus server reads it."""
    values = _values(render(daemon()).decode())

    def value(name: str, **labels: str) -> float:
        return values[f"wattribute_{name}"][frozenset(labels.items())]

    assert value("build_info", version="0.1.0") == 1.0
    assert value("meter_reads_total", meter="nvml") == 102.0
    assert value("meter_deadlines_skipped_total", meter="nvml") == 3.0
    assert value("meter_read_errors_total", meter="nvml", reaction="retry_later") == 2.0
    assert value("meter_events_total", meter="nvml", device="GPU-5c7f7b0e", event="wrap") == 1.0
    assert (value("meter_read_seconds_count", meter="nvml"), value("meter_read_seconds_sum", meter="nvml")) == (
        100,
        1.5,
    )
    assert value("meter_late_longest_seconds", meter="nvml") == 0.125
    assert (value("meter_up", meter="nvml"), value("meter_up", meter="rapl")) == (1.0, 0.0)
    assert value("device_up", meter="nvml", device="GPU-77aa") == 0.0
    assert value("device_counter_disagreement_ratio", meter="nvml", device="GPU-5c7f7b0e") == 0.012
    assert value("events_accepted_total", source="gateway") == 1_200.0
    assert value("events_rejected_total", source="gateway", reason="bad_json") == 3.0
    assert value("ledger_final_until_timestamp_seconds") == NOON - 700
    assert value("ledger_windows_final_total") == 290.0
    assert value("log_time_timestamp_seconds") == NOON - 2
    assert value("books_worst_imbalance_ratio") == 3e-15
    assert (value("alerts_firing", alert="half idle"), value("alerts_missing", alert="half idle")) == (1.0, 1.0)
    assert value("alert_posts_total", alert="half idle", outcome="sent") == 2.0
    assert value("alert_judged_timestamp_seconds", alert="half idle") == NOON - 60
    assert "process_resident_memory_bytes" in values


def test_what_is_not_known_is_absent_and_never_zero() -> None:
    """A GPU that does not answer has no watts; books of which nothing is final have no time."""
    values = _values(render(daemon(ledger=LedgerSnapshot())).decode())
    assert len(values["wattribute_device_power_watts"]) == 1
    assert "wattribute_ledger_final_until_timestamp_seconds" not in values
    assert "wattribute_ledger_windows_final_total" in values
    assert values["wattribute_books_missing_seconds"] == {frozenset(): 0.0}
    assert "wattribute_log_partitions" not in values
    of_a_fleet = _values(render(daemon(ledger=LedgerSnapshot(partitions=(2, 3), waiting_records=17))).decode())
    assert of_a_fleet["wattribute_log_partitions"] == {frozenset(): 2.0}
    assert of_a_fleet["wattribute_log_waiting_records"] == {frozenset(): 17.0}
    assert "wattribute_ledger_windows_final_total" not in _values(render(daemon(ledger=None)).decode())


def test_what_a_host_has_shipped_is_counted() -> None:
    """In a fleet; absent where nothing is shipped."""
    ship = ShipSnapshot(shipped_records=7, waiting_records=2, lost_records=0)
    values = _values(render(daemon(ship=ship)).decode())
    assert values["wattribute_ship_waiting_records"] == {frozenset(): 2.0}
    totals = values["wattribute_ship_records_total"]
    assert totals == {frozenset({("what", "shipped")}): 7.0, frozenset({("what", "lost")}): 0.0}
    assert "wattribute_ship_waiting_records" not in _values(render(daemon()).decode())


def test_what_was_refused_for_good_is_counted() -> None:
    """By Kafka and by InfluxDB: 0 while nothing was, absent where this process writes nothing there."""
    rows = {"beyond retention": 2, "refused": 0}
    values = _values(render(daemon(refused_records=0, refused_rows=rows)).decode())
    assert values["wattribute_log_records_refused_total"] == {frozenset(): 0.0}
    assert values["wattribute_store_rows_refused_total"] == {
        frozenset({("reason", "beyond retention")}): 2.0,
        frozenset({("reason", "refused")}): 0.0,
    }
    elsewhere = _values(render(daemon()).decode())
    assert "wattribute_log_records_refused_total" not in elsewhere
    assert "wattribute_store_rows_refused_total" not in elsewhere


def test_metrics_pass_the_rules_of_names() -> None:
    """Prefix, snake case, HELP and TYPE once, base unit last, _total on counters alone, no repeated series."""
    text = render(daemon()).decode()
    assert text.endswith("\n")
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    series = [line.rpartition(" ")[0] for line in samples]
    assert len(series) == len(set(series))
    types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, flags=re.MULTILINE))
    helps = re.findall(r"^# HELP (\w+) (.+)$", text, flags=re.MULTILINE)
    assert [name for name, _ in helps] == list(types)
    for name, kind in types.items():
        if name.startswith("process_"):
            continue
        bare = name.removeprefix("wattribute_")
        assert bare != name
        assert re.fullmatch("[a-z][a-z0-9_]*", bare)
        assert (kind == "counter") == name.endswith("_total"), name
        assert kind == "counter" or bare in NO_UNIT or bare.endswith(BASE_UNITS), name
    assert all(about.endswith(".") and about[0] in "(" + about[0].upper() for name, about in helps if "watt" in name)


def test_names_from_outside_cannot_forge_a_series() -> None:
    """A quote, a backslash and a line break in a device's name stay in its label."""
    evil = 'a"} 1\nwattribute_ready 0 \\'
    snapshot = daemon()
    device = msgspec.structs.replace(snapshot.meters[0].devices[0], device=evil)
    meter = msgspec.structs.replace(snapshot.meters[0], devices=(device,))
    values = _values(render(daemon(meters=(meter,))).decode())
    assert values["wattribute_device_up"] == {frozenset({("meter", "nvml"), ("device", evil)}): 1.0}
    assert values["wattribute_ready"] == {frozenset(): 1.0}


def test_each_address_answers() -> None:
    """Metrics as text, the snapshot as JSON that reads back as itself, and 404 with what there is."""
    with _serving() as address:
        status, kind, body = _ask(address, "/metrics?name=x")
        assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert b"wattribute_build_info" in body
        status, kind, body = _ask(address, "/status")
        assert (status, kind) == (200, "application/json")
        assert msgspec.json.decode(body, type=DaemonSnapshot) == daemon()
        assert json.loads(body)["meters"][1]["state"] == "broken"
        assert _ask(address, "/healthz")[::2] == (200, b"ok\n")
        assert _ask(address, "/readyz")[::2] == (200, b"ok\n")
        status, _, body = _ask(address, "/")
        assert (status, b"/metrics" in body) == (404, True)
        assert _ask(address, "/status", "HEAD")[::2] == (200, b"")
        assert _ask(address, "/status", "POST")[0] == 501


def test_health_and_readiness_say_what_is_missing() -> None:
    """503: of a loop that hangs, since when; of a process that has read nothing yet, what it waits for."""
    hung = daemon(loop_age_seconds=95.0, ready=False, reason="no meter has given a reading yet")
    with _serving(lambda: hung) as address:
        assert _ask(address, "/healthz")[::2] == (503, b"the main loop has not come round for 95 s\n")
        assert _ask(address, "/readyz")[::2] == (503, b"no meter has given a reading yet\n")


def test_a_port_that_is_taken_is_told_with_what_mends_it() -> None:
    """Broken, with the key of the configuration and the port."""
    with _serving() as address:
        port = address.rpartition(":")[2]
        with pytest.raises(Broken, match=rf"\[metrics\] listen: cannot listen on {address}: .*sport = :{port}"):
            MetricsServer(address, daemon).start()


def test_it_listens_on_version_six_too() -> None:
    """Brackets around the host."""
    if not socket.has_ipv6:
        pytest.skip("this host has no IPv6")
    try:
        with _serving(listen="[::1]:0") as address:
            assert address.startswith("[::1]:")
            assert _ask(address, "/healthz")[0] == 200
    except Broken:
        pytest.skip("this host has no IPv6 loopback address")


def test_idle_clients_take_no_more_than_their_places() -> None:
    """With every place taken by a client that says nothing, further ones are closed at once, and no thread is added."""
    with _serving() as address:
        host, _, port = address.rpartition(":")
        before = threading.active_count()
        clients = [socket.create_connection((host, int(port)), timeout=10) for _ in range(CONNECTIONS)]
        _until(lambda: threading.active_count() == before + CONNECTIONS)
        late = socket.create_connection((host, int(port)), timeout=10)
        assert _ended(late)
        assert threading.active_count() <= before + CONNECTIONS
        for client in (*clients, late):
            client.close()
        _until(lambda: threading.active_count() == before)
        assert _ask(address, "/healthz")[0] == 200


def test_a_client_that_dribbles_loses_its_place() -> None:
    """A letter now and then does not keep a connection beyond its five seconds."""
    with _serving() as address:
        host, _, port = address.rpartition(":")
        begun = time.monotonic()
        with socket.create_connection((host, int(port)), timeout=0.5) as client:
            ended = False
            while not ended and time.monotonic() - begun < 20:
                try:
                    client.sendall(b"G")
                    ended = client.recv(1) == b""
                except TimeoutError:
                    continue
                except OSError:
                    ended = True
        assert ended


def test_it_stops_at_once_whoever_is_connected() -> None:
    """And frees its port; stopping twice does nothing."""
    server = MetricsServer("127.0.0.1:0", daemon)
    server.stop()
    server.start()
    address = server.address
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        begun = time.monotonic()
        server.stop()
        server.stop()
        assert time.monotonic() - begun < 3
        assert _ended(client)
    again = MetricsServer(address, daemon)
    again.start()
    again.stop()


def test_a_spread_is_the_count_the_sum_and_the_longest() -> None:
    """3 s and 2 s are two times, 5 s, 3 s at the longest."""
    assert Spread().plus(3.0).plus(2.0) == Spread(count=2, total_seconds=5.0, longest_seconds=3.0)


def test_events_are_nested_by_device() -> None:
    """A meter's (device, word) counts, as JSON can hold them."""
    assert nested({("a", "wrap"): 1, ("a", "reset"): 2, ("b", "wrap"): 3}) == {
        "a": {"wrap": 1, "reset": 2},
        "b": {"wrap": 3},
    }


def test_the_server_is_lean_until_it_is_scraped() -> None:
    """Neither the web framework nor the metrics library is loaded with it."""
    heavy = "{'starlette', 'prometheus_client', 'numpy'}"
    code = f"import sys, monitor.metrics_server; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def _ended(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
