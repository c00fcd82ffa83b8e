"""Rows written before a field existed: not known, never 0, from either store up to a report and the API."""

import csv
import io
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from books_rows import energy, request, usage
from click.testing import CliRunner

from monitor.cli.report import report
from monitor.core.band import Gains
from monitor.core.points import ENERGY, REQUEST_ENERGY, USAGE, Measurement
from monitor.core.request_sums import sum_request
from monitor.roles.embedded import STORE_FILE
from monitor.store.influx_layout import layout
from monitor.store.influx_query import _maker, _point_type
from monitor.store.sqlite import SqliteStore

NOON = 1_700_049_600.0
LATER = {"energy": ("steps_joules", "learned_joules", "estimated_start_joules"), "usage": ("scheduled_requests",)}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A data folder whose store was made before these fields were, with 500 J of a request."""
    file = tmp_path / STORE_FILE
    with closing(SqliteStore(file)) as store:
        store.write([energy(NOON, 500.0, model="m", team="a"), usage(NOON, 1.0, model="m", team="a")])
    with closing(sqlite3.connect(file)) as connection:
        for name, fields in LATER.items():
            for table in (name, f"{name}_hour", f"{name}_day", f"provisional_{name}"):
                for field in fields:
                    connection.execute(f"ALTER TABLE {table} DROP COLUMN {field}")
        connection.commit()
    return tmp_path


def test_an_older_database_does_not_know_them(old: Path) -> None:
    """The columns are there from then on, and NULL."""
    with closing(SqliteStore(old / STORE_FILE)) as store:
        (row,) = store.read(ENERGY, NOON, NOON + 10.0)
        (used,) = store.read(USAGE, NOON, NOON + 10.0)
    assert row.fields[0] == 500.0
    assert [row.fields[ENERGY.fields.index(name)] for name in LATER["energy"]] == [None, None, None]
    assert used.fields[USAGE.fields.index("scheduled_requests")] is None


def test_a_report_leaves_them_out(old: Path) -> None:
    """Empty in CSV, null in JSON."""
    SqliteStore(old / STORE_FILE).close()
    asked = ["--data", str(old), "--from", "2023-11-15T12:00:00Z", "--to", "2023-11-15T12:01:00Z", "--format"]
    (line,) = csv.DictReader(io.StringIO(CliRunner().invoke(report, [*asked, "csv"]).stdout))
    (told,) = msgspec.json.decode(CliRunner().invoke(report, [*asked, "json"]).stdout)["lines"]
    assert (line["energy_joules"], told["energy_joules"]) == ("500.0", 500.0)
    for name in (*LATER["energy"], "scheduled_requests"):
        assert (line[name], told[name]) == ("", None)


@pytest.mark.parametrize("measurement", [ENERGY, USAGE])
def test_influxdb_does_not_know_what_no_point_holds(measurement: Measurement) -> None:
    """A point from before: null for a field that came later, and not among those that it calls unknown."""
    place = layout(measurement)
    told = dict.fromkeys(place.columns) | dict.fromkeys(place.tags, "x")
    told |= {name: 2.0 for name in measurement.sums if name not in LATER[measurement.name]}
    answer = msgspec.json.encode([1_700_049_600_000_000_000, *(told[name] for name in place.columns)])
    row = _maker(place)(msgspec.json.decode(answer, type=_point_type(place))).row
    known = dict(zip(measurement.fields, row.fields, strict=True))
    assert (row.time, known[measurement.sums[0]]) == (NOON, 2.0)
    assert [known[name] for name in LATER[measurement.name]] == [None] * len(LATER[measurement.name])


def test_a_request_does_not_know_them() -> None:
    """Its second window is from before; and where nothing was measured there are no joules and no tier."""
    later = {"steps_joules": 1.0, "learned_joules": 2.0}
    rows = [request(NOON, "r", 3.0, **later), request(NOON + 10.0, "r", 4.0)]
    found = sum_request(rows, NOON, NOON + 60.0, Gains())
    assert (found.energy_joules, found.steps_joules, found.learned_joules, found.tier) == (7.0, None, None, "prior")
    assert sum_request(rows[:1], NOON, NOON + 60.0, Gains()).learned_joules == 2.0
    sums = dict.fromkeys(REQUEST_ENERGY.sums)
    found = sum_request([request(NOON, "r", 0.0, **sums)], NOON, NOON + 60.0, Gains())
    assert (found.energy_joules, found.marginal_joules, found.exact_joules, found.tier) == (None, None, None, None)
    assert (found.low_joules, found.measured_ratio) == (None, None)


def test_a_request_that_one_of_its_hosts_did_not_meter_has_what_the_other_did() -> None:
    """300 J at +-5 %, moved 3 and 4 J by what was learned: 1.645 x 5 J more on either side."""
    moves = {"flop_sensitivity_joules": 3.0, "byte_sensitivity_joules": 4.0, "split_variance": 0.0}
    metered = request(NOON, "r", 300.0, steps_joules=0.0, learned_joules=300.0, **moves)
    not_metered = request(NOON, "r", 0.0, host="h2", **dict.fromkeys(REQUEST_ENERGY.sums))
    found = sum_request([metered, not_metered], NOON, NOON + 60.0, Gains())
    assert (found.energy_joules, found.learned_joules, found.tier) == (300.0, 300.0, "learned_from_events")
    assert (found.low_joules, found.high_joules) == pytest.approx((300 / 1.05 - 8.225, 300 / 0.95 + 8.225), rel=1e-5)
