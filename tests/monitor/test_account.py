"""The account of one host's window, worked by hand, and the law that its books close."""

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, floor, fsum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.readings import Device, EnergyReading, HostProfile, Method, ModelFacts
from monitor.core.account import Account, account
from monitor.core.emissions.factors import Intensity
from monitor.core.points import ENERGY, METER, REQUEST_ENERGY, USAGE, Measurement, Row
from monitor.core.readings import Told
from monitor.core.usage import Usage
from monitor.core.usage_columns import columns_of

T = 1_728_000_000.0
GPU = Device(id="g0", kind="gpu", idle_watts=50.0)
GPU_1 = Device(id="g1", kind="gpu", idle_watts=50.0)


def reading(device: str, start: float, end: float, joules: float, method: Method = "counter") -> EnergyReading:
    """A reading, its times in seconds from T."""
    return EnergyReading(device=device, start=T + start, end=T + end, energy_joules=joules, method=method)


def request(request_id: str, start: float, end: float, **facts: Any) -> Usage:
    """A request of a model that nobody knows: it has no marginal energy and pays its equal part."""
    team, devices = facts.pop("team", "blue"), facts.pop("devices", ("g0",))
    return Usage(
        host="h",
        namespace="",
        request_id=request_id,
        model="x",
        team=team,
        devices=devices,
        start=T + start,
        end=T + end,
        **facts,
    )


def books(
    devices: Sequence[Device],
    readings: Sequence[EnergyReading],
    requests: Sequence[Usage] = (),
    *,
    window: int = 0,
    **facts: Any,
) -> Account:
    """The account of [T + 10 window, + 10) out of everything that was told."""
    zone, intensity = facts.pop("zone", ""), facts.pop("intensity", None)
    profile = HostProfile(host="h", devices=tuple(devices), zone=zone, **facts)
    begin, end = T + 10.0 * window, T + 10.0 * (window + 1)

    def touching(start: float, stop: float, device: str | None = None) -> list[Told]:
        low, high = floor(start / 10.0) * 10.0, ceil(stop / 10.0) * 10.0
        return [
            Told(each, profile)
            for each in readings
            if each.start < high and low < each.end and device in (None, each.device)
        ]

    return account(
        "h",
        begin,
        end,
        readings=touching(begin, end),
        usages=columns_of([usage for usage in requests if usage.start < end and usage.end >= begin]),
        nearby=lambda device, start, stop: touching(start, stop, device),
        intensity_at=lambda asked, _at: intensity if asked == zone else None,
        revision=0,
    )


def value(found: Account, measurement: Measurement, field: str, **tags: str) -> Any:
    """The field of the one row with these tags."""
    rows = [row for row in found.rows if row.measurement == measurement.name and _has(row, measurement, tags)]
    assert len(rows) == 1, rows
    return rows[0].fields[measurement.fields.index(field)]


def _has(row: Row, measurement: Measurement, tags: dict[str, str]) -> bool:
    return all(row.tags[measurement.tags.index(name)] == wanted for name, wanted in tags.items())


def joules(found: Account, device: str, name: str, team: str = "") -> Any:
    """Joules of one account of a device."""
    return value(found, ENERGY, "energy_joules", device=device, account=name, team=team)


def test_a_busy_gpu_is_its_requests_and_a_quiet_one_idle() -> None:
    """300 W, a request over [0, 4): 1 200 J are its, of the other 6 s 300 J are idle and 1 500 J unreported."""
    found = books([GPU], [reading("g0", 0, 10, 3_000)], [request("a", 0, 4)])
    assert joules(found, "g0", "attributed", "blue") == pytest.approx(1_200.0)
    assert joules(found, "g0", "idle") == pytest.approx(300.0)
    assert value(found, ENERGY, "unreported_joules", account="unattributed") == pytest.approx(1_500.0)
    assert value(found, METER, "energy_joules") == 3_000.0
    assert value(found, METER, "covered_seconds") == 10.0


def test_a_node_holds_its_gpus_and_pays_what_is_left() -> None:
    """A node of 1 000 J over GPUs of 600 J has 400 J of its own: 10 W idle, 300 J for the request on the host."""
    node = Device(id="n", kind="node", idle_watts=10.0)
    gpu = Device(id="g0", kind="gpu", idle_watts=50.0, parent="n")
    found = books([node, gpu], [reading("n", 0, 10, 1_000), reading("g0", 0, 10, 600)], [request("a", 0, 10)])
    assert value(found, METER, "energy_joules", device="n") == pytest.approx(1_000.0)
    assert value(found, METER, "energy_joules", device="g0") == pytest.approx(600.0)
    assert value(found, METER, "parent", device="g0") == "n"
    assert joules(found, "g0", "attributed", "blue") == pytest.approx(600.0)
    assert joules(found, "n", "attributed", "blue") == pytest.approx(300.0)
    assert joules(found, "n", "idle") == pytest.approx(100.0)
    assert value(found, REQUEST_ENERGY, "energy_joules") == pytest.approx(900.0)


def test_children_that_claim_more_than_their_parent_are_a_disagreement() -> None:
    """GPUs of 1 100 J in a node of 1 000 J: the node has no part of its own and 100 J of disagreement."""
    node = Device(id="n", kind="node", idle_watts=10.0)
    gpu = Device(id="g0", kind="gpu", parent="n")
    found = books([node, gpu], [reading("n", 0, 10, 1_000), reading("g0", 0, 10, 1_100)])
    assert value(found, METER, "meter_disagreement_joules", device="n") == pytest.approx(100.0)
    assert value(found, METER, "energy_joules", device="n") == pytest.approx(1_000.0)
    assert joules(found, "n", "idle") == 0.0
    assert joules(found, "n", "unattributed") == 0.0
    assert joules(found, "g0", "idle") == pytest.approx(1_100.0)


def test_a_parents_reading_is_divided_over_the_whole_of_itself() -> None:
    """1 000 J over [0, 20), a GPU of 100 J, then 500 J: 400 J of its own, 200 in each window; meters 300 and 700 J."""
    node, gpu = Device(id="n", kind="node"), Device(id="g0", kind="gpu", parent="n")
    readings = [reading("n", 0, 20, 1_000), reading("g0", 0, 10, 100), reading("g0", 10, 20, 500)]
    first, second = (books([node, gpu], readings, window=window) for window in range(2))
    assert joules(first, "n", "idle") == joules(second, "n", "idle") == pytest.approx(200.0)
    assert value(first, METER, "energy_joules", device="n") == pytest.approx(300.0)
    assert value(second, METER, "energy_joules", device="n") == pytest.approx(700.0)


def test_where_a_parent_was_not_read_it_holds_its_children() -> None:
    """A node read over 5 s, 500 J, its GPU at 60 W over 10 s: 500 J + 300 J; and one not read at all: 600 J, 0 s."""
    node, gpu = Device(id="n", kind="node"), Device(id="g0", kind="gpu", parent="n")
    half = books([node, gpu], [reading("n", 0, 5, 500), reading("g0", 0, 10, 600)])
    assert value(half, METER, "energy_joules", device="n") == pytest.approx(800.0)
    assert value(half, METER, "covered_seconds", device="n") == 5.0
    assert joules(half, "n", "idle") == pytest.approx(200.0)
    none = books([node, gpu], [reading("g0", 0, 10, 600)])
    assert value(none, METER, "energy_joules", device="n") == pytest.approx(600.0)
    assert value(none, METER, "covered_seconds", device="n") == 0.0
    assert joules(none, "n", "idle") == 0.0


@pytest.mark.parametrize("parents", [("z", None), ("n", None), ("n", "g0")])
def test_a_parent_that_cannot_be_is_none(parents: tuple[str | None, str | None]) -> None:
    """A parent that no device is, the device itself, or one inside it: each meter then stands for itself."""
    child, above = ("g0", "g0") if parents[0] == "n" and parents[1] is None else (parents[0], parents[1])
    devices = [
        Device(id="g0", kind="gpu", parent=child),
        Device(id="n", kind="node", parent=above if parents[1] else None),
    ]
    found = books(devices, [reading("g0", 0, 10, 600), reading("n", 0, 10, 100)])
    assert {value(found, METER, "parent", device=device) for device in ("g0", "n")} == {""}
    assert value(found, METER, "energy_joules", device="g0") == 600.0
    assert value(found, METER, "energy_joules", device="n") == 100.0


def test_a_request_of_unknown_device_marks_what_exceeds_idle() -> None:
    """300 W for 10 s beside a request over [0, 4) of no known GPU: 500 J idle, 1 000 J unknown device."""
    found = books([GPU], [reading("g0", 0, 10, 3_000)], [request("a", 0, 4, devices=None)])
    assert joules(found, "g0", "idle") == pytest.approx(500.0)
    assert value(found, ENERGY, "unknown_device_joules", account="unattributed") == pytest.approx(1_000.0)
    assert value(found, ENERGY, "unreported_joules", account="unattributed") == pytest.approx(1_500.0)
    assert value(found, REQUEST_ENERGY, "energy_joules") is None


def test_what_a_request_used_that_no_meter_saw_is_not_known() -> None:
    """g1 was not read, g0 drew nothing: no joule of b's is known and no gram, and a has 0 J and 0 g."""
    requests = [request("a", 0, 4), request("b", 0, 4, devices=("g1",))]
    fr = Intensity(zone="FR", grams_per_kwh=100.0, source="test", year=2024)
    found = books([GPU, GPU_1], [reading("g0", 0, 10, 0)], requests, zone="FR", intensity=fr)
    for name in REQUEST_ENERGY.sums:
        assert value(found, REQUEST_ENERGY, name, request_id="a") == 0.0
        assert value(found, REQUEST_ENERGY, name, request_id="b") is None


def test_of_a_cpu_only_what_exceeds_idle_is_shared() -> None:
    """100 W with 60 W idle, two requests over [0, 5): 200 J to share, 600 J idle, 200 J of nobody."""
    cpu = Device(id="c", kind="cpu", idle_watts=60.0)
    requests = [request("a", 0, 5, devices=None), request("b", 0, 5, team="red")]
    found = books([cpu], [reading("c", 0, 10, 1_000)], requests)
    assert joules(found, "c", "attributed", "blue") == joules(found, "c", "attributed", "red") == pytest.approx(100.0)
    assert joules(found, "c", "idle") == pytest.approx(600.0)
    assert joules(found, "c", "unattributed") == pytest.approx(200.0)


def test_a_tensor_parallel_request_pays_on_each_of_its_gpus() -> None:
    """Alone on both, 1 000 J and 2 000 J: 3 000 J, one request, its tokens once."""
    readings = [reading("g0", 0, 10, 1_000), reading("g1", 0, 10, 2_000)]
    asked = request("a", 0, 9.5, devices=("g0", "g1"), input_tokens=70, output_tokens=20)
    found = books([GPU, GPU_1], readings, [asked])
    assert value(found, REQUEST_ENERGY, "energy_joules") == pytest.approx(2_850.0)
    assert value(found, REQUEST_ENERGY, "exact_joules") == pytest.approx(2_850.0)
    assert value(found, USAGE, "requests") == 1.0
    assert value(found, USAGE, "input_tokens") == 70.0
    assert value(found, USAGE, "output_tokens") == 20.0
    assert value(found, USAGE, "active_seconds") == 9.5


def test_a_request_that_may_have_gone_elsewhere_counts_in_part() -> None:
    """Beside one of weight 1 one of weight 1/2 pays a third of 3 000 J, and is half a request with half its tokens."""
    requests = [request("a", 0, 9.9), request("b", 0, 9.9, team="red", weight=0.5, input_tokens=100)]
    found = books([GPU], [reading("g0", 0, 10, 3_000)], requests)
    assert joules(found, "g0", "attributed", "blue") == pytest.approx(1_980.0)
    assert joules(found, "g0", "attributed", "red") == pytest.approx(990.0)
    assert value(found, USAGE, "requests", team="red") == 0.5
    assert value(found, USAGE, "input_tokens", team="red") == 50.0
    assert value(found, ENERGY, "exact_joules", account="attributed", team="red") == 0.0


def test_a_request_that_told_nothing_is_counted_as_untold() -> None:
    """Without tokens it pays its time all the same; its tokens are missing, and said to be."""
    found = books([GPU], [reading("g0", 0, 10, 1_000)], [request("a", 0, 5), request("b", 0, 5, input_tokens=3)])
    assert value(found, REQUEST_ENERGY, "energy_joules", request_id="a") == pytest.approx(250.0)
    assert value(found, REQUEST_ENERGY, "input_tokens", request_id="a") is None
    assert value(found, REQUEST_ENERGY, "first_token", request_id="a") is None
    assert value(found, USAGE, "untold_requests") == 1.0
    assert value(found, USAGE, "requests") == 2.0


def test_how_many_told_when_an_engine_began_is_counted() -> None:
    """Two parts of a request of weight 1/2 each tell it, a third request does not: 1 of 2."""
    told = [request(name, 0, 5, scheduled=T + 1.0, weight=0.5) for name in "ab"]
    found = books([GPU], [reading("g0", 0, 10, 1_000)], [*told, request("c", 0, 5)])
    assert (value(found, USAGE, "scheduled_requests"), value(found, USAGE, "requests")) == (1.0, 2.0)


def test_a_request_is_counted_in_the_window_in_which_it_ends() -> None:
    """Ending at 10 s exactly it is of window 1, where it also has a row without joules; its energy is of window 0."""
    readings = [reading("g0", 0, 10, 1_000), reading("g0", 10, 20, 1_000)]
    first, second = (books([GPU], readings, [request("a", 0, 10)], window=window) for window in range(2))
    assert not [row for row in first.rows if row.measurement == USAGE.name]
    assert value(first, REQUEST_ENERGY, "energy_joules") == pytest.approx(1_000.0)
    assert value(second, USAGE, "requests") == 1.0
    assert value(second, REQUEST_ENERGY, "energy_joules") == 0.0


def test_more_cached_tokens_than_input_never_make_negative_energy() -> None:
    """A request whose event told cached tokens alone pays as one of no fresh tokens."""
    asked = request("a", 0, 10, cached_input_tokens=5_000, output_tokens=1)
    facts = (ModelFacts(name="x", parameters=8e9),)
    found = books([GPU], [reading("g0", 0, 10, 1_000)], [asked, request("b", 0, 10)], models=facts)
    assert value(found, REQUEST_ENERGY, "marginal_joules", request_id="a") >= 0.0
    assert value(found, REQUEST_ENERGY, "energy_joules", request_id="a") == pytest.approx(500.0, rel=1e-3)


def test_grams_are_missing_where_no_factor_is_known() -> None:
    """3.6e6 J at PUE 1.5 and 100 g/kWh are 150 g; in a zone without a factor they are missing, not 0."""
    gpu = Device(id="g0", kind="gpu")
    readings = [reading("g0", 0, 10, 3.6e6)]
    fr = Intensity(zone="FR", grams_per_kwh=100.0, source="test", year=2024)
    known = books([gpu], readings, zone="FR", intensity=fr, pue=1.5)
    assert value(known, ENERGY, "location_grams", account="idle") == pytest.approx(150.0)
    assert value(known, ENERGY, "factor", account="idle") == "FR 100 g/kWh (test, 2024), PUE 1.5, location-based"
    unknown = books([gpu], readings, [request("a", 0, 1)], pue=1.5)
    assert value(unknown, ENERGY, "location_grams", account="idle") is None
    assert value(unknown, REQUEST_ENERGY, "location_grams") is None
    assert value(unknown, ENERGY, "factor", account="idle") == ""


@pytest.mark.parametrize(
    ("device", "idle_joules", "source"),
    [
        (Device(id="g0", kind="gpu", idle_watts=30.0), 300.0, "configured"),
        (Device(id="g0", kind="gpu", idle_watts=30.0, idle_source="quiet"), 300.0, "quiet"),
        (Device(id="g0", kind="gpu", hardware="NVIDIA H100 PCIe"), 450.0, "table"),
        (Device(id="g0", kind="gpu"), 1_000.0, "unknown"),
        (Device(id="g0", kind="cpu", hardware="NVIDIA H100 PCIe"), 1_000.0, "unknown"),
    ],
)
def test_where_idle_power_comes_from(device: Device, idle_joules: float, source: str) -> None:
    """As told, else of the table of GPUs; where nobody knows it, nothing counts as above idle."""
    found = books([device], [reading("g0", 0, 10, 1_000)])
    assert joules(found, "g0", "idle") == pytest.approx(idle_joules)
    assert joules(found, "g0", "unattributed") == pytest.approx(1_000.0 - idle_joules)
    assert value(found, ENERGY, "idle_source", account="idle") == source


def test_a_reading_that_overlaps_an_earlier_one_is_left_out_and_named() -> None:
    """[0, 6) of 600 J and [4, 10) of 300 J: the instant from 4 to 6 s counts once, the second reading not at all."""
    found = books([GPU], [reading("g0", 4, 10, 300), reading("g0", 0, 6, 600)])
    assert value(found, METER, "energy_joules") == 600.0
    assert [told.reading.start for told in found.overlaps] == [T + 4.0]


def test_energy_across_a_hole_without_requests_is_a_gap() -> None:
    """A recovered reading of 100 W over a 50 W idle: half of it is a gap, and its method is said."""
    found = books([GPU], [reading("g0", 0, 10, 1_000, "recovered")])
    assert value(found, ENERGY, "gap_joules", account="unattributed") == pytest.approx(500.0)
    assert value(found, METER, "recovered_joules") == 1_000.0


def test_what_is_modelled_is_not_metered() -> None:
    """500 J of a counter, then 500 J of a model: half is metered."""
    found = books([GPU], [reading("g0", 0, 5, 500), reading("g0", 5, 10, 500, "modelled")], [request("a", 0, 10)])
    assert value(found, METER, "metered_joules") == pytest.approx(500.0)
    assert value(found, ENERGY, "metered_joules", account="attributed") == pytest.approx(500.0)


EDGES = st.lists(st.floats(-7.0, 37.0, width=32), min_size=2, max_size=6, unique=True).map(sorted)
JOULES = st.one_of(st.just(0.0), st.floats(1e-6, 1e5))


@st.composite
def readings_of(draw: st.DrawFn, device: str) -> list[EnergyReading]:
    """Readings of a device, with holes, never overlapping."""
    edges = draw(EDGES)
    return [
        reading(device, start, end, draw(JOULES), draw(st.sampled_from(["counter", "modelled", "recovered"])))
        for start, end in pairwise(edges)
        if draw(st.integers(0, 3)) and end - start > 1e-3
    ]


@st.composite
def requests_of(draw: st.DrawFn, number: int) -> Usage:
    """A request, with or without tokens and devices."""
    start = draw(st.floats(-20.0, 35.0))
    length = draw(st.sampled_from([0.0, 1e-6, 0.5, 3.0, 40.0]))
    return request(
        str(number),
        start,
        start + length,
        team=draw(st.sampled_from(["blue", "red"])),
        devices=draw(st.sampled_from([None, (), ("g0",), ("g0", "g1")])),
        weight=draw(st.sampled_from([1.0, 0.5, 1.0 / 3.0])),
        first_token=draw(st.sampled_from([None, T + start + length / 2.0])),
        input_tokens=draw(st.sampled_from([None, 0, 5, 100_000])),
        output_tokens=draw(st.sampled_from([None, 0, 1, 4_000])),
    )


FAMILIES = st.sampled_from(
    [
        [],
        [("g0", "n"), ("g1", "n")],
        [("g0", "n"), ("c", "n"), ("d", "c")],
        [("g0", "g1"), ("g1", "g0")],
    ]
)
IDLE = st.sampled_from([None, 0.0, 45.0])
KINDS = {"g0": "gpu", "g1": "gpu", "c": "cpu", "d": "dram", "n": "node"}


@st.composite
def hosts(draw: st.DrawFn) -> tuple[list[Device], list[EnergyReading], list[Usage]]:
    """A host's devices, what they used, and what was asked of it."""
    parents: dict[str, str] = dict(draw(FAMILIES))
    devices = [
        Device(id=name, kind=kind, idle_watts=draw(IDLE), parent=parents.get(name)) for name, kind in KINDS.items()
    ]
    readings = [each for name in KINDS if draw(st.booleans()) for each in draw(readings_of(name))]
    return devices, readings, [draw(requests_of(number)) for number in range(draw(st.integers(0, 5)))]


@settings(deadline=None)
@given(hosts())
def test_the_books_close(host: tuple[list[Device], list[EnergyReading], list[Usage]]) -> None:
    """In every window: the meters that no other contains + disagreement = attributed + idle + unattributed."""
    for window in range(-1, 4):
        found = books(*host, window=window)
        meters = [row for row in found.rows if row.measurement == METER.name]
        top = fsum(row.fields[0] for row in meters if row.fields[METER.fields.index("parent")] == "")
        disagreement = fsum(row.fields[METER.fields.index("meter_disagreement_joules")] for row in meters)
        accounted = fsum(row.fields[0] for row in found.rows if row.measurement == ENERGY.name)
        asked = fsum(row.fields[0] or 0.0 for row in found.rows if row.measurement == REQUEST_ENERGY.name)
        attributed = fsum(row.fields[0] for row in found.rows if "attributed" in row.tags)
        assert accounted == pytest.approx(top + disagreement, rel=1e-9, abs=1e-9)
        assert asked == pytest.approx(attributed, rel=1e-9, abs=1e-9)


@settings(deadline=None)
@given(hosts(), st.sampled_from(list(KINDS)))
def test_the_windows_of_a_meter_hold_what_was_read(
    host: tuple[list[Device], list[EnergyReading], list[Usage]], device: str
) -> None:
    """Over all windows a meter without children sums to its readings: no joule is lost at an edge."""
    devices, readings, requests = host
    if any(each.parent == device for each in devices):
        devices = [each for each in devices if each.parent != device]
    metered = fsum(
        row.fields[0]
        for window in range(-1, 4)
        for row in books(devices, readings, requests, window=window).rows
        if row.measurement == METER.name and row.tags[1] == device
    )
    assert metered == pytest.approx(fsum(each.energy_joules for each in readings if each.device == device), rel=1e-9)


@settings(deadline=None)
@given(readings_of("g0"), EDGES, st.floats(1e3, 1e6))
def test_a_parent_that_is_read_throughout_holds_exactly_its_readings(
    inside: list[EnergyReading], edges: list[float], joules_read: float
) -> None:
    """Whatever its children say: their part, its own part and the disagreement make up what the parent's meter told."""
    node, gpu = Device(id="n", kind="node"), Device(id="g0", kind="gpu", parent="n")
    ends = [end for start, end in pairwise([-10.0, *edges]) if end - start > 1e-3]  # no hole in the parent's readings
    above = [reading("n", start, end, joules_read) for start, end in pairwise([-10.0, *ends, 40.0])]
    found = [books([node, gpu], [*inside, *above], window=window) for window in range(-1, 4)]
    metered = fsum(value(each, METER, "energy_joules", device="n") for each in found)
    assert metered == pytest.approx(joules_read * len(above), rel=1e-6)
