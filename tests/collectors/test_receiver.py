"""The receiver over real sockets: what is taken, what is refused, and in which words."""

import gzip
import json
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx2
import pytest

from collectors.collector import SinkFull
from collectors.errors import Broken, Rejected, RetryLater
from collectors.http_server import HttpServer
from collectors.rejected import RejectedInput
from collectors.requests.event import RequestEvent
from collectors.requests.receiver import Receiver
from collectors.requests.receiver_body import Limits

T = 1_712_043_380.0


class Kept:
    """A sink in memory; `trouble` is raised instead while it is set, `gate` holds it up while it is clear."""

    def __init__(self) -> None:
        self.events: list[RequestEvent] = []
        self.rejected: list[RejectedInput] = []
        self.trouble: Exception | None = None
        self.never: Sequence[int] = ()
        self.gate = threading.Event()
        self.gate.set()

    def accept(self, events: Sequence[RequestEvent], rejected: Sequence[RejectedInput]) -> Sequence[int]:
        """Keeps them, but for those of `never`."""
        assert self.gate.wait(10.0)
        if self.trouble is not None:
            raise self.trouble
        self.events += events
        self.rejected += rejected
        return self.never

    @property
    def ids(self) -> list[str]:
        """Of the events."""
        return [event.request_id for event in self.events]


class House:
    """A receiver that listens, its sink, and a client."""

    def __init__(self, sink: Kept, receiver: Receiver, server: HttpServer) -> None:
        self.sink, self.receiver, self.server = sink, receiver, server
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=10.0, trust_env=False)

    def post(self, body: Any, kind: str = "application/json", **headers: str) -> httpx2.Response:
        """The answer to these bytes, or to this content as JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.client.post("/v1/events", content=content, headers={"content-type": kind} | headers)

    def connect(self, sent: bytes = b"") -> socket.socket:
        """A bare connection that has sent these bytes."""
        connection = socket.create_connection(("127.0.0.1", self.server.port), timeout=10.0)
        connection.sendall(sent)
        return connection


Open = Callable[..., House]


def open_house(
    limits: Limits | None = None, check: Callable[[RequestEvent], object] | None = None, **server: Any
) -> House:
    """A receiver with these limits and that check, on a server with these settings."""
    sink = Kept()
    receiver = Receiver(
        sink, source="gateway", limits=limits or Limits(), check=check or (lambda _event: None), namespace="shop"
    )
    http = HttpServer(receiver.app, "127.0.0.1:0", name="test", **server)
    http.start()
    return House(sink, receiver, http)


def close_house(house: House) -> None:
    """Everything, whatever state it is in."""
    house.client.close()
    house.sink.gate.set()
    house.server.stop(1.0)
    house.receiver.close()


@pytest.fixture
def receiving() -> Iterator[Open]:
    """Opens houses."""
    opened: list[House] = []

    def open_one(**settings: Any) -> House:
        opened.append(open_house(**settings))
        return opened[-1]

    yield open_one
    for house in opened:
        close_house(house)


@pytest.fixture(scope="module")
def shared_house() -> Iterator[House]:
    """One house for many questions."""
    house = open_house()
    yield house
    close_house(house)


@pytest.fixture
def house(shared_house: House) -> House:
    """It, with an empty sink."""
    shared_house.sink.events.clear()
    shared_house.sink.rejected.clear()
    return shared_house


def event(request_id: str, **more: Any) -> dict[str, Any]:
    """A good event."""
    return {"request_id": request_id, "model": "m", "start": T, "end": T + 2.0, **more}


def lines(*events: Any) -> bytes:
    """JSON lines."""
    return b"".join(json.dumps(each).encode() + b"\n" for each in events)


def head(length: int | None, *more: str) -> bytes:
    """The head of a post."""
    said = ["POST /v1/events HTTP/1.1", "host: x", "content-type: application/json", *more]
    if length is not None:
        said.append(f"content-length: {length}")
    return "\r\n".join([*said, "", ""]).encode()


def answer_of(connection: socket.socket) -> bytes:
    """What comes until the server closes or a whole answer is there; a reset is an end too."""
    received = b""
    try:
        while piece := connection.recv(65_536):
            received += piece
            if received.endswith(b"}"):
                break
    except ConnectionResetError:
        pass
    return received


def closes(connection: socket.socket, seconds: float = 5.0) -> bool:
    """Whether the server closes the connection within that time."""
    connection.settimeout(seconds)
    try:
        while connection.recv(65_536):
            pass
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True
    return True


FORMS: list[tuple[str, bytes, str, list[str]]] = [
    ("object", json.dumps(event("a"), indent=2).encode(), "application/json", ["a"]),
    ("array", json.dumps([event("a"), event("b")]).encode(), "application/json; charset=utf-8", ["a", "b"]),
    ("lines", lines(event("a"), event("b")), "application/x-ndjson", ["a", "b"]),
    ("lines-as-json", lines(event("a"), event("b")), "application/json", ["a", "b"]),
    ("blank-lines", b"\n\r\n" + lines(event("a")) + b"  \n", "application/x-ndjson", ["a"]),
    ("no-last-line-end", lines(event("a"), event("b"))[:-1], "application/jsonl", ["a", "b"]),
    ("lone-carriage-return", lines(event("a")).replace(b", ", b",\r"), "application/x-ndjson", ["a"]),
    ("empty-array", b"[]", "application/json", []),
    ("bom", b"\xef\xbb\xbf" + json.dumps(event("a")).encode(), "application/json", ["a"]),
]


@pytest.mark.parametrize(("body", "kind", "ids"), [form[1:] for form in FORMS], ids=[form[0] for form in FORMS])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_every_form_is_taken(house: House, body: bytes, kind: str, ids: list[str], packed: bool) -> None:
    """One object, an array and lines, plain and packed, are answered 202 with the number that is stored."""
    headers = {"content-encoding": "gzip"} if packed else {}
    answer = house.post(gzip.compress(body) if packed else body, kind, **headers)
    assert (answer.status_code, answer.json()) == (202, {"accepted": len(ids)})
    assert house.sink.ids == ids
    assert {each.namespace for each in house.sink.events} <= {"shop"}


def test_bad_events_cost_only_themselves(receiving: Open) -> None:
    """The answer names index and reason of each bad one; its neighbours are stored before the answer."""
    house = receiving()
    sent = [event("a"), event("b", end=T - 1.0, prompt="secret"), event("c"), event("", team="eve"), 7]
    for _ in range(2):
        answer = house.post(sent)
        told = answer.json()
        assert (answer.status_code, told["accepted"], told["rejected_count"]) == (400, 2, 3)
        assert [(each["index"], each["reason"]) for each in told["rejected"]] == [
            (1, "end_before_start"),
            (3, "missing_request_id"),
            (4, "not_object"),
        ]
        assert "secret" not in answer.text
    assert house.sink.ids == ["a", "c"] * 2
    assert len({(bad.source, bad.position) for bad in house.sink.rejected}) == 3  # retried, and still three


def test_a_check_of_the_house_is_told_too(receiving: Open) -> None:
    """What the decoder accepts and the house cannot use is named by index as well."""

    def check(one: RequestEvent) -> None:
        if one.host == "nowhere":
            raise Rejected("unplaced", "no such host")

    house = receiving(check=check)
    told = house.post([event("a"), event("b", host="nowhere")]).json()
    assert told == {
        "accepted": 1,
        "rejected_count": 1,
        "rejected": [{"index": 1, "reason": "unplaced", "detail": "no such host"}],
    }


BODIES: list[tuple[str, bytes, str]] = [
    ("empty", b"", "empty"),
    ("white-space", b" \n\t", "empty"),
    ("cut-array", b'[{"request_id":"a"', "truncated"),
    ("comma", b"[,]", "not_json"),
    ("deep-array", b"[" * 100_000, "too_deep"),
    ("array-of-no-text", b'["\xff"]', "not_utf8"),
]


@pytest.mark.parametrize(("body", "reason"), [each[1:] for each in BODIES], ids=[each[0] for each in BODIES])
def test_a_body_that_is_none_is_one_rejection(house: House, body: bytes, reason: str) -> None:
    """Where no events can be told apart the whole body is the bad input, with no index."""
    answer = house.post(body)
    assert answer.status_code == 400
    assert [(each["index"], each["reason"]) for each in answer.json()["rejected"]] == [(None, reason)]
    assert [bad.reason for bad in house.sink.rejected] == [reason]


def test_wrong_use_of_the_address_is_told(receiving: Open) -> None:
    """405 with Allow, 404, 415 for a form or a strange packing: JSON each, and nothing reaches the sink."""
    house = receiving()
    got = house.client.get("/v1/events")
    assert (got.status_code, got.headers["allow"], got.json()["error"]) == (405, "POST", "method_not_allowed")
    assert house.client.post("/v2/events").status_code == 404
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert house.post(event("a"), kind).json()["error"] == "media_type"
    assert house.post(event("a"), **{"content-encoding": "br"}).status_code == 415
    assert house.post(event("a"), **{"content-encoding": "gzip"}).json()["error"] == "bad_gzip"
    cut = gzip.compress(lines(event("a")))[:-9]
    assert house.post(cut, **{"content-encoding": "gzip"}).json()["error"] == "bad_gzip"
    assert house.sink.events == house.sink.rejected == []
    assert house.receiver.refused == {"media_type": 3, "content_encoding": 1, "bad_gzip": 2}


def test_too_much_at_once_is_413(receiving: Open) -> None:
    """A body beyond its limit, declared or chunked, and more events than a post may have; just as many is fine."""
    house = receiving(limits=Limits(body_bytes=10_000, events=5, event_bytes=1_000))
    assert house.post(b" " * 10_001).status_code == 413
    chunked = house.client.post(
        "/v1/events", content=iter([b" " * 6_000] * 2), headers={"content-type": "application/json"}
    )
    assert (chunked.status_code, chunked.json()["error"]) == (413, "body_too_large")
    assert house.post([event("a")] * 5).status_code == 202
    for body, kind in [
        ([event("a")] * 6, "application/json"),
        ([1] * 400, "application/json"),
        (lines(*[event("a")] * 6), "application/x-ndjson"),
        (b"\n" * 21 + lines(event("a")), "application/x-ndjson"),
    ]:
        assert house.post(body, kind).json()["error"] == "too_many_events"
    assert house.post(event("a", prompt="x" * 1_000)).json()["rejected"][0]["reason"] == "too_large"


def test_a_sink_in_trouble_is_told_to_the_sender(receiving: Open) -> None:
    """429 where it is full, 503 where it is not there, both with Retry-After; afterwards the same post is taken."""
    house = receiving()
    house.sink.trouble = SinkFull("full")
    full = house.post(event("a"))
    house.sink.trouble = RetryLater("no disk")
    gone = house.post(event("a"))
    house.sink.trouble = None
    assert (full.status_code, full.headers["retry-after"], full.json()["accepted"]) == (429, "1", 0)
    assert (gone.status_code, gone.headers["retry-after"], gone.json()["detail"]) == (503, "5", "no disk")
    assert house.post(event("a")).status_code == 202
    assert house.sink.ids == ["a"]


def test_nobody_is_answered_before_it_is_stored(receiving: Open) -> None:
    """While the sink is held up no 202 goes out and those beyond the queue get 429; then all that waited are stored."""
    house = receiving(limits=Limits(waiting=3))
    house.sink.gate.clear()
    body = json.dumps(event("a")).encode()
    waiting = [house.connect(head(len(body)) + body) for _ in range(3)]
    deadline = time.monotonic() + 5.0
    while house.receiver._waiting < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert house.post(event("b")).status_code == 429
    assert house.sink.events == []
    waiting[0].settimeout(0.0)
    with pytest.raises(BlockingIOError):
        waiting[0].recv(1)
    waiting[0].settimeout(10.0)
    house.sink.gate.set()
    assert [answer_of(each)[9:12] for each in waiting] == [b"202"] * 3
    assert house.sink.ids == ["a"] * 3
    for each in waiting:
        each.close()


def test_a_decompression_bomb_is_refused_for_the_price_of_the_limit(receiving: Open) -> None:
    """A body within the limit that would become 200 times the limit: 413; no more than 1 000 gzip members in a row."""
    house = receiving(limits=Limits(body_bytes=2**20))
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    block = bytes(2**20)
    bomb = b"".join(packer.compress(block) for _ in range(200))
    assert len(bomb) < 2**20
    answer = house.post(bomb, **{"content-encoding": "gzip"})
    assert (answer.status_code, answer.json()["error"]) == (413, "body_too_large")
    members = gzip.compress(b" ") * 2_000
    assert house.post(members, **{"content-encoding": "gzip"}).json()["error"] == "bad_gzip"
    two = gzip.compress(lines(event("a"))) + gzip.compress(lines(event("b")))
    assert house.post(two, "application/x-ndjson", **{"content-encoding": "gzip"}).json() == {"accepted": 2}


def test_slow_and_endless_bodies_end(receiving: Open) -> None:
    """A body that trickles gets 408; one without end 413; a head that never ends is closed; others are served."""
    house = receiving(limits=Limits(body_seconds=0.4, body_bytes=100_000), head_seconds=0.4, body_seconds=1.0)
    slow = house.connect(head(1_000) + b'{"request_id":')
    headless = house.connect(b"POST /v1/events HTTP/1.1\r\nhost: x\r\n")
    silent = house.connect()
    endless = house.connect(head(None, "transfer-encoding: chunked"))
    for _ in range(30):
        endless.sendall(b"1000\r\n" + b" " * 4_096 + b"\r\n")
    assert answer_of(endless)[9:12] == b"413"
    assert house.post(event("a")).status_code == 202
    headless.sendall(b"x: y\r\n")
    assert answer_of(slow)[9:12] == b"408"
    assert closes(headless)
    assert closes(silent)
    assert closes(slow)
    for each in (slow, headless, silent, endless):
        each.close()
    assert house.sink.ids == ["a"]


def test_wrong_lengths_and_vanishing_clients_leave_nothing(receiving: Open) -> None:
    """A client that goes mid-body stores nothing; what stands behind a too short body is no request."""
    house = receiving(limits=Limits(body_seconds=0.3))
    body = json.dumps(event("a")).encode()
    house.connect(head(len(body)) + body[:20]).close()
    longer = house.connect(head(len(body) + 10) + body)
    assert answer_of(longer)[9:12] == b"408"
    shorter = house.connect(head(len(body) - 5) + body)
    assert b" 400 " in answer_of(shorter)
    for text in ("-1", "1e3", "99999999999999999999999"):
        odd = house.connect(head(None, f"content-length: {text}") + body)
        assert answer_of(odd)[9:10] == b"4"
        odd.close()
    both = house.connect(head(len(body), "transfer-encoding: chunked") + body)
    assert b"202" not in answer_of(both)[:20]
    for each in (longer, shorter, both):
        each.close()
    assert house.sink.events == []
    assert house.post(event("b")).status_code == 202


@pytest.mark.parametrize(
    "sent", [b"", b"POST /v1/events HTTP/1.1\r\n", head(1_000) + b"{"], ids=["silent", "half-a-head", "half-a-body"]
)
def test_a_thousand_connections_keep_nobody_out(receiving: Open, sent: bytes) -> None:
    """Whatever they are stuck in, honest clients are served meanwhile, and the server stops in time."""
    house = receiving(most_connections=128)
    crowd = [house.connect(sent) for _ in range(1_000)]
    try:
        for number in range(20):
            with httpx2.Client(trust_env=False, timeout=10.0) as client:
                answer = client.post(f"http://127.0.0.1:{house.server.port}/v1/events", json=event(f"honest-{number}"))
            assert answer.status_code == 202
        assert len(house.sink.ids) == 20
        begun = time.monotonic()
        house.server.stop(1.0)
        assert time.monotonic() - begun < 5.0
    finally:
        for each in crowd:
            each.close()


def test_bodies_that_crowd_the_room_go_first(receiving: Open) -> None:
    """Unfinished bodies together hold no more than their room: the oldest is out, a new one is served."""
    house = receiving(limits=Limits(unfinished_bytes=300_000, body_seconds=20.0))
    crowd = [house.connect(head(200_000) + b" " * 90_000) for _ in range(4)]
    assert answer_of(crowd[0])[9:12] == b"408"
    assert house.post(event("a")).status_code == 202
    for each in crowd:
        each.close()


def test_a_taken_address_is_named(receiving: Open) -> None:
    """Broken says which address, why, and what to do; so does an address that is none."""
    house = receiving()
    second = HttpServer(house.receiver.app, f"127.0.0.1:{house.server.port}", name="source x")
    with pytest.raises(Broken, match=rf"source x: cannot listen on 127\.0\.0\.1:{house.server.port}: .*in use.*free"):
        second.start()
    with pytest.raises(Broken, match="cannot listen on no-such-host"):
        HttpServer(house.receiver.app, "no-such-host.invalid:80", name="x").start()
    second.stop()


def test_answers_do_not_wait_for_acknowledgements(receiving: Open) -> None:
    """Head and body of an answer are two packets: with Nagle's algorithm each would take 40 ms more."""
    house = receiving()
    house.post(event("warm"))
    taken = []
    for number in range(20):
        begun = time.monotonic()
        house.post(event(f"r{number}"))
        taken.append(time.monotonic() - begun)
    assert min(taken) < 0.03


def test_stopping_waits_for_what_is_being_stored(receiving: Open) -> None:
    """A post that came whole is answered; an idle and a half-sent connection are closed; a second stop does nothing."""
    house = receiving()
    body = json.dumps(event("a")).encode()
    house.sink.gate.clear()
    idle, half, whole = house.connect(), house.connect(head(50) + b"{"), house.connect(head(len(body)) + body)
    deadline = time.monotonic() + 5.0
    while house.receiver._waiting < 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    threading.Timer(0.2, house.sink.gate.set).start()
    house.server.stop(2.0)
    house.server.stop()
    assert answer_of(whole)[9:12] == b"202"
    assert closes(idle)
    assert closes(half)
    for each in (idle, half, whole):
        each.close()


def test_another_address_is_refused_and_never_a_redirect(house: House) -> None:
    """A sender that does not follow redirects would take it for done."""
    assert house.client.post("/v1/events/", json={}).status_code == 404
