"""How well the scalars of a fit are known, worked by hand."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.attribution.certainty import (
    PRIOR_CERTAINTY,
    TESTED_ERROR_RATIO,
    Certainty,
    certainty_of_fit,
)
from monitor.core.attribution.learning import fitted, sums_of, total
from monitor.core.attribution.priors import PRIOR
from monitor.core.attribution.work import Work


def test_noise_prior_and_tested_error_add_up() -> None:
    """The docstring's example: 1.0, 0.03 and 1.2 % are 1.6 %; 7.5, 2.1 and 1.2 % are 7.9 %."""
    found = certainty_of_fit((300.0, 0.0, 3.0), 1.0, 0.03, (1.0, 1.0))
    assert found.flop_error_ratio == pytest.approx(sqrt(9.0 / 301.0**2 + (0.1 / 301.0) ** 2 + 0.012**2), rel=1e-12)
    assert found.flop_error_ratio == pytest.approx(0.0156, abs=5e-5)
    assert found.byte_error_ratio == pytest.approx(sqrt(0.09 / 16.0 + (0.085 / 4.0) ** 2 + 0.012**2), rel=1e-12)
    assert found.byte_error_ratio == pytest.approx(0.0789, abs=5e-5)
    assert (found.correlation, found.learned) == (0.0, True)


def test_scalars_that_trade_places_go_against_each_other() -> None:
    """Normal equations 10, 8, 10 without a ridge: the inverse is (10, -8, 10) / 36, noise 0.36 of it (0.1, -0.08, 0.1).

    With 1.2 % tested: -0.08 / (0.1 + 0.000144).
    """
    found = certainty_of_fit((10.0, 8.0, 10.0), 0.0, 0.36, (1.0, 1.0))
    assert found.correlation == pytest.approx(-0.08 / 0.100144, rel=1e-12)


def test_errors_are_of_what_was_found() -> None:
    """An error of 10 % of the prior is 20 % of a scalar that was found at half of it."""
    found = certainty_of_fit((100.0, 0.0, 100.0), 0.0, 1.0, (0.5, 1.0))
    assert found.flop_error_ratio == pytest.approx(sqrt(0.2**2 + TESTED_ERROR_RATIO**2), rel=1e-12)
    assert found.byte_error_ratio == pytest.approx(sqrt(0.1**2 + TESTED_ERROR_RATIO**2), rel=1e-12)


def test_what_windows_leave_open_is_as_uncertain_as_the_prior() -> None:
    """Windows that only read: J/byte is known, J/FLOP is the prior's 10 %."""
    fit = fitted(total([sums_of(Work(0.0, 1e3 / PRIOR.joules_per_byte), 1_100.0)] * 200))
    known = certainty_of_fit((0.0, 0.0, 200e6), 1.21e6, 0.0, (1.0, 1.1))
    assert known.flop_error_ratio == pytest.approx(sqrt(0.1**2 + TESTED_ERROR_RATIO**2))
    assert known.byte_error_ratio < 0.013
    assert fit.verdict == "unidentifiable"
    assert fit.scalars.certainty is PRIOR_CERTAINTY


def test_no_scalar_is_known_better_than_windows_are_explained() -> None:
    """A fit that leaves 5 % of a window unexplained, with little noise in its scalars: 5 %; 1.2 % is the least."""
    found = certainty_of_fit((1e6, 0.0, 1e6), 0.0, 0.0, (1.0, 1.0), misfit_ratio=0.05)
    assert (found.flop_error_ratio, found.byte_error_ratio) == pytest.approx((0.05, 0.05))
    close = certainty_of_fit((1e6, 0.0, 1e6), 0.0, 0.0, (1.0, 1.0), misfit_ratio=0.002)
    assert close.flop_error_ratio == pytest.approx(TESTED_ERROR_RATIO)


def test_a_prior_that_was_found_wrong_pulls_by_as_much() -> None:
    """Normal 9 and a ridge of 1: a tenth of the prior's error. Found at 1.5 that is 50 %, not 10: 5 % of 1.5."""
    found = certainty_of_fit((9.0, 0.0, 9.0), 1.0, 0.0, (1.5, 1.0))
    assert found.flop_error_ratio == pytest.approx(sqrt((0.05 / 1.5) ** 2 + TESTED_ERROR_RATIO**2))
    assert found.byte_error_ratio == pytest.approx(sqrt(0.0085**2 + TESTED_ERROR_RATIO**2))


def test_a_fit_tells_what_it_leaves_unexplained() -> None:
    """Windows of 1 000 J that turn out 50 J more or less, whatever the work: 5 % of each scalar at least."""
    fit = fitted(
        total(
            sums_of(Work(flops / PRIOR.joules_per_flop, (1e3 - flops) / PRIOR.joules_per_byte), 1e3 + off)
            for flops in (100.0, 500.0, 900.0)
            for off in (50.0, -50.0) * 50
        )
    )
    assert fit.scalars.certainty.flop_error_ratio == pytest.approx(0.05, rel=0.02)
    assert fit.scalars.certainty.byte_error_ratio == pytest.approx(0.05, rel=0.02)


def test_another_cause_widens_the_error_of_flops() -> None:
    """3 % and 4 % are 5 %; what hung together with J/byte stays: -0.5 x 3 of 5. With 1.5 % of J/byte 2 are 2.5."""
    known = Certainty(flop_error_ratio=0.03, byte_error_ratio=0.02, correlation=-0.5, learned=True).widened(0.04)
    assert (known.flop_error_ratio, known.byte_error_ratio, known.learned) == (pytest.approx(0.05), 0.02, True)
    assert known.correlation == pytest.approx(-0.3)
    both = known.widened(flop=0.0, byte=0.015)
    assert (both.byte_error_ratio, both.correlation) == (pytest.approx(0.025), pytest.approx(-0.24))
    unlinked = Certainty(flop_error_ratio=0.0, byte_error_ratio=0.0).widened(0.1)
    assert (unlinked.flop_error_ratio, unlinked.correlation) == (0.1, 0.0)


@given(
    flop=st.floats(0.0, 0.5),
    byte=st.floats(0.0, 0.5),
    rho=st.floats(-1.0, 1.0),
    moved=st.tuples(*[st.floats(-1e3, 1e3)] * 2),
)
def test_columns_hold_the_whole_covariance(flop: float, byte: float, rho: float, moved: tuple[float, float]) -> None:
    """The squares of both columns add up to s' C s, whatever the correlation."""
    certainty = Certainty(flop_error_ratio=flop, byte_error_ratio=byte, correlation=rho)
    one, other = certainty.columns(np.array([moved[0]]), np.array([moved[1]]))
    expected = (flop * moved[0]) ** 2 + (byte * moved[1]) ** 2 + 2.0 * rho * flop * byte * moved[0] * moved[1]
    assert float(one[0] ** 2 + other[0] ** 2) == pytest.approx(expected, rel=1e-9, abs=1e-6)
