"""The JSON Schema, the decoder and the page say the same about what an event is."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from collectors.errors import Rejected
from collectors.requests.decoders.native import decode_event
from collectors.requests.event import RequestEvent

DOCS = Path(__file__).parents[2] / "docs"
SCHEMA: dict[str, Any] = json.loads((DOCS / "schemas" / "wattribute.request.v1.json").read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)
REQUIRED: dict[str, Any] = {"request_id": "r-1", "model": "m", "start": 1_712_043_381.25, "end": 1_712_043_390.5}

GOOD: list[dict[str, Any]] = [
    {},
    {"schema": "wattribute.request.v1"},
    {"start": "2024-04-02T07:36:21.246Z", "end": "2024-04-02t09:36:22+02:00"},
    {"start": 1_712_043_381, "end": 1_712_043_381},
    {"prompt": "kept by nobody", "usage": {"nested": [1, 2]}},
    {"team": None, "devices": None, "labels": None, "work": None, "attempt": None, "schema": None, "first_token": None},
    {"team": "", "host": "", "namespace": ""},
    {"team": 'a,b c="d"\\', "model": "模型\u202e"},
    {"devices": [], "labels": {}, "attempt": 3},
    {"devices": ["GPU-0", "GPU-1"], "labels": {"a b": "c=d"}},
    {"input_tokens": 5, "cached_input_tokens": 5, "output_tokens": 0},
    {"input_tokens": 100_000_000, "output_tokens": 12.0},
    {"work": {"unit": "image", "amount": 4, "size": "1024"}},
    {"parts": []},
    {"parts": [{"phase": "prefill", "host": "a", "end": 1_712_043_383}, {"phase": "decode", "devices": [], "more": 1}]},
    {"parts": [{"deployment": "pool", "phase": None, "start": "2024-04-02T07:36:22Z"}]},
    {"scheduled": 1_712_043_381.5, "first_token": "2024-04-02T07:36:22Z", "arrived": 1_712_043_400},
]
BAD: list[dict[str, Any]] = [
    *({key: None} for key in REQUIRED),
    {"request_id": ""},
    {"model": ""},
    {"request_id": 5},
    {"model": "m" * 257},
    {"team": "a\n"},
    {"team": "a\x7f"},
    {"team": "\x85"},
    {"host": 5},
    {"status": ["ok"]},
    {"schema": "wattribute.request.v2"},
    {"schema": "other"},
    {"schema": 1},
    {"start": "2024-04-02T07:36:21"},
    {"start": "1712043381.25"},
    {"start": "1992-04-02T07:36:21Z"},
    {"end": "2262-04-11T23:47:16Z"},
    {"start": 0},
    {"end": 1_712_043_390_500},
    {"end": 1e308},
    {"start": True},
    {"first_token": "soon"},
    {"scheduled": 5},
    {"arrived": 5},
    {"parts": {"host": "a"}},
    {"parts": ["a"]},
    {"parts": [{"phase": "verify"}]},
    {"parts": [{"host": "h" * 257}]},
    {"parts": [{"host": "a", "devices": ["GPU-0", "GPU-0"]}]},
    {"parts": [{"start": 5}]},
    {"parts": [{"host": "a"}] * 65},
    {"input_tokens": -1},
    {"input_tokens": 1.5},
    {"output_tokens": "5"},
    {"output_tokens": False},
    {"cached_input_tokens": 100_000_001},
    {"attempt": -1},
    {"attempt": 2**31},
    {"attempt": 0.5},
    {"devices": "GPU-0"},
    {"devices": [""]},
    {"devices": ["a", "a"]},
    {"devices": [str(number) for number in range(1025)]},
    {"labels": {"a": 1}},
    {"labels": {"a": "\x00"}},
    {"labels": {"\t": "a"}},
    {"labels": {"a": "b" * 257}},
    {"labels": {str(number): "" for number in range(65)}},
    {"labels": []},
    {"work": {"unit": "image"}},
    {"work": {"unit": "", "amount": 1}},
    {"work": {"unit": "image", "amount": -1}},
    {"work": {"unit": "image", "amount": "4"}},
    {"work": 4},
]
ONLY_THE_DECODER_KNOWS: list[dict[str, Any]] = [
    {"end": REQUIRED["start"] - 1},
    {"input_tokens": 1, "cached_input_tokens": 2},
    {"start": "2024-02-30T07:36:21Z"},
    {"team": "é" * 129},
    {"parts": [{"host": "a", "start": 1_712_043_384, "end": 1_712_043_383}]},
    {"parts": [{"phase": "prefill", "host": "a"}]},
]


def is_decoded(event: object) -> bool:
    try:
        decode_event(json.dumps(event).encode())
    except Rejected:
        return False
    return True


def test_the_schema_is_one() -> None:
    """It is valid draft 2020-12, and so are its own examples."""
    Draft202012Validator.check_schema(SCHEMA)
    for example in SCHEMA["examples"]:
        VALIDATOR.validate(example)
        assert is_decoded(example)


def test_the_schema_describes_every_field_of_the_event() -> None:
    """Each field of RequestEvent is there with a description, and nothing else but schema and arrived."""
    assert set(SCHEMA["properties"]) == {*RequestEvent.__struct_fields__, "schema", "arrived"}
    assert all(field["description"] for field in SCHEMA["properties"].values())


@pytest.mark.parametrize("fields", GOOD)
def test_good_events_are_good_to_both(fields: dict[str, Any]) -> None:
    """What the schema allows is decoded."""
    event = REQUIRED | fields
    assert VALIDATOR.is_valid(event)
    assert is_decoded(event)


@pytest.mark.parametrize("fields", BAD)
def test_bad_events_are_bad_to_both(fields: dict[str, Any]) -> None:
    """What the schema forbids is rejected."""
    event = REQUIRED | fields
    assert not VALIDATOR.is_valid(event)
    assert not is_decoded(event)


@pytest.mark.parametrize("event", [[], 5, "text", None, {}, {"request_id": "r"}])
def test_no_event_at_all_is_bad_to_both(event: object) -> None:
    """Neither takes anything but an object with the required fields."""
    assert not VALIDATOR.is_valid(event)
    assert not is_decoded(event)


@pytest.mark.parametrize("fields", ONLY_THE_DECODER_KNOWS)
def test_what_a_schema_cannot_say_the_decoder_does(fields: dict[str, Any]) -> None:
    """Relations between fields, bytes of a text and days of a month are judged by the decoder alone."""
    event = REQUIRED | fields
    assert VALIDATOR.is_valid(event)
    assert not is_decoded(event)


def test_the_example_of_the_page_is_an_event() -> None:
    """docs/request-events.md shows an event that both accept, and whose prompt nobody keeps."""
    page = (DOCS / "request-events.md").read_text(encoding="utf-8")
    example = re.findall(r"```json\n(.*?)```", page, re.DOTALL)[0]
    VALIDATOR.validate(json.loads(example))
    event = decode_event(example.encode(), allowed_labels=("use_case",))
    assert event.end - event.start == pytest.approx(2.4)
    assert event.labels == {"use_case": "rag"}
    assert "prompt" not in repr(event)


def test_the_page_s_request_in_parts_is_an_event() -> None:
    """It has a part for each phase, whose times follow from its own."""
    page = (DOCS / "request-events.md").read_text(encoding="utf-8")
    example = re.findall(r"```json\n(.*?)```", page, re.DOTALL)[1]
    VALIDATOR.validate(json.loads(example))
    prefill, decode = decode_event(example.encode()).parts
    assert (prefill.phase, prefill.end - prefill.start) == ("prefill", pytest.approx(0.4, abs=1e-6))
    assert (decode.phase, decode.end - decode.start) == ("decode", pytest.approx(6.0, abs=1e-6))


def test_the_page_names_every_reason() -> None:
    """Each reason that the decoder can give stands in the page's table."""
    page = (DOCS / "request-events.md").read_text(encoding="utf-8")
    code = "".join(
        (Path(__file__).parents[2] / "collectors" / name).read_text(encoding="utf-8")
        for name in (
            "moments.py",
            "requests/decoders/native.py",
            "requests/decoders/native_diagnosis.py",
            "requests/decoders/native_parts.py",
            "requests/decoders/native_wire.py",
        )
    )
    reasons = set(re.findall(r'Rejected\(\s*"([a-z0-9_]+)"', code))
    assert len(reasons) > 15
    assert {reason for reason in reasons if f"`{reason}`" not in page} == set()
