"""The fast path gives the very events of decode_event, and refuses what that refuses, for the same reason."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.errors import Rejected
from collectors.requests.decoders import native_fast
from collectors.requests.decoders.native import decode_event
from collectors.requests.decoders.native_fast import NativeDecoder
from collectors.requests.decoders.registry import events_in
from collectors.requests.event import RequestEvent

LABELS = ("env", "app")
DECODER = NativeDecoder(namespace="gw", source="gateway", allowed_labels=LABELS)
GOOD = {"request_id": "r", "model": "m", "start": 1_780_000_000.5, "end": 1_780_000_001}

texts = st.one_of(st.none(), st.just(""), st.text(max_size=6), st.just("x" * 300), st.just("a\\b"), st.just("\x7f"))
moments = st.one_of(
    st.none(), st.floats(1_779_999_999, 1_780_000_002), st.sampled_from([0, 1e12, "2026-05-28T20:26:41Z", "x", True])
)
counts = st.one_of(st.none(), st.integers(-2, 10**9), st.floats(0, 20), st.sampled_from([1.0, 1e30, "7", True]))
fields = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("request_id", "model", "namespace", "team", "host", "deployment", "source", "status"), texts),
        **dict.fromkeys(("provider", "conversation_id", "trace_id", "schema"), texts),
        **dict.fromkeys(("start", "end", "scheduled", "first_token", "arrived"), moments),
        **dict.fromkeys(("input_tokens", "cached_input_tokens", "output_tokens", "attempt"), counts),
        "devices": st.one_of(st.none(), st.lists(st.sampled_from(["", "GPU-1", "GPU-2"]), max_size=10)),
        "labels": st.one_of(st.none(), st.dictionaries(st.sampled_from(["env", "app", "user"]), texts, max_size=3)),
        "work": st.one_of(st.none(), st.just({"unit": "image", "amount": 4}), st.just({"unit": 1})),
        "parts": st.sampled_from([None, [], [{"host": "a"}], [{"phase": "prefill", "host": "b"}], [5], {}]),
        "messages": st.just([{"role": "user"}]),
    },
)


def verdict(decode: object, raw: bytes) -> object:
    """The event as plain values, or why there is none."""
    try:
        event = decode(raw)  # type: ignore[operator]
    except Rejected as rejected:
        return rejected.reason, rejected.detail
    return {name: getattr(event, name) for name in RequestEvent.__struct_fields__}


def slow(raw: bytes) -> RequestEvent:
    """The path that alone decides."""
    return decode_event(raw, namespace="gw", source="gateway", allowed_labels=LABELS)


@given(fields)
def test_same_events_and_same_verdicts(more: dict[str, object]) -> None:
    """Whatever stands in an event, both paths see the same."""
    raw = msgspec.json.encode(GOOD | more)
    assert verdict(DECODER.decode, raw) == verdict(slow, raw)


@given(st.lists(st.one_of(st.just({}), fields), max_size=6), st.lists(st.none() | st.binary(max_size=4), max_size=2))
def test_many_at_once_are_those_one_by_one(more: list[dict[str, object]], odd: list[bytes | None]) -> None:
    """Each event is at its place; where there is none, decode_event alone tells."""
    raws = [*(msgspec.json.encode(GOOD | each) for each in more), *odd]
    found = DECODER.events(raws)
    for raw, event in zip(raws, found, strict=True):
        if event is not None:
            assert verdict(lambda _raw, event=event: event, b"") == verdict(slow, raw or b"")
    assert found == [None if raw is None else DECODER.events([raw])[0] for raw in raws]


@pytest.mark.parametrize("control", ["\x07", "\x7f"], ids=["as an escape", "as it is"])
def test_a_control_character_takes_nobody_along(control: str) -> None:
    """It is in one event alone, which is refused for it."""
    good, bad = msgspec.json.encode(GOOD), msgspec.json.encode(GOOD | {"team": f"a{control}"})
    assert [event is None for event in DECODER.events([good, bad, good])] == [False, True, False]
    assert verdict(DECODER.decode, bad) == ("control_character", "team holds a control character")


def test_what_is_longer_than_may_be_is_not_read() -> None:
    """To the byte, whoever stands beside it."""
    raw = msgspec.json.encode(GOOD)
    longer = raw + b" "
    found = DECODER.events([raw, longer, raw], len(raw))
    assert [event is None for event in found] == [False, True, False]


@pytest.mark.parametrize("more", [{}, {"x": [1]}], ids=["known", "unknown"])
def test_the_common_form_takes_the_fast_path(more: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """An event as gateways send it is not decoded a second time, also where it has fields that nobody knows."""
    monkeypatch.setattr(native_fast, "decode_event", None)
    common = GOOD | {"schema": "wattribute.request.v1", "team": "t", "labels": {"env": "prod", "user": "u"}} | more
    event = DECODER.decode(msgspec.json.encode(common))
    assert event.labels == {"env": "prod"}
    assert (event.namespace, event.source) == ("gw", "gateway")


@pytest.mark.parametrize(
    ("message", "events"),
    [
        (b'{"a":1}', [b'{"a":1}']),
        (b'[{"a":1}, {"b":[2]}]', [b'{"a":1}', b'{"b":[2]}']),
        (b'[{"a":1}, {"b":', [b'[{"a":1}, {"b":']),
        (b"[]", []),
        (b'{"a":1}\n\n{"b":2}\r\n', [b'{"a":1}', b'{"b":2}']),
        (b'{"a":1}\n', [b'{"a":1}\n']),
        (b'{bad\n{"a":1}\n{"b":2}', [b"{bad", b'{"a":1}', b'{"b":2}']),
        (b'{"a":1}\n{bad', [b'{"a":1}', b"{bad"]),
        (b'{"a":\n{"b":2}\n}', [b'{"a":\n{"b":2}\n}']),
        (b'{\n "a": {}\n}', [b'{\n "a": {}\n}']),
        (b"", [b""]),
    ],
)
def test_events_of_a_message(message: bytes, events: list[bytes]) -> None:
    """An array and lines are taken apart; everything else stays whole."""
    assert list(events_in(message)) == events
