"""How far shares may be off: worked by hand, and what holds of any split."""

import numpy as np
import pytest
from hypothesis import given
from virtual_energy_by_hand import Job, Reading
from virtual_energy_cases import Case, cases, split_of

from monitor.core.attribution.certainty import Certainty
from monitor.core.attribution.doubt import Doubts, doubts_of_each, late_seconds
from monitor.core.attribution.requests import Requests, Steps
from monitor.core.attribution.virtual_energy import Meter, Split

TENTH = Certainty(flop_error_ratio=0.1, byte_error_ratio=0.2, learned=True)
WHOLE = [Reading(0.0, 10.0, 100.0)]


def doubts(
    shared: Split,
    jobs: list[Job],
    *,
    context: float = 0.0,
    made: float = 1.0,
    prices: bool = True,
    tested: bool = True,
    by_steps: bool = True,
    mixes: list[bool] | None = None,
    unit_errors: list[float] | None = None,
    engines: list[int] | None = None,
    late: float = 0.0,
) -> Doubts:
    """Of these jobs, each with that context and as many tokens made."""

    def column(name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.array([getattr(job, name) for job in jobs], dtype=np.float64)

    requests = Requests(
        start=column("start"),
        first=column("first"),
        end=column("end"),
        weight=column("weight"),
        prefill_joules=column("prefill"),
        decode_joules=column("decode"),
        growing_joules=column("growing"),
        steps=None if engines is None else steps_of(engines),
    )
    return doubts_of_each(
        [shared],
        [requests],
        context_tokens=np.full(len(jobs), context),
        output_tokens=np.full(len(jobs), made),
        certainty=TENTH,
        prices=prices,
        tested=tested,
        by_steps=by_steps,
        mixes=None if mixes is None else np.array(mixes),
        unit_errors=None if unit_errors is None else np.array(unit_errors),
        late=[late],
        length_seconds=10.0,
    )[0]


def steps_of(engines: list[int]) -> Steps:
    """Requests of these engines, none of which tells its steps."""
    nothing = np.zeros(len(engines))
    return Steps(
        engines=max(engines) + 1,
        engine=np.array(engines, dtype=np.intp),
        prefill_watts=nothing,
        decode_watts=nothing,
        told=[[] for _ in range(max(engines) + 1)],
    )


def test_dearer_flops_move_joules_from_one_request_to_the_other() -> None:
    """1 000 J, own 300 and 100, 300 J left for each: twice as dear costs 300 and 100 and spares 200 each; 10 % of it.

    Placed to 6.5 %: 0.065^2 x (300^2 + 200^2) = 549.25 and 0.065^2 x (100^2 + 200^2) = 211.25, and 0.4 % of 600 and 400
    J, squared, 5.76 and 2.56.
    """
    jobs = [Job(0.0, 0.0, 10.0, decode=300.0), Job(0.0, 0.0, 10.0, decode=100.0)]
    found = doubts(split_of(WHOLE, jobs), jobs)
    assert found.flop.tolist() == pytest.approx([10.0, -10.0])
    assert found.byte.tolist() == pytest.approx([0.0, 0.0])
    assert found.variance.tolist() == pytest.approx([549.25 + 5.76, 211.25 + 2.56])
    assert found.steps.tolist() == found.learned.tolist() == pytest.approx([600.0, 400.0])
    assert doubts(split_of(WHOLE, jobs), jobs, by_steps=False).steps.tolist() == [0.0, 0.0]


def test_experts_are_placed_worse() -> None:
    """The same two, the first of them of a mixture: 0.11^2 x (300^2 + 200^2) = 1 573 for it alone."""
    jobs = [Job(0.0, 0.0, 10.0, decode=300.0), Job(0.0, 0.0, 10.0, decode=100.0)]
    found = doubts(split_of(WHOLE, jobs), jobs, mixes=[True, False])
    assert found.variance.tolist() == pytest.approx([1_573.0 + 5.76, 211.25 + 2.56])


def test_what_several_models_share_is_divided_less_well() -> None:
    """The same two, of two models: 300 J left for each, of which 7 % (steps told) are 441 J^2, and 12 % 1 296 J^2."""
    jobs = [Job(0.0, 0.0, 10.0, decode=300.0), Job(0.0, 0.0, 10.0, decode=100.0)]
    shared = split_of(WHOLE, jobs)
    one = doubts(shared, jobs).variance
    told, untold = (doubts(shared, jobs, engines=[0, 1], by_steps=steps).variance for steps in (True, False))
    assert (told - one).tolist() == pytest.approx([441.0, 441.0])
    assert (untold - one).tolist() == pytest.approx([1_296.0, 1_296.0])


def test_readings_that_are_late_are_off_at_the_edges_of_requests() -> None:
    """100 W alone over [2, 5): 0.1 s late are 10 J at either edge. What lasts beyond the window has none in it, and one
    of 0.05 s is off by no more than all of its 5 J at either."""
    within, beyond, short = Job(2.0, 2.0, 5.0), Job(-5.0, -5.0, 15.0), Job(2.0, 2.0, 2.05)
    found = [
        float((doubts(shared, [job], late=0.1).variance - doubts(shared, [job]).variance)[0])
        for job in (within, beyond, short)
        for shared in [split_of(WHOLE, [job])]
    ]
    assert found == pytest.approx([200.0, 0.0, 50.0])


@pytest.mark.parametrize(
    ("lasts", "recovered", "late"),
    [
        pytest.param([0.2, 0.4], [False, False], 0.15, id="half of what they last"),
        pytest.param([0.2, 1.0], [False, False], 0.1, id="joules of a second lie where somebody was active"),
        pytest.param([0.2, 0.2], [False, True], 0.1, id="and a hole tells no moment"),
        pytest.param([1.0, 0.2], [False, True], 0.0, id="nothing that is late"),
        pytest.param([], [], 0.0, id="no reading"),
    ],
)
def test_which_readings_are_late(lasts: list[float], recovered: list[bool], late: float) -> None:
    """Those that are taken at their word."""
    nothing, never = np.zeros(len(lasts)), np.zeros(len(lasts), dtype=np.bool_)
    meter = Meter(
        start=nothing,
        end=nothing,
        watts=nothing,
        lasts_seconds=np.array(lasts),
        recovered=np.array(recovered, dtype=np.bool_),
        modelled=never,
    )
    assert late_seconds(meter) == pytest.approx(late)


def test_a_price_of_a_unit_is_off_as_it_was_learned() -> None:
    """Own 300 J by units at 5 % and 100 J of FLOPs at 10 %, 300 J left for each.

    Units 15 J dearer spare 7.5 J each: 7.5 and -7.5 J. FLOPs 10 J dearer spare 5 J each: -5 and 5 J. Placed to 9 %
    are 300^2 and 150^2 twice for units, to 6.5 % 100^2 and 50^2 twice for FLOPs.
    """
    jobs = [Job(0.0, 0.0, 10.0, decode=300.0), Job(0.0, 0.0, 10.0, decode=100.0)]
    found = doubts(split_of(WHOLE, jobs), jobs, unit_errors=[0.05, 0.0])
    assert found.flop.tolist() == pytest.approx([7.5 - 5.0, 5.0 - 7.5])
    units, flops = (300.0**2 + 150.0**2, 150.0**2), (50.0**2, 100.0**2 + 50.0**2)
    placed = [0.09**2 * units[each] + 0.065**2 * flops[each] for each in (0, 1)]
    assert found.variance.tolist() == pytest.approx([placed[0] + 5.76, placed[1] + 2.56])


def test_reads_of_the_context_are_the_bytes() -> None:
    """Growing 20 J for 10 tokens made on a context of 15: reads of 20 x (1 + 2 x 15 / 10) = 80 J of own 200 J.

    Other: 200 J of FLOPs. Left 600 J, 300 each: FLOPs 120 and 200 spare 160 each, reads 80 and 0 spare 40 each.
    """
    jobs = [Job(0.0, 0.0, 10.0, decode=180.0, growing=20.0), Job(0.0, 0.0, 10.0, decode=200.0)]
    found = doubts(split_of(WHOLE, jobs), jobs, context=15.0, made=10.0)
    assert found.flop.tolist() == pytest.approx([0.1 * -40.0, 0.1 * 40.0])
    assert found.byte.tolist() == pytest.approx([0.2 * 40.0, 0.2 * -40.0])


def test_who_was_alone_is_hardly_in_doubt() -> None:
    """1 000 J while one request was there: only where the reading was cut, 0.4 %."""
    jobs = [Job(0.0, 0.0, 10.0, decode=300.0)]
    found = doubts(split_of(WHOLE, jobs), jobs)
    assert (found.flop.tolist(), found.learned.tolist()) == ([0.0], [0.0])
    assert found.variance.tolist() == pytest.approx([16.0])


def test_without_a_price_nobody_knows() -> None:
    """A model of which nothing is known beside another: neither's share is known to any band; alone it would be."""
    jobs = [Job(0.0, 0.0, 10.0, decode=300.0), Job(0.0, 0.0, 10.0)]
    assert np.isnan(doubts(split_of(WHOLE, jobs), jobs).variance).all()
    alone = [Job(0.0, 0.0, 10.0)]
    assert doubts(split_of(WHOLE, alone), alone).variance.tolist() == pytest.approx([16.0])


def test_a_method_that_nobody_tested_has_no_band_and_equal_parts_by_rule_have() -> None:
    """Token share: not known. A CPU's joules go in equal parts because that is the rule."""
    jobs = [Job(0.0, 0.0, 10.0, decode=300.0), Job(0.0, 0.0, 10.0, decode=100.0)]
    assert np.isnan(doubts(split_of(WHOLE, jobs), jobs, tested=False).variance).all()
    assert doubts(split_of(WHOLE, jobs), jobs, prices=False).variance.tolist() == pytest.approx([5.76, 2.56])


def test_what_exceeds_the_meter_is_traded_among_own_joules() -> None:
    """Own 3 000 and 1 000 J of FLOPs and none of reads, 1 000 J measured: any J/FLOP gives 750 and 250."""
    jobs = [Job(0.0, 0.0, 10.0, decode=3_000.0), Job(0.0, 0.0, 10.0, decode=1_000.0)]
    assert doubts(split_of(WHOLE, jobs), jobs).flop.tolist() == pytest.approx([0.0, 0.0], abs=1e-9)


@given(cases())
def test_what_scalars_move_is_nothing_in_sum(case: Case) -> None:
    """The meter's joules stay: one pays what another is spared, and parts are parts."""
    shared = case.split()
    found = doubts(shared, case.jobs, context=7.0, made=3.0)
    near = 1e-9 * max(case.measured, 1.0)
    assert abs(float(found.flop.sum())) <= near
    assert abs(float(found.byte.sum())) <= near
    assert (found.learned <= shared.energy + near).all()
    assert not (found.variance < 0.0).any()
