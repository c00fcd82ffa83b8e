"""What systemd/ installs, judged by systemd's own tools and booted in a real one.

A machine is booted where the tests are root and systemd-nspawn is there; elsewhere those tests are skipped with the
reason, in CI too: whether one may be booted is not for a checkout to demand. Where it may, a failed boot is a failure.
`systemd-analyze` needs no privilege: with CI set its absence is a failure.
"""

import fnmatch
import json
import os
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_nvml import FakeNvml, library, uuid
from nspawn import REPOSITORY, Machine, environment_files, finish_environment, make_root, missing

from monitor.cli.run import run

SYSTEMD = REPOSITORY / "systemd"
UNIT = SYSTEMD / "wattribute.service"
ROLES = ("collect", "ingest", "aggregate", "control", "web")
# What systemd may rate their exposure at the most, in tenths: what meters hardware sees more of it.
THRESHOLDS = {"wattribute": 20, "wattribute-collect": 20} | {
    f"wattribute-{role}": 15 for role in ROLES if role != "collect"
}
COMMAND = "/opt/wattribute/bin/wattribute"
# What `sudo -u wattribute` does, without PAM.
AS_USER = ("setpriv", "--reuid=wattribute", "--regid=wattribute", "--init-groups")
RULE = SYSTEMD / "70-wattribute-powercap.rules"
ZONES = ("intel-rapl:0", "intel-rapl:0/intel-rapl:0:0", "intel-rapl:1")
COUNTERS = ("energy_uj", "max_energy_range_uj")

needs_machine = pytest.mark.skipif(missing() is not None, reason=missing() or "")

CONFIG = """
[host]
name = "booted"

[accounting]
window = "2s"

[[sources]]
name = "receiver"
kind = "http"
listen = "127.0.0.1:8096"
"""
FLEET = """
[kafka]
bootstrap_servers = ["127.0.0.1:9092"]

[store]
kind = "influxdb"

[influxdb]
url = "http://127.0.0.1:8086"
"""
GPU_WATTS = 250.0
# Where the fake driver is: its library, and the file that scripts it, in the only folder that the daemon may write to.
DRIVER = """
[Service]
Environment=LD_LIBRARY_PATH=/opt/driver FAKE_NVML=/var/lib/wattribute/fake-nvml.control
"""
# Posts an event of the last second to the receiver, as a gateway on this host does.
POST = """
import json, time, urllib.request
now = time.time()
event = {"request_id": "r-1", "model": "chat", "team": "search", "start": now - 1, "end": now, "output_tokens": 9}
request = urllib.request.Request("http://127.0.0.1:8096/v1/events", json.dumps(event).encode())
request.add_header("Content-Type", "application/json")
print(urllib.request.urlopen(request, timeout=10).status)
"""
# The same sandbox around a program that tries what the unit forbids and needs what it must leave.
PROBE = """
import ctypes, json, mmap, os, socket

def tried(call):
    try:
        call()
    except OSError as error:
        return os.strerror(error.errno)
    return "done"

libc = ctypes.CDLL("libc.so.6", use_errno=True)

def new_user_namespace():
    if libc.unshare(0x10000000):
        raise OSError(ctypes.get_errno(), "unshare")

import numpy, psutil, pynvml
told = {
    "writable_and_executable": tried(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)),
    "write_etc": tried(lambda: open("/etc/wattribute/mine", "w")),
    "write_opt": tried(lambda: open("/opt/wattribute/mine", "w")),
    "raw_socket": tried(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
    "new_user_namespace": tried(new_user_namespace),
    "home": tried(lambda: os.listdir("/root")),
    "sum": float(numpy.dot(numpy.ones(3), numpy.ones(3))),
    "first_process": psutil.Process(1).name(),
    "cpu_times": psutil.cpu_times().user > 0,
    "callback": ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 7)(),
    "capabilities": [line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapBnd", "CapEff"))],
}
json.dump(told, open("/var/lib/wattribute/probe.json", "w"))
"""
PROBE_SERVICE = """
[Service]
Type=oneshot
ExecStart=
ExecStart=/opt/wattribute/bin/python /opt/probe.py
ExecReload=
WatchdogSec=0
Restart=no
"""


def _tool(name: str) -> str:
    """The tool's path; skips without it, and fails in CI, where it must be."""
    found = shutil.which(name)
    if found is None:
        assert not os.environ.get("CI"), f"no {name} here; in CI the unit must be judged"
        pytest.skip(f"no {name} here; it comes with systemd")
    return found


def _powercap_tree(sysfs: Path) -> list[Path]:
    """The energy counters of two packages as the kernel makes them: root's alone. Gives the zones' folders."""
    zones = [sysfs / "devices/virtual/powercap/intel-rapl" / zone for zone in ZONES]
    for zone in zones:
        zone.mkdir(parents=True)
        for counter in COUNTERS:
            (zone / counter).write_text("262143328850\n")
            (zone / counter).chmod(0o400)
    return zones


def _commands_of_rule(zone: str) -> list[list[str]]:
    """What udev runs for a zone in this folder."""
    commands = re.findall(r'RUN\+="([^"]+)"', RULE.read_text())
    return [command.replace("$sys$devpath", zone).split(" ") for command in commands]


@pytest.mark.parametrize("name", THRESHOLDS)
def test_the_unit_is_hardened(name: str) -> None:
    """systemd rates its exposure at 2.0 or less of 10 where it meters, else at 1.5 or less."""
    unit, threshold = SYSTEMD / f"{name}.service", f"--threshold={THRESHOLDS[name]}"
    command = [_tool("systemd-analyze"), "security", "--offline=true", threshold, "--no-pager", str(unit)]
    outcome = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30.0)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_every_odd_line_of_the_unit_says_why() -> None:
    """What a reader would tighten at once has its reason above it."""
    blocks = UNIT.read_text().split("\n\n")
    for line in ("ProcSubset=all", "ProtectProc=default", "DevicePolicy=closed", "MemoryDenyWriteExecute=yes"):
        block = next(each for each in blocks if line in each.splitlines())
        assert block.splitlines()[block.splitlines().index(line) - 1].startswith("#") or block.startswith("#"), line


def _settings(unit: Path) -> set[str]:
    """Its lines, comments aside."""
    return {line for line in unit.read_text().splitlines() if "=" in line and not line.startswith("#")}


def test_the_unit_of_a_role_runs_that_role_beside_the_others() -> None:
    """On one file, with data and an address of its own; its command line is understood."""
    addresses = []
    for role in ROLES:
        found = [line for line in _settings(SYSTEMD / f"wattribute-{role}.service") if line.startswith("ExecStart=")]
        words = found[0].removeprefix("ExecStart=").split()
        assert words[:4] == [COMMAND, "run", "--config", "/etc/wattribute/config.toml"]
        options = dict(zip(words[4::2], words[5::2], strict=True))
        assert options.keys() <= {name for each in run.params for name in each.opts}
        assert (options["--roles"], options["--data"]) == (role, "${STATE_DIRECTORY}")
        assert f"StateDirectory=wattribute/{role}" in _settings(SYSTEMD / f"wattribute-{role}.service")
        addresses.append(options["--metrics"])
    assert addresses == ["127.0.0.1:8097", "127.0.0.1:8098", "127.0.0.1:8099", "127.0.0.1:8100", "127.0.0.1:8101"]


def test_the_units_of_roles_are_that_of_all_roles_but_for_what_they_say() -> None:
    """What one gained, all have: nobody forgets a line in five files."""
    whole = _settings(UNIT)
    own = ("Description=", "ExecStart=", "StateDirectory", "UMask=", "Memory", "TasksMax=", "CPUWeight=", "IOWeight=")
    hardware = ("After=", "DeviceAllow=", "ProcSubset=", "ProtectProc=")
    for role in ROLES:
        said = _settings(SYSTEMD / f"wattribute-{role}.service")
        skipped = own if role == "collect" else own + hardware
        left = {line for line in whole - said if not line.startswith(skipped)}
        assert left == set(), role


def test_the_udev_rule_gives_its_group_the_counters_and_their_ranges(tmp_path: Path) -> None:
    """Its commands, run on a tree of files: both become readable by the group, and by no others."""
    zones = _powercap_tree(tmp_path)
    rule = RULE.read_text().splitlines()[-1]
    kernel = re.search(r'KERNEL=="([^"]+)"', rule)
    assert kernel is not None
    assert [fnmatch.fnmatch(name, kernel[1]) for name in ("intel-rapl", "intel-rapl:0", "intel-rapl:0:0", "dtpm")] == [
        False,
        True,
        True,
        False,
    ]
    for zone in zones:
        for command in _commands_of_rule(str(zone)):
            words = [str(os.getgid()) if word == "powercap" else word for word in command]
            subprocess.run(words, check=True, timeout=10.0)
    modes = [stat.S_IMODE((zone / counter).stat().st_mode) for zone in zones for counter in COUNTERS]
    assert modes == [0o440] * 6
    assert {(zone / counter).stat().st_gid for zone in zones for counter in COUNTERS} == {os.getgid()}


def test_tmpfiles_does_the_same_without_udev(tmp_path: Path) -> None:
    """systemd-tmpfiles on a whole root, with the groups that systemd-sysusers made there."""
    if os.geteuid() != 0:
        pytest.skip("only root gives files to another group")
    (tmp_path / "etc").mkdir()
    zones = _powercap_tree(tmp_path / "sys")
    for tool, arguments, file in (
        ("systemd-sysusers", [], "wattribute.sysusers"),
        ("systemd-tmpfiles", ["--create"], "wattribute.tmpfiles"),
    ):
        command = [_tool(tool), *arguments, f"--root={tmp_path}", str(SYSTEMD / file)]
        subprocess.run(command, check=True, capture_output=True, timeout=30.0)
    groups = {line.split(":")[0]: line.split(":") for line in (tmp_path / "etc/group").read_text().splitlines()}
    assert [groups[name][3] for name in ("powercap", "video")] == ["wattribute", "wattribute"]
    told = [(zone / "energy_uj").stat() for zone in zones]
    assert {(stat.S_IMODE(each.st_mode), each.st_gid) for each in told} == {(0o440, int(groups["powercap"][2]))}
    assert {stat.S_IMODE((zone / "max_energy_range_uj").stat().st_mode) for zone in zones} == {0o444}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A booted machine with one (fake) GPU, on which Wattribute was installed as docs/install.md says."""
    root = tmp_path_factory.mktemp("machine") / "root"
    files = {
        "etc/systemd/system/default.target": "[Unit]\nRequires=sysinit.target\nAfter=sysinit.target\n",
        "etc/systemd/system/wattribute-probe.service": UNIT.read_text() + PROBE_SERVICE,
        "etc/systemd/system/wattribute.service.d/driver.conf": DRIVER,
        "etc/systemd/system/wattribute-collect.service.d/driver.conf": DRIVER + "ReadWritePaths=/var/lib/wattribute\n",
        "opt/probe.py": PROBE,
    }
    make_root(root, files=environment_files() | files)
    finish_environment(root)
    (root / "opt/driver").mkdir()
    shutil.copy(library(), root / "opt/driver")
    with Machine(root) as booted:
        booted.run("/opt/checkout/systemd/install.sh")
        yield booted


@pytest.fixture(scope="module")
def driver(machine: Machine) -> Iterator[FakeNvml]:
    """The GPU's driver, scripted from here through a file in the daemon's own folder."""
    machine.run("install", "--directory", "--owner=wattribute", "--group=wattribute", "/var/lib/wattribute")
    with FakeNvml(machine.root / "var/lib/wattribute", 1) as driver:
        driver.gpu(0).draw(GPU_WATTS)
        machine.run("chown", "wattribute", "/var/lib/wattribute/fake-nvml.control")
        yield driver


@needs_machine
def test_the_rule_lets_the_daemons_user_read_the_counters_and_nobody_else(machine: Machine) -> None:
    """Its commands, run with the group that the machine has, on a tree of files."""
    _powercap_tree(machine.root / "srv/sys")
    zone = "/srv/sys/devices/virtual/powercap/intel-rapl/intel-rapl:0"
    read = ("cat", f"{zone}/energy_uj", f"{zone}/max_energy_range_uj")
    assert machine.run(*AS_USER, *read, check=False) == ""
    for command in _commands_of_rule(zone):
        machine.run(*command)
    assert machine.run(*AS_USER, *read) == "262143328850\n262143328850"
    assert machine.run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *read, check=False) == ""


@needs_machine
def test_the_files_are_understood_by_systemd_and_udev(machine: Machine) -> None:
    """Neither warns of a line of them."""
    for name in THRESHOLDS:
        assert machine.run("systemd-analyze", "verify", "--recursive-errors=no", f"{name}.service") == ""
    if shutil.which("udevadm") is None:
        pytest.skip("no udevadm here; on Debian: apt-get install udev")
    read = machine.run("sh", "-c", "udevadm test /sys/devices/virtual/net/lo 2>&1")
    assert f"Reading rules file: /etc/udev/rules.d/{RULE.name}" in read
    assert re.findall(rf"{re.escape(RULE.name)}:\d+.*", read) == []


@needs_machine
def test_the_sandbox_forbids_what_it_says_and_leaves_what_meters_need(machine: Machine) -> None:
    """Writable code, foreign files, raw sockets and namespaces are refused; libraries load and processes are seen."""
    machine.run("systemctl", "start", "wattribute-probe")
    told = json.loads((machine.root / "var/lib/wattribute/probe.json").read_text())
    assert told == {
        "writable_and_executable": "Operation not permitted",
        "write_etc": "Read-only file system",
        "write_opt": "Read-only file system",
        "raw_socket": "Address family not supported by protocol",
        "new_user_namespace": "Operation not permitted",
        "home": "Permission denied",
        "sum": 3.0,
        "first_process": "systemd",
        "cpu_times": True,
        "callback": 7,
        "capabilities": ["0" * 16] * 2,
    }


@pytest.fixture
def daemon(machine: Machine, driver: FakeNvml) -> Machine:
    """The machine with the daemon running on CONFIG, started by whoever comes first."""
    _configure(machine, CONFIG)
    machine.run("systemctl", "start", "wattribute")
    return machine


def _configure(machine: Machine, text: str) -> None:
    (machine.root / "etc/wattribute/config.toml").write_text(text)


def _status(machine: Machine, port: int = 8097) -> dict[str, Any]:
    """What the daemon says of itself to anybody on its host."""
    url = f"http://127.0.0.1:{port}/status"
    ask = f"import urllib.request as web; print(web.urlopen('{url}', timeout=10).read().decode())"
    told: dict[str, Any] = json.loads(machine.run("/opt/wattribute/bin/python", "-c", ask))
    return told


def _devices(machine: Machine) -> list[dict[str, Any]]:
    return [device for meter in _status(machine)["meters"] for device in meter["devices"]]


def _watts(machine: Machine) -> dict[str, float]:
    """The last power of each device that has been read."""
    read = (device for device in _devices(machine) if device["power_watts"] is not None)
    return {device["device"]: device["power_watts"] for device in read}


def _gpu_state(machine: Machine) -> str:
    return next(device["state"] for device in _devices(machine) if device["kind"] == "gpu")


def _last_reading(machine: Machine) -> float:
    return max(device["last_reading_at"] or 0.0 for device in _devices(machine))


def _sources(machine: Machine) -> list[str]:
    return [source["name"] for source in _status(machine)["sources"]]


def _wait_until_active(machine: Machine) -> None:
    """While it reloads, a unit is `reloading`."""
    machine.wait_for(lambda: machine.show("wattribute", "ActiveState") == "active", "the end of the reload")


@needs_machine
def test_the_daemon_is_ready_as_its_own_user_under_a_watchdog(daemon: Machine) -> None:
    """Type=notify: active means that it said so, after a first reading."""
    assert daemon.show("wattribute", "ActiveState") == "active"
    process = daemon.show("wattribute", "MainPID")
    assert daemon.run("ps", "-o", "user=", "-p", process) == "wattribute"
    assert daemon.run("stat", "--format=%U:%G %a", "/var/lib/wattribute") == "wattribute:wattribute 750"
    assert daemon.show("wattribute", "WatchdogUSec") == "1min"
    started = daemon.show("wattribute", "ExecMainStartTimestampMonotonic")
    assert int(daemon.show("wattribute", "WatchdogTimestampMonotonic")) > int(started)
    assert " W" in daemon.show("wattribute", "StatusText")


@needs_machine
def test_the_daemon_meters_and_takes_events_in_its_sandbox(daemon: Machine) -> None:
    """A GPU through the reader process, the CPU, and an event posted to its receiver: a team has energy in a report."""
    assert daemon.run("/opt/wattribute/bin/python", "-c", POST) == "202"
    daemon.wait_for(lambda: set(_watts(daemon)) >= {uuid(0), "cpu"}, "both meters")
    assert _watts(daemon)[uuid(0)] == pytest.approx(GPU_WATTS, rel=0.2)
    asked = (*AS_USER, COMMAND, "report", "--from", "-1h", "--by", "team")
    daemon.wait_for(lambda: "search" in daemon.run(*asked), "the team's energy in a report", seconds=20.0)


@needs_machine
def test_a_reload_takes_a_right_configuration_and_leaves_a_wrong_one(daemon: Machine) -> None:
    """A second receiver is there; then a mistake is told with its line and both stay; all that in one process."""
    process = daemon.show("wattribute", "MainPID")
    second = CONFIG + '\n[[sources]]\nname = "second"\nkind = "http"\nlisten = "127.0.0.1:8098"\n'
    _configure(daemon, second)
    daemon.run("systemctl", "reload", "wattribute")
    daemon.wait_for(lambda: _sources(daemon) == ["receiver", "second"], "the second receiver")
    _wait_until_active(daemon)
    _configure(daemon, second.replace('kind = "http"', 'kind = "smoke signals"', 1))
    daemon.run("systemctl", "reload", "wattribute")
    line = CONFIG.splitlines().index('kind = "http"') + 1
    daemon.wait_for(lambda: f"config.toml:{line}: " in daemon.journal("wattribute"), "the mistake in the journal")
    _wait_until_active(daemon)
    told = _status(daemon)["at"]
    daemon.wait_for(lambda: _last_reading(daemon) > told, "a reading after the mistake")
    assert _sources(daemon) == ["receiver", "second"]
    assert daemon.show("wattribute", "MainPID") == process


@needs_machine
def test_a_wrong_configuration_at_the_start_is_not_tried_again(machine: Machine) -> None:
    """Exit code 2: systemd leaves it failed, and the journal names the line."""
    machine.run("systemctl", "stop", "wattribute")
    _configure(machine, "[host]\nzone = 'UK'\n")
    machine.systemctl("start", "wattribute")
    assert machine.show("wattribute", "ActiveState") == "failed"
    assert machine.show("wattribute", "ExecMainStatus") == "2"
    assert "config.toml:2: host.zone" in machine.journal("wattribute")
    machine.systemctl("reset-failed", "wattribute")


@needs_machine
def test_the_daemon_stops_within_seconds_though_the_driver_hangs(daemon: Machine, driver: FakeNvml) -> None:
    """It ends by itself, well before systemd would kill it, and leaves no process behind."""
    driver.gpu(0).hang = 1
    daemon.wait_for(lambda: _gpu_state(daemon) == "not_responding", "the daemon to see it")
    before = time.monotonic()
    daemon.run("systemctl", "stop", "wattribute")
    assert time.monotonic() - before < 10.0
    assert daemon.show("wattribute", "Result") == "success"
    assert daemon.show("wattribute", "ActiveState") == "inactive"
    assert daemon.run("pgrep", "--uid", "wattribute", check=False) == ""


@needs_machine
def test_role_collect_alone_meters_in_its_unit_while_no_broker_answers(machine: Machine, driver: FakeNvml) -> None:
    """It is ready on a host that booted before Kafka, keeps its readings in its own folder, and replaced the whole."""
    driver.gpu(0).hang = 0
    machine.run("systemctl", "start", "wattribute")
    _configure(machine, '[host]\nname = "booted"\n[kafka]\nbootstrap_servers = ["127.0.0.1:9092"]\n')
    machine.run("systemctl", "start", "wattribute-collect")
    assert machine.show("wattribute-collect", "ActiveState") == "active"
    assert machine.show("wattribute", "ActiveState") == "inactive"
    assert [role["name"] for role in _status(machine)["roles"]] == ["collect"]
    machine.wait_for(lambda: set(_watts(machine)) >= {uuid(0), "cpu"}, "both meters")
    assert machine.run("stat", "--format=%U %a", "/var/lib/wattribute/collect") == "wattribute 750"
    assert machine.run("stat", "--format=%U", "/var/lib/wattribute/collect/log.db") == "wattribute"
    machine.run("systemctl", "stop", "wattribute-collect")
    assert machine.show("wattribute-collect", "Result") == "success"


@needs_machine
def test_every_role_runs_in_its_sandbox_before_kafka_and_the_store_are_there(machine: Machine) -> None:
    """Side by side on one file, each ready; libraries load and each knows its own cost, with no device in sight."""
    _configure(machine, CONFIG + FLEET)
    for role, port in zip(ROLES[1:], range(8098, 8102), strict=True):
        machine.run("systemctl", "start", f"wattribute-{role}")
        told = _status(machine, port)
        assert [each["name"] for each in told["roles"]] == [role]
        assert told["cost"]["memory_bytes"] > 0
        assert machine.run("stat", "--format=%U %a", f"/var/lib/wattribute/{role}") == "wattribute 700"
    for role in ROLES[1:]:
        assert machine.show(f"wattribute-{role}", "ActiveState") == "active"
        machine.run("systemctl", "stop", f"wattribute-{role}")
        assert machine.show(f"wattribute-{role}", "Result") == "success"
