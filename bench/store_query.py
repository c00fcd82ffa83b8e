"""How fast typical questions are answered from 30 days of 50 series, beside a bare SQL sum in the same run."""

import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import msgspec

from monitor.core.points import ENERGY, METER, USAGE, Measurement, Row
from monitor.core.questions import AllocationQuery, Principal
from monitor.core.rollup import roll_up
from monitor.query import Query, whole_allocation
from monitor.store.sqlite import SqliteStore

GOAL_SECONDS = 0.2
DAYS, HOUR, DAY = 30, 3_600.0, 86_400.0
START = 1_700_006_400.0  # a midnight, UTC
END = START + DAYS * DAY
_ROUNDS = 20
_HARD = "30 days by team, each 6 h (hard: 48 000 hourly rows)"
_ADMIN = Principal(name="bench", role="admin")
_DEVICES, _MODELS, _TEAMS = 2, 4, 5  # 40 attributed series of energy, and idle and unattributed of 2 devices: 44


def run() -> list[str]:
    """One line for each question: median and p95 in milliseconds, and the ratio to the bare sum."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        _fill(path)
        return _measure(path)


def _measure(path: Path) -> list[str]:
    bare = _times(lambda: _bare_sum(path))
    lines = [f"store query: bare SQL sum of the same hours {1e3 * median(bare):.1f} ms"]
    store = SqliteStore(path, read_only=True)
    query = Query(store, rejected=dict)
    for name, asked in _questions().items():
        seconds = _times(lambda asked=asked: whole_allocation(query, _ADMIN, asked))  # type: ignore[misc]
        p95 = sorted(seconds)[int(0.95 * len(seconds))]
        goal = f", goal {1e3 * GOAL_SECONDS:.0f} ms: {'met' if p95 <= GOAL_SECONDS else 'NOT MET'}"
        lines.append(
            f"store query: {name}: median {1e3 * median(seconds):.1f} ms, p95 {1e3 * p95:.1f} ms,"
            f" {median(seconds) / median(bare):.1f} x the bare sum{'' if name == _HARD else goal}"
        )
    store.close()
    return lines


def _questions() -> dict[str, AllocationQuery]:
    return {
        "30 days by team, each day": AllocationQuery(start=START, end=END, by=("team",), step=DAY),
        "30 days by team and model": AllocationQuery(start=START, end=END, by=("team", "model"), share_idle="host"),
        "last 24 h by team, each hour": AllocationQuery(start=END - DAY, end=END, by=("team",), step=HOUR),
        "30 days but the first half hour": AllocationQuery(start=START + 0.5 * HOUR, end=END, by=("team",)),
        _HARD: AllocationQuery(start=START, end=END, by=("team",), step=6 * HOUR),
    }


def _times(ask: Callable[[], object]) -> list[float]:
    found = []
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        ask()
        found.append(time.perf_counter() - begun)
    return found


def _bare_sum(path: Path) -> None:
    """What any tool would pay: total joules by team out of the hourly rows."""
    connection = sqlite3.connect(path)
    connection.execute(
        "SELECT s.team, sum(d.energy_joules) FROM energy_hour AS d"
        " JOIN energy_series AS s ON s.id = d.series GROUP BY 1"
    ).fetchall()
    connection.close()


def _fill(path: Path) -> None:
    """Hours and days of 30 days with their marks, and the windows (60 s) of the first and the last hour."""
    store = SqliteStore(path)
    hours = [START + number * HOUR for number in range(DAYS * 24)]
    template = _rows(START)
    for first in range(0, len(hours), 24):
        rows = [msgspec.structs.replace(row, time=hour) for hour in hours[first : first + 24] for row in template]
        store.write(rows, resolution="hour")
        days = [row for each in (ENERGY, METER, USAGE) for row in _rolled(each, rows, hours[first])]
        store.write(days, resolution="day")
    store.mark_rolled_up(hours, "hour", ("h1",))
    store.mark_rolled_up(hours[::24], "day", ("h1",))
    windows = [hour + 60.0 * number for hour in (hours[0], hours[-1]) for number in range(60)]
    store.write([msgspec.structs.replace(row, time=window) for window in windows for row in template])
    store.close()


def _rolled(measurement: Measurement, rows: list[Row], start: float) -> list[Row]:
    return roll_up(measurement, [row for row in rows if row.measurement == measurement.name], start)


def _rows(moment: float) -> list[Row]:
    """One window of a host with two GPUs: 44 series of energy, 2 of meter, 20 of usage."""
    users = [(f"model-{model}", f"team-{team}") for model in range(_MODELS) for team in range(_TEAMS)]
    rows = [_row(USAGE, moment, ("h1", model, team, "", "ok", ""), 3.0) for model, team in users]
    for gpu in range(_DEVICES):
        place = ("h1", f"gpu{gpu}", "gpu")
        rest = [(*place, account, "", "", "", "") for account in ("idle", "unattributed")]
        mine = [(*place, "attributed", model, team, "", "") for model, team in users]
        rows += [_row(ENERGY, moment, tags, 1.5 + len(tags[5])) for tags in (*rest, *mine)]
        rows.append(_row(METER, moment, place, 100.0))
    return rows


def _row(measurement: Measurement, moment: float, tags: tuple[str, ...], value: float) -> Row:
    facts = tuple(0 if name == "revision" else "" for name in measurement.facts)
    return Row(measurement.name, moment, tags, (*(value for _ in measurement.sums), *facts))


if __name__ == "__main__":
    print("\n".join(run()))
