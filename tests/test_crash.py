"""The crash test's short form: a few minutes of a small fleet under kill -9, on real servers. `make soak` has the long.

What it must leave is in tests/crash.py; the seed is in the plan, so a failure can be played again.
"""

from pathlib import Path

import pytest
from crash import CrashRun, Plan

SHORT = Plan(
    seed=20_261_127,
    hosts=3,
    minutes=8.0,
    requests_per_second=40.0,
    kills=20,
    server_kills=1,
    speed=6.0,
    horizon_seconds=120.0,
    mark_seconds=120.0,
)


@pytest.mark.usefixtures("kafka", "influxd")  # a machine without them skips here, with the reason
def test_twenty_kills_leave_the_books_of_an_undisturbed_run(tmp_path: Path) -> None:
    """No joule and no request lost or doubled, each row byte for byte, whatever was killed in between."""
    outcome = CrashRun(SHORT, tmp_path).run()
    assert sum(outcome.kills.values()) == SHORT.kills + 2 * SHORT.server_kills
    assert outcome.kills.keys() == {"collect", "ingest", "aggregate", "kafka", "influxd"}
    assert (outcome.missing, outcome.surplus) == ([], [])
    assert outcome.lines > 0
    assert outcome.measured_joules == pytest.approx(outcome.recorded_joules, rel=1e-9)
    assert (outcome.too_late, outcome.holes) == (0, 0)
    assert outcome.restatements > 0
    assert outcome.resumed > 0
    assert outcome.most_reread_seconds <= SHORT.reread_bound_seconds
