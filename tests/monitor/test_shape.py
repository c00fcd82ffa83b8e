"""Where within its readings the joules were, worked by hand."""

import numpy as np
import pytest
from virtual_energy_by_hand import Job, Reading
from virtual_energy_cases import split_of

from monitor.core.attribution.shape import settled, spans_of
from monitor.core.attribution.virtual_energy import Foreign

HALF_A_SECOND = [Job(0.25, 0.25, 0.75)]


def test_what_a_reading_holds_above_quiet_is_its_requests() -> None:
    """250 W for 1 s, idle 50 W, a request for half of it: 25 J idle, 225 J its; nothing is unreported."""
    shared = split_of([Reading(0.0, 1.0, 250.0)], HALF_A_SECOND)
    assert shared.energy.tolist() == shared.exact.tolist() == pytest.approx([225.0])
    assert shared.idle.energy == pytest.approx(25.0)
    assert shared.unreported.energy == pytest.approx(0.0)


def test_two_requests_of_one_reading_share_what_moved_by_their_time() -> None:
    """240 J above quiet over 0.75 s: 0.25 s alone is 80 J, 0.5 s together 80 J each; and 50 W of idle power on top."""
    shared = split_of([Reading(0.0, 1.0, 290.0)], [Job(0.0, 0.0, 0.75), Job(0.25, 0.25, 0.75)])
    assert shared.energy.tolist() == pytest.approx([80.0 + 12.5 + 80.0 + 12.5, 80.0 + 12.5])
    assert shared.idle.energy == pytest.approx(12.5)


def test_a_stray_process_that_goes_on_is_no_requests() -> None:
    """300 W before and after too: quiet is 300 W here, the request pays its half second of it and no more."""
    readings = [Reading(second, second + 1.0, 300.0) for second in (0.0, 1.0, 2.0)]
    shared = split_of(readings, [Job(1.25, 1.25, 1.75)])
    assert shared.energy.tolist() == pytest.approx([150.0])
    assert shared.idle.energy == pytest.approx(125.0)
    assert shared.unreported.energy == pytest.approx(625.0)


def test_the_lower_of_both_sides_is_quiet() -> None:
    """A model load at 300 W ends with the second before; after the request it is 60 W: 30 J quiet, 220 J the request's.

    Of the three seconds' quiet time, 1 s at 300 W, 0.5 s and 1 s at 60 W, idle is 50 W: 125 J; 265 J are above it.
    """
    readings = [Reading(0.0, 1.0, 300.0), Reading(1.0, 2.0, 250.0), Reading(2.0, 3.0, 60.0)]
    shared = split_of(readings, [Job(1.25, 1.25, 1.75)])
    assert shared.energy.tolist() == pytest.approx([220.0])
    assert shared.idle.energy == pytest.approx(125.0)
    assert shared.unreported.energy == pytest.approx(265.0)


def test_no_more_moves_than_the_board_can_draw() -> None:
    """A tenth of a second in 250 J, board of 700 W: 70 J; of the rest 45 J are idle and 135 J unreported."""
    shared = split_of([Reading(0.0, 1.0, 250.0)], [Job(0.5, 0.5, 0.6)], limit=700.0)
    assert shared.energy.tolist() == pytest.approx([70.0])
    assert shared.idle.energy == pytest.approx(45.0)
    assert shared.unreported.energy == pytest.approx(135.0)


@pytest.mark.parametrize("reading", [Reading(0.0, 3.0, 250.0), Reading(0.0, 1.0, 250.0, "recovered")])
def test_long_and_recovered_readings_stay_even(reading: Reading) -> None:
    """Half a second of 250 W is 125 J: over 3 s, or in a hole, nobody knows that nothing else went on."""
    shared = split_of([reading], HALF_A_SECOND)
    assert shared.energy.tolist() == pytest.approx([125.0])


def test_a_fine_reading_is_taken_at_its_word() -> None:
    """Readings of half a second: the request has half of each, 125 J; as much is above idle beside it, 100 J."""
    shared = split_of([Reading(0.0, 0.5, 250.0), Reading(0.5, 1.0, 250.0)], HALF_A_SECOND)
    assert shared.energy.tolist() == pytest.approx([125.0])
    assert shared.unreported.energy == pytest.approx(100.0)


def test_beside_a_request_of_unknown_device_it_is_shared_with_that() -> None:
    """Half a second of each: of 200 J above quiet each has half, those of the other stay unknown."""
    shared = split_of([Reading(0.0, 1.5, 250.0)], [Job(0.0, 0.0, 0.5)], elsewhere=[(0.5, 1.0)])
    assert shared.energy.tolist() == pytest.approx([125.0 + 50.0])
    assert shared.unknown_device.energy == pytest.approx(100.0 + 50.0)
    assert shared.idle.energy == pytest.approx(50.0)


def test_what_another_process_used_does_not_move() -> None:
    """250 J in 1 s, half of the quiet half second's work a stranger's: 50 J of 100 J above idle stay, 50 J move."""
    stranger = Foreign(start=np.array([0.0]), end=np.array([1.0]), ratio=np.array([0.5]))
    shared = split_of([Reading(0.0, 1.0, 250.0)], HALF_A_SECOND, foreign=stranger)
    assert shared.energy.tolist() == pytest.approx([125.0 + 50.0])
    assert shared.idle.energy == pytest.approx(25.0)
    assert shared.other_process.energy + shared.unreported.energy == pytest.approx(50.0)


def test_of_a_cpu_nothing_moves() -> None:
    """Other work goes on there beside requests: half a second of 200 W above idle is 100 J."""
    shared = split_of([Reading(0.0, 1.0, 250.0)], HALF_A_SECOND, shares_idle=False)
    assert shared.energy.tolist() == pytest.approx([100.0])


def test_a_prompt_takes_its_joules_from_the_moments_around_it() -> None:
    """Two seconds at 100 W. One decodes throughout (80 J of its own), a prompt of 0.5 s (60 J) comes in between.

    In that half second both ask for 20 + 60 J of 50 J: the missing 30 J come from the other 1.5 s, of whose 150 J the
    decode asks 60 J; 60 J are left to the one that was there alone.
    """
    shared = split_of(
        [Reading(0.0, 1.0, 100.0), Reading(1.0, 2.0, 100.0)],
        [Job(0.0, 0.0, 2.0, decode=80.0), Job(0.5, 1.0, 1.0, prefill=60.0)],
    )
    assert shared.marginal.tolist() == pytest.approx([80.0, 60.0])
    assert shared.energy.tolist() == pytest.approx([140.0, 60.0])


def test_exact_is_what_the_meter_says_of_the_time_alone() -> None:
    """200 J alone and 200 J together; it asks for 300 J of its own: charged 300 J or more, of which 200 J are exact."""
    jobs = [Job(0.0, 0.0, 1.0, decode=300.0), Job(0.5, 0.5, 2.0)]
    shared = split_of([Reading(0.0, 2.0, 200.0)], jobs)
    assert shared.energy[0] == pytest.approx(300.0)
    assert shared.exact[0] == pytest.approx(100.0)


def test_one_after_the_other_pays_only_its_own_time() -> None:
    """Within the same 2 s: the first asks for 90 J of its 50 J, the second for nothing of its 50 J; each pays 50 J."""
    jobs = [Job(0.0, 0.0, 0.5, decode=90.0), Job(0.5, 0.5, 1.0)]
    shared = split_of([Reading(0.0, 1.0, 100.0)], jobs)
    assert shared.energy.tolist() == shared.exact.tolist() == pytest.approx([50.0, 50.0])


def test_a_span_that_asks_for_more_than_it_holds_is_scaled_down() -> None:
    """The docstring's: own 300 J and 100 J of 100 J and 100 J: by a half, and nothing left; else 0 J and 20 J left."""
    one = np.zeros(2, dtype=np.intp)
    scale, left = settled(np.array([100.0, 100.0]), np.array([300.0, 100.0]), one)
    assert (scale.tolist(), left.tolist()) == ([0.5, 0.5], [0.0, 0.0])
    scale, left = settled(np.array([100.0, 100.0]), np.array([130.0, 50.0]), one)
    assert (scale.tolist(), left.tolist()) == ([1.0, 1.0], [0.0, pytest.approx(20.0)])
    apart = np.array([0, 1], dtype=np.intp)
    scale, left = settled(np.array([100.0, 100.0]), np.array([130.0, 50.0]), apart)
    assert scale.tolist() == pytest.approx([100.0 / 130.0, 1.0])
    assert left.tolist() == pytest.approx([0.0, 50.0])


def test_spans_are_neighbours_of_the_same_two_seconds_and_kind() -> None:
    """Seconds 0 and 1, a long one from 2, then 7 and 8, the last one recovered, then two of 9 that were modelled."""
    start = np.array([0.0, 1.0, 2.0, 7.0, 8.0, 9.0, 9.5])
    recovered = np.array([False, False, False, False, True, False, False])
    modelled = np.array([False, False, False, False, False, True, True])
    assert spans_of(start, recovered, modelled).tolist() == [0, 0, 1, 2, 3, 4, 4]
    assert spans_of(np.empty(0), np.empty(0, dtype=np.bool_), np.empty(0, dtype=np.bool_)).tolist() == []
