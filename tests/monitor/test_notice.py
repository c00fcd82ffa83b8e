"""The windows that a mark restated, as text and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.points import RESTATEMENT, Row
from monitor.ledger.notice import restated_windows, runs_text


def notice(text: str | None, first_window: float) -> Row:
    known = {"restated_windows": text, "first_window": first_window}
    return Row(RESTATEMENT.name, 900.0, ("h",), tuple(known.get(name) for name in RESTATEMENT.fields))


@pytest.mark.parametrize(
    ("windows", "text"),
    [([450], "0"), ([450, 451], "0-1"), ([450, 451, 452, 453, 457], "0-3,7"), ([3, 5, 7], "0,2,4")],
)
def test_runs_counted_from_the_first_window(windows: list[int], text: str) -> None:
    """By hand."""
    assert runs_text(windows) == text


@given(st.sets(st.integers(0, 300).map(lambda step: 176_760_000 + step), min_size=1))
def test_there_and_back(windows: set[int]) -> None:
    """Any set of windows, at today's times."""
    text = runs_text(sorted(windows))
    assert restated_windows(notice(text, min(windows) * 10.0), 10.0) == windows


def test_a_notice_without_them_names_none() -> None:
    """One that an earlier version wrote."""
    assert restated_windows(notice(None, 4_500.0), 10.0) == set()
