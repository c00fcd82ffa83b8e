"""The targeted reader of the Prometheus text format."""

import math
import time

from hypothesis import given
from hypothesis import strategies as st

from collectors.prometheus_text import Row, found_rows, rows

PAGE = """# HELP W Power draw (in W).
# TYPE W gauge
W{gpu="0",UUID="GPU-a",modelName="NVIDIA L4"} 16.365000
W{gpu="1",UUID="GPU-b",modelName="NVIDIA L4"} 17 1764000000123
W_LIMIT{gpu="0"} 72
E 5
"""


def test_only_the_rows_of_the_names_that_are_wanted_are_read() -> None:
    """A name that another one begins with is not taken for it."""
    assert list(rows(PAGE, ["W"])) == [
        Row(name="W", labels={"gpu": "0", "UUID": "GPU-a", "modelName": "NVIDIA L4"}, value=16.365),
        Row(
            name="W",
            labels={"gpu": "1", "UUID": "GPU-b", "modelName": "NVIDIA L4"},
            value=17.0,
            at_milliseconds=1_764_000_000_123,
        ),
    ]
    assert list(rows(PAGE, ["E"])) == [Row(name="E", labels={}, value=5.0)]


def test_labels_are_read_with_braces_commas_and_escapes_in_them() -> None:
    """A label's value may hold everything but a bare quote."""
    page = 'W{pod="a}b,c=\\"d\\"",path="x\\\\y\\nz",} 1'
    assert [row.labels for row in rows(page, ["W"])] == [{"pod": 'a}b,c="d"', "path": "x\\y\nz"}]


def test_what_is_no_number_is_a_row_without_a_value() -> None:
    """N/A is not told; NaN and infinity are numbers for the meter to judge."""
    values = [row.value for row in rows("W N/A\nW NaN\nW +Inf\nW 1_0\nW 1e3", ["W"])]
    assert values[0] is None
    assert values[1] is not None
    assert math.isnan(values[1])
    assert values[2:] == [math.inf, None, 1_000.0]


def test_a_line_that_is_cut_off_is_passed_by_and_its_neighbours_are_kept() -> None:
    """A page may end in the middle of a line."""
    assert [row.value for row in rows('W{gpu="0" 1\nW{gpu="1"} 2\r\nW{gpu="2"', ["W"])] == [2.0]


def test_a_time_of_more_digits_than_64_bits_have_makes_a_line_that_cannot_be_read() -> None:
    """19 digits are a time; 5 000 are none, and int() refuses them: the line is passed by, its neighbours are kept."""
    page = f"W 1 {'9' * 5_000}\nW 2 {'9' * 19}\nW 3 {'9' * 20}\nW 4"
    assert [(row.value, row.at_milliseconds) for row in rows(page, ["W"])] == [(2.0, 10**19 - 1), (4.0, None)]
    assert [row.value for row in found_rows(f"\n{page}\n".encode(), "W")] == [None, 2.0, None, 4.0]


def test_a_hostile_line_costs_no_more_than_its_length() -> None:
    """No backtracking: a megabyte of opened quotes is passed by at once."""
    begun = time.monotonic()
    assert list(rows('W{a="' + '\\"' * 500_000 + "\nW{" + '"x"' * 300_000, ["W"])) == []
    assert time.monotonic() - begun < 5.0


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.text(max_size=20), max_size=4), st.floats())
def test_what_is_written_by_the_format_s_rules_is_read_back(labels: dict[str, str], value: float) -> None:
    """Any labels, any float."""
    labels = {name: text.replace("\r", "") for name, text in labels.items()}
    escaped = {
        name: text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for name, text in labels.items()
    }
    page = "W{" + ",".join(f'{name}="{text}"' for name, text in escaped.items()) + f"}} {value!r}"
    (row,) = rows(page, ["W"])
    assert row.labels == labels
    assert row.value == value or (math.isnan(value) and row.value is not None and math.isnan(row.value))


def test_rows_that_are_searched_for_are_those_that_are_read() -> None:
    """The first line of the page, a metric that another one's name begins with, and several groups after comments."""
    page = (
        b"\n"
        + PAGE.encode()
        + b"# TYPE H histogram\n"
        + b"".join(f'H_bucket{{engine="{each}"}} 3\nH_count{{engine="{each}"}} {each}\n'.encode() for each in range(3))
    )
    for name in ("W", "W_LIMIT", "E", "H_count"):
        assert list(found_rows(page, name)) == list(rows(page.decode(), [name]))
    assert [row.value for row in found_rows(page, "H_count")] == [0.0, 1.0, 2.0]
    assert list(found_rows(page, "H")) == []


def test_a_row_that_cannot_be_read_is_one_without_labels_and_value() -> None:
    """Where rows are summed, one that is passed by would make the sum too small."""
    unreadable = Row(name="W", labels={}, value=None)
    assert list(found_rows(b'\nW{gpu="0" 1\nW{gpu="1"} 2\nW 3', "W")) == [
        unreadable,
        Row(name="W", labels={"gpu": "1"}, value=2.0),
        unreadable,
    ]
