import pytest
from books_rows import energy
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.points import ENERGY, METER, Row
from monitor.store.line_protocol import line, row

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
SUMS = st.none() | st.floats(allow_nan=False, allow_infinity=False)
FACTS = st.none() | TEXTS | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
ROWS = st.builds(
    Row,
    st.just("energy"),
    st.floats(1e6, 4e9),
    st.tuples(*(TEXTS for _ in ENERGY.tags)),
    st.tuples(*(SUMS for _ in ENERGY.sums), *(FACTS for _ in ENERGY.facts)),
)


def test_a_row_reads_as_influxdb_writes_it() -> None:
    """Commas, blanks and equal signs of a tag are escaped, text fields are quoted, integers end in i."""
    text = line(ENERGY, energy(1_700_000_000.5, 1.5, team="a b,c=d", resident_models='x"y'))
    assert text == (
        "energy,host=h1,device=gpu0,kind=gpu,account=attributed,team=a\\ b\\,c\\=d"
        ' energy_joules=1.5,metered_joules=1.5,location_grams=0.15,resident_models="x\\"y",factor="FR 2023",revision=0i'
        " 1700000000500000000"
    )


@given(ROWS)
def test_a_line_gives_back_its_row(written: Row) -> None:
    """Any text in any tag or field, every float to the last bit, and never a line break."""
    text = line(ENERGY, written)
    assert row(ENERGY, text) == written
    assert "\n" not in text
    assert "\r" not in text


def test_another_measurements_line_is_refused() -> None:
    """A line is read as what it says it is."""
    with pytest.raises(ValueError, match="not a line of meter"):
        row(METER, line(ENERGY, energy(10.0, 1.0)))
