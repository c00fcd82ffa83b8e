"""The live daemon as systemd and people see it: a real process on a powercap tree of real files."""

import itertools
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import fsum
from pathlib import Path

import msgspec
import pytest
from daemon_process import DaemonProcess, wait_for
from fake_nvml import FakeNvml, uuid
from sysfs_tree import PowercapTree

from collectors.readings import CounterMark, EnergyReading, HostProfile
from monitor.log.codec import Decoder, ReadingBatch, readings_record
from monitor.log.sqlite import SqliteLog
from monitor.roles.collect import last_marks

LIVE = '[[sources]]\nname = "gateway"\nkind = "http"\nlisten = "RECEIVER"\n[collect]\nsysfs = "{sysfs}"\n'


@pytest.fixture
def tree(tmp_path: Path) -> PowercapTree:
    """One package of 250 W."""
    tree = PowercapTree(tmp_path / "tree")
    tree.add("intel-rapl:0", "package-0", microjoules=1_000_000_000, limit_watts=250)
    tree.sockets(0)
    return tree


@pytest.fixture
def notices(tmp_path: Path) -> Iterator[socket.socket]:
    """Where systemd would listen."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(0.0)
        yield listening


def readings_in(data: Path, device: str = "cpu-0") -> list[EnergyReading]:
    """All readings of a device in the log, in order."""
    log, decoder = SqliteLog(data / "log.db", read_only=True), Decoder()
    try:
        batches = [decoder.decode(record) for record in log.read({}, 10_000) if record.schema == "readings.v1"]
    finally:
        log.close()
    return [
        each for batch in batches if isinstance(batch, ReadingBatch) for each in batch.readings if each.device == device
    ]


@contextmanager
def working(tree: PowercapTree) -> Iterator[None]:
    """The package draws some 100 W meanwhile."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.05):
            tree.advance("intel-rapl:0", 5.0)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def reads(daemon: DaemonProcess) -> int:
    """How often RAPL was read."""
    return sum(meter["reads"] for meter in daemon.status().get("meters", ()) if meter["name"] == "rapl")


def last_reading(daemon: DaemonProcess) -> float:
    """When the last reading ended."""
    ends = [device.get("last_reading_at") for meter in daemon.status()["meters"] for device in meter["devices"]]
    return max((end for end in ends if end), default=0.0)


def received(notices: socket.socket) -> list[str]:
    """The messages that have come."""
    found = []
    while True:
        try:
            found.append(notices.recv(4_096).decode())
        except BlockingIOError:
            return found


def test_a_killed_daemon_loses_no_joule_of_a_counter(tmp_path: Path, tree: PowercapTree) -> None:
    """Killed in the middle of a batch and started again: the readings are the counter's difference, without a hole."""
    config = LIVE.format(sysfs=tree.sysfs)
    with DaemonProcess(tmp_path, config) as daemon:
        wait_for("the first look at the counter", lambda: reads(daemon) > 0)
        with working(tree):
            batch = wait_for("a batch", lambda: readings_in(daemon.data))
            wait_for("readings that are in no batch", lambda: last_reading(daemon) > batch[-1].end + 1.5)
            assert daemon.stop(signal.SIGKILL) == -signal.SIGKILL
            with daemon:
                daemon.ready()
                assert daemon.stop() == 0
    readings = readings_in(tmp_path / "data")
    log = SqliteLog(tmp_path / "data" / "log.db", read_only=True)
    (mark,) = last_marks(log, "node-1")
    log.close()
    assert fsum(each.energy_joules for each in readings) == pytest.approx(mark.raw_joules - 1_000.0, abs=1e-6)
    assert all(one.end == other.start for one, other in itertools.pairwise(readings))
    assert {each.method for each in readings} == {"counter"}


def test_signals_and_notices(tmp_path: Path, tree: PowercapTree, notices: socket.socket) -> None:
    """READY after a reading; a wrong configuration is left, a right one taken; one daemon per folder; a clean stop."""
    config = LIVE.format(sysfs=tree.sysfs)
    told: list[str] = []

    def has(word: str) -> bool:
        told.extend(received(notices))
        return any(word in each for each in told)

    with working(tree), DaemonProcess(tmp_path, config, {"NOTIFY_SOCKET": str(tmp_path / "notify")}) as daemon:
        wait_for("READY", lambda: has("READY=1"))
        assert daemon.status()["ready"]
        wait_for("WATCHDOG", lambda: has("WATCHDOG=1"))
        wait_for("STATUS", lambda: has("STATUS="))

        told.clear()
        daemon.configure("[colect]\n" + config)
        daemon.send(signal.SIGHUP)
        wait_for("the refusal", lambda: daemon.said("the one in force stays"))
        wait_for("RELOADING", lambda: has("RELOADING=1\nMONOTONIC_USEC="))
        now = time.time()
        event = {"request_id": "r1", "model": "m", "team": "a", "start": now - 2, "end": now - 1}
        assert daemon.post(event)[0] == 202

        daemon.configure(config + "[collect.cpu_model]\nenabled = false\n")
        daemon.send(signal.SIGHUP)
        wait_for("the new configuration", lambda: daemon.said("configuration reloaded"))
        daemon.ready()
        assert daemon.post(event | {"request_id": "r2"})[0] == 202

        daemon.configure(config + '[accounting]\nwindow = "20s"\n')
        daemon.send(signal.SIGHUP)
        wait_for("the refusal of other books", lambda: daemon.said("takes a restart"))

        second = DaemonProcess(tmp_path, config)
        with second:
            assert second.wait() == 3
        assert daemon.said("log.db")

        assert daemon.stop() == 0
        assert has("STOPPING=1")


def test_a_port_that_is_taken_is_named(tmp_path: Path, tree: PowercapTree) -> None:
    """The daemon does not start half: exit code 1, and the message names the address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        daemon = DaemonProcess(tmp_path, LIVE.format(sysfs=tree.sysfs))
        daemon.receiver = taken.getsockname()[1]
        daemon.configure(LIVE.format(sysfs=tree.sysfs))
        with daemon:
            assert daemon.wait() == 1
        assert daemon.said(f"127.0.0.1:{daemon.receiver}")


def test_ten_minutes_down_come_back_from_the_gpu_and_are_named_for_the_package(
    tmp_path: Path, tree: PowercapTree
) -> None:
    """The GPU's counter gives the 60 kJ of 600 s; the package's may have wrapped: lost, and not guessed."""
    config = LIVE.format(sysfs=tree.sysfs) + f'[[host.devices]]\nid = "{uuid(0)}"\nidle_watts = 50\n'
    with FakeNvml(tmp_path, 1) as nvml, working(tree):
        nvml.gpu(0).draw(100.0)
        daemon = DaemonProcess(tmp_path, config, nvml.environ())
        with daemon:
            daemon.ready()
            wait_for("both", lambda: {"cpu-0", uuid(0)} <= {mark.device for mark in marks_in(daemon.data)})
            assert daemon.stop() == 0
        down_since = age_marks(daemon.data, 600.0)
        nvml.gpu(0).energy_mj += 60_000_000
        with daemon:
            wait_for("the time since", lambda: recovered_in(daemon.data))
            events = {meter["name"]: meter["events"] for meter in daemon.status()["meters"]}
            assert daemon.stop() == 0
    (hole,) = recovered_in(daemon.data)
    assert hole.start == down_since[uuid(0)]
    assert hole.energy_joules == pytest.approx(60_000.0, rel=0.05)
    assert 600.0 <= hole.end - hole.start < 640.0
    assert events["rapl"]["cpu-0"]["lost"] == 1
    assert events["nvml"][uuid(0)]["recovered"] == 1


def marks_in(data: Path) -> Sequence[CounterMark]:
    """The counters where the daemon left off."""
    if not (data / "log.db").exists():
        return ()
    log = SqliteLog(data / "log.db", read_only=True)
    try:
        return last_marks(log, "node-1")
    finally:
        log.close()


def age_marks(data: Path, seconds: float) -> dict[str, float]:
    """As if the daemon had stopped so much earlier; the new times by device."""
    marks = [msgspec.structs.replace(mark, at=mark.at - seconds) for mark in marks_in(data)]
    log = SqliteLog(data / "log.db")
    batch = ReadingBatch(profile=HostProfile(host="node-1"), readings=(), marks=tuple(marks))
    log.append([readings_record(batch)], time.time())
    log.close()
    return {mark.device: mark.at for mark in marks}


def recovered_in(data: Path) -> list[EnergyReading]:
    """Those of the GPU."""
    return [each for each in readings_in(data, uuid(0)) if each.method == "recovered"]


def test_the_api_on_loopback_answers_to_its_own_names_alone(tmp_path: Path, tree: PowercapTree) -> None:
    """A web page whose name was made to lead to 127.0.0.1 reads nothing."""
    with working(tree), DaemonProcess(tmp_path, LIVE.format(sysfs=tree.sysfs)) as daemon:
        daemon.ready()
        assert daemon.get(daemon.web, "/v1/status")[0] == 200
        assert daemon.get(daemon.web, "/v1/status", host="rebound.example.net")[0] == 400


def test_role_control_has_the_alert_rules(tmp_path: Path, tree: PowercapTree) -> None:
    """They are in the daemon's picture of itself, come and go with a reload, and hold up no stop."""
    (tmp_path / "url").write_text("http://127.0.0.1:1/")
    rule = '[[alerts]]\nname = "hot"\nmeasure = "power_watts"\nabove = 1\nwebhook_url_file = "url"\n'
    live = LIVE.format(sysfs=tree.sysfs)
    with working(tree), DaemonProcess(tmp_path, live + rule) as daemon:
        daemon.ready()
        assert [alert["name"] for alert in daemon.status()["alerts"]] == ["hot"]
        daemon.configure(live)
        daemon.send(signal.SIGHUP)
        wait_for("the reload", lambda: daemon.status().get("alerts") == [])
        assert daemon.stop() == 0
