"""Values that are written as text: durations, sizes, addresses, zones, references to the environment."""

import math
import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.config.problems import Faulty, Problem, key_text, shown
from monitor.config.quantities import (
    delay_seconds,
    duration_seconds,
    host_and_port,
    http_url,
    label_key,
    plain_name,
    size_bytes,
    speed_factor,
)
from monitor.config.substitute import substitute
from monitor.config.zones import ISO3_BY_ISO2, iso3_of_zone, zone_key


@pytest.mark.parametrize(
    ("reader", "text", "value"),
    [
        (duration_seconds, "500ms", 0.5),
        (duration_seconds, "10s", 10.0),
        (duration_seconds, "1.5m", 90.0),
        (duration_seconds, "24 h", 86_400.0),
        (duration_seconds, "7d", 604_800.0),
        (delay_seconds, "0s", 0.0),
        (size_bytes, "1B", 1),
        (size_bytes, "500MB", 500_000_000),
        (size_bytes, "10GiB", 10_737_418_240),
        (size_bytes, "1.5kB", 1_500),
        (speed_factor, "max", math.inf),
        (host_and_port, "127.0.0.1:8095", "127.0.0.1:8095"),
        (host_and_port, "[::1]:80", "[::1]:80"),
        (http_url, "", ""),
        (http_url, "https://influx.example:8086/base", "https://influx.example:8086/base"),
        (plain_name, "team α/b", "team α/b"),
        (label_key, "use_case", "use_case"),
        (zone_key, "", ""),
        (zone_key, "DK-DK1", "DK-DK1"),
    ],
)
def test_right_text(reader: Callable[[str], object], text: str, value: object) -> None:
    """A text with its unit becomes the value in base units."""
    assert reader(text) == value


@pytest.mark.parametrize(
    ("reader", "text", "said"),
    [
        (duration_seconds, "10", "has no unit"),
        (duration_seconds, "", "is not a duration"),
        (duration_seconds, "10 parsecs", "units are ms, s, m, h, d"),
        (duration_seconds, "10S", "units are"),
        (duration_seconds, "-1s", "is not a duration"),
        (duration_seconds, "1h30m", "is not a duration"),
        (duration_seconds, "٣s", "is not a duration"),
        (duration_seconds, "0s", "longer than nothing"),
        (duration_seconds, "9" * 400 + "d", "longer than a hundred years"),
        (size_bytes, "10GIB", "units are B, kB"),
        (size_bytes, "0.4B", "not between"),
        (size_bytes, "9" * 400 + "B", "not between"),
        (speed_factor, "fast", "not a speed"),
        (host_and_port, "8095", "not an address"),
        (host_and_port, "::1:80", "not an address"),
        (host_and_port, "host:0", "no port"),
        (host_and_port, "host:65536", "no port"),
        (host_and_port, "http://host:80", "not an address"),
        (http_url, "influx:8086", "not an http URL"),
        (http_url, "ftp://host", "not an http URL"),
        (http_url, "http://", "not an http URL"),
        (http_url, "http://[::1", "not a URL"),
        (http_url, "http://host:99999", "not a URL"),
        (http_url, "https://user:secret@host", "may not carry a user"),
        (plain_name, "", "not a name"),
        (plain_name, " a", "not a name"),
        (plain_name, "a\nb", "not a name"),
        (plain_name, "a\x00", "not a name"),
        (plain_name, "a" * 257, "not a name"),
        (label_key, "Use Case", "not a label key"),
        (zone_key, "fr", 'did you mean "FR"?'),
        (zone_key, "UK", 'did you mean "GB"?'),
        (zone_key, "us_cal_ciso", 'did you mean "US-CAL-CISO"?'),
        (zone_key, "USS", 'did you mean "'),
        (zone_key, "42", "write an Electricity Maps zone key"),
        (zone_key, "FR-", "is not a grid zone"),
    ],
)
def test_wrong_text(reader: Callable[[str], object], text: str, said: str) -> None:
    """A text that cannot be used says why, and what to write, on one line."""
    with pytest.raises(Faulty, match=re.escape(said)) as caught:
        reader(text)
    assert "\n" not in str(caught.value)


@given(st.integers(1, 10_000), st.sampled_from(["ms", "s", "m", "h"]))
def test_durations_agree_with_timedelta(number: int, unit: str) -> None:
    """A duration is what the standard library makes of the same number and unit."""
    words = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours"}
    expected = timedelta(**{words[unit]: number}).total_seconds()
    assert duration_seconds(f"{number}{unit}") == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("zone", "iso3"),
    [
        ("FR", "FRA"),
        ("US-CAL-CISO", "USA"),
        ("DE", "DEU"),
        ("GB", "GBR"),
        ("IN-SO", "IND"),
        ("AU-NSW", "AUS"),
        ("FRA", "FRA"),
        ("XK", "XKX"),
        ("", None),
        ("fr", None),
        ("QQ", None),
        ("FR-FR-COR-X-Y", None),
    ],
)
def test_country_of_a_zone(zone: str, iso3: str | None) -> None:
    """The part before the first dash names the country; an ISO-3 code names itself."""
    assert iso3_of_zone(zone) == iso3


def test_country_table_is_whole() -> None:
    """ISO 3166-1 has 249 entries, each code once; Kosovo is the one beside it."""
    assert len(ISO3_BY_ISO2) == 250
    assert len(set(ISO3_BY_ISO2.values())) == 250
    assert all(re.fullmatch("[A-Z]{2} [A-Z]{3}", f"{two} {three}") for two, three in ISO3_BY_ISO2.items())


ENVIRON = {"SET": "value", "EMPTY": "", "NESTED": "${SET}", "QUOTES": '"\n[x]'}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain $SET $ {SET}", "plain $SET $ {SET}"),
        ("a ${SET} b ${SET}", "a value b value"),
        ("${EMPTY}", ""),
        ("${EMPTY:-other}", "other"),
        ("${NONE:-}", ""),
        ("${NONE:-a:-b}", "a:-b"),
        ("${SET:?needed}", "value"),
        ("${NESTED}", "${SET}"),
        ("${QUOTES}", '"\n[x]'),
        ("$${SET}", "${SET}"),
        ("$${SET} ${SET}", "${SET} value"),
    ],
)
def test_substitution(text: str, value: str) -> None:
    """References are replaced once; `$${` keeps the characters."""
    assert substitute(text, ENVIRON) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("${NONE}", "variable NONE is not set"),
        ("${NONE:?set it to the token}", "variable NONE: set it to the token"),
        ("${NONE:?}", "variable NONE is not set"),
        ("${EMPTY:?must not be empty}", "variable EMPTY: must not be empty"),
        ("${}", "is not a reference"),
        ("${1A}", "is not a reference"),
        ("${SET:+x}", "is not a reference"),
        ("x ${SET", "is not a reference"),
    ],
)
def test_wrong_reference(text: str, said: str) -> None:
    """An unknown variable, its own message, or a reference that is none."""
    with pytest.raises(Faulty, match=re.escape(said)):
        substitute(text, ENVIRON)


@given(st.text())
def test_text_without_references_stays(text: str) -> None:
    """Only `${` is special; escaping it brings any text through."""
    assert substitute(text.replace("${", "$${"), {}).replace("$${", "${") == text.replace("$${", "${")


def test_problem_is_one_line() -> None:
    """File, line, key and message; what is unknown is left out, and no value breaks the line."""
    assert str(Problem(file="a.toml", line=3, key="host.pue", message="is low")) == "a.toml:3: host.pue: is low"
    assert str(Problem(file="a.toml", line=None, key="", message="is gone")) == "a.toml: is gone"
    assert key_text(("sources", 0, "a b", "x\ny")) == r'sources[0]."a b"."x\ny"'
    assert shown("a" * 61) == f'"{"a" * 60}..."'
    assert shown(16**5000) == "a very large number"
