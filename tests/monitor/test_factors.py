import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.carbon.mixes import mix_of_zone
from monitor.core.emissions.factors import Intensity, factor_label, location_grams
from monitor.core.facts import Facts
from monitor.core.membership import Accounting

FOUR_HUNDRED = Intensity(zone="PL", grams_per_kwh=400.0, source="a table", year=2023)


def test_grams_are_kilowatt_hours_times_pue_times_intensity() -> None:
    """2 kWh x PUE 1.2 x 400 g/kWh = 960 g."""
    assert location_grams(7.2e6, 1.2, FOUR_HUNDRED) == pytest.approx(960.0, rel=1e-15)


@given(st.lists(st.floats(0.0, 1e12), min_size=1), st.floats(1.0, 3.0))
def test_the_grams_of_many_are_those_of_each(joules: list[float], pue: float) -> None:
    """To the bit."""
    grams = location_grams(np.array(joules), pue, FOUR_HUNDRED)
    assert grams is not None
    assert grams.tolist() == [location_grams(each, pue, FOUR_HUNDRED) for each in joules]


def test_no_energy_has_no_grams_and_no_factor_is_not_known() -> None:
    """Zero joules are 0 g; joules without a factor are None, which is not 0."""
    assert location_grams(0.0, 1.2, FOUR_HUNDRED) == 0.0
    assert location_grams(7.2e6, 1.2, None) is None


def test_the_label_says_all_that_the_number_depends_on() -> None:
    """Zone, value, source, year, PUE and method; a missing year and an estimate are said."""
    assert factor_label(FOUR_HUNDRED, 1.2) == "PL 400 g/kWh (a table, 2023), PUE 1.2, location-based"
    guess = Intensity(zone="XX", grams_per_kwh=458.29, source="t", estimated=True)
    assert factor_label(guess, 1.0) == "XX 458.29 g/kWh (t, year not stated, estimated), PUE 1, location-based"
    assert factor_label(None, 1.2) == ""


def test_a_zone_has_the_mix_of_its_country() -> None:
    """France's 0.04144 kg/kWh are 41.44 g/kWh; a zone within a country takes the country's."""
    france = mix_of_zone("FR")
    assert france is not None
    assert (france.zone, france.grams_per_kwh, france.year, france.estimated) == ("FR", 41.44, None, False)
    assert france.source.startswith("ecologits 0.11.")
    assert france.source.endswith(": yearly mix of FRA")
    california = mix_of_zone("US-CAL-CISO")
    assert california is not None
    assert (california.zone, california.grams_per_kwh) == ("US-CAL-CISO", 384.4)


@pytest.mark.parametrize("zone", ["", "atlantis", "AQ"])
def test_a_zone_without_a_mix_has_none(zone: str) -> None:
    """No zone, an unknown one, and a country that is not in the table (Antarctica)."""
    assert mix_of_zone(zone) is None


def test_the_mix_is_read_without_importing_ecologits() -> None:
    """Its import would load pydantic."""
    code = (
        "import sys; from monitor.carbon.mixes import mix_of_zone; assert mix_of_zone('FR');"
        "print([name for name in ('ecologits', 'pydantic', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def _intensity(value: float, zone: str = "FR") -> Intensity:
    return Intensity(zone=zone, grams_per_kwh=value, source="s")


@pytest.mark.parametrize(
    ("at", "grams_per_kwh"),
    [(-1e9, 40.0), (1_000.0, 40.0), (1_159.0, 40.0), (1_160.0, 50.0), (1_359.0, 50.0), (1_360.0, 60.0), (1e12, 60.0)],
)
def test_a_fact_is_in_force_a_minute_after_its_log_time(at: float, grams_per_kwh: float) -> None:
    """40 from 1 000 s (and before, as the first), 50 from 1 100 s + 60 s, 60 from 1 300 s + 60 s."""
    facts = Facts([(1_000.0, _intensity(40.0)), (1_100.0, _intensity(50.0)), (1_300.0, _intensity(60.0))])
    found = facts.intensity("FR", at)
    assert found is not None
    assert found.grams_per_kwh == grams_per_kwh


def test_the_log_time_of_a_fact_never_goes_back() -> None:
    """A fact stamped 900 s behind one stamped 1 000 s stands at 1 000 s."""
    facts = Facts([(1_000.0, _intensity(1.0, "DE")), (900.0, _intensity(40.0)), (900.0, _intensity(50.0))])
    assert facts.intensity("FR", 1_059.0) == _intensity(40.0)
    assert facts.intensity("FR", 1_060.0) == _intensity(50.0)


def test_an_unknown_zone_and_an_empty_log_have_nothing() -> None:
    """Nothing is made up where no fact is."""
    assert Facts([]).intensity("FR", 0.0) is None
    assert Facts([]).accounting() is None
    assert Facts([(0.0, _intensity(1.0))]).intensity("DE", 0.0) is None


def test_the_terms_of_the_books_are_the_first() -> None:
    """Books begun with windows of 10 s are kept in windows of 10 s."""
    facts = Facts([(0.0, _intensity(1.0)), (1.0, Accounting()), (2.0, Accounting(window_seconds=60.0))])
    assert facts.accounting() == Accounting()


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e3)), min_size=1),
    st.tuples(st.floats(0, 1e6), st.floats(0, 1e3)),
    st.floats(0, 1e6),
)
def test_a_later_fact_changes_nothing_before_it_is_in_force(
    told: list[tuple[float, float]], later: tuple[float, float], at: float
) -> None:
    """Whoever knows one fact more computes the same windows before that fact's minute is over."""
    before = [(stamp, _intensity(value)) for stamp, value in told]
    in_force = max(later[0], *(stamp for stamp, _ in told)) + 60.0
    if at < in_force:
        known = Facts([*before, (later[0], _intensity(later[1]))])
        assert known.intensity("FR", at) == Facts(before).intensity("FR", at)
