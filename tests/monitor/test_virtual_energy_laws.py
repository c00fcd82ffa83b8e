"""Laws of the split, and joule for joule against a plain loop in exact fractions."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_energy_by_hand import Job, Reading, paid_by_hand
from virtual_energy_cases import Case, cases, moments, split_of, sum_of

from monitor.core.attribution.virtual_energy import Split


@given(cases())
@settings(deadline=None, max_examples=120)
def test_shares_and_quiet_parts_are_what_the_meter_measured(case: Case) -> None:
    """Whatever the coefficients, to 1e-9; nobody pays less than nothing, and marginals stay within the shares."""
    shared = case.split()
    close = 1e-9 * case.measured
    assert abs(sum_of(shared) - case.measured) <= close
    modelled = sum((each.end - each.start) * each.watts for each in case.readings if each.method == "modelled")
    quiet = (shared.idle, shared.gap, shared.unknown_device, shared.unreported)
    assert abs(shared.metered.sum() + sum(part.metered for part in quiet) - case.measured + modelled) <= close
    recovered = sum((each.end - each.start) * each.watts for each in case.readings if each.method == "recovered")
    assert abs(shared.recovered.sum() + sum(part.recovered for part in quiet) - recovered) <= close
    for column in (shared.energy, shared.marginal, shared.exact, shared.metered, shared.recovered):
        assert (column >= -close).all()
        assert (column <= shared.energy + close).all()


@given(cases())
@settings(deadline=None, max_examples=120)
def test_joule_for_joule_as_in_a_plain_loop(case: Case) -> None:
    """Each share and each quiet part equals that of exact fractions, added up piece by piece and request by request."""
    shared = case.split()
    expected = paid_by_hand(
        case.readings,
        case.jobs,
        length=10.0,
        idle=case.idle,
        shares_idle=case.shares_idle,
        elsewhere=case.elsewhere,
        limit=case.limit,
    )
    close = 1e-9 * case.measured
    assert shared.energy.tolist() == pytest.approx(_floats(expected.energy), rel=0, abs=close)
    assert shared.marginal.tolist() == pytest.approx(_floats(expected.marginal), rel=0, abs=close)
    assert shared.exact.tolist() == pytest.approx(_floats(expected.exact), rel=0, abs=close)
    found = [part.energy for part in (shared.idle, shared.gap, shared.unknown_device, shared.unreported)]
    assert found == pytest.approx(_floats(expected.quiet), rel=0, abs=close)


def _floats(values: list[Fraction]) -> list[float]:
    return [float(value) for value in values]


def _agree(one: Split, *parts: Split, close: float) -> None:
    total = sum((part.energy for part in parts), np.zeros_like(one.energy))
    assert one.energy.tolist() == pytest.approx(total.tolist(), rel=0, abs=close)
    for name in ("idle", "gap", "unknown_device", "unreported"):
        whole, halves = getattr(one, name), [getattr(part, name) for part in parts]
        assert whole.energy == pytest.approx(sum(half.energy for half in halves), rel=0, abs=close)
        assert whole.metered == pytest.approx(sum(half.metered for half in halves), rel=0, abs=close)


@given(cases(growing=st.just(0.0)), st.integers(0, 7), st.floats(0.01, 0.99))
@settings(deadline=None)
def test_a_reading_split_in_two_changes_nothing(case: Case, which: int, part: float) -> None:
    """Half the time at the same power, twice, within its 2 s and with somebody active all the time: the same shares."""
    if not case.readings:
        return
    chosen = case.readings[which % len(case.readings)]
    until = min(chosen.end, 2.0 * (chosen.start // 2.0 + 1.0))
    middle = chosen.start + part * (until - chosen.start)
    halves = [replace(chosen, end=middle), replace(chosen, start=middle)]
    others = [each for each in case.readings if each is not chosen]
    busy = replace(case, jobs=[*case.jobs, Job(chosen.start - 1.0, chosen.start, chosen.end, decode=40.0)])
    cut = replace(busy, readings=sorted([*others, *halves], key=lambda each: each.start))
    _agree(busy.split(), cut.split(), close=1e-9 * case.measured)


def _part(case: Case, start: float, end: float) -> Split:
    """The same case told to a window [start, end) of its own."""
    readings = [
        replace(each, start=max(each.start, start) - start, end=min(each.end, end) - start)
        for each in case.readings
        if each.start < end and each.end > start
    ]
    jobs = [replace(job, start=job.start - start, first=job.first - start, end=job.end - start) for job in case.jobs]
    elsewhere = [(begin - start, finish - start) for begin, finish in case.elsewhere]
    return split_of(
        readings,
        jobs,
        length=end - start,
        idle=case.idle,
        shares_idle=case.shares_idle,
        elsewhere=elsewhere,
        limit=case.limit,
    )


def _unmoved(case: Case) -> Case:
    """Nothing moves within the readings of a device of which nobody knows when it is quiet."""
    return replace(case, idle=None) if case.shares_idle else case


def _cut(case: Case, at: float) -> Case:
    """No reading goes on across the moment."""
    halves = [
        half
        for each in case.readings
        for half in (replace(each, end=min(each.end, at)), replace(each, start=max(each.start, at)))
        if half.start < half.end
    ]
    return replace(case, readings=halves)


@given(cases(growing=st.just(0.0)), st.sampled_from([2.0, 4.0, 6.0, 8.0]))
@settings(deadline=None)
def test_a_window_split_in_two_between_spans_changes_nothing(case: Case, at: float) -> None:
    """Any request pays in the two windows together what it pays in the one."""
    whole = _unmoved(_cut(case, at))
    _agree(whole.split(), _part(whole, 0.0, at), _part(whole, at, 10.0), close=1e-9 * case.measured)


@given(cases(), moments(1, 9))
@settings(deadline=None)
def test_a_window_split_in_two_anywhere_changes_no_sum(case: Case, at: float) -> None:
    """What all requests pay together stays, also where a span is cut."""
    whole = _unmoved(case)
    parts = [_part(whole, 0.0, at), _part(whole, at, 10.0)]
    close = 1e-9 * case.measured
    assert sum(float(part.energy.sum()) for part in parts) == pytest.approx(
        whole.split().energy.sum(), rel=0, abs=close
    )


@given(cases(), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_requests_does_not_matter(case: Case, random: object) -> None:
    """Shuffled, each still pays the same."""
    order = list(range(len(case.jobs)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = replace(case, jobs=[case.jobs[i] for i in order]).split()
    expected = case.split().energy[np.array(order, dtype=np.intp)]
    assert shuffled.energy.tolist() == pytest.approx(expected.tolist(), rel=0, abs=1e-9 * case.measured)


@st.composite
def _stepped(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """(first step, prefill steps, decode steps) of some requests within 40 steps of 0.25 s."""
    spans = st.tuples(st.integers(0, 20), st.integers(0, 6), st.integers(4, 14))
    return draw(st.lists(spans, min_size=1, max_size=6))


@given(_stepped(), st.floats(5.0, 50.0), st.floats(0.0, 5.0), st.floats(0.0, 2.0), st.floats(0.0, 0.1))
@settings(deadline=None)
def test_affine_steps_give_the_shapley_value(
    spans: list[tuple[int, int, int]], fixed: float, prefill: float, decode: float, context: float
) -> None:
    """A step costs a + the sum of m_i: each request in it owes a/n + m_i (m_i: prefill, or decode + context so far)."""
    owed = [0.0] * len(spans)
    readings = []
    for step in range(40):
        costs = {}
        for i, (begin, filling, making) in enumerate(spans):
            if begin <= step < begin + filling:
                costs[i] = prefill
            elif begin + filling <= step < begin + filling + making:
                costs[i] = decode + context * (step - begin - filling + 0.5)
        for i, cost in costs.items():
            owed[i] += fixed / len(costs) + cost
        joules = fixed + sum(costs.values()) if costs else 10.0
        readings.append(Reading(step / 4, (step + 1) / 4, joules * 4))
    jobs = [
        Job(
            begin / 4,
            (begin + filling) / 4,
            (begin + filling + making) / 4,
            prefill=prefill * filling,
            decode=decode * making,
            growing=context * making**2 / 2,
        )
        for begin, filling, making in spans
    ]
    assert split_of(readings, jobs).energy.tolist() == pytest.approx(owed, rel=1e-9)
