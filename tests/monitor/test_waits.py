"""Until when requests waited where neither event nor engine tells: worked by hand on an H100, and what always holds."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from late_request import COST, LATE, T
from msgspec.structs import replace

from collectors.readings import Device, EnergyReading, EngineReading, HostProfile, ModelFacts
from monitor.core.account import account
from monitor.core.attribution.hardware import hardware_of
from monitor.core.attribution.models import UNKNOWN_MODEL, TokenCost
from monitor.core.demand import demand_of
from monitor.core.points import ENERGY, REQUEST_ENERGY
from monitor.core.readings import Told
from monitor.core.usage import Usage
from monitor.core.usage_columns import columns_of
from monitor.core.waits import began_late

H100 = "NVIDIA H100 80GB HBM3"


def answered(*spans: tuple[float, float], devices: tuple[str, ...] = ("g0",), model: str = "m") -> list[Usage]:
    """Requests that came half a second before their first token, and were answered over these seconds."""
    return [
        replace(
            LATE,
            request_id=f"other {begin:g}",
            model=model,
            devices=devices,
            start=T + begin - 0.5,
            scheduled=T + begin - 0.5,
            first_token=T + begin,
            end=T + end,
        )
        for begin, end in spans
    ]


def began(late: Usage, others: Sequence[Usage] = (), cost: TokenCost = COST) -> float:
    """Seconds of the window at which the late one is taken to have begun."""
    columns = columns_of([late, *others])
    everyone = np.arange(1 + len(others))
    mine = everyone[:1]
    hardware = hardware_of(H100)
    assert hardware is not None
    found = began_late(demand_of(columns, T), mine, everyone, cost=cost, hardware=hardware, devices=1)
    return float(found[0])


def test_the_docstrings_request() -> None:
    """Somebody is answered from its coming on: it began a second before its first token, or when nobody was."""
    assert began(LATE, answered((1.0, 5.0), (4.0, 20.0))) == pytest.approx(8.0)
    assert began(LATE, answered((1.0, 5.0), (6.0, 20.0))) == pytest.approx(5.0)
    assert began(LATE, answered((1.0, 3.0), (3.0, 5.0))) == pytest.approx(5.0)


def test_one_that_came_in_an_earlier_window_waits_from_the_windows_beginning_on() -> None:
    """Who was answered before it is not known here."""
    assert began(replace(LATE, start=T - 30.0), answered((0.0, 20.0))) == pytest.approx(8.0)
    assert began(replace(LATE, start=T - 30.0), answered((0.5, 20.0))) == pytest.approx(-30.0)


@pytest.mark.parametrize(
    ("late", "others"),
    [
        pytest.param(LATE, (), id="alone: slow, and not late"),
        pytest.param(LATE, answered((2.0, 20.0)), id="nobody was answered when it came"),
        pytest.param(replace(LATE, first_token=T + 2.7), answered((1.0, 20.0)), id="a fifth of a second of waiting"),
        pytest.param(replace(LATE, first_token=T + 19.99), answered((1.0, 20.0)), id="an answer that came all at once"),
        pytest.param(replace(LATE, input_tokens=None), answered((1.0, 20.0)), id="a prompt of unknown length"),
        pytest.param(replace(LATE, output_tokens=None), answered((1.0, 20.0)), id="an answer of unknown length"),
    ],
)
def test_where_nothing_tells_a_wait(late: Usage, others: Sequence[Usage]) -> None:
    """It began when it came."""
    assert began(late, others) == 1.5


def test_of_a_model_of_which_nothing_is_known_no_prompt_has_a_speed() -> None:
    """Its first token may be late because it is large."""
    assert began(LATE, answered((1.0, 20.0)), UNKNOWN_MODEL) == 1.5


tenths = st.integers(0, 200)


@given(tenths, tenths, tenths, st.lists(st.tuples(tenths, tenths), max_size=6))
def test_no_moment_of_a_wait_is_without_anybody(
    came: int, first: int, tokens: int, spans: list[tuple[int, int]]
) -> None:
    """Whatever came: it begins between its coming and its first token, and until then others were being answered, so
    that no joule of the board becomes nobody's by it."""
    start, until = T + came / 10.0, T + (came + first) / 10.0
    late = replace(LATE, start=start, first_token=until, end=until + 10.0, input_tokens=100 * tokens)
    others = answered(*((begin / 10.0, (begin + lasts) / 10.0) for begin, lasts in spans))
    found = began(late, others)
    came_at, first_at = start - T, until - T
    assert came_at <= found <= max(first_at, came_at)
    for moment in np.linspace(came_at, found, 20, endpoint=False) if found > came_at else ():
        assert any(begin - 1e-9 <= 10.0 * moment <= begin + lasts + 1e-9 for begin, lasts in spans)


def shares(
    *,
    kind: str = "gpu",
    hardware: str = H100,
    engines: Sequence[EngineReading] = (),
    other_model: str = "m",
    scheduled: float | None = None,
) -> tuple[list[float], float, float]:
    """Joules of a request of 10 s and of one that has its first token at 8 s, of a model that computes its prompt in
    no time; and what the books say was placed by an estimated start, and what nobody else can have used.
    """
    device = Device(id="g0", kind=kind, hardware=hardware, idle_watts=50.0)  # type: ignore[arg-type]
    reading = EnergyReading(device="g0", start=T, end=T + 10, energy_joules=1_000.0, method="counter")
    models = tuple(ModelFacts(name=name, parameters=1e3, kv_bytes_per_token=1e-9) for name in ("m", "n"))
    first = replace(LATE, model=other_model, start=T, scheduled=T, first_token=T + 0.1, end=T + 10, input_tokens=0)
    told = None if scheduled is None else T + scheduled
    second = replace(LATE, start=T + 0.5, scheduled=told, first_token=T + 8, end=T + 10, input_tokens=0)
    found = account(
        "h",
        T,
        T + 10,
        readings=[Told(reading, HostProfile(host="h", devices=(device,), models=models))],
        usages=columns_of([first, second]),
        engines=engines,
        nearby=lambda _device, _start, _end: [],
        intensity_at=lambda _zone, _at: None,
        revision=0,
    )
    energy, place = REQUEST_ENERGY.fields.index("energy_joules"), ENERGY.fields.index("estimated_start_joules")
    joules = [float(row.fields[energy]) for row in found.rows if row.measurement == REQUEST_ENERGY.name]
    estimated = [float(row.fields[place] or 0.0) for row in found.rows if row.measurement == ENERGY.name]
    exact = sum(float(row.fields[_EXACT] or 0.0) for row in found.rows if row.measurement == ENERGY.name)
    return joules, sum(estimated), exact


_EXACT = ENERGY.fields.index("exact_joules")


def test_who_waits_pays_nothing_for_the_others() -> None:
    """100 W: 8 s are the first one's alone, 2 s are shared; that is told to be an estimate."""
    joules, estimated, _ = shares()
    assert joules == pytest.approx([900.0, 100.0], abs=0.01)
    assert estimated == pytest.approx(100.0, abs=0.01)


def test_while_another_waits_by_estimate_nobody_is_alone_for_certain() -> None:
    """The second came at 0.5 s and may have been worked on since; told that it was from 8 s on, it was not before."""
    assert shares()[2] == pytest.approx(50.0, abs=0.01)
    assert shares(scheduled=8.0)[2] == pytest.approx(800.0, abs=0.01)


SILENT = EngineReading(server="s", model="m", devices=("g0",), start=T, end=T + 10, running=2.0)


@pytest.mark.parametrize(
    ("estimated", "found"),
    [
        pytest.param(100.0, {"engines": [SILENT]}, id="an engine that does not tell who waits"),
        pytest.param(0.0, {"engines": [replace(SILENT, waiting=0.0)]}, id="an engine that tells nobody does"),
        pytest.param(0.0, {"hardware": "a board nobody knows"}, id="a board of unknown speed"),
        pytest.param(0.0, {"other_model": "n"}, id="another model's answers"),
        pytest.param(0.0, {"kind": "cpu", "hardware": "Xeon"}, id="a CPU, whose prompts have no usual speed"),
    ],
)
def test_what_decides_whether_anything_is_estimated(estimated: float, found: dict[str, object]) -> None:
    """And then the books say so."""
    assert shares(**found)[1] == pytest.approx(estimated, abs=0.01)  # type: ignore[arg-type]
