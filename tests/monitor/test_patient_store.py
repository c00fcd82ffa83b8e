"""Waiting for a store: how long between two tries, whatever the store asks for, and when it ends."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.store.influx_http import retry_after
from monitor.store.patient import FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, NotOurs, PatientStore
from monitor.store.protocol import StoreBusy, StoreUnavailable


class Pauses(threading.Event):
    """Notes how long it is waited for, and lets go at once."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.seconds.append(timeout)
        return False


class Away:
    """A store that fails with each of these, and then does what it is asked."""

    def __init__(self, errors: list[StoreUnavailable]) -> None:
        self._errors = errors

    def trim(self, _now: float) -> int:
        if self._errors:
            raise self._errors.pop(0)
        return 7


def pauses(*errors: StoreUnavailable) -> list[float]:
    """Between the tries, until it is done."""
    stop = Pauses()
    store = PatientStore(Away(list(errors)), may_go_on=lambda: True, waiting=lambda _why: None, stop=stop)  # type: ignore[arg-type]
    assert store.trim(0.0) == 7
    return stop.seconds


def test_pauses_grow_to_a_quarter_of_a_minute() -> None:
    """Twice as long each time."""
    assert pauses(*[StoreUnavailable("away")] * 7) == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("0", 0.5), ("-3", 0.5), ("nan", 0.5), ("3600", 15.0), ("inf", 15.0), ("Fri, 31 Dec 1999", 0.5)],
)
def test_a_store_that_asks_for_patience(header: str, seconds: float) -> None:
    """It is given what it asks for, but for what would be a flood of tries or would outlast our place in the group."""
    asked = retry_after({"Retry-After": header})
    assert pauses(StoreBusy("429", retry_after_seconds=asked)) == [seconds]


@given(st.lists(st.floats() | st.none(), max_size=5))
def test_no_pause_is_out_of_bounds(asked: list[float | None]) -> None:
    """Whatever is asked for."""
    found = pauses(*(StoreBusy("503", retry_after_seconds=each) for each in asked))
    assert len(found) == len(asked)
    assert all(FIRST_WAIT_SECONDS <= each <= LONGEST_WAIT_SECONDS for each in found)


def test_waiting_ends_where_the_partition_is_no_longer_ours() -> None:
    """Asked before each try."""
    ours = [True, True, False]
    away = Away([StoreUnavailable("away")] * 3)
    store = PatientStore(away, may_go_on=lambda: ours.pop(0), waiting=lambda _why: None, stop=Pauses())  # type: ignore[arg-type]
    with pytest.raises(NotOurs):
        store.trim(0.0)
