"""`wattribute store setup` and `check`, and the readers of the command line, on the real servers."""

from pathlib import Path

import pytest
from books_rows import meter
from click.testing import CliRunner, Result
from conftest import served
from servers.influxd import InfluxServer
from servers.influxdb1 import InfluxServer1

from collectors.clock import SystemClock
from monitor.cli.main import cli
from monitor.config.output_sections import InfluxDb
from monitor.core.points import BOOKS, MEASUREMENTS, METER, REQUEST_ENERGY
from monitor.store.influx import InfluxStore
from monitor.store.influx_setup import Setup
from monitor.store.protocol import StoreUnavailable
from monitor.store.quarantine import Quarantine
from monitor.store.sqlite import SqliteStore

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "two-requests"
SUFFIXES = ("", "_hours", "_days", "_provisional")


@pytest.fixture(params=["influxd", "influxdb1"])
def server(request: pytest.FixtureRequest) -> InfluxServer:
    found: InfluxServer = request.getfixturevalue(request.param)
    return found


def configured(folder: Path, settings: InfluxDb, **retentions: str) -> Path:
    """A configuration of that store; retentions by key of [store]."""
    kept = "".join(f'{key} = "{value}"\n' for key, value in retentions.items())
    file = folder / "config.toml"
    file.write_text(
        f'[data]\ndirectory = "{folder}"\n[store]\nkind = "influxdb"\n{kept}[influxdb]\nurl = "{settings.url}"\n'
        f'api = "{settings.api}"\norg = "{settings.org}"\nbucket = "{settings.bucket}"\n'
        f'token_file = "{settings.token_file}"\nrequests = {str(settings.requests).lower()}\n'
    )
    return file


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def test_setup_makes_what_check_names(server: InfluxServer, tmp_path: Path) -> None:
    """Four buckets are missing, then made, then as configured; a changed retention is named, and changed."""
    settings = server.settings(tmp_path.name, requests=False)
    file = configured(tmp_path, settings)
    missing = run("store", "check", "--config", file)
    assert (missing.exit_code, missing.output.splitlines()) == (
        1,
        [
            *(f"bucket '{settings.bucket}{suffix}' is missing" for suffix in SUFFIXES),
            "`wattribute store setup` mends it",
        ],
    )
    made = run("store", "setup", "--config", file)
    kept = dict(zip(SUFFIXES, (35, 800, 3_660, 3), strict=True))
    assert (made.exit_code, made.output.splitlines()) == (
        0,
        [f"bucket '{settings.bucket}{suffix}' made, keeps points {days} days" for suffix, days in kept.items()],
    )
    for command in ("check", "setup"):
        again = run("store", command, "--config", file)
        assert (again.exit_code, again.output) == (0, "everything is as configured\n")
    longer = configured(tmp_path, settings, windows_retention="40d")
    differs = run("store", "check", "--config", longer)
    assert differs.exit_code == 1
    assert differs.output.splitlines()[0] == (f"bucket '{settings.bucket}' keeps points 35 days, configured is 40 days")
    changed = run("store", "setup", "--config", longer)
    assert changed.output == f"bucket '{settings.bucket}' keeps points 40 days, before 35 days\n"
    assert run("store", "check", "--config", longer).exit_code == 0


def test_a_server_that_is_not_there_is_named(influxd: InfluxServer, tmp_path: Path) -> None:
    """Exit code 3 with the address; 2 for a configuration that has no InfluxDB."""
    gone = influxd.settings(tmp_path.name, url="http://127.0.0.1:1")
    for command in ("check", "setup"):
        told = run("store", command, "--config", configured(tmp_path, gone))
        assert told.exit_code == 3
        assert "http://127.0.0.1:1: cannot find" in told.output
        assert "start the server, or correct [influxdb] url" in told.output
    (tmp_path / "config.toml").write_text("")
    told = run("store", "check", "--config", tmp_path / "config.toml")
    assert (told.exit_code, "makes its file by itself" in told.output) == (2, True)
    wrong = configured(tmp_path, influxd.settings(tmp_path.name, org="nobody's"))
    told = run("store", "setup", "--config", wrong)
    assert told.exit_code == 3
    assert "nobody's" in told.output


def test_a_server_of_1_x_knows_its_users(influxdb1: InfluxServer1, tmp_path: Path) -> None:
    """ "user:password" is the token. A wrong password is named with its file; the 2.x interface is not there."""
    for server in served(lambda folder: InfluxServer1(folder, users=True), tmp_path / "influxdb1"):
        server.ask("POST", "/query?q=CREATE%20USER%20tests%20WITH%20PASSWORD%20%27any%27%20WITH%20ALL%20PRIVILEGES")
        file = configured(tmp_path, server.settings("books"))
        assert run("store", "setup", "--config", file).exit_code == 0
        store = InfluxStore(server.settings("books"), quarantine=Quarantine())
        row = meter(float(int(SystemClock().now())), 1.0)
        store.write([row])
        server.token_file.write_text("tests:another")
        stranger = InfluxStore(server.settings("books"), quarantine=Quarantine())
        why = rf"401 authorization failed.*valid token into {server.token_file}"
        with pytest.raises(StoreUnavailable, match=why):
            stranger.write([row])
        with pytest.raises(StoreUnavailable, match=why):
            stranger.read(METER, 0.0, row.time)
        assert store.read(METER, 0.0, row.time + 1.0) == [row]
        for each in (store, stranger):
            each.close()
    told = run("store", "setup", "--config", configured(tmp_path, influxdb1.settings("books", api="v2")))
    assert (told.exit_code, 'set [influxdb] api = "v1"' in told.output) == (3, True)


def test_a_bucket_may_have_a_mapping_of_its_own(influxd: InfluxServer, tmp_path: Path) -> None:
    """As where a server makes none by itself: with one made by us it is as configured too."""
    settings = influxd.settings(tmp_path.name, requests=False)
    file = configured(tmp_path, settings)
    assert run("store", "setup", "--config", file).exit_code == 0
    setup = Setup(settings)
    setup._buckets.map(settings.bucket)
    setup.close()
    assert run("store", "check", "--config", file).exit_code == 0


def test_the_report_of_a_recording_is_the_same_from_every_store(server: InfluxServer, tmp_path: Path) -> None:
    """To the last digit: the recorded example through SQLite, its rows in InfluxDB, one report of each."""
    data = tmp_path / "data"
    assert run("replay", EXAMPLE, "--data", data, "--speed", "max").exit_code == 0
    settings = server.settings(tmp_path.name)
    for_ever = {f"{kind}_retention": "36500d" for kind in ("windows", "requests", "provisional", "hours", "days")}
    file = configured(tmp_path, settings, **for_ever)
    assert run("store", "setup", "--config", file).exit_code == 0
    embedded, quarantine = SqliteStore(data / "store.db", read_only=True), Quarantine()
    store = InfluxStore(settings, quarantine=quarantine)
    for measurement in MEASUREMENTS.values():
        store.write(embedded.read(measurement, float("-inf"), float("inf")))
    everything = [*BOOKS, REQUEST_ENERGY]
    lines = list(embedded.dump(everything))
    assert list(store.dump(everything)) == lines
    assert len(lines) == 9
    assert quarantine.counts == {}
    embedded.close()
    store.close()
    question = ("--from", "2026-01-05", "--to", "2026-01-07", "--format", "json")
    told = run("report", *question, "--config", file)
    assert told.exit_code == 0
    assert told.output == run("report", *question, "--data", data).output
    now = run("top", "--once", "--json", "--config", file)
    assert now.output == run("top", "--once", "--json", "--data", data).output
