"""Clocks that disagree: event time decides the window, the brokers' time decides what is late. In real time."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from fleet_faults import SMALL, SOAK_ONLY, FaultHouse, assert_undisturbed

pytestmark = pytest.mark.filterwarnings(
    # kafka-python drops the socket of a connection that it gives up halfway
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
SECONDS_AHEAD = 30.0
IN_REAL_TIME = replace(
    SMALL, minutes=3.0, requests_per_second=10.0, speed=1.0, horizon_seconds=30.0, mark_seconds=30.0, clock="broker"
)


@SOAK_ONLY
def test_hosts_whose_clocks_are_an_hour_behind_the_brokers(faults: FaultHouse, tmp_path: Path) -> None:
    """F11: all that they send is an hour late, so every window is restated, at the next mark, as it would have been."""
    start = (time.time() + SECONDS_AHEAD) // 10 * 10.0 - 3_600.0
    outcome = faults.crash_run(replace(IN_REAL_TIME, start=start, clocks_behind_seconds=3_600.0), tmp_path).run()
    # The hour is over by the brokers' clock: it is rolled up, which the undisturbed run has not come to.
    outcome.surplus = [line for line in outcome.surplus if "'window'" in line]
    assert_undisturbed(outcome)
    assert outcome.restatements > 0


@SOAK_ONLY
def test_hosts_whose_clocks_are_an_hour_ahead_of_the_gateways(faults: FaultHouse, tmp_path: Path) -> None:
    """F11: requests end an hour after they came. Each waits for its host's readings, and none is late by that."""
    outcome = faults.crash_run(replace(SMALL, gateway_behind_seconds=3_600.0), tmp_path).run()
    assert_undisturbed(outcome)
    assert outcome.restatements == 0
