"""The topic of request energy on real servers: what a consumer joins to its own request log, aggregators killed.

The small run of tests/fleet_faults.py: two hosts, four minutes, 4 800 requests, some of them twice and some late.
"""

import json
from dataclasses import replace
from math import fsum
from pathlib import Path

import pytest
from crash import CrashRun, arrivals
from fleet_faults import SMALL, FaultHouse, assert_undisturbed
from request_entries import embedded_joules, newest_entries

from monitor.core.points import ENERGY
from monitor.store.open import open_store

pytestmark = pytest.mark.filterwarnings(
    # kafka-python drops the socket of a connection that it gives up halfway
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
EVER = float("-inf"), float("inf")


def test_a_request_log_joins_what_each_request_used(faults: FaultHouse, tmp_path: Path) -> None:
    """Every request once, its joules those of the embedded path to the last digit, together all that was attributed."""

    def kill(run: CrashRun) -> None:
        for name in run.named("aggregate"):
            run.fleet.kill(name)
            run.start_process(name)

    plan = replace(SMALL, seed=6)
    run = faults.crash_run(plan, tmp_path, (8.0, kill), (15.0, kill))
    assert_undisturbed(run.run())
    newest = newest_entries(run)
    assert {entry["revision"] > 0 for entry in newest.values()} == {False, True}

    request_log = {event["request_id"]: event for event in (json.loads(raw) for _, _, raw in arrivals(plan))}
    assert newest.keys() == request_log.keys()
    for request, event in request_log.items():
        assert {name: newest[request][name] for name in event if name != "devices"} == {
            name: value for name, value in event.items() if name != "devices"
        }
    assert {request: entry["energy_joules"] for request, entry in newest.items()} == embedded_joules(run)
    store = open_store(run.fleet.config, tmp_path / "none")
    attributed = fsum(float(row.fields[0] or 0.0) for row in store.read(ENERGY, *EVER) if "attributed" in row.tags)
    store.close()
    assert fsum(entry["energy_joules"] for entry in newest.values()) == pytest.approx(attributed, rel=1e-9)
