"""A dcgm-exporter as the GPU meter: pages of a small real server, joules worked by hand."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from itertools import pairwise
from pathlib import Path

import pytest
from http_pages import Pages, served_pages
from hypothesis import assume, given
from hypothesis import strategies as st

from collectors.clock import Clock
from collectors.dcgm import DcgmMeter, diagnose
from collectors.dcgm_board import BoardTrack
from collectors.dcgm_page import Board, boards, number
from collectors.errors import Broken, RetryLater
from collectors.meter import Measured
from collectors.readings import ActivityReading, CounterMark, Device, EnergyReading

REAL_PAGE = Path(__file__).parents[3] / "shared" / "data" / "fixtures-gpu" / "dcgm_exporter_scrape_L4_excerpt.prom"
UUID = "GPU-c2f76b33-7953-256e-8f33-1343419b1a1c"
T0 = 1_764_000_000.0
BLANK = "9223372036854775792"


class Time(Clock):
    """Wall and steady time that a test moves."""

    seconds = 0.0

    def now(self) -> float:
        return T0 + self.seconds

    def tick(self) -> float:
        return 1_000.0 + self.seconds


def row(name: str, value: object, *, uuid: str = UUID, instance: str = "") -> str:
    mig = f',GPU_I_PROFILE="1g.10gb",GPU_I_ID="{instance}"' if instance else ""
    labels = f'gpu="0",UUID="{uuid}",pci_bus_id="00000000:31:00.0",device="nvidia0",modelName="NVIDIA L4"{mig}'
    return f'DCGM_FI_{name}{{{labels},Hostname="i-0",DCGM_FI_DRIVER_VERSION="580.105.08"}} {value}'


def page(millijoules: object, watts: object = "60.000000", *more: str) -> str:
    """The shape of the captured page, with its comments."""
    lines = [
        "# HELP DCGM_FI_DEV_POWER_USAGE Power draw (in W).",
        "# TYPE DCGM_FI_DEV_POWER_USAGE gauge",
        row("DEV_POWER_USAGE", watts),
        "# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION counter",
        row("DEV_TOTAL_ENERGY_CONSUMPTION", millijoules),
        *more,
    ]
    return "\n".join(lines) + "\n"


@pytest.fixture
def pages() -> Iterator[Pages]:
    with served_pages() as served:
        yield served


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def meter(pages: Pages, clock: Time) -> Iterator[DcgmMeter]:
    with closing(meter_of(pages, clock)) as made:
        yield made


def meter_of(pages: Pages, clock: Time) -> DcgmMeter:
    return DcgmMeter(f"{pages.url}/metrics", interval_seconds=1.0, clock=clock, boot_id="boot", tick=clock.tick)


def read(meter: DcgmMeter, pages: Pages, clock: Time, seconds: float, text: str) -> Sequence[Measured]:
    """What the meter makes of this page at this time."""
    clock.seconds = seconds
    pages.show("/metrics", text)
    return meter.read()


def energies(measured: Sequence[Measured]) -> list[tuple[float, float, float, str]]:
    """(start, end) since T0, joules, method."""
    return [
        (each.start - T0, each.end - T0, each.energy_joules, each.method)
        for each in measured
        if isinstance(each, EnergyReading)
    ]


def test_a_board_is_metered_by_its_energy_counter(meter: DcgmMeter, pages: Pages, clock: Time) -> None:
    """4 000 mJ more on each page a second apart are 4 J; what the first page shows is of unknown age."""
    pages.show("/metrics", page(4_742_776))
    meter.open()
    assert meter.devices == [Device(id=UUID, kind="gpu", hardware="NVIDIA L4")]
    assert meter.health().devices[0].state == "waiting"
    assert energies(read(meter, pages, clock, 1.0, page(4_746_776))) == []
    assert energies(read(meter, pages, clock, 2.0, page(4_750_776))) == [(1.0, 2.0, 4.0, "counter")]
    assert meter.health().devices[0].state == "ok"
    assert pages.connections == 1


def test_a_counter_that_stands_still_between_refreshes_is_not_zero_watts(
    meter: DcgmMeter, pages: Pages, clock: Time
) -> None:
    """Refreshed each 30 s and asked each second: one interval of 30 s and of 1 800 J, none of 0 J."""
    told = []
    for second in range(100):
        millijoules = 60_000 * 30 * ((second + 5) // 30) + 1_000
        told += energies(read(meter, pages, clock, float(second), page(millijoules, 60 + (second + 5) // 30)))
    assert told == [(25.0, 55.0, 1_800.0, "counter"), (55.0, 85.0, 1_800.0, "counter")]
    assert meter.health().devices[0].state == "ok"
    assert meter.health().events == {}


def test_figures_that_never_change_are_a_board_that_does_not_respond(
    meter: DcgmMeter, pages: Pages, clock: Time
) -> None:
    """After a restart of the host engine the exporter has shown old values for ever: no joule is made of them."""
    for second in range(3):
        read(meter, pages, clock, float(second), page(1_000 + 60_000 * second))
    told = [energies(read(meter, pages, clock, float(second), page(121_000))) for second in range(3, 200, 1)]
    assert not any(told)
    health = meter.health().devices[0]
    assert health.state == "not_responding"
    assert "restart the dcgm-exporter" in health.detail
    assert energies(read(meter, pages, clock, 200.0, page(121_000 + 198 * 60_000))) == [
        (2.0, 200.0, 11_880.0, "recovered")
    ]


def test_without_a_counter_power_is_integrated_and_held_between_refreshes(
    meter: DcgmMeter, pages: Pages, clock: Time
) -> None:
    """60 W for 30 s, then 90 W: 60 J a second, 75 J in the second of the change."""
    told = []
    for second in range(33):
        told += energies(read(meter, pages, clock, float(second), page(BLANK, 60 if second < 31 else 90)))
    assert sum(joules for _, _, joules, _ in told) == 29 * 60.0 + 75.0 + 90.0
    assert {method for *_, method in told} == {"integrated"}
    assert [end for _, end, *_ in told] == [float(second) for second in range(2, 33)]


def test_held_power_ends_where_the_page_is_not_renewed(meter: DcgmMeter, pages: Pages, clock: Time) -> None:
    """An exporter that has died behind its page draws nothing on the books after two refreshes."""
    told = []
    for second in range(200):
        told += energies(read(meter, pages, clock, float(second), page(BLANK, 60 if second < 1 else 61)))
    assert max(end for _, end, *_ in told) == 66.0


@pytest.mark.parametrize("blank", [BLANK, "9223372036854775793", "140737488355328.000000", "NaN", "N/A", "0", "-1"])
def test_what_stands_for_no_value_is_no_value(meter: DcgmMeter, pages: Pages, clock: Time, blank: str) -> None:
    """A blank page between two good ones: the joules of both seconds come with the second one, once."""
    for second in range(3):
        read(meter, pages, clock, float(second), page(1_000 + 60_000 * second))
    assert energies(read(meter, pages, clock, 3.0, page(blank, blank))) == []
    assert meter.health().devices[0].state == "not_responding"
    assert energies(read(meter, pages, clock, 4.0, page(241_000))) == [(2.0, 4.0, 120.0, "counter")]
    assert meter.health().devices[0].state == "ok"


def test_dcgm_s_blanks_are_known_by_their_ranges() -> None:
    """0x7ffffff0, 2^47 and 0x7ffffffffffffff0, each + 3 at most; a counter just beside them is a counter."""
    assert [number(2_147_483_632.0 + more) for more in (0, 3)] == [None, None]
    assert number(140_737_488_355_328.0) is None
    assert number(9_223_372_036_854_775_792.0) is None
    assert number(2_147_483_631.0) == 2_147_483_631.0
    assert number(2_147_483_648.0) == 2_147_483_648.0
    assert number(62.5) == 62.5


def test_with_mig_the_board_is_counted_once_and_its_instances_are_listed(
    meter: DcgmMeter, pages: Pages, clock: Time
) -> None:
    """Each instance's row repeats the board's counter; the instances' activity is told one by one."""

    def mig(millijoules: int, first: float, second: float) -> str:
        return "\n".join(
            [
                row("DEV_TOTAL_ENERGY_CONSUMPTION", millijoules, instance="1"),
                row("DEV_TOTAL_ENERGY_CONSUMPTION", millijoules, instance="2"),
                row("DEV_POWER_USAGE", 60.0, instance="1"),
                row("DEV_POWER_USAGE", 60.0, instance="2"),
                row("PROF_GR_ENGINE_ACTIVE", first, instance="1"),
                row("PROF_GR_ENGINE_ACTIVE", second, instance="2"),
            ]
        )

    read(meter, pages, clock, 0.0, mig(1_000, 0.0, 0.0))
    read(meter, pages, clock, 1.0, mig(61_000, 0.5, 0.25))
    measured = read(meter, pages, clock, 3.0, mig(181_000, 0.5, 0.25))
    instances = (f"{UUID}/1", f"{UUID}/2")
    assert meter.devices == [
        Device(id=UUID, kind="gpu", hardware="NVIDIA L4", instances=instances, instance_slices=(1.0, 1.0))
    ]
    assert energies(measured) == [(1.0, 3.0, 120.0, "counter")]
    assert [each for each in measured if isinstance(each, ActivityReading)] == [
        ActivityReading(
            device=UUID, start=T0 + 1, end=T0 + 3, consumer=f"instance:{UUID}/{number}", busy_seconds=busy_seconds
        )
        for number, busy_seconds in ((1, 1.0), (2, 0.5))
    ]


def test_a_whole_board_s_activity_is_its_engine_s_else_its_utilisation(
    meter: DcgmMeter, pages: Pages, clock: Time
) -> None:
    """25 % of 1 s by the profiling field; 50 % by nvidia-smi's utilisation where that is missing."""
    utilisation = row("DEV_GPU_UTIL", 50)
    told = []
    for second in range(4):
        active = row("PROF_GR_ENGINE_ACTIVE", 0.25 if second < 3 else BLANK)
        told += read(meter, pages, clock, float(second), page(1_000 + 60_000 * second, 60, utilisation, active))
    assert [(each.consumer, each.busy_seconds) for each in told if isinstance(each, ActivityReading)] == [
        ("", 0.25),
        ("", 0.5),
    ]


def test_a_counter_that_begins_anew_is_a_reset_and_named(meter: DcgmMeter, pages: Pages, clock: Time) -> None:
    """The driver was loaded again: the interval it fell in is missing, the next is measured."""
    for second in range(3):
        read(meter, pages, clock, float(second), page(5_000_000 + 60_000 * second))
    told = []
    for second in range(3, 6):
        told += energies(read(meter, pages, clock, float(second), page(10_000 + 60_000 * (second - 3))))
    assert told == [(3.0, 4.0, 60.0, "counter"), (4.0, 5.0, 60.0, "counter")]
    assert meter.health().events == {(UUID, "reset"): 1}


def test_what_was_used_while_nobody_asked_is_recovered_from_the_mark(
    meter: DcgmMeter, pages: Pages, clock: Time
) -> None:
    """A mark of 600 s ago and 36 000 J more on the counter; the mark may be the nvml meter's."""
    clock.seconds = 599.0
    meter.resume([CounterMark(device=UUID, at=T0, raw_joules=1_000.0, range_joules=None, boot_id="boot")])
    pages.show("/metrics", page(36_940_000))
    meter.open()
    assert energies(read(meter, pages, clock, 600.0, page(37_000_000))) == [(0.0, 600.0, 36_000.0, "recovered")]
    assert [(mark.at - T0, mark.raw_joules) for mark in meter.marks] == [(600.0, 37_000.0)]


def test_after_pages_were_missed_the_counter_goes_on_at_its_next_change(
    meter: DcgmMeter, pages: Pages, clock: Time
) -> None:
    """A value that may have been there for long would squeeze its joules into the second after it."""
    for second in range(3):
        read(meter, pages, clock, float(second), page(1_000 + 60_000 * second))
    pages.show("/metrics", b"", 503)
    clock.seconds = 3.0
    with pytest.raises(RetryLater, match="HTTP status 503"):
        meter.read()
    assert meter.health().devices[0].state == "not_responding"
    assert energies(read(meter, pages, clock, 20.0, page(121_000 + 60_000 * 17))) == []
    assert energies(read(meter, pages, clock, 21.0, page(121_000 + 60_000 * 19))) == [(2.0, 21.0, 1_140.0, "counter")]


def test_a_board_that_leaves_the_page_is_gone_and_its_neighbour_stays(
    meter: DcgmMeter, pages: Pages, clock: Time
) -> None:
    """Hot-removed, or fallen off the bus."""
    other = row("DEV_TOTAL_ENERGY_CONSUMPTION", 7_000, uuid="GPU-other")
    read(meter, pages, clock, 0.0, page(1_000, 60, other))
    assert {device.id for device in meter.devices} == {UUID, "GPU-other"}
    read(meter, pages, clock, 1.0, page(61_000))
    assert {device.id for device in meter.devices} == {UUID}
    assert {each.device: each.state for each in meter.health().devices} == {UUID: "waiting", "GPU-other": "gone"}


def test_names_without_end_do_not_fill_the_memory(meter: DcgmMeter, pages: Pages, clock: Time) -> None:
    """A page that names other boards each time is followed no further than twice the most boards a host has."""
    for second in range(5):
        rows = [row("DEV_POWER_USAGE", 60, uuid=f"GPU-{second}-{each}") for each in range(100)]
        read(meter, pages, clock, float(second), "\n".join(rows))
    assert len(meter.devices) == 64
    assert len(meter.health().devices) == 128


@pytest.mark.parametrize(("body", "status"), [("", 200), ("<html>", 200), (page(1), 404), (page(1), 500)])
def test_a_page_without_boards_is_asked_for_again(meter: DcgmMeter, pages: Pages, body: str, status: int) -> None:
    """Exporters have answered 200 with nothing on the page; the address and the status are named."""
    pages.show("/metrics", body, status)
    with pytest.raises(RetryLater, match=f"{pages.url}/metrics: " + ("no row" if status == 200 else "HTTP status")):
        meter.open()


def test_an_answer_that_trickles_or_never_ends_is_given_up_in_time(meter: DcgmMeter, pages: Pages) -> None:
    """A byte now and then keeps each receive within its time-out, and must not keep the meter."""

    def trickle(handler: BaseHTTPRequestHandler) -> None:
        deadline = time.monotonic() + 20.0
        while time.monotonic() < deadline:
            handler.wfile.write(b"H")
            time.sleep(0.02)

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            handler.wfile.write(b"#" * 2**20)

    pages.answers["/metrics"] = trickle
    begun = time.monotonic()
    with pytest.raises(RetryLater, match="within 2 s"):
        meter.open()
    assert time.monotonic() - begun < 10.0
    pages.answers["/metrics"] = endless
    with pytest.raises(RetryLater, match=r"larger than 8 MiB|within 2 s"):
        meter.open()


def test_a_connection_that_the_server_has_closed_is_opened_anew(meter: DcgmMeter, pages: Pages) -> None:
    """A restart of the exporter between two pages costs no page."""

    def once(handler: BaseHTTPRequestHandler) -> None:
        body = page(1_000).encode()
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        handler.close_connection = True

    pages.answers["/metrics"] = once
    meter.open()
    meter.read()
    meter.close()
    assert pages.connections == 2


def test_where_nobody_listens_the_address_is_named(clock: Time) -> None:
    """The exporter may come up later; a mistyped address needs a person."""
    with served_pages() as pages:
        gone = meter_of(pages, clock)
    with pytest.raises(RetryLater, match=r"127\.0\.0\.1"):
        gone.open()
    with pytest.raises(Broken, match="is no address"):
        DcgmMeter("localhost", interval_seconds=1.0, clock=clock, boot_id="boot").open()


def test_the_diagnosis_says_of_each_board_how_it_can_be_metered(pages: Pages) -> None:
    """By counter, by power, or not at all; and what mends it."""
    power = row("DEV_POWER_USAGE", 60, uuid="GPU-power")
    none = row("DEV_POWER_USAGE", BLANK, uuid="GPU-none")
    pages.show("/metrics", page(1_000, 60, power, none))
    findings = {each.subject: each for each in diagnose(f"{pages.url}/metrics")}
    assert {subject: each.state for subject, each in findings.items()} == {
        UUID: "ok",
        "GPU-power": "warning",
        "GPU-none": "broken",
    }
    assert "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION" in findings["GPU-power"].mend
    pages.show("/metrics", "", 500)
    (finding,) = diagnose(f"{pages.url}/metrics")
    assert finding.state == "broken"
    assert "HTTP status 500" in finding.what


@pytest.mark.skipif(not REAL_PAGE.exists(), reason="the captured page is not beside the repository")
def test_a_page_captured_on_a_real_l4_is_read_whole() -> None:
    """4 742 776 mJ are 4 742.776 J; the figures are those that stand in the file."""
    (board,) = boards(REAL_PAGE.read_text()).values()
    assert (board.uuid, board.hardware) == (UUID, "NVIDIA L4")
    assert (board.energy_joules, board.power_watts, board.busy_ratio) == (4_742.776, 16.365, 0.0)


@given(
    refreshes=st.lists(st.floats(min_value=0.2, max_value=60.0), min_size=3, max_size=20),
    watts=st.floats(min_value=10.0, max_value=700.0),
    offset=st.floats(min_value=0.0, max_value=0.99),
)
def test_however_the_exporter_refreshes_each_joule_is_told_once(
    refreshes: list[float], watts: float, offset: float
) -> None:
    """From the first change that was seen to the last one, to the millijoule, in intervals that touch."""
    times = [offset + sum(refreshes[:count]) for count in range(len(refreshes))]
    track = BoardTrack(Board(uuid=UUID), boot_id="boot", mark=None)
    told, shown = [], []
    for second in range(1, int(times[-1]) + 3):
        refreshed = max(time for time in times if time <= second)
        board = Board(uuid=UUID, energy_joules=round(1_000.0 + watts * refreshed, 3), power_watts=watts)
        shown.append((float(second), board.energy_joules))
        told += energies(track.take(board, at=T0 + second, tick=float(second)))
    changes = [each for before, each in pairwise(shown) if each[1] != before[1]]
    assume(changes)
    first, last = changes[0], changes[-1]
    assert [start for start, *_ in told] == [first[0], *(end for _, end, *_ in told[:-1])][: len(told)]
    assert sum(joules for _, _, joules, _ in told) == pytest.approx(last[1] - first[1], abs=1e-6)
    assert {method for *_, method in told} <= {"counter", "recovered"}
    assert track.track.events.keys() <= {"recovered"}
