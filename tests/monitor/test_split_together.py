"""Devices that are split together get the bits that each gets alone: no account depends on what stands beside it."""

from dataclasses import astuple

import numpy as np
from asked_on import asked_on
from hypothesis import example, given
from hypothesis import strategies as st
from virtual_energy_by_hand import Job, Reading
from virtual_energy_cases import Case, cases, window_of

from collectors.readings import Device, EnergyReading, HostProfile, ModelFacts
from monitor.core import points
from monitor.core.account import account
from monitor.core.attribution.certainty import PRIOR_CERTAINTY
from monitor.core.attribution.doubt import Doubts, doubts_of_each
from monitor.core.attribution.pieces import Pieces
from monitor.core.attribution.requests import Requests, Steps
from monitor.core.attribution.virtual_energy import Split, Window, split_each
from monitor.core.demand import Ask, demand_of, requests_on_each
from monitor.core.phases import Phase, Phases
from monitor.core.points import Row
from monitor.core.readings import Told
from monitor.core.usage import Usage
from monitor.core.usage_columns import columns_of

LENGTH = 10.0


def _split(windows: list[Window], *, shares_idle: bool, rest_equally: bool = True) -> list[Split]:
    return split_each(windows, length_seconds=LENGTH, shares_idle=shares_idle, rest_equally=rest_equally)


def _window(readings: list[Reading], jobs: list[Job], *, idle: float = 0.0, steps: Steps | None = None) -> Window:
    return window_of(Case(readings, jobs, idle, shares_idle=True, elsewhere=[], limit=None), steps)


def _same(left: Split | Doubts | Requests, right: Split | Doubts | Requests) -> bool:
    """Bit for bit, NaN as well."""
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(_columns(left), _columns(right), strict=True))


def _columns(told: Split | Doubts | Requests) -> list[np.ndarray[tuple[int], np.dtype[np.float64]]]:
    return [np.atleast_1d(np.array(each, dtype=np.float64)) for each in astuple(told) if each is not None]


TINY = Case(
    readings=[Reading(1.0, 2.25, 155.0)],
    jobs=[Job(0.0, 0.0, 2.25, weight=0.015625, decode=1.5e-304)],
    idle=None,
    shares_idle=False,
    elsewhere=[],
    limit=None,
)
"""Own joules that no float scales up to what was measured."""


@given(st.lists(cases(), min_size=1, max_size=4), st.booleans(), st.booleans())
@example(found=[TINY], shares_idle=True, rest_equally=False)
def test_devices_that_are_split_together_get_what_each_gets_alone(
    found: list[Case], shares_idle: bool, rest_equally: bool
) -> None:
    """Readings of any length, or none; limits and idle powers of their own; requests anywhere; every method."""
    windows = [window_of(each) for each in found]
    together = _split(windows, shares_idle=shares_idle, rest_equally=rest_equally)
    for window, shared in zip(windows, together, strict=True):
        (alone,) = _split([window], shares_idle=shares_idle, rest_equally=rest_equally)
        assert _same(shared, alone)


def test_a_quiet_level_is_the_devices_own() -> None:
    """The first is at 300 W in the second before its request, which pays 150 J; the other one's is 50 W: 225 J."""
    request = [Job(1.25, 1.25, 1.75)]
    hot = _window([Reading(second, second + 1.0, 300.0) for second in (0.0, 1.0)], request, idle=50.0)
    cool = _window([Reading(1.0, 2.0, 250.0)], request, idle=50.0)
    first, second = _split([hot, cool], shares_idle=True)
    assert (first.energy.tolist(), second.energy.tolist()) == ([150.0], [225.0])


def test_a_device_with_engines_of_its_own_is_split_beside_others() -> None:
    """Two engines on the second of three, whose steps take 1 : 3 of what is left; in the order in which they came."""
    plain = _window([Reading(0.0, 10.0, 100.0)], [Job(0.0, 0.0, 10.0)])
    jobs = [Job(0.0, 0.0, 10.0), Job(0.0, 0.0, 10.0)]
    steps = Steps(
        engines=2,
        engine=np.array([0, 1]),
        prefill_watts=np.zeros(2),
        decode_watts=np.array([10.0, 30.0]),
        told=[[], []],
    )
    shared = _window([Reading(0.0, 10.0, 400.0)], jobs, steps=steps)
    first, second, third = _split([plain, shared, plain], shares_idle=True)
    assert first.energy.tolist() == third.energy.tolist() == [1_000.0]
    assert second.energy.tolist() == [1_000.0, 3_000.0]


@given(st.lists(cases(), min_size=1, max_size=3))
def test_doubts_about_one_device_are_no_others(found: list[Case]) -> None:
    """Also where of one nobody knows what is off, because its requests have no price."""
    windows = [window_of(each) for each in found]
    splits, requests = _split(windows, shares_idle=True), [window.requests for window in windows]
    tokens = [np.arange(len(each), dtype=np.float64) for each in requests]
    together = doubts_of_each(
        splits,
        requests,
        context_tokens=np.concatenate(tokens),
        output_tokens=np.concatenate(tokens),
        certainty=PRIOR_CERTAINTY,
        prices=True,
        tested=True,
        by_steps=True,
    )
    for shared, its, told, doubts in zip(splits, requests, tokens, together, strict=True):
        alone = doubts_of_each(
            [shared],
            [its],
            context_tokens=told,
            output_tokens=told,
            certainty=PRIOR_CERTAINTY,
            prices=True,
            tested=True,
            by_steps=True,
        )[0]
        assert _same(doubts, alone)


def test_what_is_asked_of_several_devices_is_what_is_asked_of_each() -> None:
    """A small and a large board, a CPU, and a request on both boards; one first token is told, one is not."""
    devices = (
        Device(id="a", kind="gpu", hardware="NVIDIA H100 80GB HBM3"),
        Device(id="b", kind="gpu", hardware="NVIDIA L4"),
        Device(id="c", kind="cpu"),
    )
    facts = (ModelFacts(name="m", parameters=8e9, kv_bytes_per_token=131_072.0),)
    profile = HostProfile(host="h", zone="FR", pue=1.0, devices=devices, models=facts)
    placed = (("a",), ("b",), ("a", "b"))
    usages = [
        Usage(
            host="h",
            namespace="",
            request_id=f"r{number}",
            model="m",
            team="t",
            devices=on,
            start=100.0 + number,
            end=105.0,
            first_token=None if number else 101.0,
            input_tokens=1_000,
            output_tokens=100,
        )
        for number, on in enumerate(placed)
    ]
    demand = demand_of(columns_of(usages), 100.0)
    chosen = demand.on_each(devices)
    assert [each.tolist() for each in chosen] == [[0, 2], [1, 2], [0, 1, 2]]
    asks = [Ask(device, its, demand.active[its], 50.0) for device, its in zip(devices, chosen, strict=True)]
    together = requests_on_each([demand] * len(asks), asks, profile)
    for device, requests in zip(devices, together, strict=True):
        assert _same(requests, asked_on(demand, device, profile, idle_watts=50.0))
    assert together[2].prefill_joules.tolist() == [0.0, 0.0, 0.0]


GPUS = tuple(
    Device(id=name, kind="gpu", hardware=hardware, idle_watts=60.0)
    for name, hardware in (("a", "NVIDIA H100 80GB HBM3"), ("b", "NVIDIA H100 80GB HBM3"), ("c", "NVIDIA L4"))
)
HOST = HostProfile(
    host="h",
    zone="FR",
    devices=(*GPUS, Device(id="d", kind="cpu", idle_watts=20.0)),
    models=tuple(
        ModelFacts(name=name, parameters=size, kv_bytes_per_token=1e5) for name, size in (("m", 8e9), ("n", 4e9))
    ),
)
ON = st.sampled_from([("a",), ("b",), ("a", "b"), ("c", "a"), None])


@st.composite
def phases(draw: st.DrawFn) -> Phase:
    """One of a request: anywhere around the window, alone or as one of two, on some device or nobody knows which."""
    start = draw(st.floats(-2.0, 11.0))
    end = start + draw(st.sampled_from([0.0, 0.4, 5.0, 20.0]))
    return Phase(start, end, draw(st.sampled_from([1.0, 0.5])), draw(ON))


@st.composite
def usages(draw: st.DrawFn) -> list[Usage]:
    """Up to eight requests of two models, at least one of them in parts."""
    found = []
    for number in range(draw(st.integers(1, 8))):
        prefill, decode = draw(phases()), draw(phases())
        told = draw(st.sampled_from([Phases(prefill, decode), Phases(prefill), Phases(None, decode)]))
        whole = draw(st.booleans()) and number > 0
        start, end = min(prefill.start, decode.start), max(prefill.end, decode.end)
        found.append(
            Usage(
                host="h",
                namespace="",
                request_id=f"r{number}",
                model=draw(st.sampled_from("mn")),
                team=draw(st.sampled_from("tu")),
                devices=draw(ON),
                start=start,
                end=end,
                first_token=draw(st.sampled_from([None, (start + end) / 2.0])),
                input_tokens=draw(st.sampled_from([None, 10, 8_000])),
                output_tokens=draw(st.sampled_from([None, 1, 300])),
                weight=1.0 if whole else told.weight,
                phases=None if whole else told,
            )
        )
    return found


def _rows(device: str | None, used: list[Usage]) -> list[Row]:
    """What a window's books say of one device by its own readings alone, or of all; each has drawn what it draws."""
    readings = [
        Told(
            EnergyReading(
                device=each.id, start=second, end=second + 1.0, energy_joules=150.0 + 7.0 * second, method="counter"
            ),
            HOST,
        )
        for each in HOST.devices
        if device in (each.id, None)
        for second in map(float, range(10))
    ]
    made = account(
        "h",
        0.0,
        LENGTH,
        readings=readings,
        usages=columns_of(used),
        nearby=lambda _device, _start, _end: [],
        intensity_at=lambda _zone, _at: None,
        revision=0,
        requests="neither",
    )
    return [row for row in made.rows if row.measurement != points.USAGE.name]


@given(usages())
def test_requests_in_parts_leave_every_device_what_it_has_alone(used: list[Usage]) -> None:
    """Prompts on one board and answers on another, of two models, on a CPU as well: row for row, bit for bit."""
    alone = [_rows(device.id, used) for device in HOST.devices]
    assert _rows(None, used) == [row for rows in alone for row in rows]


def test_sums_begin_anew_with_each_device() -> None:
    """1 + 2 beside 1e20: a sum over both would lose the 3. The last piece of each lasts nothing and holds nothing."""
    first, second = [np.array([4.0])], [np.array([5.0])]
    pieces = Pieces(LENGTH, [first, second])
    assert pieces.seconds.tolist() == [4.0, 6.0, 0.0, 5.0, 5.0, 0.0]
    assert pieces.totals(np.array([1e20, 1e20, 0.0, 1.0, 2.0, 0.0])).tolist() == [0.0, 1e20, 2e20, 0.0, 1.0, 3.0]
    assert [each.tolist() for each in pieces.of_each(pieces.starts)] == [[0.0, 4.0], [0.0, 5.0]]
