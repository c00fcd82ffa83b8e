"""The split worked by hand."""

from fractions import Fraction

import pytest
from virtual_energy_by_hand import Job, Reading, paid_by_hand
from virtual_energy_cases import split_of, sum_of

from monitor.core.attribution.virtual_energy import Quiet


def _told(part: Quiet) -> tuple[float, float, float]:
    return part.energy, part.metered, part.recovered


WHOLE = [Reading(0.0, 10.0, 300.0)]


def test_two_overlapping_requests_and_a_quiet_rest() -> None:
    """The docstring's example: 900 J each, 200 J idle, 1 000 J unreported; alone they used 600 J each."""
    shared = split_of(WHOLE, [Job(0.0, 0.0, 4.0), Job(2.0, 2.0, 6.0)])
    assert shared.energy.tolist() == pytest.approx([900.0, 900.0])
    assert shared.exact.tolist() == pytest.approx([600.0, 600.0])
    assert shared.marginal.tolist() == [0.0, 0.0]
    assert shared.idle.energy == pytest.approx(200.0)
    assert shared.unreported.energy == pytest.approx(1_000.0)
    assert shared.gap.energy == shared.unknown_device.energy == 0.0


def test_a_weight_of_one_nth_pays_one_nth() -> None:
    """3 000 J between weights 1 and 1/2: 2 000 and 1 000; what may have run elsewhere was never alone for certain."""
    shared = split_of(WHOLE, [Job(0.0, 0.0, 10.0), Job(0.0, 0.0, 10.0, weight=0.5)])
    assert shared.energy.tolist() == pytest.approx([2_000.0, 1_000.0])
    alone = split_of(WHOLE, [Job(0.0, 0.0, 10.0, weight=0.25)])
    assert alone.energy.tolist() == pytest.approx([3_000.0])
    assert alone.exact.tolist() == [0.0]


def test_own_joules_first_then_the_rest_equally() -> None:
    """3 000 J; own 500 + 400 + 100 and 200 leave 1 800: 900 more for each."""
    jobs = [Job(0.0, 5.0, 10.0, prefill=500.0, decode=400.0, growing=100.0), Job(0.0, 0.0, 10.0, decode=200.0)]
    shared = split_of(WHOLE, jobs)
    assert shared.marginal.tolist() == pytest.approx([1_000.0, 200.0])
    assert shared.energy.tolist() == pytest.approx([1_900.0, 1_100.0])


def test_marginals_above_the_meter_are_scaled_down() -> None:
    """Own 4 000 J and 2 000 J of a measured 3 000 J: 2 000 and 1 000, nothing is left to share."""
    shared = split_of(WHOLE, [Job(0.0, 0.0, 10.0, decode=4_000.0), Job(0.0, 0.0, 10.0, decode=2_000.0)])
    assert shared.energy.tolist() == pytest.approx([2_000.0, 1_000.0])
    assert shared.marginal.tolist() == pytest.approx([2_000.0, 1_000.0])


def test_a_growing_context_pays_later() -> None:
    """Growth of 100 J over [0, 10): 25 J fall into the first half, 75 J into the second; the other pays none of it."""
    jobs = [Job(0.0, 0.0, 10.0, growing=100.0), Job(0.0, 0.0, 10.0)]
    first = split_of([Reading(0.0, 5.0, 100.0)], jobs)
    second = split_of([Reading(5.0, 10.0, 100.0)], jobs)
    assert first.energy.tolist() == pytest.approx([262.5, 237.5])
    assert second.energy.tolist() == pytest.approx([287.5, 212.5])


@pytest.mark.parametrize(
    ("idle", "idle_joules", "above"),
    [(50.0, 500.0, 2_500.0), (300.0, 3_000.0, 0.0), (400.0, 3_000.0, 0.0), (0.0, 0.0, 3_000.0), (None, 3_000.0, 0.0)],
)
def test_quiet_energy_up_to_idle_power_is_idle(idle: float | None, idle_joules: float, above: float) -> None:
    """300 W for 10 s with no request; of an unknown idle power nothing counts as above it."""
    shared = split_of(WHOLE, [], idle=idle)
    assert shared.idle.energy == pytest.approx(idle_joules)
    assert shared.unreported.energy == pytest.approx(above)
    assert len(shared.energy) == 0


def test_energy_beside_a_request_of_unknown_device_says_so() -> None:
    """300 W, 50 W idle, requests somewhere over [2, 4) and [3, 5): 750 J above idle are theirs or not, 1 750 J not."""
    shared = split_of(WHOLE, [], elsewhere=[(2.0, 4.0), (3.0, 5.0)])
    assert shared.unknown_device.energy == pytest.approx(750.0)
    assert shared.unreported.energy == pytest.approx(1_750.0)


def test_while_another_may_have_begun_nobody_is_known_to_be_alone() -> None:
    """300 W; one over [0, 4), another that came at 1 s, is estimated to have begun at 3 s and ends at 5 s.

    Both are paid as estimated, 300 J x 3 + 150 J and 150 J + 300 J; certain are the first second and the last.
    """
    readings, jobs = [Reading(0, 5, 300.0)], [Job(0, 0, 4), Job(3, 3, 5)]
    shared = split_of(readings, jobs, perhaps=[(1, 3)])
    assert shared.energy.tolist() == pytest.approx([1_050.0, 450.0])
    assert shared.exact.tolist() == pytest.approx([300.0, 300.0])
    assert split_of(readings, jobs).exact.tolist() == pytest.approx([900.0, 300.0])


def test_beside_a_request_of_unknown_device_nothing_is_exact() -> None:
    """Alone for 10 s, but for 4 s another may have been there: 1 800 J are certain."""
    shared = split_of(WHOLE, [Job(0.0, 0.0, 10.0)], elsewhere=[(-5.0, 4.0)])
    assert shared.energy.tolist() == pytest.approx([3_000.0])
    assert shared.exact.tolist() == pytest.approx([1_800.0])


def test_a_hole_is_shared_by_those_active_and_else_a_gap() -> None:
    """300 W recovered over [0, 6), measured to 8 s: 1 200 J to the request, then 500 J gap, then 500 J unreported.

    An unknown request does not change why the gap is one.
    """
    readings = [Reading(0.0, 6.0, 300.0, "recovered"), Reading(6.0, 8.0, 300.0)]
    shared = split_of(readings, [Job(-100.0, -99.0, 4.0)], elsewhere=[(5.0, 6.0)])
    assert shared.energy.tolist() == shared.recovered.tolist() == pytest.approx([1_200.0])
    assert _told(shared.idle) == pytest.approx((200.0, 200.0, 100.0))
    assert _told(shared.gap) == pytest.approx((500.0, 500.0, 500.0))
    assert shared.unreported.energy == pytest.approx(500.0)
    assert shared.unknown_device.energy == 0.0


def test_modelled_and_recovered_joules_stay_known_as_such() -> None:
    """100 W modelled 2 s, measured 3 s, recovered 5 s, one request: 1 000 J, 800 J not modelled, 500 J recovered."""
    readings = [Reading(0.0, 2.0, 100.0, "modelled"), Reading(2.0, 5.0, 100.0), Reading(5.0, 10.0, 100.0, "recovered")]
    shared = split_of(readings, [Job(0.0, 5.0, 10.0, prefill=100.0, decode=100.0)])
    assert shared.energy.tolist() == pytest.approx([1_000.0])
    assert shared.metered.tolist() == pytest.approx([800.0])
    assert shared.recovered.tolist() == pytest.approx([500.0])
    quiet = split_of(readings, [], idle=20.0)
    assert _told(quiet.idle) == pytest.approx((200.0, 160.0, 100.0))
    assert _told(quiet.gap) == pytest.approx((400.0, 400.0, 400.0))
    assert _told(quiet.unreported) == pytest.approx((400.0, 240.0, 0.0))


def test_of_a_cpu_only_what_exceeds_idle_is_shared() -> None:
    """300 W, idle 50 W, a request over [0, 4): 1 000 J are its, 500 J idle throughout, 1 500 J unreported."""
    shared = split_of(WHOLE, [Job(0.0, 0.0, 4.0)], shares_idle=False)
    assert shared.energy.tolist() == pytest.approx([1_000.0])
    assert shared.idle.energy == pytest.approx(500.0)
    assert shared.unreported.energy == pytest.approx(1_500.0)


def test_a_zero_length_request_pays_nothing_and_disturbs_nobody() -> None:
    """At 5 s, at the border and outside: the other still pays its 3 000 J and is still alone."""
    empty = [Job(at, at, at, prefill=9.0, decode=9.0, growing=9.0) for at in (0.0, 5.0, 10.0, -3.0, 12.0)]
    shared = split_of(WHOLE, [*empty, Job(0.0, 5.0, 10.0, decode=7.0)])
    assert shared.energy.tolist() == pytest.approx([0.0] * 5 + [3_000.0])
    assert shared.exact[-1] == pytest.approx(3_000.0)


def test_a_request_longer_than_the_window_pays_its_part_of_it() -> None:
    """[-90, 110) with 200 J prefill to -40 and 1 500 J decode: 100 J of it here; alone, so all 3 000 J anyway."""
    long = Job(-90.0, -40.0, 110.0, prefill=200.0, decode=1_500.0)
    shared = split_of(WHOLE, [long])
    assert shared.marginal.tolist() == pytest.approx([100.0])
    assert shared.energy.tolist() == pytest.approx([3_000.0])


def test_what_was_not_measured_has_no_joules() -> None:
    """No readings: nothing for anyone; a hole of 5 s between two readings: 500 J, not 1 000 J."""
    nothing = split_of([], [Job(0.0, 1.0, 10.0, prefill=5.0, decode=5.0)])
    assert nothing.energy.tolist() == nothing.marginal.tolist() == [0.0]
    assert sum_of(nothing) == 0.0
    holed = split_of(
        [Reading(0.0, 2.0, 100.0), Reading(7.0, 10.0, 100.0)], [Job(0.0, 0.0, 10.0, decode=100.0), Job(3.0, 3.0, 6.0)]
    )
    assert holed.energy.tolist() == pytest.approx([500.0, 0.0])
    assert holed.marginal.tolist() == pytest.approx([50.0, 0.0])


def test_all_tokens_within_a_microsecond_do_not_blur_the_others() -> None:
    """A buffered answer whose tokens all came in 0.5 us: the books close to the last digits."""
    buffered = Job(1.0, 3.0, 3.0 + 5e-7, prefill=50.0, decode=500.0, growing=500.0)
    shared = split_of(WHOLE, [buffered, Job(0.0, 1.0, 9.0, prefill=3.0, decode=400.0, growing=30.0)])
    assert sum_of(shared) == pytest.approx(3_000.0, rel=1e-13)


def test_the_plain_loop_itself_is_right() -> None:
    """The docstring's example by the plain loop: 900 J each, 200 J idle, 1 000 J unreported."""
    paid = paid_by_hand(
        WHOLE, [Job(0.0, 0.0, 4.0), Job(2.0, 2.0, 6.0)], length=10.0, idle=50.0, shares_idle=True, elsewhere=[]
    )
    assert paid.energy == [Fraction(900), Fraction(900)]
    assert paid.quiet == [200, 0, 0, 1_000]
