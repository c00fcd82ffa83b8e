"""Requests that several servers worked on: each host pays its phase on its own meter, and it is one request."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from math import fsum
from pathlib import Path

import msgspec
import pytest
from asked_on import asked_on
from hypothesis import given
from hypothesis import strategies as st

from collectors.errors import Rejected
from collectors.readings import Device, EnergyReading, HostProfile, ModelFacts
from collectors.recording import load_recording, write_recording
from collectors.requests.decoders.native import decode_event
from collectors.requests.event import EventPart, RequestEvent, Work
from monitor.core import points
from monitor.core.account import account
from monitor.core.asked import work_asked
from monitor.core.attribution.hardware import hardware_of
from monitor.core.attribution.models import token_cost
from monitor.core.attribution.work import Work as GpuWork
from monitor.core.demand import Demand, demand_of
from monitor.core.facts import Facts
from monitor.core.membership import Accounting
from monitor.core.phased import phase_on
from monitor.core.phases import Phase, Phases
from monitor.core.points import Row
from monitor.core.questions import Principal, RequestsQuery
from monitor.core.readings import Told
from monitor.core.request_energy import RequestEnergy, request_row
from monitor.core.serving import Deployment, Place
from monitor.core.usage import Usage, usage_of, usages_of_parts
from monitor.core.usage_columns import columns_of
from monitor.ledger.ledger import Ledger
from monitor.log.codec import Decoder, ReadingBatch, readings_record, tick_record, usage_record
from monitor.log.sqlite import SqliteLog
from monitor.log.usage_wire import UsageBatch
from monitor.query import Query, every_request
from monitor.roles.placement import Placer
from monitor.roles.replay import ReplayRole
from monitor.store.sqlite import SqliteStore

T = 1_728_000_000.0
H100 = "NVIDIA H100 80GB HBM3"
MODEL = ModelFacts(name="m", parameters=8e9, bytes_per_parameter=2.0, kv_bytes_per_token=1e5)
P0, D0 = (Device(id=name, kind="gpu", hardware=H100, idle_watts=70.0) for name in ("p0", "d0"))
ADMIN = Principal(name="root", role="admin")
CPU = Device(id="cpu0", kind="cpu", idle_watts=20.0)


def profile_of(host: str, *devices: Device) -> HostProfile:
    """That host with these devices, serving 8e9 parameters."""
    return HostProfile(host=host, devices=devices, models=(MODEL,))


def event_of(*parts: EventPart, **changes: object) -> RequestEvent:
    """10 000 tokens in and 300 out over [1, 7.4) of the first window; the first token came at 1.4 s."""
    event = RequestEvent(
        request_id="r",
        model="m",
        team="t",
        start=T + 1.0,
        first_token=T + 1.4,
        end=T + 7.4,
        input_tokens=10_000,
        output_tokens=300,
        parts=parts,
    )
    return msgspec.structs.replace(event, **changes)


def prefill(host: str, *devices: str, start: float = 1.0, end: float = 1.4) -> EventPart:
    """The prompt, computed there."""
    return EventPart(phase="prefill", host=host, devices=devices, start=T + start, end=T + end)


def decode(host: str, *devices: str, start: float = 1.4, end: float = 7.4) -> EventPart:
    """The answer, made there."""
    return EventPart(phase="decode", host=host, devices=devices, start=T + start, end=T + end)


def placed(event: RequestEvent) -> dict[str, Usage]:
    """What each host has of it."""
    return {usage.host: usage for usage in Placer(Facts(())).place(event, trust_team=True) if isinstance(usage, Usage)}


def rows_of(profile: HostProfile, usages: Sequence[Usage], watts: Mapping[str, Sequence[float]]) -> list[Row]:
    """The first window of that host, its devices read at these watts, each for the same time."""
    readings = [
        EnergyReading(
            device=device,
            start=T + 10.0 * at / len(told),
            end=T + 10.0 * (at + 1) / len(told),
            energy_joules=10.0 / len(told) * each,
            method="counter",
        )
        for device, told in watts.items()
        for at, each in enumerate(told)
    ]
    return account(
        profile.host,
        T,
        T + 10.0,
        readings=[Told(reading, profile) for reading in readings],
        usages=columns_of(usages),
        nearby=lambda _device, _start, _end: [],
        intensity_at=lambda _zone, _at: None,
        revision=0,
    ).rows


def sums(rows: Sequence[Row], measurement: points.Measurement, **tags: str) -> dict[str, float]:
    """The sums of the rows that have these tags."""
    mine = [
        row
        for row in rows
        if row.measurement == measurement.name
        and all(row.tags[measurement.tags.index(name)] == tag for name, tag in tags.items())
    ]
    return {name: fsum(float(row.fields[place] or 0.0) for row in mine) for place, name in enumerate(measurement.sums)}


def test_each_host_pays_its_phase_and_it_is_one_request() -> None:
    """Prefill: 0.4 s at 600 W on one host; decode: 6 s at 285 and 315 W on the other: 240 J and 1 800 J.

    Each is half a request, the prompt counts where it was computed and the answer where it was made. Priced as in
    test_disaggregated.py: 217.2 J of the prompt's tokens, and 6.5 J + 63.3 J of those made and of their context.
    """
    usages = placed(event_of(prefill("h1", "p0"), decode("h2", "d0")))
    rows = rows_of(profile_of("h1", P0), [usages["h1"]], {"p0": [70.0] * 5 + [600.0] * 2 + [70.0] * 43})
    rows += rows_of(profile_of("h2", D0), [usages["h2"]], {"d0": [70.0] * 7 + [285.0, 315.0] * 15 + [70.0] * 13})
    first, second = (sums(rows, points.ENERGY, host=host, account="attributed") for host in ("h1", "h2"))
    assert (first["energy_joules"], second["energy_joules"]) == (pytest.approx(240.0), pytest.approx(1_800.0))
    assert first["marginal_joules"] == pytest.approx(217.2, rel=0.01)
    assert second["marginal_joules"] == pytest.approx(69.8, rel=0.01)
    h1, h2 = (sums(rows, points.USAGE, host=host) for host in ("h1", "h2"))
    assert (h1["requests"], h1["input_tokens"], h1["output_tokens"]) == (0.5, 10_000.0, 0.0)
    assert (h2["requests"], h2["input_tokens"], h2["output_tokens"]) == (0.5, 0.0, 300.0)
    assert (h1["active_seconds"], h2["active_seconds"]) == (pytest.approx(0.4), pytest.approx(6.0))
    entries = [row for row in rows if row.measurement == points.REQUEST_ENERGY.name]
    tokens = points.REQUEST_ENERGY.fields.index("input_tokens")
    assert [(row.tags[:4], row.fields[tokens]) for row in entries] == [
        (("h1", "default", "r", "0"), 10_000),
        (("h2", "default", "r", "0"), 10_000),
    ]


def test_two_gpus_of_one_host_are_one_record_of_one_request() -> None:
    """240 J of the one and 1 800 J of the other, and of the CPU what exceeds its idle power while either worked."""
    (usage,) = placed(event_of(prefill("h", "p0"), decode("h", "d0", start=1.6))).values()
    assert (usage.weight, usage.devices) == (1.0, ("p0", "d0"))
    watts = {
        "p0": [70.0] * 5 + [600.0] * 2 + [70.0] * 43,
        "d0": [70.0] * 8 + [285.0, 315.0] * 14 + [300.0] + [70.0] * 13,
        "cpu0": [120.0] * 50,
    }
    rows = rows_of(profile_of("h", P0, D0, CPU), [usage], watts)
    of_each = {name: sums(rows, points.ENERGY, device=name, account="attributed") for name in watts}
    assert of_each["p0"]["energy_joules"] == pytest.approx(240.0)
    assert of_each["d0"]["energy_joules"] == pytest.approx(5.8 * 300.0)
    assert of_each["cpu0"]["energy_joules"] == pytest.approx(6.4 * 100.0)
    (entry,) = [row for row in rows if row.measurement == points.REQUEST_ENERGY.name]
    assert entry.fields[0] == pytest.approx(240.0 + 1_740.0 + 640.0)
    counts = sums(rows, points.USAGE)
    assert (counts["requests"], counts["input_tokens"], counts["output_tokens"]) == (1.0, 10_000.0, 300.0)
    assert counts["active_seconds"] == pytest.approx(0.4 + 5.8)


def test_parts_of_one_phase_did_equal_parts_of_it() -> None:
    """Prefill on a, decode as a pipeline over b and c: half of the answer each, and a quarter of a request."""
    usages = placed(event_of(prefill("a", "g0"), decode("b", "g0"), decode("c", "g0", "g1")))
    assert {host: usage.weight for host, usage in usages.items()} == {"a": 0.5, "b": 0.25, "c": 0.25}
    assert usages["c"].phases == Phases(None, Phase(T + 1.4, T + 7.4, 0.5, ("g0", "g1")))
    assert usages["a"].phases == Phases(Phase(T + 1.0, T + 1.4, 1.0, ("g0",)), None)


def test_stages_on_one_host_are_one_phase_on_all_of_their_gpus() -> None:
    """Half of the decode on g0 and half on g1 is all of it on both."""
    usages = placed(event_of(prefill("a", "g0"), decode("b", "g0"), decode("b", "g1", end=7.0)))
    assert usages["b"].phases == Phases(None, Phase(T + 1.4, T + 7.4, 1.0, ("g0", "g1")))


def test_a_group_over_hosts_is_a_request_of_equal_parts() -> None:
    """Tensor parallel over two hosts: each has half of both phases, and no phases are told apart."""
    both = [EventPart(host=host, devices=("g0",), start=T + 1.0, end=T + 7.4) for host in ("a", "b")]
    usages = placed(event_of(*both))
    plain = usage_of(event_of(host="a", devices=("g0",)), "a")
    assert usages["a"] == msgspec.structs.replace(plain, weight=0.5)
    assert usages["b"] == msgspec.structs.replace(plain, host="b", weight=0.5)


def test_a_phase_that_no_part_names_was_done_by_those_that_are_named() -> None:
    """Only the answering server is named: it computed the prompt as well. Work without tokens has no phases."""
    (usage,) = placed(event_of(decode("d", "g0"))).values()
    assert usage == usage_of(event_of(host="d", devices=("g0",)), "d")
    image = event_of(prefill("p", "g0"), decode("d", "g0"), work=Work(unit="image", amount=1.0))
    phases = {host: usage.phases for host, usage in placed(image).items()}
    half = [Phase(T + since, T + until, 0.5, ("g0",)) for since, until in ((1.0, 1.4), (1.4, 7.4))]
    assert phases == {"p": Phases(half[0], half[0]), "d": Phases(half[1], half[1])}


def test_a_part_goes_where_its_deployment_is() -> None:
    """Two hosts may have computed the prompt: each has half of it. The answer was made where the event says."""
    pools = Deployment(name="prefills", model="m", hosts=("a", "b"), devices=("g0",))
    event = event_of(EventPart(phase="prefill", deployment="prefills", start=T + 1.0, end=T + 1.4), decode("d", "g1"))
    usages = [each for each in Placer(Facts([(0.0, pools)])).place(event, trust_team=True) if isinstance(each, Usage)]
    assert [(each.host, each.weight, each.devices, each.deployment) for each in usages] == [
        ("a", 0.25, ("g0",), "prefills"),
        ("b", 0.25, ("g0",), "prefills"),
        ("d", 0.5, ("g1",), ""),
    ]
    with pytest.raises(Rejected, match="unplaced"):
        Placer(Facts(())).place(event, trust_team=True)


def test_parts_beyond_the_request_s_own_time_are_cut_to_it() -> None:
    """The clocks of three machines differ a little."""
    usages = placed(event_of(prefill("a", "g0", start=0.9), decode("b", "g0", end=7.5)))
    assert usages["a"].phases == Phases(Phase(T + 1.0, T + 1.4, 1.0, ("g0",)), None)
    assert usages["b"].phases == Phases(None, Phase(T + 1.4, T + 7.4, 1.0, ("g0",)))


def test_a_phase_of_unknown_device_is_work_of_an_unknown_device() -> None:
    """No GPU of the host is named for the answer: what the GPU used meanwhile is not the prompt's."""
    parts = prefill("h", "p0"), EventPart(phase="decode", host="h", start=T + 1.4, end=T + 7.4)
    (usage,) = placed(event_of(*parts)).values()
    rows = rows_of(profile_of("h", P0, D0), [usage], {"p0": [70.0] * 50, "d0": [70.0] * 7 + [300.0] * 30 + [70.0] * 13})
    assert sums(rows, points.ENERGY, device="d0")["unknown_device_joules"] == pytest.approx(6.0 * 230.0)
    assert sums(rows, points.ENERGY, device="p0", account="attributed")["energy_joules"] == pytest.approx(0.4 * 70.0)


def test_a_native_event_tells_parts() -> None:
    """What a part leaves out follows from the request: prefill until the first token, decoding from there."""
    sent = {
        "request_id": "r",
        "model": "m",
        "start": T,
        "scheduled": T + 1.0,
        "first_token": T + 2.0,
        "end": T + 9.0,
        "parts": [
            {"phase": "prefill", "host": "a", "devices": ["g0"]},
            {"phase": "decode", "deployment": "pool", "start": T + 2.5},
            {"host": "c"},
        ],
    }
    assert decode_event(msgspec.json.encode(sent)).parts == (
        EventPart(phase="prefill", host="a", devices=("g0",), start=T + 1.0, end=T + 2.0),
        EventPart(phase="decode", deployment="pool", start=T + 2.5, end=T + 9.0),
        EventPart(host="c", start=T + 1.0, end=T + 9.0),
    )
    hosted = decode_event(msgspec.json.encode(sent | {"host": "h"}))
    assert (hosted.host, [part.host for part in hosted.parts]) == (None, ["a", "h", "c"])
    del sent["first_token"]
    told = decode_event(msgspec.json.encode(sent)).parts
    assert [(part.start - T, part.end - T) for part in told] == [(1.0, 2.5), (2.5, 9.0), (1.0, 9.0)]


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([{"phase": "prefill", "host": "a"}], "bad_parts"),
        ([{"phase": "verify", "host": "a"}], "bad_parts"),
        ([{"host": "a", "start": T + 3.0, "end": T + 2.0}], "bad_parts"),
        ([{"host": "a"}] * 65, "bad_parts"),
        ({"host": "a"}, "bad_parts"),
        ([{"host": 5}], "bad_parts"),
        ([{"host": "a", "devices": ["g0", "g0"]}], "bad_devices"),
        ([{"host": "a", "devices": "g0"}], "bad_devices"),
        ([{"host": "a", "start": "soon"}], "bad_time"),
        ([{"host": "a\n"}], "control_character"),
        ([{"host": "a" * 257}], "text_too_long"),
    ],
)
def test_wrong_parts_are_named(parts: object, reason: str) -> None:
    """Each costs its own event."""
    with pytest.raises(Rejected) as refused:
        decode_event(msgspec.json.encode({"request_id": "r", "model": "m", "start": T, "end": T + 9.0, "parts": parts}))
    assert refused.value.reason == reason


def test_a_recording_of_one_host_tells_what_others_did(tmp_path: Path) -> None:
    """Its part without a host ran here, on the only GPU; the other one is put into the usage of its own host."""
    here = EventPart(phase="prefill", start=T + 1.0, end=T + 1.4)
    wrong = event_of(prefill("h1", "p7"), request_id="wrong")
    write_recording(tmp_path / "run", profile_of("h1", P0), [], [event_of(here, decode("h2", "d0")), wrong], [])
    recording = load_recording(tmp_path / "run")
    assert [bad.reason for bad in recording.rejected] == ["unknown_device"]
    with closing(SqliteLog(tmp_path / "log")) as log:
        role = ReplayRole(log, [recording], Accounting())
        role.append(list(role.steps()))
        found = [Decoder().decode(record) for record in log.read({"readings": 0, "usage": 0}, 100)]
    usages = [usage for batch in found if isinstance(batch, UsageBatch) for usage in batch.usages()]
    assert {usage.host: usage.phases for usage in usages} == {
        "h1": Phases(Phase(T + 1.0, T + 1.4, 1.0, ("p0",)), None),
        "h2": Phases(None, Phase(T + 1.4, T + 7.4, 1.0, ("d0",))),
    }


def test_entries_of_both_hosts_come_together_and_are_one_request(tmp_path: Path) -> None:
    """Prefill [1, 5) on h1, decode [5, 35) on h2, each of whose GPUs draws 30 W: 120 J and 900 J, in the fourth window.

    The prompt's host keeps it until the answer ends: both entries are of four windows, and add up to 1 020 J.
    """
    event = event_of(prefill("h1", "p0", end=5.0), decode("h2", "d0", start=5.0, end=35.0), end=T + 35.0)
    said: list[RequestEnergy] = []
    with closing(SqliteLog(tmp_path / "log")) as log, closing(SqliteStore(tmp_path / "store")) as store:
        ledger = Ledger(log, store, Accounting(), lambda: Facts([]), finished=said.extend)
        for host, device in (("h1", P0), ("h2", D0)):
            gpu = msgspec.structs.replace(device, idle_watts=0.0)
            readings = [
                EnergyReading(device=gpu.id, start=T + at, end=T + at + 10.0, energy_joules=300.0, method="counter")
                for at in (0.0, 10.0, 20.0, 30.0)
            ]
            batch = ReadingBatch(profile=profile_of(host, gpu), readings=tuple(readings))
            log.append([readings_record(batch, T + 41.0), usage_record(host, [placed(event)[host]], T + 41.0)], 0.0)
        log.append([tick_record("h1", T + 1_000.0)], 0.0)
        while ledger.step():
            pass
        store.write([request_row(entry) for entry in said])
        (line,) = every_request(Query(store, rejected=dict), ADMIN, RequestsQuery(start=T, end=T + 40.0))
    entries = sorted((each.host, each.energy_joules, each.windows, each.weight, each.output_tokens) for each in said)
    assert entries == [("h1", pytest.approx(120.0), 4, 0.5, 300), ("h2", pytest.approx(900.0), 4, 0.5, 300)]
    assert (line.hosts, line.energy_joules, line.whole) == (("h1", "h2"), pytest.approx(1_020.0), True)


def test_both_phases_teach_what_the_plain_event_teaches() -> None:
    """FLOPs of the prompt where it was computed, those of the answer and all bytes where it was made: as of one GPU."""
    event = event_of(prefill("h", "p0"), decode("h", "d0"), cached_input_tokens=4_000)
    plain = usage_of(msgspec.structs.replace(event, devices=("p0",)), "h")

    def asked(usage: Usage, device: Device) -> GpuWork:
        demand = phase_on(demand_of(columns_of([usage]), T), device)
        hardware = hardware_of(H100)
        assert hardware is not None
        found = work_asked(
            demand,
            demand.on(device),
            lambda name: token_cost(name, MODEL),
            hardware,
            length_seconds=10.0,
            tokens_per_step={},
        )
        assert found is not None
        return found

    (usage,) = placed(event).values()
    first, second, whole = asked(usage, P0), asked(usage, D0), asked(plain, P0)
    assert first.flops == pytest.approx(6_000 * 1.6e10)
    assert first.flops + second.flops == pytest.approx(whole.flops)
    assert first.bytes + second.bytes == pytest.approx(whole.bytes)


moments = st.integers(0, 39).map(lambda quarters: T + quarters / 4.0)
spans = st.tuples(moments, moments).map(lambda both: (min(both), max(both)))
tokens = st.none() | st.integers(0, 20_000)


@st.composite
def events(draw: st.DrawFn) -> RequestEvent:
    """One that ends in the first window, without parts."""
    start, scheduled, first, end = sorted(draw(st.tuples(moments, moments, moments, moments)))
    return RequestEvent(
        request_id="r",
        model="m",
        start=start,
        scheduled=draw(st.sampled_from([None, scheduled])),
        first_token=draw(st.sampled_from([None, first])),
        end=end,
        input_tokens=draw(tokens),
        output_tokens=draw(tokens),
        work=draw(st.sampled_from([None, None, Work(unit="image", amount=2.0)])),
    )


@st.composite
def part_lists(draw: st.DrawFn) -> tuple[EventPart, ...]:
    """One to four parts of any phases on two hosts, and whatever times."""
    found = []
    for _ in range(draw(st.integers(1, 4))):
        start, end = draw(spans)
        found.append(
            EventPart(
                phase=draw(st.sampled_from(["prefill", "decode", None])),
                host=draw(st.sampled_from(["a", "b"])),
                devices=draw(st.sampled_from([("p0",), ("d0",), ("p0", "d0"), (), None])),
                start=start,
                end=end,
            )
        )
    return tuple(found)


@given(events(), st.sampled_from([("p0",), (), None]))
def test_one_part_of_both_phases_is_the_plain_event(event: RequestEvent, devices: tuple[str, ...] | None) -> None:
    """To the last field: its record is the same."""
    began = event.start if event.scheduled is None else event.scheduled
    part = EventPart(host="h", devices=devices, start=began, end=event.end)
    told = msgspec.structs.replace(event, parts=(part,))
    plain = msgspec.structs.replace(event, host="h", devices=devices)
    assert usages_of_parts(told, lambda part: (Place(host=part.host or "", devices=part.devices),)) == [
        usage_of(plain, "h")
    ]


@given(st.integers(1, 20_000), st.integers(0, 20_000), st.integers(1, 2_000), st.integers(1, 10), st.integers(1, 10))
def test_both_phases_together_ask_what_the_plain_event_asks(
    told: int, cached: int, made: int, prefill_quarters: int, decode_quarters: int
) -> None:
    """The same joules over the same time, on two GPUs instead of one."""
    turn = T + prefill_quarters / 4.0
    event = event_of(
        start=T,
        first_token=turn,
        end=turn + decode_quarters / 4.0,
        input_tokens=told,
        cached_input_tokens=min(cached, told),
        output_tokens=made,
    )
    parts = (
        EventPart(phase="prefill", host="h", devices=("p0",), start=T, end=turn),
        EventPart(phase="decode", host="h", devices=("d0",), start=turn, end=event.end),
    )

    def asked(usage: Usage, device: Device) -> tuple[float, ...]:
        demand: Demand = phase_on(demand_of(columns_of([usage]), T), device)
        found = asked_on(demand, device, profile_of("h", P0, D0), idle_watts=70.0)
        assert (found.start, found.first, found.end, found.weight) == (
            pytest.approx([0.0 if device is P0 else turn - T]),
            pytest.approx([turn - T]),
            pytest.approx([event.end - T if device is D0 else turn - T]),
            [1.0],
        )
        return float(found.prefill_joules[0]), float(found.decode_joules[0]), float(found.growing_joules[0])

    (usage,) = placed(msgspec.structs.replace(event, parts=parts)).values()
    plain = demand_of(columns_of([usage_of(msgspec.structs.replace(event, devices=("p0",)), "h")]), T)
    whole = asked_on(plain, P0, profile_of("h", P0, D0), idle_watts=70.0)
    prefilled, none, no_growth = asked(usage, P0)
    fresh, decoded, growing = asked(usage, D0)
    assert (none, no_growth, fresh) == (0.0, 0.0, 0.0)
    assert (prefilled, decoded, growing) == (
        pytest.approx(whole.prefill_joules[0]),
        pytest.approx(whole.decode_joules[0]),
        pytest.approx(whole.growing_joules[0]),
    )


@given(
    st.lists(st.tuples(events(), st.none() | part_lists()), max_size=4),
    st.lists(st.floats(0.0, 700.0), min_size=4, max_size=4),
)
def test_the_books_close_and_each_request_counts_once(
    told: list[tuple[RequestEvent, tuple[EventPart, ...] | None]], watts: list[float]
) -> None:
    """Whatever parts: each meter's joules are all accounted for, and what all hosts count is one request each."""
    usages = [
        usage
        for number, (event, parts) in enumerate(told)
        for usage in usages_of_parts(
            msgspec.structs.replace(
                event,
                request_id=f"r{number}",
                parts=parts or (EventPart(host="a", start=event.start, end=event.end),),
            ),
            lambda part: (Place(host=part.host or "", devices=part.devices),),
        )
    ]
    rows: list[Row] = []
    for host in ("a", "b"):
        mine = [usage for usage in usages if usage.host == host]
        readings = {"p0": watts[:2], "d0": watts[2:], "cpu0": watts[1:3]}
        rows += rows_of(profile_of(host, P0, D0, CPU), mine, readings)
        for device in readings:
            measured = sums(rows, points.METER, host=host, device=device)["energy_joules"]
            accounted = sums(rows, points.ENERGY, host=host, device=device)["energy_joules"]
            assert accounted == pytest.approx(measured, rel=1e-9, abs=1e-9)
    attributed = sums(rows, points.ENERGY, account="attributed")["energy_joules"]
    entries = [row.fields[0] for row in rows if row.measurement == points.REQUEST_ENERGY.name]
    assert fsum(float(energy or 0.0) for energy in entries) == pytest.approx(attributed, rel=1e-9, abs=1e-9)
    counted = sums(rows, points.USAGE)
    assert counted["requests"] == pytest.approx(len(told))
    assert counted["input_tokens"] == pytest.approx(sum(event.input_tokens or 0 for event, _ in told))
    assert counted["output_tokens"] == pytest.approx(sum(event.output_tokens or 0 for event, _ in told))
