"""The native decoder: an event, or Rejected with a reason; never another exception, never a word of the content."""

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.errors import Rejected
from collectors.requests.decoders.native import check_not_future, decode_arrived_event, decode_event
from collectors.requests.event import RequestEvent, Work

START, END = 1_712_043_381.25, 1_712_043_390.5
REQUIRED: dict[str, Any] = {"request_id": "r-1", "model": "llama2-13b", "start": START, "end": END}


def event_with(**fields: Any) -> RequestEvent:
    return decode_event(json.dumps(REQUIRED | fields).encode())


def reason_of(raw: bytes) -> str:
    with pytest.raises(Rejected) as rejection:
        decode_event(raw)
    assert rejection.value.detail
    return rejection.value.reason


def reason_with(**fields: Any) -> str:
    return reason_of(json.dumps(REQUIRED | fields).encode())


def test_required_fields_alone_make_an_event_with_the_documented_defaults() -> None:
    """What is absent takes the defaults of RequestEvent."""
    assert event_with() == RequestEvent(request_id="r-1", model="llama2-13b", start=START, end=END)


def test_every_field_arrives() -> None:
    """A full event loses nothing but the labels that are not allowed."""
    raw = json.dumps(
        REQUIRED
        | {
            "schema": "wattribute.request.v1",
            "namespace": "gateway-a",
            "attempt": 2,
            "source": "litellm",
            "team": "search",
            "host": "gpu-07",
            "devices": ["GPU-0", "GPU-1"],
            "deployment": "prod",
            "provider": "own",
            "scheduled": START + 1,
            "first_token": START + 2,
            "input_tokens": 312,
            "cached_input_tokens": 256,
            "output_tokens": 190,
            "work": {"unit": "image", "amount": 4},
            "labels": {"use_case": "rag", "user": "somebody"},
            "conversation_id": "c-1",
            "trace_id": "t-1",
            "status": "cancelled",
            "prompt": "never kept",
        }
    ).encode()
    assert decode_event(raw, allowed_labels={"use_case"}) == RequestEvent(
        namespace="gateway-a",
        request_id="r-1",
        attempt=2,
        source="litellm",
        model="llama2-13b",
        team="search",
        host="gpu-07",
        devices=("GPU-0", "GPU-1"),
        deployment="prod",
        provider="own",
        start=START,
        scheduled=START + 1,
        first_token=START + 2,
        end=END,
        input_tokens=312,
        cached_input_tokens=256,
        output_tokens=190,
        work=Work(unit="image", amount=4.0),
        labels={"use_case": "rag"},
        conversation_id="c-1",
        trace_id="t-1",
        status="cancelled",
    )


def test_null_is_absent() -> None:
    """Emitters that write null for what they do not know are understood."""
    optional = set(RequestEvent.__struct_fields__) - set(REQUIRED)
    assert event_with(**dict.fromkeys(optional)) == event_with()


def test_the_source_sets_namespace_and_name_where_the_event_does_not() -> None:
    """Namespace and source of the caller hold for events that name none."""
    raw = json.dumps(REQUIRED).encode()
    event = decode_event(raw, namespace="kong", source="topic-a")
    assert (event.namespace, event.source) == ("kong", "topic-a")
    named = json.dumps(REQUIRED | {"namespace": "own", "source": "s"}).encode()
    event = decode_event(named, namespace="kong", source="topic-a")
    assert (event.namespace, event.source) == ("own", "s")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-04-02T07:36:21Z", 1_712_043_381.0),
        ("2024-04-02T07:36:21.25z", 1_712_043_381.25),
        ("2024-04-02 07:36:21.25+00:00", 1_712_043_381.25),
        ("2024-04-02T02:36:21.246-05:00", 1_712_043_381.246),
        ("2024-04-02T07:36:21.1234567Z", 1_712_043_381.1234567),
        ("2016-12-31T23:59:60Z", 1_483_228_800.0),
    ],
)
def test_rfc3339_with_a_zone_is_the_same_float_as_the_number(text: str, moment: float) -> None:
    """Text and number of one moment do not differ in the last bit; a leap second is the second after it."""
    assert event_with(start=text, end=END if moment > 1.7e9 else moment).start == moment


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"start": "2024-04-02T07:36:21"}, "bad_time"),
        ({"start": "yesterday"}, "bad_time"),
        ({"start": "2024-02-30T07:36:21Z"}, "bad_time"),
        ({"start": "2024-04-02T25:36:21Z"}, "bad_time"),
        ({"start": "2024-04-02T07:36:21+99:00"}, "bad_time"),
        ({"start": str(START)}, "bad_time"),
        ({"start": ""}, "bad_time"),
        ({"start": True}, "bad_time"),
        ({"start": [START]}, "bad_time"),
        ({"start": None}, "missing_time"),
        ({"start": 0}, "time_out_of_range"),
        ({"start": -START}, "time_out_of_range"),
        ({"end": 1e308}, "time_out_of_range"),
        ({"end": 2**63}, "time_out_of_range"),
        ({"end": "2262-04-11T23:47:16Z"}, "time_out_of_range"),
        ({"end": "0001-01-01T00:00:00+14:00"}, "time_out_of_range"),
        ({"start": "1992-04-02T07:36:21Z"}, "time_out_of_range"),
        ({"start": START * 1e3, "end": END * 1e3}, "wrong_time_unit"),
        ({"start": START * 1e6, "end": END * 1e6}, "wrong_time_unit"),
        ({"start": int(START) * 10**9, "end": int(END) * 10**9}, "wrong_time_unit"),
        ({"first_token": START * 1e3}, "wrong_time_unit"),
        ({"end": START - 0.5}, "end_before_start"),
        ({"input_tokens": -1}, "tokens_negative"),
        ({"output_tokens": 1.5}, "tokens_fractional"),
        ({"output_tokens": "190"}, "tokens_not_a_number"),
        ({"output_tokens": True}, "tokens_not_a_number"),
        ({"output_tokens": {}}, "tokens_not_a_number"),
        ({"output_tokens": 100_000_001}, "tokens_absurd"),
        ({"output_tokens": 2**63 + 1}, "tokens_absurd"),
        ({"output_tokens": 1e308}, "tokens_absurd"),
        ({"input_tokens": 5, "cached_input_tokens": 6}, "cached_exceeds_input"),
        ({"request_id": ""}, "missing_request_id"),
        ({"request_id": None}, "missing_request_id"),
        ({"request_id": 7}, "wrong_type"),
        ({"model": ""}, "missing_model"),
        ({"model": "m" * 257}, "text_too_long"),
        ({"request_id": "é" * 129}, "text_too_long"),
        ({"team": "t" * 65_536}, "text_too_long"),
        ({"team": "a\nb"}, "control_character"),
        ({"team": "a\x7fb"}, "control_character"),
        ({"model": "a\x85b"}, "control_character"),
        ({"team": 5}, "wrong_type"),
        ({"labels": {"use_case": 5}}, "bad_labels"),
        ({"labels": ["use_case"]}, "bad_labels"),
        ({"labels": {"a\tb": "c"}}, "control_character"),
        ({"labels": {str(number): "" for number in range(65)}}, "bad_labels"),
        ({"devices": "GPU-0"}, "bad_devices"),
        ({"devices": [0]}, "bad_devices"),
        ({"devices": [""]}, "bad_devices"),
        ({"devices": ["GPU-0", "GPU-0"]}, "bad_devices"),
        ({"work": {"unit": "image"}}, "bad_work"),
        ({"work": {"unit": "", "amount": 1}}, "bad_work"),
        ({"work": {"unit": "image", "amount": -1}}, "bad_work"),
        ({"work": "4 images"}, "bad_work"),
        ({"attempt": -1}, "attempt_negative"),
        ({"attempt": 0.5}, "attempt_fractional"),
        ({"attempt": 2**63}, "attempt_absurd"),
        ({"attempt": "first"}, "wrong_type"),
        ({"schema": "wattribute.request.v2"}, "schema_version"),
        ({"schema": "wattribute.request.v2", "start": {"new": "form"}}, "schema_version"),
        ({"schema": "dynamo.request.trace.v1"}, "schema_version"),
        ({"schema": 1}, "schema_version"),
    ],
)
def test_bad_field_has_its_own_reason(fields: dict[str, Any], reason: str) -> None:
    """Each bad value is named by one short reason."""
    assert reason_with(**fields) == reason


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "empty"),
        (b" \r\n", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b'{"request_id": "\xff"}', "not_utf8"),
        (b'{"request_id":"r","model":"m","start":1712043381,"end":1712043382,"x":"\xff"}', "not_utf8"),
        ('{"request_id": "r"}'.encode("utf-16"), "not_utf8"),
        (b"hello", "not_json"),
        (b'{"request_id": "r"} {}', "not_json"),
        (b'{"request_id": "r", "mod', "truncated"),
        (b'{"request_id": "r"', "truncated"),
        (b"[1, 2]", "not_object"),
        (b"null", "not_object"),
        (b'{"start": NaN}', "not_finite"),
        (b'{"start": -Infinity}', "not_finite"),
        (b'{"start": 1e999}', "number_out_of_range"),
        (b'{"start": ' + b"9" * 5_000 + b"}", "number_out_of_range"),
        (b'{"x": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "too_deep"),
        (b'{"x":' * 65 + b"1" + b"}" * 65, "too_deep"),
        (b'{"x": "' + b"a" * (1 << 20) + b'"}', "too_large"),
    ],
)
def test_bad_bytes_have_their_own_reason(raw: bytes, reason: str) -> None:
    """What is no JSON object is named as what it is."""
    assert reason_of(raw) == reason


def test_brackets_in_a_string_are_not_depth() -> None:
    """A prompt full of brackets and quotes does not cost its event."""
    assert event_with(prompt='[{"' * 1_000, other="NaN") == event_with()


def test_good_oddities_are_kept() -> None:
    """A BOM, a repeated key (the last counts), 12.0 tokens, a zero-length request and any printable name are legal."""
    raw = b'\xef\xbb\xbf{"request_id":"a","request_id":"b","model":"m","start":1712043381,"end":1712043381}\r\n'
    assert decode_event(raw) == RequestEvent(request_id="b", model="m", start=1_712_043_381.0, end=1_712_043_381.0)
    tokens = event_with(output_tokens=12.0).output_tokens
    assert (tokens, type(tokens)) == (12, int)
    for name in ("a,b c=d", 'say "hi"', "back\\", "../x", "<script>", "\u202eabc", "模型", "м", "é" * 128):
        assert event_with(model=name, team=name).team == name


def test_no_devices_is_not_unknown_devices() -> None:
    """An empty list says that the request ran on no device (a cache answered it); absent says nothing."""
    assert event_with(devices=[]).devices == ()
    assert event_with().devices is None


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"first_token": END + 0.001}, (None, None)),
        ({"first_token": START - 0.001}, (None, None)),
        ({"scheduled": START - 1, "first_token": START + 1}, (None, START + 1)),
        ({"scheduled": START + 2, "first_token": START + 1}, (START + 2, None)),
        ({"scheduled": START, "first_token": END}, (START, END)),
    ],
)
def test_timing_detail_that_contradicts_start_and_end_becomes_unknown(
    fields: dict[str, float], kept: tuple[float | None, float | None]
) -> None:
    """A request is not lost for the small difference between two clocks."""
    event = event_with(**fields)
    assert (event.scheduled, event.first_token) == kept


def test_future_is_judged_against_the_time_at_which_the_event_came() -> None:
    """Two hours ahead of its log time is the limit."""
    event = event_with()
    check_not_future(event, END - 7_200.0)
    with pytest.raises(Rejected, match="future"):
        check_not_future(event, END - 7_200.5)


def test_arrived_is_the_end_unless_told() -> None:
    """A recording's line may say when the event came."""
    assert decode_arrived_event(json.dumps(REQUIRED).encode())[1] == END
    assert decode_arrived_event(json.dumps(REQUIRED | {"arrived": END + 60}).encode())[1] == END + 60


TEXTS = st.text('aZ09 é模📈\u202e\u2028,=\\"[]{}:\n\x00\x7f\x85', max_size=8)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from([*RequestEvent.__struct_fields__, "schema", "arrived", "prompt"])


def decodes_or_rejects(raw: bytes) -> None:
    verdict = None
    try:
        event = decode_event(raw)
    except Rejected as rejection:
        verdict = rejection
    if verdict is None:
        assert event.start <= event.end < math.inf
        assert msgspec.json.decode(msgspec.json.encode(event), type=RequestEvent) == event
    else:
        assert verdict.reason.replace("_", "").isalnum()
        assert "s3cret" not in str(verdict)


@given(raw=st.binary())
def test_any_bytes_are_an_event_or_rejected(raw: bytes) -> None:
    """No bytes raise anything but Rejected."""
    decodes_or_rejects(raw)


@given(fields=st.dictionaries(FIELDS, JSON_VALUES, max_size=5), cut=st.integers(0, 3))
def test_any_json_is_an_event_or_rejected(fields: dict[str, Any], cut: int) -> None:
    """Any values under the known keys, whole or cut off, decode or are rejected."""
    raw = json.dumps(REQUIRED | fields).encode()
    decodes_or_rejects(raw[: len(raw) - cut])


@given(field=FIELDS, ascii_only=st.booleans())
def test_rejections_do_not_echo_content(field: str, ascii_only: bool) -> None:
    """No detail quotes a value."""
    for value in ("s3cret", ["s3cret"], {"s3cret": "s3cret"}, "s3cret\n", "s3cret" * 100):
        decodes_or_rejects(json.dumps(REQUIRED | {field: value}, ensure_ascii=ascii_only).encode())


@given(moment=st.floats(min_value=946_684_800.0, max_value=4_102_444_799.0))
def test_a_time_goes_through_unchanged(moment: float) -> None:
    """Every float64 moment from 2000 to 2100 survives encoding and decoding bit for bit."""
    raw = msgspec.json.encode({"request_id": "r", "model": "m", "start": moment, "end": moment})
    assert decode_event(raw).start == moment
