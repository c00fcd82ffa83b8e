"""Posts into the log: placed, grouped, acknowledged only when stored; and every bad input of the table over HTTP."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from msgspec.structs import replace

from collectors.errors import Broken
from collectors.requests.event import Work
from monitor.config.input_sections import Deployment, Requests, Source
from monitor.config.sections import Config
from monitor.core.usage import Usage
from monitor.log.codec import Decoder, deployment_record
from monitor.log.protocol import Append, LogRecord, LogUnavailable
from monitor.log.sqlite import SqliteLog
from monitor.log.usage_wire import UsageBatch
from monitor.roles.control import FactsReader
from monitor.roles.ingest import FileIngest
from monitor.roles.ingest_http import HttpIngest
from monitor.roles.placement import Placer, deployment_of, place_by_config
from monitor.roles.snapshots import snapshot_of

T = 1_712_043_380.0


class Fixed:
    """A clock that stands."""

    def now(self) -> float:
        """A minute after the events."""
        return T + 60.0


class CountingLog(SqliteLog):
    """The real log, which counts its appends, and fails or waits when told to."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.appends = self.waiting = 0
        self.broken = False
        self.gate = threading.Event()
        self.gate.set()

    def append(self, records: Sequence[Append], now: float) -> Sequence[Append]:
        """As the real one."""
        self.waiting += 1
        assert self.gate.wait(10.0)
        if self.broken:
            raise LogUnavailable("log.db: cannot write the log: disk full; free space on its disk")
        self.appends += bool(records)
        return super().append(records, now)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[CountingLog]:
    """A log on disk."""
    opened = CountingLog(tmp_path / "log.db")
    yield opened
    opened.gate.set()
    opened.close()


def source(name: str, **more: Any) -> Source:
    """A receiver on any port."""
    return Source(name=name, kind="http", listen="127.0.0.1:0", **more)


CONFIG = Config(deployments=(Deployment(name="pair", model="spread", hosts=("h1", "h2")),))
HERE, NOWHERE = place_by_config(CONFIG, "h1"), place_by_config(CONFIG, "")


@pytest.fixture
def ingest(log: CountingLog) -> Iterator[HttpIngest]:
    """Two receivers of one house, one of which is not believed about teams."""
    role = HttpIngest(log, CONFIG, [source("open"), source("shy", namespace="shop", trust_team=False)], HERE, Fixed())
    role.start()
    yield role
    log.gate.set()
    role.stop()


def post(ingest: HttpIngest, body: bytes, name: str = "open", kind: str = "application/x-ndjson") -> httpx2.Response:
    """The answer to these bytes."""
    with httpx2.Client(trust_env=False, timeout=20.0) as client:
        url = f"http://127.0.0.1:{ingest.ports[name]}/v1/events"
        return client.post(url, content=body, headers={"content-type": kind})


def event(request_id: str, **more: Any) -> dict[str, Any]:
    """A good event."""
    return {"request_id": request_id, "model": "m", "start": T, "end": T + 2.0, **more}


def line(content: Any) -> bytes:
    """One line."""
    return json.dumps(content).encode() + b"\n"


def wait_until(true: Callable[[], bool]) -> None:
    """Looks again and again, for 10 s at most."""
    deadline = time.monotonic() + 10.0
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def usages(log: SqliteLog) -> list[Usage]:
    """All that stands in the log."""
    decoder = Decoder()
    batches = [decoder.decode(record) for record in log.read({}, 10_000)]
    return [usage for batch in batches if isinstance(batch, UsageBatch) for usage in batch.usages()]


def test_a_post_is_in_the_log_when_it_is_answered(log: CountingLog, ingest: HttpIngest) -> None:
    """Placed on its host, or on each of its deployment's by half; namespace and team as its source has them."""
    assert post(ingest, line(event("a", team="x", host="h9")) + line(event("b", model="spread"))).status_code == 202
    assert post(ingest, line(event("c", team="x", work={"unit": "image", "amount": 4})), "shy").status_code == 202
    found = {(each.host, each.request_id): each for each in usages(log)}
    assert set(found) == {("h9", "a"), ("h1", "b"), ("h2", "b"), ("h1", "c")}
    assert [found["h1", "b"].weight, found["h2", "b"].weight] == [0.5, 0.5]
    assert (found["h9", "a"].team, found["h9", "a"].namespace) == ("x", "default")
    shy = found["h1", "c"]
    assert (shy.team, shy.namespace, shy.work) == ("unknown", "shop", Work(unit="image", amount=4.0))
    assert ingest.counts.accepted == {"open": 2, "shy": 1}


def test_posts_share_their_way_to_the_disk(log: CountingLog, ingest: HttpIngest) -> None:
    """While one append waits for the disk, all that come meanwhile go there in the next, and each is answered."""
    log.gate.clear()
    with ThreadPoolExecutor(7) as pool:
        answers = [pool.submit(post, ingest, line(event("r0")))]
        wait_until(lambda: log.waiting == 1)
        answers += [pool.submit(post, ingest, line(event(f"r{number}"))) for number in range(1, 7)]
        wait_until(lambda: ingest._appends._entries.qsize() == 6)
        log.gate.set()
    assert [each.result().status_code for each in answers] == [202] * 7
    assert sorted(each.request_id for each in usages(log)) == [f"r{number}" for number in range(7)]
    assert log.appends == 2


def test_a_log_that_takes_nothing_is_a_503(log: CountingLog, ingest: HttpIngest) -> None:
    """The sender is told why and when to retry, nothing is counted as taken; afterwards the same post is taken once."""
    log.broken = True
    refused = post(ingest, line(event("a")))
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert "disk full" in refused.json()["detail"]
    assert ingest.counts.accepted["open"] == 0
    log.broken = False
    assert post(ingest, line(event("a"))).status_code == 202
    assert [each.request_id for each in usages(log)] == ["a"]
    assert ingest.counts.refused == {("open", "not_stored"): 1}


def test_bad_events_become_dead_letters_once(log: CountingLog, ingest: HttpIngest) -> None:
    """Future and unreadable events are named by index, kept without their bytes, and a retry counts them once."""
    body = line(event("a")) + line(event("b", end=T + 9_000.0)) + b"no json, secret\n"
    for _ in range(2):
        told = post(ingest, body).json()
        assert [(each["index"], each["reason"]) for each in told["rejected"]] == [(1, "future"), (2, "not_json")]
    assert log.rejected() == {"future": 1, "not_json": 1}
    assert "secret" not in str(log.rejections())
    assert ingest.counts.rejected == {("open", "future"): 2, ("open", "not_json"): 2}


def test_an_event_of_no_host_is_named(log: CountingLog) -> None:
    """Where this host meters nothing and no deployment has the model, the sender learns that it is unplaced."""
    role = HttpIngest(log, CONFIG, [source("open")], NOWHERE, Fixed())
    role.start()
    try:
        told = post(role, line(event("a"))).json()
    finally:
        role.stop()
    assert [each["reason"] for each in told["rejected"]] == ["unplaced"]


class FactsAway:
    """A log of facts that cannot be read from its beginning while it is away; its snapshot was read before."""

    def __init__(self, records: Sequence[LogRecord]) -> None:
        self.records, self.away = records, False

    def facts(self, after: int = 0) -> list[LogRecord]:
        if self.away and not after:
            raise LogUnavailable("Kafka at kafka-1:9092: no broker answers")
        return [record for record in self.records if record.offset > after]


def test_an_event_from_before_the_facts_that_were_read_waits_for_all_of_them(log: CountingLog) -> None:
    """The sender is told to send it again while they cannot be read; then it is placed as it was then."""
    stated = [deployment_record(deployment_of(replace(CONFIG.deployments[0], hosts=(host,)))) for host in ("h1", "h2")]
    facts = FactsAway(
        [
            LogRecord(stream="facts", offset=place, stamp=stamp, key=each.key, schema=each.schema, body=each.body)
            for place, stamp, each in ((1, T - 9_000.0, stated[0]), (2, T - 100.0, stated[1]), (3, T - 10.0, stated[1]))
        ]
    )
    snapshot = snapshot_of(facts.records)
    placer = Placer(FactsReader(facts, lambda: snapshot)())
    role = HttpIngest(log, CONFIG, [source("open")], placer, Fixed())
    role.start()
    try:
        facts.away = True
        old = line(event("old", model="spread", start=T - 5_000.0))
        refused = post(role, old)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert "no broker answers" in refused.json()["detail"]
        assert post(role, line(event("new", model="spread"))).status_code == 202
        facts.away = False
        assert post(role, old).status_code == 202
    finally:
        role.stop()
    assert [(each.request_id, each.host) for each in usages(log)] == [("new", "h2"), ("old", "h1")]


def test_stopping_lets_no_sender_hang(log: CountingLog, ingest: HttpIngest) -> None:
    """With the disk stuck a stop ends in time, and the post that waited has no 202."""
    log.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(post, ingest, line(event("a")))
        wait_until(lambda: log.waiting == 1)
        ingest.stop(0.3)
        log.gate.set()
        with pytest.raises(httpx2.HTTPError):
            waiting.result(15.0)


def test_a_taken_address_stops_the_others(log: CountingLog, ingest: HttpIngest) -> None:
    """Broken names the source; what had started before is stopped again, and a role without sources is nothing."""
    taken = Source(name="second", kind="http", listen=f"127.0.0.1:{ingest.ports['open']}")
    role = HttpIngest(log, CONFIG, [source("first"), taken], HERE, Fixed())
    with pytest.raises(Broken, match="source second"):
        role.start()
    with pytest.raises(httpx2.HTTPError):
        post(role, line(event("a")), "first")
    empty = HttpIngest(log, CONFIG, [], HERE, Fixed())
    empty.start()
    empty.stop()


BAD = event("bad", team="eve", input_tokens=1, output_tokens=1)
TABLE: list[tuple[str, bytes, str | None]] = [
    # B1
    ("not-utf8", line(BAD).replace(b"eve", b"\xff\xfe"), "not_utf8"),
    ("truncated", line(BAD)[:60] + b"\n", "truncated"),
    ("bom", b"\xef\xbb\xbf" + line(BAD), None),
    ("megabyte", line(BAD | {"prompt": "x" * (1 << 20)}), "too_large"),
    ("deep", b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"\n", "too_deep"),
    ("million-keys", b"{" + b",".join(b'"k%d":1' % number for number in range(1_000_000)) + b"}\n", "too_large"),
    ("nan", line(BAD | {"input_tokens": float("nan")}), "not_finite"),
    ("beyond-float", line(BAD).replace(b'"input_tokens": 1,', b'"input_tokens": 1e999,'), "number_out_of_range"),
    ("1e308", line(BAD | {"input_tokens": 1e308}), "tokens_absurd"),
    ("beyond-64-bit", line(BAD | {"input_tokens": 2**64}), "tokens_absurd"),
    ("key-twice", line(BAD).replace(b'"team": "eve"', b'"team": "adam", "team": "eve"'), None),
    # B2, B11
    ("unknown-fields", line(BAD | {"resource": {}, "spans": [{}] * 100}), None),
    ("later-schema", line(BAD | {"schema": "wattribute.request.v2"}), "schema_version"),
    # B3
    ("end-before-start", line(BAD | {"start": T + 3.0}), "end_before_start"),
    ("no-duration", line(BAD | {"start": T, "end": T}), None),
    ("milliseconds", line(BAD | {"start": T * 1e3, "end": T * 1e3}), "wrong_time_unit"),
    ("time-zero", line(BAD | {"start": 0, "end": 0}), "time_out_of_range"),
    ("year-2262", line(BAD | {"end": 9_223_372_036.0}), "time_out_of_range"),
    ("future", line(BAD | {"end": T + 10_000.0}), "future"),
    # B4
    ("negative-tokens", line(BAD | {"output_tokens": -1}), "tokens_negative"),
    ("null-tokens", line(BAD | {"output_tokens": None}), None),
    ("half-a-token", line(BAD | {"output_tokens": 1.5}), "tokens_fractional"),
    ("tokens-as-text", line(BAD | {"output_tokens": "12"}), "tokens_not_a_number"),
    ("no-output", line(BAD | {"output_tokens": 0}), None),
    # B5
    ("no-id", line({key: value for key, value in BAD.items() if key != "request_id"}), "missing_request_id"),
    ("long-id", line(BAD | {"request_id": "x" * 1_000_000}), "text_too_long"),
    # B6
    ("line-end-in-team", line(BAD | {"team": "eve\nteam=alice"}), "control_character"),
    ("nul-in-model", line(BAD | {"model": "m\x00"}), "control_character"),
    ("64-kilobyte-model", line(BAD | {"model": "m" * 65_536}), "text_too_long"),
    ("line-protocol", line(BAD | {"team": 'a, b=c "d" \\', "model": "\u202e<script>../é"}), None),
    # B7
    ("unknown-host", line(BAD | {"host": "h77", "model": "never heard of"}), None),
    ("gpu-twice", line(BAD | {"devices": ["g0", "g0"]}), "bad_devices"),
    # B8
    ("cache-hit", line(BAD | {"status": "cache_hit", "devices": []}), None),
    ("cancelled", line(BAD | {"status": "cancelled", "output_tokens": 0, "attempt": 3}), None),
    # B9
    ("65-labels", line(BAD | {"labels": {f"k{number}": "v" for number in range(65)}}), "bad_labels"),
    # B10
    ("null", b"null\n", "not_object"),
    ("list", b"[1, 2]\n", "not_object"),
]


def _over_http(log: CountingLog, body: bytes, _folder: Path) -> None:
    role = HttpIngest(log, CONFIG, [source("s")], HERE, Fixed())
    role.start()
    try:
        assert post(role, body, "s").status_code == 400
        assert role.counts.accepted["s"] + sum(role.counts.rejected.values()) == len(TABLE) + 2
    finally:
        role.stop()


def _from_a_file(log: CountingLog, body: bytes, folder: Path) -> None:
    path = folder / "events.jsonl"
    path.write_bytes(body)
    role = FileIngest(log, CONFIG, [Source(name="s", kind="file", path=path)], folder, HERE)
    while role.read(Fixed().now()):
        pass
    role.close()
    assert role.counts.accepted["s"] + sum(role.counts.rejected.values()) == len(TABLE) + 2


@pytest.mark.parametrize("take", [_over_http, _from_a_file], ids=["http", "file"])
def test_the_table_of_bad_input_costs_only_itself(log: CountingLog, tmp_path: Path, take: Any) -> None:
    """All of B1 to B11 between two good events: each bad one under its reason, each good one in the log."""
    middle = b"".join(
        raw.replace(b'"bad"', b'"%s"' % name.encode()) if reason is None else raw for name, raw, reason in TABLE
    )
    take(log, line(event("first")) + middle + line(event("last")), tmp_path)
    assert log.rejected() == Counter(reason for _, _, reason in TABLE if reason is not None)
    good = ["first", *(name for name, _, reason in TABLE if reason is None), "last"]
    assert sorted(each.request_id for each in usages(log)) == sorted(good)


def test_a_source_may_limit_its_events(log: CountingLog) -> None:
    """[requests] max_event_size holds for posts."""
    role = HttpIngest(log, Config(requests=Requests(max_event_size_bytes=200)), [source("s")], HERE, Fixed())
    role.start()
    try:
        told = post(role, line(event("a", prompt="x" * 200)) + line(event("b")), "s").json()
    finally:
        role.stop()
    assert (told["accepted"], told["rejected"][0]["reason"]) == (1, "too_large")
