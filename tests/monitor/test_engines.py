"""Several engines on one device: each one's requests share its steps, and not those of another. Worked by hand."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_energy_by_hand import Job, Reading
from virtual_energy_cases import Case, cases, split_of, sum_of

from monitor.core.attribution.requests import Steps, ToldSteps

TWO_SECONDS = [Reading(0, 2, 45.0)]
"""90 J; one span."""
TWO_AND_ONE = [Job(0, 0, 2), Job(0, 0, 2), Job(0, 0, 2)]


def steps(
    engine: Sequence[int],
    watts: Sequence[float],
    told: Sequence[Sequence[ToldSteps]] = ((), ()),
    *,
    prefill: Sequence[float] | None = None,
) -> Steps:
    """Whose each request is, and the power of its engine's steps as it tells."""
    return Steps(
        engines=len(told),
        engine=np.array(engine, dtype=np.intp),
        prefill_watts=np.array(watts if prefill is None else prefill, dtype=np.float64),
        decode_watts=np.array(watts, dtype=np.float64),
        told=told,
    )


def paid(readings: list[Reading], jobs: list[Job], which: Steps | None) -> list[float]:
    """Joules of each request, on a device without idle power."""
    found: list[float] = split_of(readings, jobs, idle=0.0, steps=which).energy.tolist()
    return found


@pytest.mark.parametrize(
    ("watts", "expected"),
    [
        pytest.param([50, 50, 50], [22.5, 22.5, 45], id="equal steps"),
        pytest.param([200, 200, 100], [30, 30, 30], id="steps of twice the weights"),
        pytest.param([300, 100, 100], [30, 30, 30], id="an engine steps as its requests do on average"),
        pytest.param([200, 0, 100], [30, 30, 30], id="one of the engine that does not tell"),
        pytest.param([200, 200, 0], [30, 30, 30], id="an engine that does not tell: equal parts"),
        pytest.param([400, 400, 0], [30, 30, 30], id="equal parts whatever the other tells"),
        pytest.param([100, 100, 200], [15, 15, 60], id="the one alone has the greater steps"),
    ],
)
def test_an_engines_part_goes_by_its_steps_and_then_equally(watts: list[float], expected: list[float]) -> None:
    """90 J that no tokens explain; two requests of one engine, one of another."""
    assert paid(TWO_SECONDS, TWO_AND_ONE, steps([0, 0, 1], watts)) == pytest.approx(expected)


def test_an_engine_that_is_alone_pays_for_that_time() -> None:
    """45 J of the second second are the first engine's, of the first second's a third."""
    found = paid(TWO_SECONDS, [Job(0, 0, 2), Job(0, 0, 1)], steps([0, 1], [100, 200]))
    assert found == pytest.approx([15 + 45, 30])


def test_prompts_step_at_their_own_pace() -> None:
    """First one request's prompt, 25 W of steps to the other engine's 75 W; then both decode at 75 W each."""
    jobs = [Job(0, 1, 2), Job(0, 0, 2)]
    assert paid(TWO_SECONDS, jobs, steps([0, 1], [75, 75], prefill=[25, 0])) == pytest.approx(
        [45 / 4 + 45 / 2, 45 * 3 / 4 + 45 / 2]
    )


def test_own_tokens_come_first() -> None:
    """30 J of tokens to the first request, the 60 J that are left as before."""
    jobs = [Job(0, 0, 2, decode=30.0), *TWO_AND_ONE[1:]]
    assert paid(TWO_SECONDS, jobs, steps([0, 0, 1], [200, 200, 100])) == pytest.approx([50, 20, 20])


def test_a_half_request_has_half_a_part_of_its_engine() -> None:
    """60 J for the first engine: a whole one and one that may have run elsewhere, 40 J and 20 J."""
    jobs = [Job(0, 0, 2), Job(0, 0, 2, weight=0.5), Job(0, 0, 2)]
    assert paid(TWO_SECONDS, jobs, steps([0, 0, 1], [200, 200, 100])) == pytest.approx([40, 20, 30])


def test_an_engines_own_counter_goes_before_what_its_requests_tell() -> None:
    """1 s each. Told: steps of 60 J in the first second to 30 J; in the second only what requests tell, 1 to 2."""
    told = [[ToldSteps(0, 1, 60.0)], [ToldSteps(0, 1, 30.0), ToldSteps(1, 2, 0.0)]]
    found = paid(TWO_SECONDS, [Job(0, 0, 2), Job(0, 0, 2)], steps([0, 1], [50, 100], told))
    assert found == pytest.approx([30 + 15, 15 + 30])


def test_told_steps_were_done_while_the_engine_had_requests() -> None:
    """10 J of steps in half a second are as much power as 20 J in a whole one: half of 22.5 J each."""
    told = [[ToldSteps(0, 1, 10.0)], [ToldSteps(0, 1, 20.0)]]
    found = paid([Reading(0, 1, 45.0)], [Job(0, 0, 0.5), Job(0, 0, 1)], steps([0, 1], [1, 1], told))
    assert found == pytest.approx([11.25, 33.75])


def test_all_tokens_in_an_instant_leave_the_others_digits_alone() -> None:
    """Times told too coarsely: steps of 1e15 W for a billionth of a second, then 100 W to 200 W."""
    jobs = [Job(0, 0, 1e-9), Job(0, 0, 2), Job(0, 0, 2)]
    found = paid(TWO_SECONDS, jobs, steps([0, 0, 1], [1e15, 100, 200]))
    assert found == pytest.approx([0, 30, 60], abs=1e-6)


def both(case: Case, which: Steps | None) -> list[float]:
    """Each request's joules of a case."""
    found: list[float] = split_of(
        case.readings,
        case.jobs,
        idle=case.idle,
        shares_idle=case.shares_idle,
        elsewhere=case.elsewhere,
        limit=case.limit,
        steps=which,
    ).energy.tolist()
    return found


WATTS = st.one_of(st.just(0.0), st.floats(1e-3, 1e4))
JOULES = st.one_of(st.just(0.0), st.floats(1e-3, 1e6))


@st.composite
def _stepping(draw: st.DrawFn, engines: int) -> tuple[Case, Steps]:
    """A case whose requests are of so many engines, each with a counter for part of the time."""
    case = draw(cases())
    count = len(case.jobs)
    each = st.lists(WATTS, min_size=count, max_size=count)
    whose = draw(st.lists(st.integers(0, engines - 1), min_size=count, max_size=count))
    told = [
        [ToldSteps(second, second + 2, draw(JOULES)) for second in range(-1, 11, 2) if draw(st.booleans())]
        for _ in range(engines)
    ]
    return case, steps(whose, draw(each), told, prefill=draw(each))


@given(_stepping(3))
@settings(deadline=None)
def test_whatever_the_steps_the_shares_are_what_was_measured(drawn: tuple[Case, Steps]) -> None:
    """To 1e-9, and nobody pays less than nothing, or gets what is quiet."""
    case, which = drawn
    shared = split_of(
        case.readings,
        case.jobs,
        idle=case.idle,
        shares_idle=case.shares_idle,
        elsewhere=case.elsewhere,
        limit=case.limit,
        steps=which,
    )
    close = 1e-9 * case.measured
    assert abs(sum_of(shared) - case.measured) <= close
    assert (shared.energy >= -close).all()
    assert shared.marginal.tolist() == pytest.approx(case.split().marginal.tolist(), rel=0, abs=close)


@given(_stepping(1))
@settings(deadline=None)
def test_one_engine_changes_no_digit(drawn: tuple[Case, Steps]) -> None:
    """Whatever its requests tell of its steps."""
    case, which = drawn
    assert both(case, replace(which, told=[[]])) == both(case, None)


@given(cases(), st.integers(0, 6), st.floats(1.0, 1e3), st.floats(1.0, 1e3))
@settings(deadline=None)
def test_an_engine_s_requests_are_all_one_to_the_other(case: Case, first: int, one: float, other: float) -> None:
    """Joining two requests of the same time to one of both weights changes nobody else's joules."""
    if not case.jobs:
        return
    twin, rest = case.jobs[0], case.jobs[1:]
    half = Job(twin.start, twin.first, twin.end, twin.weight / 2, twin.prefill, twin.decode, twin.growing)
    whose = [int(place >= first) for place in range(len(rest))]
    watts = [(one, other)[each] for each in whose]
    whole = both(case, steps([0, *whose], [one, *watts]))
    parts = split_of(
        case.readings,
        [half, half, *rest],
        idle=case.idle,
        shares_idle=case.shares_idle,
        elsewhere=case.elsewhere,
        limit=case.limit,
        steps=steps([0, 0, *whose], [one, one, *watts]),
    ).energy.tolist()
    assert parts[2:] == pytest.approx(whole[1:], rel=0, abs=1e-9 * case.measured)
    assert parts[0] + parts[1] == pytest.approx(whole[0], rel=0, abs=1e-9 * case.measured)
