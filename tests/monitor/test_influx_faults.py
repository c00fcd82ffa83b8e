"""What goes wrong between us and InfluxDB, on the real servers. Each ends with the same check: the store holds what a
store holds to which nothing happened, line for line.
"""

import math
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from books_rows import energy, meter
from daemon_process import wait_for
from servers.certificates import Authority
from servers.http_front import Answer, fronted
from servers.influxd import ORG, TOKEN, InfluxServer
from servers.toxiproxy import Toxiproxy

from monitor.config.output_sections import InfluxDb
from monitor.core.points import BOOKS, METER, PROVISIONAL_METER, Row
from monitor.store.influx import InfluxStore
from monitor.store.influx_setup import Setup
from monitor.store.protocol import StoreBusy, StoreUnavailable
from monitor.store.retention import Retention
from monitor.store.sqlite import SqliteStore

NOON = 1_764_158_400.0
EVER = (float("-inf"), float("inf"))
FOR_EVER = Retention(
    windows_seconds=math.inf,
    requests_seconds=math.inf,
    provisional_seconds=math.inf,
    hours_seconds=math.inf,
    days_seconds=math.inf,
)
ROWS = [energy(NOON + 10.0 * window, 0.1 * window, team=team) for window in range(2_500) for team in "ab"]


@pytest.fixture(params=["influxd", "influxdb1"])
def server(request: pytest.FixtureRequest) -> InfluxServer:
    """Both kinds, where the fault can happen to both."""
    found: InfluxServer = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that wait one second for an answer."""
    monkeypatch.setattr("monitor.store.influx_write.WRITE_SECONDS", 1.0)
    monkeypatch.setattr("monitor.store.influx_query.QUERY_SECONDS", 1.0)


class Opened:
    """A store in buckets of its own, with what it gave to quarantine."""

    def __init__(self, settings: InfluxDb, retention: Retention = FOR_EVER) -> None:
        self.settings, self.left_out = settings, list[tuple[str, str]]()
        self.set_up(retention)
        self.store = InfluxStore(settings, quarantine=lambda line, reason: self.left_out.append((line, reason)))

    def set_up(self, retention: Retention = FOR_EVER) -> list[str]:
        """What `wattribute store setup` does."""
        setup = Setup(self.settings)
        done = list(setup.mend(retention))
        setup.close()
        return done


@pytest.fixture
def opened(server: InfluxServer, tmp_path: Path) -> Iterator[Opened]:
    made = Opened(server.settings(tmp_path.name))
    yield made
    made.store.close()


def undisturbed(folder: Path, rows: Sequence[Row]) -> list[str]:
    """The lines of a store to which nothing happened."""
    store = SqliteStore(folder / "undisturbed.db")
    store.write(rows)
    lines = list(store.dump(BOOKS))
    store.close()
    return lines


def test_a_rotated_token_is_read_again(influxd: InfluxServer, tmp_path: Path) -> None:
    """The old token is refused: the message names the file. The new one in that file is used without a restart."""
    tokens = [_new_token(influxd), _new_token(influxd)]
    file = tmp_path / "token"
    file.write_text(tokens[0]["token"] + "\n")
    made = Opened(influxd.settings(tmp_path.name, token_file=file))
    made.store.write(ROWS[:10])
    influxd.ask("DELETE", f"/api/v2/authorizations/{tokens[0]['id']}")
    with pytest.raises(StoreUnavailable, match=rf"401 .*unauthorized.* put a valid token into {file}"):
        made.store.write(ROWS[10:])
    with pytest.raises(StoreUnavailable, match=r"401 .*put a valid token"):
        made.store.read(METER, *EVER)
    file.write_text(tokens[1]["token"])
    before = made.store._writer._client  # held, so that it is not the garbage collector that closes it
    assert before is not None
    pools = before.api_client.rest_client.pool_manager.pools
    assert len(pools) == 1
    made.store.write(ROWS[10:])
    assert len(pools) == 0, "the connections of the old token are closed"
    assert list(made.store.dump(BOOKS)) == undisturbed(tmp_path, ROWS)
    made.store.close()


def test_a_token_without_the_right_is_named(influxd: InfluxServer, tmp_path: Path) -> None:
    """One that may only read another bucket: writing and reading say what is missing, and nothing is left out."""
    made = Opened(influxd.settings(tmp_path.name))
    file = tmp_path / "token"
    file.write_text(_new_token(influxd, bucket="first")["token"])
    poor = InfluxStore(influxd.settings(tmp_path.name, token_file=file), quarantine=lambda line, reason: None)
    with pytest.raises(StoreUnavailable, match=r"cannot write to bucket .*: 40[34] .*(right to write|store setup)"):
        poor.write(ROWS[:1])
    with pytest.raises(StoreUnavailable, match=r"database not found: .*give the token in .* the right to read"):
        poor.read(METER, *EVER)
    poor.close()
    made.store.close()


def test_a_bucket_that_is_gone_is_named_and_filled_again(server: InfluxServer, opened: Opened, tmp_path: Path) -> None:
    """404 is kept, not dropped: after `wattribute store setup` what the log still holds is written again."""
    opened.store.write(ROWS[:10])
    _drop(server, opened.settings.bucket)
    with pytest.raises(StoreUnavailable, match=r"cannot write to bucket .* 404 .*wattribute store setup"):
        opened.store.write(ROWS)
    with pytest.raises(StoreUnavailable, match=r"database not found.*wattribute store setup"):
        opened.store.read(METER, *EVER)
    assert opened.set_up() == [f"bucket {opened.settings.bucket!r} made, keeps points for ever"]
    opened.store.write(ROWS)
    assert list(opened.store.dump(BOOKS)) == undisturbed(tmp_path, ROWS)
    assert opened.left_out == []


def test_one_bad_line_in_5000_costs_no_other(opened: Opened, tmp_path: Path) -> None:
    """A row that is no number is left out with the server's reason; the 4 999 others are stored."""
    bad = energy(NOON + 5.0, float("nan"), team="nan")
    opened.store.write([*ROWS[:3_000], bad, *ROWS[3_000:4_999]])
    assert list(opened.store.dump(BOOKS)) == undisturbed(tmp_path, ROWS[:4_999])
    [(line, reason)] = opened.left_out
    assert "team=nan" in line
    assert "unable to parse" in reason


def test_what_is_past_its_retention_is_left_out_and_told(server: InfluxServer, tmp_path: Path) -> None:
    """A bucket of 35 days takes no point of 1970: all of them are told in one go, today's is stored."""
    made = Opened(server.settings(tmp_path.name), Retention())
    old = [meter(10.0 * window, 1.0) for window in range(3_000)]
    now = meter(math.floor(made.store._clock.now()), 1.0)
    made.store.write([*old, now])
    assert made.store.read(METER, *EVER) == [now]
    assert len(made.left_out) == 3_000
    assert all("retention" in reason for _, reason in made.left_out)
    made.store.close()


def test_a_body_that_is_too_large_is_halved(server: InfluxServer, tmp_path: Path) -> None:
    """A server that takes 100 000 bytes gets everything in parts; a line that alone is larger is left out."""

    def judge(path: str, body: bytes) -> Answer | None:
        return (413, {}, b'{"code":"request too large"}') if len(body) > 100_000 and "write" in path else None

    with fronted(server.port) as front:
        made = Opened(server.settings(tmp_path.name))
        front.judge = judge
        store = InfluxStore(_at(made.settings, front.url), quarantine=lambda *told: made.left_out.append(told))
        giant = energy(NOON, 1.0, team="a", resident_models="m" * 150_000)
        store.write([*ROWS, energy(NOON + 1.0, 1.0, resident_models="m" * 150_000), giant][:-1])
        store.close()
        assert max(front.bodies) <= 100_000
    assert [len(line) > 150_000 for line, _ in made.left_out] == [True]
    assert list(made.store.dump(BOOKS)) == undisturbed(tmp_path, ROWS)
    made.store.close()


def test_a_busy_server_is_given_the_time_that_it_asks_for(server: InfluxServer, tmp_path: Path) -> None:
    """429 with Retry-After: 7 and 503 without: nothing is left out, and who waits knows how long."""
    script: list[Answer] = [(429, {"Retry-After": "7"}, b"slow down"), (503, {}, b'{"message":"shedding load"}')]
    with fronted(server.port) as front:
        made = Opened(server.settings(tmp_path.name))
        front.judge = lambda path, body: script.pop(0) if script else None
        store = InfluxStore(_at(made.settings, front.url), quarantine=lambda *told: made.left_out.append(told))
        for seconds, words in ((7.0, "429 slow down"), (None, "503 shedding load")):
            with pytest.raises(StoreBusy, match=words) as busy:
                store.write(ROWS)
            assert busy.value.retry_after_seconds == seconds
        store.write(ROWS)
        store.close()
    assert made.left_out == []
    assert list(made.store.dump(BOOKS)) == undisturbed(tmp_path, ROWS)
    made.store.close()


def test_a_server_that_refuses_every_line_is_to_blame_itself(server: InfluxServer, tmp_path: Path) -> None:
    """400 for whatever comes, as of a wrong proxy: no row is given up, the store counts as down."""
    with fronted(server.port) as front:
        front.judge = lambda path, body: (400, {}, b"<html>this is no InfluxDB</html>")
        left_out: list[tuple[str, str]] = []
        settings = _at(server.settings("any"), front.url)
        store = InfluxStore(settings, quarantine=lambda *told: left_out.append(told))
        with pytest.raises(StoreUnavailable, match=r"cannot write to bucket 'any'.*: 400 <html>this is no InfluxDB"):
            store.write(ROWS)
        with pytest.raises(StoreUnavailable, match=r"cannot read bucket 'any': <html>"):
            store.read(METER, *EVER)
        store.close()
        assert left_out == []


def test_a_certificate_of_another_authority_is_named(server: InfluxServer, tmp_path: Path) -> None:
    """By TLS with the authority in ca_file rows are stored and read; without it the message says where to put it."""
    authority = Authority(tmp_path)
    with fronted(server.port, authority.issue("store")) as front:
        made = Opened(server.settings(tmp_path.name))
        strange = InfluxStore(_at(made.settings, front.url), quarantine=lambda line, reason: None)
        with pytest.raises(StoreUnavailable, match=r"cannot write to bucket .*CERTIFICATE_VERIFY_FAILED.*ca_file"):
            strange.write(ROWS[:10])
        with pytest.raises(StoreUnavailable, match=r"cannot read bucket .*CERTIFICATE_VERIFY_FAILED.*ca_file"):
            strange.read(METER, *EVER)
        strange.close()
        trusted = InfluxStore(_at(made.settings, front.url, authority.ca_file), quarantine=lambda line, reason: None)
        trusted.write(ROWS)
        assert list(trusted.dump(BOOKS)) == undisturbed(tmp_path, ROWS)
        trusted.close()
        made.store.close()


@pytest.mark.usefixtures("quick")
def test_an_answer_that_is_lost_after_the_write_does_no_harm(
    server: InfluxServer, opened: Opened, toxiproxy: Toxiproxy, tmp_path: Path
) -> None:
    """The body arrives, the 204 does not: the store counts as down, and the same rows written again are there once."""
    link = toxiproxy.proxy(server.port)
    store = InfluxStore(_at(opened.settings, f"http://{link.address}"), quarantine=lambda line, reason: None)
    for toxic in ({"kind": "timeout", "timeout": 0}, {"kind": "limit_data", "bytes": 0}, {"kind": "reset_peer"}):
        link.add(**toxic)  # type: ignore[arg-type]
        with pytest.raises(StoreUnavailable, match=r"no answer in time|connection broke"):
            store.write(ROWS)
        link.clear()
    link.down()
    with pytest.raises(StoreUnavailable, match=r"nothing answers there; start the server|connection broke"):
        store.write(ROWS)
    link.up()
    store.write(ROWS)
    assert list(store.dump(BOOKS)) == undisturbed(tmp_path, ROWS)
    store.close()


@pytest.mark.usefixtures("quick")
def test_an_answer_to_a_question_that_breaks_off_is_no_answer(
    server: InfluxServer, opened: Opened, toxiproxy: Toxiproxy
) -> None:
    """Half of the rows, then silence or a cut: StoreUnavailable, never the half."""
    opened.store.write(ROWS)
    link = toxiproxy.proxy(server.port)
    store = InfluxStore(_at(opened.settings, f"http://{link.address}"), quarantine=lambda line, reason: None)
    link.add("limit_data", bytes=50_000)
    with pytest.raises(StoreUnavailable, match=r"cannot read .*the answer broke off"):
        list(store.dump(BOOKS))
    link.clear()
    link.add("timeout", timeout=0)
    with pytest.raises(StoreUnavailable, match=r"cannot read .*no answer in time"):
        list(store.dump(BOOKS))
    link.clear()
    assert len(list(store.dump(BOOKS))) == len(ROWS)
    store.close()


@pytest.mark.usefixtures("quick")
def test_a_frozen_server_that_goes_on_has_the_same_rows(server: InfluxServer, opened: Opened, tmp_path: Path) -> None:
    """Writes are in flight when it freezes, time out, and land late and out of order when it goes on: no difference."""
    server.freeze()
    try:
        for _ in range(3):
            with pytest.raises(StoreUnavailable, match=r"no answer in time; .* writing it again does no harm"):
                opened.store.write(ROWS)
    finally:
        server.thaw()
    wait_for("the thawed server", lambda: _written(opened.store, ROWS))
    assert list(opened.store.dump(BOOKS)) == undisturbed(tmp_path, ROWS)


@pytest.mark.usefixtures("quick")
def test_a_late_provisional_write_shows_a_whole_account_or_another(server: InfluxServer, opened: Opened) -> None:
    """Two accounts of a window land in any order: what is shown is one of them, never a mixture."""
    old = [meter(NOON, 1.0, PROVISIONAL_METER, device=f"gpu{number}") for number in range(8)]
    new = [meter(NOON, 2.0, PROVISIONAL_METER, device=f"gpu{number}") for number in range(5)]
    server.freeze()
    try:
        for page in (old, new):
            with pytest.raises(StoreUnavailable, match="no answer in time"):
                opened.store.replace_provisional("h1", NOON, page)
    finally:
        server.thaw()
    found: list[Row] = wait_for("an account", lambda: _readable(opened.store))
    assert found in (old, new)
    opened.store.replace_provisional("h1", NOON, new)
    assert opened.store.read(PROVISIONAL_METER, *EVER) == new


def test_a_reader_beside_a_writer_sees_whole_accounts(opened: Opened) -> None:
    """A window is replaced 50 times while it is read: each look shows the five rows of one account."""
    pages = [
        [meter(NOON, float(turn), PROVISIONAL_METER, device=f"gpu{number}") for number in range(5)]
        for turn in range(50)
    ]
    opened.store.replace_provisional("h1", NOON, pages[0])
    done = threading.Event()

    def replace() -> None:
        for page in pages:
            opened.store.replace_provisional("h1", NOON, page)
            time.sleep(0.05)  # a real window is replaced every few seconds; a look takes a hundredth of one
        done.set()

    writer = threading.Thread(target=replace)
    writer.start()
    looks = []
    while not done.is_set():
        looks.append(opened.store.read(PROVISIONAL_METER, *EVER))
    writer.join()
    assert looks
    torn = [look for look in looks if look not in pages]
    assert torn == []


def test_a_killed_server_keeps_what_it_acknowledged(server: InfluxServer, opened: Opened, tmp_path: Path) -> None:
    """kill -9 after each of ten writes: what `write` returned for is there."""
    for turn in range(10):
        opened.store.write(ROWS[500 * turn : 500 * (turn + 1)])
        server.kill()
        with pytest.raises(StoreUnavailable, match=r"nothing answers there; start the server|connection broke"):
            opened.store.write(ROWS[:1])
        server.start()
    assert list(opened.store.dump(BOOKS)) == undisturbed(tmp_path, ROWS)


def _new_token(influxd: InfluxServer, bucket: str | None = None) -> Any:
    """One with all rights on buckets, or one that may only read this bucket."""
    org = influxd.ask("GET", f"/api/v2/orgs?org={ORG}")["orgs"][0]["id"]
    rights: list[dict[str, Any]] = [
        {"action": action, "resource": {"type": kind, "orgID": org}}
        for action in ("read", "write")
        for kind in ("buckets", "dbrp")
    ]
    rights.append({"action": "read", "resource": {"type": "orgs", "id": org}})
    if bucket is not None:
        number = influxd.ask("GET", f"/api/v2/buckets?name={bucket}")["buckets"][0]["id"]
        rights = [{"action": "read", "resource": {"type": "buckets", "orgID": org, "id": number}}]
    return influxd.ask("POST", "/api/v2/authorizations", {"orgID": org, "permissions": rights})


def _drop(server: InfluxServer, bucket: str) -> None:
    if server.api == "v1":
        server.ask("POST", f"/query?q=DROP%20DATABASE%20%22{bucket}%22", token=TOKEN)
        return
    number = server.ask("GET", f"/api/v2/buckets?name={bucket}")["buckets"][0]["id"]
    server.ask("DELETE", f"/api/v2/buckets/{number}")


def _at(settings: InfluxDb, url: str, ca_file: Path | None = None) -> InfluxDb:
    return msgspec.structs.replace(settings, url=url, ca_file=ca_file)


def _written(store: InfluxStore, rows: Sequence[Row]) -> bool:
    try:
        store.write(rows)
    except StoreUnavailable:
        return False
    return True


def _readable(store: InfluxStore) -> list[Row]:
    try:
        return store.read(PROVISIONAL_METER, *EVER)
    except StoreUnavailable:
        return []
