"""Requests in parts that leave something out: a phase, a time, when an engine began, or which of two servers it was."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.readings import EngineReading
from collectors.requests.decoders.native import decode_event
from collectors.requests.event import EventPart
from monitor.core import points
from monitor.core.attribution.hardware import hardware_of
from monitor.core.attribution.models import TokenCost
from monitor.core.demand import demand_of
from monitor.core.phased import phase_on
from monitor.core.phases import Phase, Phases
from monitor.core.queueing import Seated, seated
from monitor.core.serving import Place
from monitor.core.usage import Usage, usage_of, usages_of_parts
from monitor.core.usage_columns import columns_of
from tests.monitor.test_parts import D0, H100, P0, T, decode, event_of, placed, prefill, profile_of, rows_of, sums

HALF_A_SECOND = TokenCost(flops_per_token=989e12 * 0.45 * 0.5 / 10_000, kv_bytes_per_token=0.0, source="given")
"""Of 10 000 tokens on an H100."""
SENT = {"request_id": "r", "model": "m", "start": T + 1.0, "first_token": T + 3.0, "end": T + 9.0}


def times_of(*parts: dict[str, object], **changes: object) -> list[tuple[float, float]]:
    """From when until when each part is read to have lasted, in seconds behind T."""
    event = decode_event(msgspec.json.encode(SENT | changes | {"parts": parts}))
    return [(part.start - T, part.end - T) for part in event.parts]


def seated_on_p0(prompt: EventPart) -> Seated:
    """Come at 1.5 s, first token at 9 s; the engine tells that somebody waits until 6 s."""
    event = event_of(prompt, decode("b", "d0", start=9.0, end=9.5), start=T + 1.5, first_token=T + 9.0, end=T + 9.5)
    engines = [
        EngineReading(server="s", model="m", devices=("p0",), start=T + at, end=T + at + 1.0, waiting=count)
        for at, count in enumerate([3.0] * 5 + [0.0] * 4)
    ]
    hardware = hardware_of(H100)
    assert hardware is not None
    demand = phase_on(demand_of(columns_of([placed(event)["a"]]), T), P0)
    return seated(demand, demand.on(P0), engines, lambda _model: HALF_A_SECOND, hardware, window_begin=T)


def test_a_prompt_waits_in_its_engine_s_queue_unless_something_tells_when_it_began() -> None:
    """The first second in which nobody waits ends at 6; a prefill that is told to begin at 4 s began then."""
    estimated = seated_on_p0(prefill("a", "p0", start=1.5, end=9.0))
    assert (estimated.demand.active.tolist(), estimated.estimated.tolist()) == ([6.0], [True])
    told = seated_on_p0(prefill("a", "p0", start=4.0, end=9.0))
    assert (told.demand.active.tolist(), told.estimated.tolist()) == ([4.0], [False])


def test_a_start_is_told_by_the_event_or_by_a_later_start_of_the_prefill() -> None:
    """A part's start that is no more than the request's tells nothing of a queue."""

    def told(start: float, scheduled: float | None) -> dict[str, bool]:
        event = event_of(prefill("a", "p0", start=start), decode("b", "d0"), scheduled=scheduled)
        return {host: bool(columns_of([usage]).scheduled_told[0]) for host, usage in placed(event).items()}

    assert told(1.0, None) == {"a": False, "b": False}
    assert told(1.2, None) == {"a": True, "b": False}
    assert told(1.2, T + 1.2) == {"a": True, "b": True}
    (row,) = [
        row
        for row in rows_of(profile_of("a", P0), [placed(event_of(prefill("a", "p0"), decode("b", "d0")))["a"]], {})
        if row.measurement == points.USAGE.name
    ]
    assert row.fields[points.USAGE.fields.index("scheduled_requests")] == 0.0


def test_a_prompt_s_server_that_is_named_alone_made_the_answer_after_it() -> None:
    """300 W from 1 to 7.4 s: 1 918 J, as of the plain event, and not only those of the first 0.4 s."""
    (usage,) = placed(event_of(prefill("a", "p0"))).values()
    assert usage == usage_of(event_of(host="a", devices=("p0",)), "a")
    rows = rows_of(profile_of("a", P0), [usage], {"p0": [70.0] * 5 + [300.0] * 32 + [70.0] * 13})
    assert sums(rows, points.ENERGY, account="attributed")["energy_joules"] == pytest.approx(6.4 * 300.0)


@pytest.mark.parametrize(
    ("part", "first_token", "scheduled", "times"),
    [
        (decode("a", "g0", start=2.0), 1.4, None, [1.0, 1.4, 2.0, 7.4]),
        (decode("a", "g0", start=2.0), None, None, [1.0, 2.0, 2.0, 7.4]),
        (prefill("a", "g0", end=2.0), None, 1.5, [1.0, 2.0, 2.0, 7.4]),
        (decode("a", "g0", start=0.5), None, 1.5, [1.5, 1.5, 1.0, 7.4]),
        (prefill("a", "g0", end=7.5), None, None, [1.0, 7.4, 7.4, 7.4]),
    ],
)
def test_a_phase_that_no_part_names_has_its_usual_times(
    part: EventPart, first_token: float | None, scheduled: float | None, times: list[float]
) -> None:
    """Without a first token the named phase tells when it came; in no case does a phase end before it begins."""
    moments = {"first_token": first_token, "scheduled": scheduled}
    event = event_of(part, **{name: None if at is None else T + at for name, at in moments.items()})
    (usage,) = placed(event).values()
    begin, turn, since, end = (T + at for at in times)
    assert usage.phases == Phases(Phase(begin, turn, 1.0, ("g0",)), Phase(since, end, 1.0, ("g0",)))


def test_two_phases_of_one_server_in_turn_are_the_plain_event() -> None:
    """They say no more than it does; on two GPUs, or with a pause between them, they do."""
    (usage,) = placed(event_of(prefill("a", "g0"), decode("a", "g0"))).values()
    assert usage == usage_of(event_of(host="a", devices=("g0",)), "a")
    (apart,) = placed(event_of(prefill("a", "g0"), decode("a", "g1"))).values()
    (later,) = placed(event_of(prefill("a", "g0"), decode("a", "g0", start=1.5))).values()
    assert None not in (apart.phases, later.phases)


def test_an_event_s_own_host_did_the_phase_that_its_one_part_does_not_name() -> None:
    """The part is of another host: here the prompt was computed, there the answer was made, and the other way round."""
    own = SENT | {"host": "b", "devices": ["g1"], "deployment": "pool"}
    (prompt, answer) = decode_event(
        msgspec.json.encode(own | {"parts": [{"phase": "prefill", "host": "a", "devices": ["g0"]}]})
    ).parts
    assert prompt == EventPart(phase="prefill", host="a", devices=("g0",), start=T + 1.0, end=T + 3.0)
    assert answer == EventPart(phase="decode", host="b", devices=("g1",), start=T + 3.0, end=T + 9.0)
    (answer, prompt) = decode_event(msgspec.json.encode(own | {"parts": [{"phase": "decode", "host": "a"}]})).parts
    assert answer == EventPart(phase="decode", host="a", start=T + 3.0, end=T + 9.0)
    assert prompt == EventPart(phase="prefill", host="b", devices=("g1",), start=T + 1.0, end=T + 3.0)
    for parts in ([{"phase": "decode"}], [{"host": "a"}], [{"phase": "decode", "host": "a"}] * 2):
        assert len(decode_event(msgspec.json.encode(own | {"parts": parts})).parts) == len(parts)


def test_clocks_that_differ_cost_no_request() -> None:
    """An end that follows from the event gives way to the one that a part tells."""
    both = {"phase": "prefill", "start": T + 3.005}, {"phase": "decode", "end": T + 2.5}
    assert times_of(*both) == [(pytest.approx(3.005), pytest.approx(3.005)), (2.5, 2.5)]
    assert times_of({"phase": "prefill", "end": T + 0.5}, {"phase": "decode", "start": T + 9.5}) == [
        (0.5, 0.5),
        (9.5, 9.5),
    ]
    untold = times_of({"phase": "prefill", "end": T + 9.5}, {"phase": "decode"}, first_token=None)
    assert untold == [(1.0, 9.5), (9.0, 9.0)]
    assert times_of({"start": T + 9.5}, {"end": T + 0.5}) == [(9.5, 9.5), (0.5, 0.5)]


@given(st.integers(1, 64), st.integers(1, 7))
def test_stages_on_one_host_weigh_exactly_one(stages: int, hosts: int) -> None:
    """However many: it is certain that all of it ran there. Of n hosts that may have done it, each has 1/n."""
    named = tuple(f"g{stage}" for stage in range(stages))
    event = event_of(*(EventPart(host="a", devices=(name,), start=T + 1.0, end=T + 7.4) for name in named))
    assert placed(event)["a"] == usage_of(event_of(host="a", devices=named), "a")
    places = [Place(host=f"h{host}", weight=1.0 / hosts) for host in range(hosts)]
    weights = [usage.weight for usage in usages_of_parts(event, lambda _part: places)]
    assert weights == pytest.approx([1.0 / hosts] * hosts)


def both_on_p0(first: tuple[float, float, float], second: tuple[float, float, float]) -> Usage:
    """A request of 10 s whose first token came after 0.4, with both phases on p0: start, end and weight of each."""
    (p_start, p_end, p_weight), (d_start, d_end, d_weight) = first, second
    phases = Phases(Phase(T + p_start, T + p_end, p_weight, ("p0",)), Phase(T + d_start, T + d_end, d_weight, ("p0",)))
    usage = usage_of(event_of(start=T, first_token=T + 0.4, end=T + 10.0), "a", devices=("p0",))
    return msgspec.structs.replace(usage, weight=phases.weight, phases=phases)


@pytest.mark.parametrize(
    ("first", "second", "weight"),
    [
        ((0.0, 0.4, 1.0), (0.4, 10.0, 0.5), 0.52),
        ((0.0, 0.4, 0.5), (0.4, 10.0, 1.0), 0.98),
        ((0.0, 0.4, 0.5), (0.0, 10.0, 1.0), 0.98),
        ((0.0, 0.4, 1.0), (0.4, 10.0, 1.0), 1.0),
    ],
)
def test_both_phases_on_a_device_weigh_by_their_time(
    first: tuple[float, float, float], second: tuple[float, float, float], weight: float
) -> None:
    """0.4 of 10 s are the prefill's: 1 x 0.04 + 1/2 x 0.96 = 0.52. Each phase's tokens keep the phase's own weight."""
    on = phase_on(demand_of(columns_of([both_on_p0(first, second)]), T), P0)
    assert on.weight == pytest.approx([weight])
    assert on.weight * on.fresh_tokens == pytest.approx([first[2] * 10_000.0])
    assert on.weight * on.output_tokens == pytest.approx([second[2] * 300.0])


def test_half_a_decode_shares_as_half_and_only_the_whole_is_certain() -> None:
    """3 000 J beside a request of 10 s: 0.52 of 1.52 parts is 1 026 J where the prefill's weight would take 1 500 J.

    Alone it has all of them, but nothing is certain of a request of which part was done elsewhere, however small.
    """
    half = both_on_p0((0.0, 0.4, 1.0), (0.4, 10.0, 0.5))
    other = usage_of(event_of(request_id="o", team="o", start=T, end=T + 10.0), "a", devices=("p0",))
    profile = msgspec.structs.replace(profile_of("a", msgspec.structs.replace(P0, hardware="")), models=())
    no_tokens = [
        msgspec.structs.replace(each, input_tokens=None, output_tokens=None, model="unheard-of")
        for each in (half, other)
    ]
    rows = rows_of(profile, no_tokens, {"p0": [300.0] * 10})
    mine = sums(rows, points.ENERGY, account="attributed", team="t")["energy_joules"]
    assert mine == pytest.approx(3_000.0 * 0.52 / 1.52)

    def exact(usage: Usage) -> float:
        rows = rows_of(profile_of("a", P0, D0), [usage], {"p0": [300.0] * 10})
        return sums(rows, points.ENERGY, account="attributed")["exact_joules"]

    whole = both_on_p0((0.0, 0.4, 1.0), (0.4, 10.0, 1.0))
    assert exact(whole) == exact(msgspec.structs.replace(whole, phases=None)) > 2_800.0
    assert exact(half) == 0.0
    assert exact(both_on_p0((0.0, 0.0, 0.5), (0.0, 10.0, 1.0))) == 0.0
