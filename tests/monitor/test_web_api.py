"""The web API as its clients meet it: real store, real gate, real application, HTTP requests."""

import http.client
import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from books_rows import energy, made, meter, request, usage
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.testclient import TestClient

from collectors.http_server import HttpServer
from monitor.core.points import REQUEST_ENERGY, RESTATEMENT
from monitor.core.questions import Principal
from monitor.query import Query
from monitor.selfmetrics import DaemonSnapshot
from monitor.store.sqlite import SqliteStore
from monitor.web.app import DOCUMENT_PATH, LOCAL, OPERATIONS, build_app
from monitor.web.openapi import Operation

NOON = 1_700_049_600.0  # 2023-11-15T12:00:00Z
WHOLE = "window=2023-11-15T12:00:00Z,2023-11-15T12:01:00Z"
DAEMON = DaemonSnapshot(version="1", host="h1", pid=7, at=NOON, started_at=NOON, loop_age_seconds=0.5, ready=True)
QUESTIONS = [
    f"/v1/allocation?{WHOLE}&aggregate=team,label:use_case&includeIdle=true&step=10s",
    f"/v1/allocation?{WHOLE}&aggregate=&shareIdle=fleet&limit=1",
    "/v1/allocation",
    f"/v1/windows?{WHOLE}",
    f"/v1/windows?{WHOLE}&limit=1",
    f"/v1/requests?{WHOLE}",
    "/v1/status?since=2023-11-01T00:00:00Z",
]


class _Noon:
    """A clock that stands at one minute past."""

    def now(self) -> float:
        return NOON + 60.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    """Two windows: 1 000 J, of which a has 600 J, b 200 J (modelled, no factor), 150 J idle, 50 J unreported."""
    written = SqliteStore(tmp_path / "store.db")
    chat = '{"use_case":"chat"}'
    facts = {"reason": "late requests", "windows": 1.0, "first_window": NOON}
    written.write(
        [
            meter(NOON, 700.0, metered_joules=500.0),
            meter(NOON + 10, 300.0),
            energy(NOON, 500.0, model="m", team="a", labels=chat, exact_joules=100.0),
            energy(NOON + 10, 100.0, model="m", team="a", labels=chat),
            energy(NOON, 200.0, model="n", team="b", metered_joules=0.0, location_grams=None, factor=None),
            energy(NOON + 10, 150.0, "idle", idle_source="configured"),
            energy(NOON + 10, 50.0, "unattributed", unreported_joules=50.0),
            usage(NOON, 1.0, model="m", team="a", labels=chat),
            usage(NOON, 2.0, model="n", team="b", input_tokens=None, output_tokens=None, untold_requests=2.0),
            request(NOON, "r1", 500.0, labels=chat, start=NOON + 1.5, end=NOON + 12),
            request(NOON + 10, "r1", 100.0, labels=chat, start=NOON + 1.5, end=NOON + 12),
            request(NOON, "r2", 200.0, team="b", model="n", start=None, end=None, input_tokens=None),
            made(RESTATEMENT, NOON + 900, {"host": "h1"}, facts),
        ]
    )
    written.close()
    reading = SqliteStore(tmp_path / "store.db", read_only=True)
    yield reading
    reading.close()


def _app(store: SqliteStore, principal: Principal = LOCAL) -> Starlette:
    def principal_of(_request: Request) -> Principal:
        return principal

    return build_app(
        Query(store, rejected=lambda: {"bad_json": 2}),
        clock=_Noon(),
        daemon=lambda: DAEMON,
        principal_of=principal_of,
    )


def _client(store: SqliteStore, principal: Principal = LOCAL) -> TestClient:
    return TestClient(_app(store, principal), raise_server_exceptions=False)


@pytest.fixture
def client(store: SqliteStore) -> TestClient:
    return _client(store)


def _get(client: TestClient, address: str) -> Any:
    answer = client.get(address)
    assert answer.status_code == 200, answer.text
    return answer.json()


def _refusal(client: TestClient, address: str, code: int = 400) -> dict[str, Any]:
    answer = client.get(address)
    assert answer.status_code == code, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


@pytest.mark.parametrize("address", QUESTIONS)
def test_every_answer_is_as_the_document_says(client: TestClient, address: str) -> None:
    """The schema at its address in the OpenAPI document takes it, and no field more."""
    spec = _get(client, DOCUMENT_PATH)
    operation = spec["paths"][address.partition("?")[0]]["get"]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    Draft202012Validator({**schema, "components": spec["components"]}).validate(_get(client, address))


def test_every_refusal_is_as_the_document_says(client: TestClient) -> None:
    """One shape for all of them."""
    spec = _get(client, DOCUMENT_PATH)
    schema = spec["paths"]["/v1/allocation"]["get"]["responses"]["400"]["content"]["application/json"]["schema"]
    validator = Draft202012Validator({**schema, "components": spec["components"]})
    for address in ("/v1/allocation?limit=0", "/v1/nothing", "/v1/windows?x=1"):
        validator.validate(client.get(address).json())


def test_the_document_names_every_parameter_that_is_taken(client: TestClient) -> None:
    """And each with what it means; it is OpenAPI 3.1."""
    spec = _get(client, DOCUMENT_PATH)
    assert spec["openapi"] == "3.1.0"
    for operation in OPERATIONS:
        told = spec["paths"][operation.path]["get"]["parameters"]
        assert [each["name"] for each in told] == [each.name for each in operation.parameters]
        assert all(each["description"] and each["in"] == "query" for each in told)


def test_an_allocation_keeps_what_is_unknown_apart_from_zero(client: TestClient) -> None:
    """b's 200 J: all modelled, no factor (null, and 200 J factorless), tokens untold."""
    told = _get(client, f"/v1/allocation?{WHOLE}&aggregate=team")
    a, b = (line for line in told["lines"] if line["account"] == "attributed")
    assert (a["properties"], a["energy_joules"], a["measured_ratio"]) == ({"team": "a"}, 600.0, 1.0)
    assert (b["energy_joules"], b["measured_ratio"], b["metered_joules"]) == (200.0, 0.0, 0.0)
    assert (b["emissions_grams"], b["factorless_joules"], b["output_tokens"]) == (None, 200.0, None)
    assert (told["totals"]["measured_joules"], told["totals"]["imbalance_joules"]) == (1_000.0, 0.0)
    assert told["factors"] == ["FR 2023"]
    assert told["final_until"] == "2023-11-15T12:00:10.000Z"
    assert told["window"] == {"start": "2023-11-15T12:00:00.000Z", "end": "2023-11-15T12:01:00.000Z"}


def test_idle_is_hidden_shown_or_shared_as_asked(client: TestClient) -> None:
    """150 J of idle: in no line, in a line of its own, or with a, who alone used the host in that window."""

    def idle_of(parameters: str) -> list[tuple[str, float, float]]:
        lines = _get(client, f"/v1/allocation?{WHOLE}&aggregate=team&includeUnattributed=false{parameters}")["lines"]
        return [(line["properties"]["team"], line["energy_joules"], line["idle_share_joules"]) for line in lines]

    assert idle_of("") == [("a", 600.0, 0.0), ("b", 200.0, 0.0)]
    assert idle_of("&includeIdle=true")[-1] == ("__idle__", 150.0, 0.0)
    assert idle_of("&shareIdle=fleet") == [("a", 600.0, 112.5), ("b", 200.0, 37.5)]


def test_steps_are_lines_of_their_own_unless_accumulated(client: TestClient) -> None:
    """a used 500 J in the first ten seconds and 100 J in the next."""
    asked = f"/v1/allocation?{WHOLE}&aggregate=team&step=10s&filter=team:%22a%22"
    told = _get(client, asked)
    assert [(line["start"][17:19], line["energy_joules"]) for line in told["lines"]] == [("00", 500.0), ("10", 100.0)]
    assert told["step_seconds"] == 10.0
    told = _get(client, f"{asked}&accumulate=true")
    assert ([line["energy_joules"] for line in told["lines"]], told["step_seconds"]) == ([600.0], None)


@pytest.mark.parametrize(
    ("written", "teams"),
    [
        ('team:"a"', ["a"]),
        ('team:"a","b"', ["a", "b"]),
        ('team:"a"+model:"n"', []),
        ('label[use_case]:"chat"', ["a"]),
        ('label:use_case:"chat"+model:"m"', ["a"]),
    ],
)
def test_filters_are_opencosts(client: TestClient, written: str, teams: list[str]) -> None:
    """+ joins, a comma gives alternatives, a label has either of its two forms."""
    parameters = {"window": WHOLE.partition("=")[2], "aggregate": "team", "filter": written}
    answer = client.get("/v1/allocation", params=parameters)
    assert [each["properties"]["team"] for each in answer.json()["lines"]] == teams


def test_pages_make_the_whole(client: TestClient) -> None:
    """One line at a time, and no line twice."""
    asked = f"/v1/allocation?{WHOLE}&aggregate=team&limit=1"
    seen, after = [], None
    while True:
        page = _get(client, asked if after is None else f"{asked}&after={after}")
        seen += [line["properties"]["team"] for line in page["lines"]]
        after = page["next"]
        if after is None:
            break
    assert seen == ["a", "b", "__unattributed__"]


def test_windows_are_the_books_of_each(client: TestClient) -> None:
    """The first: 700 J measured, 700 attributed. Of a host that is not there: none."""
    first, second = _get(client, f"/v1/windows?{WHOLE}")["windows"]
    assert (first["start"], first["host"], first["measured_joules"]) == ("2023-11-15T12:00:00.000Z", "h1", 700.0)
    assert (second["attributed_joules"], second["idle_joules"], second["unattributed_joules"]) == (100.0, 150.0, 50.0)
    assert _get(client, f"/v1/windows?{WHOLE}&filter=host:%22h2%22")["windows"] == []


def test_requests_are_summed_over_their_windows(client: TestClient) -> None:
    """r1 used 500 J and 100 J, started at 12:00:01.5; when r2 ran is not known."""
    r1, r2 = _get(client, f"/v1/requests?{WHOLE}")["requests"]
    assert (r1["request_id"], r1["energy_joules"], r1["start"]) == ("r1", 600.0, "2023-11-15T12:00:01.500Z")
    assert (r1["labels"], r2["labels"], r2["start"], r2["input_tokens"]) == ({"use_case": "chat"}, {}, None, None)


def test_a_request_has_numbers_moments_and_null_for_what_nobody_told(tmp_path: Path) -> None:
    """Every field of an answer by its JSON type: of a second attempt with all told, and of one with nothing told."""
    told = {"first_token": NOON + 2.0, "work_unit": "image", "work_amount": 2.0, "cached_input_tokens": 4}
    told |= dict.fromkeys(("marginal_joules", "recovered_joules", "steps_joules", "learned_joules"), 0.0)
    told |= dict.fromkeys(("flop_sensitivity_joules", "byte_sensitivity_joules", "split_variance"), 0.0)
    untold = dict.fromkeys((*REQUEST_ENERGY.sums, "start", "end", "input_tokens", "output_tokens"))
    with closing(SqliteStore(tmp_path / "store.db")) as store:
        store.write([request(NOON, "r1", 500.0, attempt="1", factor="FR 2023", labels='{"a":"b"}', **told)])
        store.write([request(NOON + 1.0, "r2", 0.0, factor="", status=None, **untold)])
        r1, r2 = _get(_client(store), f"/v1/requests?{WHOLE}")["requests"]
    joules = ("energy", "marginal", "metered", "recovered", "exact", "steps", "learned", "low", "high")
    expected: dict[str, type] = dict.fromkeys((f"{name}_joules" for name in joules), float)
    expected |= dict.fromkeys(("emissions_grams", "measured_ratio", "input_tokens", "work_amount"), float)
    expected |= dict.fromkeys(("output_tokens", "cached_input_tokens"), float)
    expected |= dict.fromkeys(("start", "first_token", "end", "work_unit", "status", "factor", "tier"), str)
    always: dict[str, type] = dict.fromkeys(("namespace", "request_id", "model", "team", "deployment"), str)
    always |= {"attempt": int, "labels": dict, "hosts": list, "whole": bool}
    assert {name: type(value) for name, value in r1.items()} == expected | always
    assert (r1["attempt"], r1["first_token"], r1["work_amount"]) == (1, "2023-11-15T12:00:02.000Z", 2.0)
    assert {name: type(value) for name, value in r2.items()} == dict.fromkeys(expected, type(None)) | always


def test_status_shows_the_daemon_and_the_books(client: TestClient) -> None:
    """Restatements since the moment asked for; rejected input by reason."""
    told = _get(client, "/v1/status?since=2023-11-15T12:15:00Z")
    assert (told["daemon"]["ready"], told["daemon"]["host"]) == (True, "h1")
    assert told["books"]["final_until"] == {"h1": "2023-11-15T12:00:10.000Z"}
    assert told["books"]["rejected"] == {"bad_json": 2}
    assert [each["first_window"] for each in told["books"]["restatements"]] == ["2023-11-15T12:00:00.000Z"]
    assert _get(client, "/v1/status?since=2023-11-15T12:15:01Z")["books"]["restatements"] == []


@pytest.mark.parametrize(
    ("address", "field", "reason"),
    [
        ("/v1/allocation?agregate=team", "agregate", "did you mean aggregate?"),
        ("/v1/allocation?shareidle=host", "shareidle", "did you mean shareIdle?"),
        ("/v1/allocation?resolution=1m", "resolution", "known are window, aggregate"),
        ("/v1/allocation?limit=1&limit=2", "limit", "twice"),
        ("/v1/allocation?limit=0", "limit", "1 to 10000"),
        ("/v1/allocation?limit=-1", "limit", "not a whole number"),
        ("/v1/allocation?aggregate=cluster", "aggregate", "'cluster' is none of model"),
        ("/v1/allocation?window=yesteryear", "window", "not a window"),
        ("/v1/allocation?window=week", "window", "write 7d"),
        ("/v1/allocation?window=1700049600,1700049600", "window", "behind the start"),
        ("/v1/allocation?window=1700049600000,1700049601000", "window", "milliseconds"),
        ("/v1/allocation?step=10", "step", "no unit"),
        ("/v1/allocation?window=7d&step=1s", "step", "more than 10000 steps"),
        ("/v1/allocation?shareIdle=true", "shareIdle", "write host, fleet or owner"),
        ("/v1/allocation?shareIdle=even", "shareIdle", "none of false, host"),
        ("/v1/allocation?includeIdle=yes", "includeIdle", "neither true nor false"),
        ("/v1/allocation?filter=team!:%22a%22", "filter", "only : is taken"),
        ("/v1/allocation?filter=team:a", "filter", "double quotes"),
        ("/v1/allocation?filter=namespace:%22a%22", "filter", "'namespace' is none of"),
        ("/v1/allocation?filter=team:%22a%22|model:%22b%22", "filter", "join filters with +"),
        ("/v1/allocation?after=nonsense", "after", "`next` of a page"),
        ("/v1/windows?filter=team:%22a%22", "filter", "only host"),
        ("/v1/requests?filter=color:%22red%22", "filter", "'color'"),
        ("/v1/openapi.json?x=1", "x", "no parameters"),
    ],
)
def test_what_cannot_be_answered_says_which_parameter_and_why(
    client: TestClient, address: str, field: str, reason: str
) -> None:
    """400, with the client's own name for it."""
    error = _refusal(client, address)
    assert error["field"] == field
    assert reason in error["reason"]


def test_a_team_sees_its_own_lines_alone(store: SqliteStore) -> None:
    """403 for what is another's or the fleet's; of its own no totals, and nothing of the daemon."""
    client = _client(store, Principal(name="ann", role="team", teams=frozenset("a")))
    told = _get(client, f"/v1/allocation?{WHOLE}&aggregate=team")
    assert [line["properties"]["team"] for line in told["lines"]] == ["a"]
    assert (told["totals"], told["idle_devices"]) == (None, None)
    assert "may not see team b" in _refusal(client, f"/v1/allocation?{WHOLE}&filter=team:%22b%22", 403)["reason"]
    assert _refusal(client, f"/v1/windows?{WHOLE}", 403)["field"] is None
    assert _get(client, "/v1/status")["daemon"] is None


def test_a_store_that_cannot_be_read_is_a_503_that_says_when(tmp_path: Path) -> None:
    """No path of the host in it."""
    path = tmp_path / "store.db"
    SqliteStore(path).close()
    store = SqliteStore(path, read_only=True)
    path.write_bytes(b"x" * 8192)
    for beside in (path.with_name("store.db-wal"), path.with_name("store.db-shm")):
        beside.unlink(missing_ok=True)
    answer = _client(store).get("/v1/status")
    store.close()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
    assert str(tmp_path) not in answer.text


def test_our_own_mistake_shows_no_traceback(store: SqliteStore) -> None:
    """500, with the headers of every answer."""
    store.close()  # asking a closed store is a mistake of the program
    answer = _client(store).get("/v1/status")
    assert answer.status_code == 500
    assert json.loads(answer.text)["error"]["reason"] == "a mistake of the daemon's own; its log says which"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("address", ["/", "/v1/allocation", DOCUMENT_PATH, "/v1/nothing", "/v1/windows?x=1"])
def test_every_answer_carries_the_security_headers(client: TestClient, address: str) -> None:
    """Refusals too."""
    headers = client.get(address).headers
    assert headers["content-type"] == "application/json"
    assert headers["cache-control"] == "no-store"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert headers["x-content-type-options"] == "nosniff"


def test_it_only_answers_questions(client: TestClient) -> None:
    """HEAD is GET without the body, OPTIONS says what is allowed, the rest is refused."""
    head = client.head("/v1/status")
    assert (head.status_code, head.content) == (200, b"")
    options = client.options("/v1/status")
    assert (options.status_code, options.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
    refused = client.post("/v1/status", content=b"{}")
    assert (refused.status_code, "GET" in refused.headers["allow"]) == (405, True)
    assert refused.json()["error"]["reason"].startswith("this only answers questions")


def test_the_index_names_what_is_there(client: TestClient) -> None:
    """Each address answers."""
    for address in _get(client, "/")["addresses"]:
        assert client.get(address).status_code == 200


WORDS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", "true", "24h", "9" * 30 + "d", "36500d", "NaN", "1e999", "-1", "today", ",", "label:", "\x00"]
    ),
    st.from_regex(r'[a-z_]{1,9}(:|\[[a-z]+\]:|!:)"[^"]{0,4}"?([+,]"a")?', fullmatch=True),
    st.integers(0, 5_000_000_000).map(lambda second: f"{second},{second + 60}"),
)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: each.path)
def test_whatever_is_asked_is_answered_or_refused(
    operation: Operation, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """200 or 400 with the parameter's own name, never our mistake."""
    store = SqliteStore(tmp_path_factory.mktemp("store") / "store.db")
    client = _client(store)
    known = [each.name for each in operation.parameters]

    @settings(max_examples=60, deadline=None)
    @given(st.dictionaries(st.sampled_from(known), WORDS, max_size=4))
    def ask(parameters: dict[str, str]) -> None:
        answer = client.get(operation.path, params=parameters)
        assert answer.status_code in (200, 400), (parameters, answer.text)
        if answer.status_code == 400:
            assert answer.json()["error"]["field"] in parameters

    ask()
    store.close()


def test_many_clients_at_once_see_books_that_close(tmp_path: Path) -> None:
    """Over the real server, beside a writer: each answer holds whole windows alone, all that is measured attributed."""
    writer = SqliteStore(tmp_path / "store.db")
    writer.write([meter(NOON, 10.0), energy(NOON, 10.0, model="m", team="a")])
    reader = SqliteStore(tmp_path / "store.db", read_only=True)
    server = HttpServer(_app(reader), "127.0.0.1:0", name="web")
    server.start()
    written = threading.Event()

    def ask() -> set[float]:
        found: set[float] = set()
        while True:
            last = written.is_set()
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
            connection.request("GET", f"/v1/windows?window={NOON},{NOON + 600}")
            windows = json.loads(connection.getresponse().read())["windows"]
            connection.close()
            found |= {window["measured_joules"] - window["attributed_joules"] for window in windows}
            if last:
                assert len(windows) == 30
                return found

    try:
        with ThreadPoolExecutor(8) as pool:
            asking = [pool.submit(ask) for _ in range(8)]
            try:
                for number in range(1, 30):
                    time = NOON + 10 * number
                    writer.write([meter(time, 10.0), energy(time, 10.0, model="m", team="a")])
            finally:
                written.set()
            assert set().union(*(each.result() for each in asking)) == {0.0}
    finally:
        server.stop()
        reader.close()
        writer.close()


def test_every_reference_of_the_document_leads_somewhere(client: TestClient) -> None:
    """Within its components."""
    spec = _get(client, DOCUMENT_PATH)
    named = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(spec)))
    assert named <= spec["components"]["schemas"].keys()
    assert {"Line", "AllocationTotals", "DaemonSnapshot", "Failure"} <= named
