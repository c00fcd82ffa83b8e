"""`wattribute status` against a real server that gives a snapshot, and against none."""

import json
import socket
import threading
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result
from daemon_snapshots import NOON, RAPL, daemon, healthy

from monitor.cli.status import status
from monitor.metrics_server import MetricsServer
from monitor.reports.daemon_text import WIDTH, age, faults, render
from monitor.selfmetrics import DaemonSnapshot, HoleSnapshot, LedgerSnapshot, MeterSnapshot, RoleSnapshot, ShipSnapshot


def _config(folder: Path, listen: str) -> Path:
    path = folder / "config.toml"
    path.write_text(f'[metrics]\nlisten = "{listen}"\n')
    return path


def _status(folder: Path, snapshot: DaemonSnapshot, *options: str) -> Result:
    server = MetricsServer("127.0.0.1:0", lambda: snapshot)
    server.start()
    try:
        return CliRunner().invoke(status, ["--config", str(_config(folder, server.address)), *options])
    finally:
        server.stop()


def test_a_daemon_that_does_well_is_told_so(tmp_path: Path) -> None:
    """0; the whole page."""
    result = _status(tmp_path, healthy())
    assert result.exit_code == 0, result.output
    assert result.stdout == (
        "wattribute 0.1.0 on node-1, pid 4711: running\n"
        "  up       1 h 0 min, since 2023-11-15T11:00:00.000Z\n"
        "  roles    collect, aggregate\n"
        "  config   /etc/wattribute/config.toml\n"
        "  data     /var/lib/wattribute\n"
        "\n"
        "METER  DEVICE        STATE  WATTS  LAST READING\n"
        "-----  ------------  -----  -----  ------------\n"
        "nvml   GPU-5c7f7b0e  ok     312.5       1 s ago\n"
        "\n"
        "SOURCE   KIND  STATE  ACCEPTED  REJECTED  LAST EVENT\n"
        "-------  ----  -----  --------  --------  ----------\n"
        "gateway  http  ok         1200         3           -\n"
        "\n"
        "Books final until 2023-11-15T11:48:20.000Z, 11 min 40 s ago\n"
        "  290 windows final since the start, off by at most 3.0e-15 of a window\n"
        "\n"
        "All is well.\n"
    )


def test_what_is_broken_is_told_with_what_mends_it(tmp_path: Path) -> None:
    """1; the GPU that does not answer and the packages that may not be read."""
    result = _status(tmp_path, daemon())
    assert result.exit_code == 1
    assert "2 things need you:\n" in result.stdout
    assert "  - meter rapl: /sys/class/powercap/intel-rapl:0/energy_uj: permission denied;\n" in result.stdout
    assert "  - GPU-77aa: asked for 40 s without an answer; see `dmesg` for Xid errors\n" in result.stdout


@pytest.mark.parametrize(
    ("records", "rows", "told"),
    [
        (None, None, None),
        (0, None, "0 records by Kafka"),
        (None, {"beyond retention": 0, "refused": 0}, "0 rows by InfluxDB"),
        (7, {"beyond retention": 2, "refused": 0}, "7 records by Kafka, 2 rows by InfluxDB (2 beyond retention)"),
    ],
)
def test_what_was_refused_for_good(records: int | None, rows: dict[str, int] | None, told: str | None) -> None:
    """Told with its count, 0 too; nothing is told of a place where this process writes nothing."""
    text = render(msgspec.structs.replace(healthy(), refused_records=records, refused_rows=rows))
    found = [line for line in text.splitlines() if line.startswith("  refused")]
    assert found == ([] if told is None else [f"  refused  for good: {told}"])


@pytest.mark.parametrize(("until", "told"), [(None, "nothing yet"), (NOON - 5, "until 2023-11-15T11:59:55.000Z")])
def test_how_far_a_host_has_shipped(until: float | None, told: str) -> None:
    """In a fleet; what waits is told too, as nothing may wait when partitions are added."""
    ship = ShipSnapshot(shipped_records=7, waiting_records=2, lost_records=0, until=until)
    lines = render(msgspec.structs.replace(healthy(), ship=ship)).splitlines()
    assert [line for line in lines if line.startswith("  shipped")] == [f"  shipped  {told}; 2 records wait"]
    assert not any(line.startswith("  shipped") for line in render(healthy()).splitlines())


def test_books_of_one_who_has_lost_his_partitions() -> None:
    """What he made final stays final: it is not said that nothing is."""
    ledger = LedgerSnapshot(windows_final=57, partitions=())
    text = render(msgspec.structs.replace(healthy(), ledger=ledger))
    assert "Books: 57 windows were made final here since the start; none of its partitions is accounted now." in text


def test_json_is_the_daemons_own_answer(tmp_path: Path) -> None:
    """With the same exit code."""
    result = _status(tmp_path, daemon(), "--json")
    assert result.exit_code == 1
    assert msgspec.json.decode(result.stdout, type=DaemonSnapshot) == daemon()


def test_an_address_needs_no_configuration() -> None:
    """Whoever may not read the daemon's configuration can still ask it."""
    server = MetricsServer("127.0.0.1:0", healthy)
    server.start()
    result = CliRunner().invoke(status, ["--address", server.address])
    server.stop()
    assert result.exit_code == 0, result.output
    assert CliRunner().invoke(status, ["--address", "127.0.0.1:http"]).exit_code == 2


def test_no_daemon_is_said_plainly(tmp_path: Path) -> None:
    """3, with how to start it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = _config(tmp_path, address)
    result = CliRunner().invoke(status, ["--config", str(config)])
    assert (result.exit_code, result.stdout) == (3, "")
    assert f"wattribute is not running: asked {address}, nothing listens there.\n" in result.stderr
    assert "`systemctl start wattribute`, or `wattribute run`" in result.stderr
    told = CliRunner().invoke(status, ["--config", str(config), "--json"])
    assert (told.exit_code, json.loads(told.stdout)["running"]) == (3, False)


def test_something_else_on_the_port_is_no_daemon(tmp_path: Path) -> None:
    """3: what listens there closes at once, as no daemon would."""
    with socket.create_server(("127.0.0.1", 0), backlog=1) as other:
        other.settimeout(10)

        def hang_up() -> None:
            connection, _ = other.accept()
            connection.recv(4096)
            connection.sendall(b"SSH-2.0-other\r\n")
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        config = _config(tmp_path, f"127.0.0.1:{other.getsockname()[1]}")
        result = CliRunner().invoke(status, ["--config", str(config)])
        thread.join()
    assert result.exit_code == 3
    assert "not running" in result.stderr


@pytest.mark.parametrize(
    ("named", "fault"),
    [
        ({"ready": False, "reason": "no meter has given a reading yet"}, "not ready: no meter has given a reading yet"),
        ({"loop_age_seconds": 95.0}, "main loop: has not come round for 1 min 35 s; see the log of the daemon"),
        (
            {"roles": (RoleSnapshot(name="aggregate", state="broken"),)},
            "role aggregate: has ended by an error; see the log of the daemon",
        ),
        (
            {"roles": (RoleSnapshot(name="aggregate", state="retrying", detail="nothing answers there"),)},
            "role aggregate: nothing answers there",
        ),
        ({"meters": (MeterSnapshot(name="bmc", state="retrying", interval_seconds=30.0),)}, "meter bmc: retrying"),
    ],
)
def test_each_fault_is_named(named: dict[str, object], fault: str) -> None:
    """One sentence each."""
    assert faults(msgspec.structs.replace(healthy(), **named)) == [fault]


def test_hardware_that_is_not_there_is_no_fault() -> None:
    """A host without RAPL is well."""
    gone = msgspec.structs.replace(RAPL, state="gone", detail="no powercap zones")
    snapshot = daemon(meters=(*healthy().meters, gone))
    assert faults(snapshot) == []
    assert "rapl   -             absent" in render(snapshot)


def test_the_page_keeps_to_eighty_columns_and_shows_no_control_characters() -> None:
    """Long names keep both ends; a name from outside cannot move the cursor."""
    device = msgspec.structs.replace(healthy().meters[0].devices[0], device="GPU-" + "8" * 60 + "\x1b[2J-end")
    meter = msgspec.structs.replace(healthy().meters[0], devices=(device,))
    text = render(daemon(meters=(meter, RAPL)))
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    assert "\x1b" not in text
    assert "-end" in text


def test_books_that_have_nothing_final_say_so() -> None:
    """And books of another process too."""
    assert "Books: nothing is final yet" in render(daemon(ledger=LedgerSnapshot(log_time=NOON)))


def test_an_aggregator_of_a_fleet_tells_its_partitions() -> None:
    """Which it has, and what waits in them; one that has none says so."""
    text = render(daemon(ledger=LedgerSnapshot(final_until=NOON, partitions=(2, 3), waiting_records=17)))
    assert "  partitions 2, 3; 17 records wait in Kafka\n" in text
    text = render(daemon(ledger=LedgerSnapshot(partitions=())))
    assert "Books: nothing is final yet; no host's records are in its partitions" in text
    assert "  partitions none: other members have them, or it is not in the group\n" in text


def test_what_the_books_lack_is_listed() -> None:
    """The newest five of what the log lost, on lines that fit."""
    holes = tuple(
        HoleSnapshot(host="gpu-1", start=NOON - 1_000 + 10 * n, end=NOON - 990 + 10 * n, reason="retention passed")
        for n in range(7)
    )
    text = render(daemon(ledger=LedgerSnapshot(final_until=NOON, holes=holes)))
    assert text.count("gpu-1 is missing from") == 5
    assert "  and 2 older holes, which statements name\n" in text
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "Books: kept by another process." in render(daemon(ledger=None))


def test_ages_are_told_in_two_units() -> None:
    """From seconds to days; a clock that was set back gives no negative age."""
    assert [age(seconds) for seconds in (-3.0, 59.0, 3_661.0, 90_061.0)] == ["0 s", "59 s", "1 h 1 min", "1 d 1 h"]
