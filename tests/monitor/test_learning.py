"""J/FLOP and J/byte from windows: worked, and by laws."""

from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.attribution.learning import LEAST_WINDOWS, Fit, FitSums, fitted, sums_of, total
from monitor.core.attribution.priors import PRIOR, Scalars
from monitor.core.attribution.work import Work

A_JOULE_OF_FLOPS = 1.0 / PRIOR.joules_per_flop
A_JOULE_OF_BYTES = 1.0 / PRIOR.joules_per_byte


def window(flop_joules: float, byte_joules: float, flop: float = 1.0, byte: float = 1.0) -> FitSums:
    """A window whose work costs that by the priors, and `flop` and `byte` times that in truth."""
    work = Work(flop_joules * A_JOULE_OF_FLOPS, byte_joules * A_JOULE_OF_BYTES)
    return sums_of(work, flop * flop_joules + byte * byte_joules)


def ratios(fit: Fit) -> tuple[float, float]:
    """What was found, relative to the priors."""
    return fit.found.joules_per_flop / PRIOR.joules_per_flop, fit.found.joules_per_byte / PRIOR.joules_per_byte


def test_two_kinds_of_windows_worked_by_hand() -> None:
    """100 windows of FLOPs alone (1 kJ by the priors, 0.8 in truth), 100 of bytes alone (1 kJ, 1.1 in truth).

    In units of the priors and of 1 kJ: a.a = b.b = 100, a.b = 0, a.y = 80, b.y = 110, y.y = 64 + 121 = 185; the ridge
    is 0.25 x 185 / 200 = 0.23125: z1 = (80 + 0.23125) / 100.23125 = 0.80046, z2 = 110.23125 / 100.23125 = 1.09977.
    """
    fit = fitted(total([window(1e3, 0.0, 0.8, 1.1)] * 100 + [window(0.0, 1e3, 0.8, 1.1)] * 100))
    assert ratios(fit) == pytest.approx((80.23125 / 100.23125, 110.23125 / 100.23125))
    assert fit.scalars == fit.found
    assert (fit.verdict, fit.windows, fit.condition) == ("learned", 200, pytest.approx(1.0))
    assert fit.r_squared == pytest.approx(1.0, abs=1e-5)


def test_windows_that_the_priors_explain_give_the_priors() -> None:
    """Whatever the mix."""
    fit = fitted(total(window(1e3 + 10 * each, 2e3 - 7 * each) for each in range(60)))
    assert ratios(fit) == pytest.approx((1.0, 1.0))


def test_few_windows_teach_nothing() -> None:
    """One less than it takes: the priors stay, what was found is told all the same."""
    fit = fitted(total([window(1e3, 0.0, 0.7, 1.0), window(0.0, 1e3)] * (LEAST_WINDOWS // 2 - 1)))
    assert (fit.verdict, fit.scalars) == ("few", PRIOR)
    assert ratios(fit)[0] < 0.8
    assert fitted(FitSums()).scalars == PRIOR


def test_a_server_that_always_does_the_same_teaches_no_split() -> None:
    """The trap: always busy, always the same mix. Any split explains its power; none is believed, the priors stay.

    Idle power is no unknown here, so it cannot swallow what tokens cost either.
    """
    fit = fitted(total([window(1e3, 2e3, 0.5, 1.25)] * 360))
    assert (fit.verdict, fit.scalars) == ("unidentifiable", PRIOR)


@pytest.mark.parametrize(("flop", "byte"), [(2.2, 1.0), (0.4, 1.0), (1.0, 2.2), (1.0, 0.4)])
def test_what_is_twice_off_the_prior_is_not_believed(flop: float, byte: float) -> None:
    """A wrong model size, more likely than such a board."""
    fit = fitted(total([window(1e3, 0.0, flop, byte), window(0.0, 1e3, flop, byte)] * 200))
    assert (fit.verdict, fit.scalars) == ("implausible", PRIOR)


def test_a_scalar_is_never_negative() -> None:
    """Windows with more FLOPs that took less energy: J/FLOP 0 is found, and not believed."""
    fit = fitted(total([window(1e3, 1e3, -1.5, 2.5), window(0.0, 1e3, -1.5, 2.5)] * 200))
    assert ratios(fit)[0] == 0.0
    assert fit.verdict == "implausible"


work = st.tuples(st.floats(0.0, 5e3), st.floats(100.0, 5e3))


@given(st.lists(work, min_size=4, max_size=40), st.integers(1, 10), st.randoms(use_true_random=False))
def test_how_windows_are_grouped_changes_nothing(windows: list[tuple[float, float]], size: int, random: object) -> None:
    """Sums of sums, in any order: the same to the last digits."""
    sums = [window(flop, byte, 0.9, 1.1) for flop, byte in windows]
    whole = total(sums)
    random.shuffle(sums)  # type: ignore[attr-defined]
    groups = [total(sums[begin : begin + size]) for begin in range(0, len(sums), size)]
    parts = reduce(FitSums.plus, groups, FitSums())
    assert parts.windows == whole.windows
    for name in ("flops_flops", "flops_bytes", "bytes_bytes", "flops_joules", "bytes_joules", "joules_joules"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-12)


@given(st.floats(0.6, 1.7), st.floats(0.6, 1.7), st.lists(work, min_size=5, max_size=12))
def test_what_boards_truly_take_is_found(flop: float, byte: float, windows: list[tuple[float, float]]) -> None:
    """From enough windows of different mixes, to within what the ridge may pull."""
    mixed = [*windows, (3e3, 100.0), (100.0, 3e3)]
    fit = fitted(total(window(f, b, flop, byte) for f, b in mixed * 200))
    assert ratios(fit) == pytest.approx((flop, byte), rel=0.02)
    assert fit.verdict == "learned"


def test_another_prior_is_forgotten() -> None:
    """Priors 50 % too high: half an hour of windows finds the same scalars, to 1 %."""
    sums = total([window(1e3, 500.0), window(300.0, 1e3)] * 90)
    wrong = Scalars(joules_per_flop=1.5 * PRIOR.joules_per_flop, joules_per_byte=1.5 * PRIOR.joules_per_byte)
    assert ratios(fitted(sums, wrong)) == pytest.approx((1.0, 1.0), rel=0.01)
