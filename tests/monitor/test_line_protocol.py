import pytest
from books_rows import energy
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.points import ENERGY, FACT_TYPES, MEASUREMENTS, METER, Row
from monitor.store.line_protocol import line, row

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
SUMS = st.none() | st.floats(allow_nan=False, allow_infinity=False)
FACTS = {str: TEXTS, int: st.integers(), float: st.floats(allow_nan=False, allow_infinity=False)}
ROWS = st.builds(
    Row,
    st.just("energy"),
    st.floats(1e9, 4e9),  # since 2001: a nanosecond tells one float from the next
    st.tuples(*(TEXTS for _ in ENERGY.tags)),
    st.tuples(*(SUMS for _ in ENERGY.sums), *(st.none() | FACTS[FACT_TYPES[name]] for name in ENERGY.facts)),
)


def test_a_row_reads_as_influxdb_writes_it() -> None:
    """Commas, blanks and equal signs of a tag are escaped, text fields are quoted, integers end in i."""
    text = line(ENERGY, energy(1_700_000_000.5, 1.5, team="a b,c=d", resident_models='x"y'))
    assert text == (
        "energy,host=h1,device=gpu0,kind=gpu,account=attributed,team=a\\ b\\,c\\=d"
        " energy_joules=1.5,metered_joules=1.5,steps_joules=0.0,learned_joules=0.0,location_grams=0.15"
        ',estimated_start_joules=0.0,resident_models="x\\"y",factor="FR 2023",revision=0i 1700000000500000000'
    )


@given(ROWS)
def test_a_line_gives_back_its_row(written: Row) -> None:
    """Any text in any tag or field, every float to the last bit, and never a line break."""
    text = line(ENERGY, written)
    assert row(ENERGY, text) == written
    assert "\n" not in text
    assert "\r" not in text


def test_every_fact_has_a_type_and_no_value_of_another_passes() -> None:
    """A field whose type changes would be refused by InfluxDB, so it is our error before it gets there."""
    assert {name for each in MEASUREMENTS.values() for name in each.facts} == FACT_TYPES.keys()
    for wrong in ({"factor": 5}, {"revision": "5"}, {"revision": 5.5}):
        with pytest.raises(ValueError, match="is no "):
            line(ENERGY, energy(10.0, 1.0, **wrong))
    assert line(ENERGY, energy(10.0, 1, metered_joules=None)).split()[1].startswith("energy_joules=1.0,steps")


def test_a_backslash_never_ends_a_tag() -> None:
    """InfluxDB takes one there for the escape of what follows, and refuses the line."""
    text = line(METER, Row("meter", 1.0, ("a\\", "\\", "b\n\\n"), (None,) * 6 + (0,)))
    assert text == "meter,host=a\\b,device=\\b,kind=b\\n\\bn revision=0i 1000000000"


def test_another_measurements_line_is_refused() -> None:
    """A line is read as what it says it is."""
    with pytest.raises(ValueError, match="not a line of meter"):
        row(METER, line(ENERGY, energy(10.0, 1.0)))
