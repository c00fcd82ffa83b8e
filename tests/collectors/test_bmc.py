"""The node's power from its management controller: Redfish over a small real server, IPMI through real programs."""

import base64
import json
import shutil
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from http_pages import Pages, served_pages

from collectors.bmc import BmcMeter, NodeReading, diagnose
from collectors.clock import Clock
from collectors.errors import Broken, RetryLater
from collectors.ipmi import IpmiPower
from collectors.meter import Measured
from collectors.readings import CounterMark, Device, EnergyReading
from collectors.redfish import RedfishPower

REAL_POWER = Path(__file__).parents[3] / "shared" / "data" / "fixtures-gpu" / "telegraf_dell_power.json"
T0 = 1_764_000_000.0
CHASSIS = "/redfish/v1/Chassis"
NODE = f"{CHASSIS}/System.Embedded.1"

DCMI = """
    Instantaneous power reading:                   220 Watts
    Minimum during sampling period:                  5 Watts
    Maximum during sampling period:                396 Watts
    Average power reading over sample period:      207 Watts
    IPMI timestamp:                           Tue Nov 24 02:00:00 2026
    Sampling period:                          00000001 Seconds.
    Power reading state is:                   activated

"""


class Time(Clock):
    """Wall and steady time that a test moves."""

    seconds = 0.0

    def now(self) -> float:
        return T0 + self.seconds

    def tick(self) -> float:
        return 1_000.0 + self.seconds


class Said:
    """A controller that says what a test lets it say."""

    described, hardware, mend = "a test", "", "mend the test"

    def __init__(self, *said: NodeReading | Exception) -> None:
        self.said = list(said)

    def open(self) -> None:
        """Nothing to find."""

    def read(self) -> NodeReading:
        each = self.said.pop(0)
        if isinstance(each, Exception):
            raise each
        return each

    def close(self) -> None:
        """Nothing to let go of."""


def meter_of(*said: NodeReading | Exception, interval_seconds: float = 10.0) -> tuple[BmcMeter, Time]:
    clock = Time()
    meter = BmcMeter(Said(*said), interval_seconds=interval_seconds, clock=clock, tick=clock.tick)
    return meter, clock


def watts(power_watts: float | None) -> NodeReading:
    return NodeReading(power_watts=power_watts)


def told(meter: BmcMeter, clock: Time, *seconds: float) -> list[tuple[float, float, float, str]]:
    """(start, end) since T0, joules, method of what is read at these times."""
    readings: list[Measured] = []
    for clock.seconds in seconds:
        readings += meter.read()
    return [
        (each.start - T0, each.end - T0, each.energy_joules, each.method)
        for each in readings
        if isinstance(each, EnergyReading)
    ]


def test_power_is_integrated_between_answers() -> None:
    """400 W, then 440 W: 4 200 J in the 10 s between."""
    meter, clock = meter_of(watts(400.0), watts(440.0))
    assert told(meter, clock, 0.0, 10.0) == [(0.0, 10.0, 4_200.0, "integrated")]
    assert meter.devices == (Device(id="node", kind="node"),)
    assert meter.health().devices[0].state == "ok"


@pytest.mark.parametrize("sentinel", [0.0, 65_535.0, -1.0, None])
def test_what_is_no_power_is_missing_and_counted(sentinel: float | None) -> None:
    """0 W of a node that answers, and more than 30 kW, are what controllers say who do not know."""
    meter, clock = meter_of(watts(400.0), watts(sentinel), watts(400.0), watts(400.0))
    assert told(meter, clock, 0.0, 10.0) == []
    assert meter.health().devices[0].state == "not_responding"
    assert told(meter, clock, 20.0, 30.0) == [(20.0, 30.0, 4_000.0, "integrated")]
    assert meter.health().events[("node", "sentinel")] == 1
    assert meter.health().devices[0].state == "ok"


def test_a_missed_answer_is_bridged_and_a_hole_is_missing() -> None:
    """A controller that is busy once costs no joule; 40 s of silence at an interval of 10 s are not made up."""
    meter, clock = meter_of(watts(400.0), RetryLater("busy"), watts(400.0), watts(400.0))
    assert told(meter, clock, 0.0) == []
    clock.seconds = 10.0
    with pytest.raises(RetryLater):
        meter.read()
    assert meter.health().devices[0].detail == "busy"
    assert told(meter, clock, 20.0) == [(0.0, 20.0, 8_000.0, "integrated")]
    assert told(meter, clock, 60.0) == []
    assert meter.health().events == {("node", "timeout"): 1, ("node", "power_gap"): 1}


def test_an_interval_of_a_minute_is_no_hole() -> None:
    """What is a hole depends on how often the controller is asked."""
    meter, clock = meter_of(watts(400.0), watts(400.0), interval_seconds=60.0)
    assert told(meter, clock, 0.0, 60.0) == [(0.0, 60.0, 24_000.0, "integrated")]


def test_a_controller_s_counter_outlives_a_boot_of_the_host() -> None:
    """700 s after the mark the counter is 210 kJ further: recovered."""
    meter, clock = meter_of(NodeReading(power_watts=300.0, energy_joules=1_210_000.0))
    meter.resume([CounterMark(device="node", at=T0, raw_joules=1e6, range_joules=None, boot_id="node")])
    assert told(meter, clock, 700.0) == [(0.0, 700.0, 210_000.0, "recovered")]
    assert [mark.raw_joules for mark in meter.marks] == [1_210_000.0]


# --- Redfish


def collection(*members: str) -> dict[str, Any]:
    return {"@odata.id": CHASSIS, "Members": [{"@odata.id": member} for member in members]}


def power(consumed_watts: float | None, *parts_watts: float) -> dict[str, Any]:
    """The shape of Dell's, with parts as Lenovo lists them."""
    return {
        "@odata.type": "#Power.v1_5_0.Power",
        "PowerControl": [
            {"Name": "System Power Control", "PowerConsumedWatts": consumed_watts, "PowerCapacityWatts": 1628},
            *({"Name": "CPU Sub-system Power", "PowerConsumedWatts": watts} for watts in parts_watts),
        ],
        "PowerSupplies": [{"PowerInputWatts": 900, "LastPowerOutputWatts": None}],
    }


def environment(reading_watts: float | None, kwh: float | None = None) -> dict[str, Any]:
    energy = {} if kwh is None else {"EnergykWh": {"Reading": kwh}}
    return {"@odata.type": "#EnvironmentMetrics.v1_3_0", "PowerWatts": {"Reading": reading_watts}, **energy}


def chassis(path: str, *resources: str, inside: str = "", computer: bool = True) -> dict[str, Any]:
    links: dict[str, Any] = {"ComputerSystems": [{"@odata.id": "/redfish/v1/Systems/1"}]} if computer else {}
    if inside:
        links["ContainedBy"] = {"@odata.id": inside}
    named = {resource: {"@odata.id": f"{path}/{resource}"} for resource in resources}
    return {"@odata.id": path, "Manufacturer": "Dell Inc.", "Model": "PowerEdge R740", "Links": links, **named}


def show(pages: Pages, resources: dict[str, dict[str, Any]]) -> None:
    for path, resource in resources.items():
        pages.show(path, json.dumps(resource))


@pytest.fixture
def controller() -> Iterator[Pages]:
    """A Redfish controller of one chassis of 429 W."""
    with served_pages() as pages:
        show(pages, {CHASSIS: collection(NODE), NODE: chassis(NODE, "Power"), f"{NODE}/Power": power(429)})
        yield pages


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    file = tmp_path / "bmc-password"
    file.write_text("s3cret\n")
    return file


@pytest.fixture
def redfish(controller: Pages, password_file: Path) -> Iterator[RedfishPower]:
    source = RedfishPower(controller.url, user="meter", password_file=password_file)
    yield source
    source.close()


def test_redfish_finds_the_chassis_power_and_keeps_its_connection(controller: Pages, redfish: RedfishPower) -> None:
    """Basic authentication with the password from its file; one connection for all questions."""
    redfish.open()
    assert [redfish.read(), redfish.read()] == [watts(429.0), watts(429.0)]
    assert redfish.hardware == "Dell Inc. PowerEdge R740"
    assert controller.connections == 1
    assert {authorization for _, authorization in controller.asked} == {
        "Basic " + base64.b64encode(b"meter:s3cret").decode()
    }


def test_environment_metrics_come_before_power_where_they_tell_power(controller: Pages, redfish: RedfishPower) -> None:
    """A controller whose EnvironmentMetrics know no power is asked for Power."""
    show(controller, {NODE: chassis(NODE, "EnvironmentMetrics", "Power")})
    show(controller, {f"{NODE}/EnvironmentMetrics": environment(431.5)})
    redfish.open()
    assert redfish.read() == watts(431.5)
    show(controller, {f"{NODE}/EnvironmentMetrics": environment(None)})
    redfish.open()
    assert redfish.read() == watts(429.0)


def test_parts_of_the_chassis_are_not_added_to_it(controller: Pages, redfish: RedfishPower) -> None:
    """PowerControl's first member is the chassis, further ones are within it."""
    show(controller, {f"{NODE}/Power": power(429, 180, 40)})
    redfish.open()
    assert redfish.read() == watts(429.0)


def test_of_many_chassis_the_outermost_with_a_computer_is_the_node(controller: Pages, redfish: RedfishPower) -> None:
    """Boards with eight GPUs list each of them as a chassis with a power of its own."""
    gpu, shelf = f"{CHASSIS}/HGX_GPU_SXM_1", f"{CHASSIS}/Shelf"
    show(
        controller,
        {
            CHASSIS: collection(gpu, shelf, NODE),
            gpu: chassis(gpu, "EnvironmentMetrics", inside=NODE),
            f"{gpu}/EnvironmentMetrics": environment(620),
            shelf: chassis(shelf, "Power", computer=False),
            f"{shelf}/Power": power(3_000),
        },
    )
    redfish.open()
    assert redfish.read() == watts(429.0)


def test_an_energy_counter_counts_only_where_it_is_fine(controller: Pages, redfish: RedfishPower) -> None:
    """0.001 kWh is 3 600 J, 9 s of a node of 400 W; 1.234567 kWh is fine enough: 4 444 441.2 J."""
    show(controller, {NODE: chassis(NODE, "EnvironmentMetrics")})
    show(controller, {f"{NODE}/EnvironmentMetrics": environment(400, 1.234)})
    redfish.open()
    assert redfish.read().energy_joules is None
    show(controller, {f"{NODE}/EnvironmentMetrics": environment(400, 1.234567)})
    assert redfish.read().energy_joules == pytest.approx(4_444_441.2)
    show(controller, {f"{NODE}/EnvironmentMetrics": environment(400, 1.2346)})
    assert redfish.read().energy_joules == pytest.approx(4_444_560.0)


def test_a_refused_user_is_broken_and_a_busy_controller_is_not(controller: Pages, redfish: RedfishPower) -> None:
    """Asking on with a wrong password would lock the account."""
    redfish.open()
    controller.show(f"{NODE}/Power", "", 503)
    with pytest.raises(RetryLater, match="HTTP status 503"):
        redfish.read()
    controller.show(f"{NODE}/Power", "<html>")
    with pytest.raises(RetryLater, match="no JSON"):
        redfish.read()
    controller.show(f"{NODE}/Power", "", 401)
    with pytest.raises(Broken, match="user 'meter' is refused"):
        redfish.read()
    assert not any("s3cret" in str(part) for part in diagnose(redfish))


def test_a_resource_that_moved_is_found_again(controller: Pages, redfish: RedfishPower) -> None:
    """A new firmware may name its chassis otherwise."""
    redfish.open()
    del controller.answers[f"{NODE}/Power"]
    moved = f"{CHASSIS}/1"
    show(controller, {CHASSIS: collection(moved), moved: chassis(moved, "Power"), f"{moved}/Power": power(430)})
    with pytest.raises(RetryLater, match="moved"):
        redfish.read()
    assert redfish.read() == watts(430.0)


def test_the_password_goes_to_no_other_server(controller: Pages, redfish: RedfishPower) -> None:
    """Links that lead elsewhere are not followed; nor is a redirection."""
    show(controller, {CHASSIS: collection("//evil.example/x", "http://evil.example/", NODE)})
    redfish.open()
    assert {path for path, _ in controller.asked} == {CHASSIS, NODE, f"{NODE}/Power"}
    controller.show(CHASSIS, "", 301)
    with pytest.raises(Broken, match="HTTP status 301"):
        redfish.open()


def test_a_controller_without_power_or_without_redfish_is_broken(controller: Pages, redfish: RedfishPower) -> None:
    """Each says what was looked for."""
    show(controller, {f"{NODE}/Power": power(None)})
    with pytest.raises(Broken, match="none of its 1 chassis tells PowerWatts"):
        redfish.open()
    del controller.answers[CHASSIS]
    with pytest.raises(Broken, match="is it a Redfish controller"):
        redfish.open()


def test_a_password_never_travels_unencrypted(password_file: Path) -> None:
    """http is for this machine alone; a password file that is missing is named."""
    with pytest.raises(Broken, match="write https"):
        RedfishPower("http://bmc-17.example.net", user="meter", password_file=password_file).open()
    missing = password_file.with_name("missing")
    with pytest.raises(Broken, match="missing: the password cannot be read"):
        RedfishPower("https://bmc-17.example.net", user="meter", password_file=missing).open()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for 127.0.0.1 and its key, in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    both = tmp_path / "bmc.pem"
    name = ["-subj", "/CN=bmc-17", "-addext", "subjectAltName=IP:127.0.0.1"]
    options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command = ["openssl", "req", "-x509", *options, *name, "-keyout", str(both), "-out", str(tmp_path / "c.pem")]
    subprocess.run(command, check=True, capture_output=True)
    both.write_text(both.read_text() + (tmp_path / "c.pem").read_text())
    return both


def test_a_self_signed_certificate_is_refused_until_it_is_named(certificate: Path, password_file: Path) -> None:
    """Never silently off: the refusal says how to save the certificate, and with `ca_file` it is trusted."""

    def tls(server: ThreadingHTTPServer) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)

    with served_pages(tls) as pages:
        show(pages, {CHASSIS: collection(NODE), NODE: chassis(NODE, "Power"), f"{NODE}/Power": power(429)})
        stranger = RedfishPower(pages.url, user="meter", password_file=password_file)
        with pytest.raises(Broken, match=r"not trusted.*openssl s_client -connect 127\.0\.0\.1:\d+ .*ca_file"):
            stranger.open()
        assert pages.asked == []
        known = RedfishPower(
            pages.url, user="meter", password_file=password_file, ca_file=certificate.with_name("c.pem")
        )
        known.open()
        assert known.read() == watts(429.0)
        known.close()


@pytest.mark.skipif(not REAL_POWER.exists(), reason="the captured resource is not beside the repository")
def test_the_captured_power_of_a_dell_is_read(controller: Pages, redfish: RedfishPower) -> None:
    """PowerConsumedWatts 429, not the average of 426 over its minute."""
    controller.show(f"{NODE}/Power", REAL_POWER.read_bytes())
    redfish.open()
    assert redfish.read() == watts(429.0)


# --- IPMI


def program(tmp_path: Path, script: str) -> Sequence[str]:
    """A real program in place of ipmitool."""
    file = tmp_path / "ipmitool"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return (str(file), "dcmi", "power", "reading")


def test_ipmi_reads_the_instantaneous_power(tmp_path: Path) -> None:
    """220 W, and not the minimum, maximum or average beside it."""
    (tmp_path / "said").write_text(DCMI)
    source = IpmiPower(program(tmp_path, f'[ "$*" = "dcmi power reading" ] && cat {tmp_path}/said'))
    source.open()
    assert source.read() == watts(220.0)
    (finding,) = diagnose(source)
    assert (finding.state, finding.what) == ("ok", "IPMI DCMI: 220 W, power supplies included")


@pytest.mark.parametrize(
    ("said", "mend"),
    [
        ("Could not open device at /dev/ipmi0 or /dev/ipmi/0: No such file or directory", "modprobe ipmi_si"),
        ("Could not open device at /dev/ipmi0 or /dev/ipmi/0: Permission denied", "chgrp wattribute /dev/ipmi0"),
        ("DCMI request failed because: Invalid command (c1)", "redfish"),
    ],
)
def test_what_a_person_must_mend_is_broken_and_says_how(tmp_path: Path, said: str, mend: str) -> None:
    """ipmitool's own words, and the command beside them."""
    source = IpmiPower(program(tmp_path, f'echo "{said}" >&2; exit 1'))
    with pytest.raises(Broken, match=said.split(":", maxsplit=1)[0]):
        source.open()
    (finding,) = diagnose(source)
    assert finding.state == "broken"
    assert mend in finding.mend


def test_without_ipmitool_the_package_is_named(tmp_path: Path) -> None:
    """The most common case."""
    with pytest.raises(Broken, match="apt-get install ipmitool"):
        IpmiPower((str(tmp_path / "nowhere"),)).open()


def test_a_reading_that_is_switched_off_is_broken(tmp_path: Path) -> None:
    """The figures beside "deactivated" are old or 0."""
    (tmp_path / "said").write_text(DCMI.replace("activated", "deactivated"))
    with pytest.raises(Broken, match="is deactivated; ipmitool dcmi power activate"):
        IpmiPower(program(tmp_path, f"cat {tmp_path}/said")).open()


def test_a_program_that_hangs_is_killed_and_asked_again(tmp_path: Path) -> None:
    """The reading has a deadline; the next one starts a new program once the old one has ended."""
    hanging = program(tmp_path, "exec sleep 30")
    source = IpmiPower(hanging, timeout_seconds=0.2)
    for _ in range(2):
        with pytest.raises(RetryLater, match=r"within 0\.2 s|still hangs"):
            source.read()
    source.close()
    child = source._child
    assert child is not None
    assert child.wait(timeout=5.0) != 0
