"""Messages of a topic are read many at once, and give what they give one by one: wherever a poison message stands."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.consumer.fetcher import ConsumerRecord

from monitor.config.input_sections import Source
from monitor.config.sections import Config
from monitor.core.facts import Facts
from monitor.core.serving import Deployment
from monitor.core.usage import Placed
from monitor.roles.placement import Placer
from monitor.roles.topic_events import AsTheyAre, Refusals, SourceTopic

NOON = 1_780_000_000.0
GOOD = {"request_id": "r", "model": "llama", "host": "gpu-01", "start": NOON, "end": NOON + 1, "output_tokens": 7}
FACTS = Facts([(0.0, Deployment(name="two", model="shared", hosts=("gpu-02", "gpu-03")))])
CONFIG = Config(sources=(Source(name="gw", kind="kafka", topics=("llm",)),))
CONFIG = msgspec.structs.replace(
    CONFIG,
    requests=msgspec.structs.replace(CONFIG.requests, max_event_size_bytes=4_096),
    accounting=msgspec.structs.replace(CONFIG.accounting, label_keys=("env",)),
)


def said(**more: object) -> bytes:
    """A good event, but for that."""
    return msgspec.json.encode(GOOD | more)


MESSAGES = {
    "good": said(),
    "another": said(request_id="q", model="qwen", labels={"env": "prod", "user": "u"}, first_token=NOON + 0.5),
    "devices": said(devices=["GPU-1", "GPU-2"], scheduled=NOON + 0.25),
    "by facts": said(model="shared", host=None),
    "unplaced": said(model="nowhere", host=None, input_tokens=11),
    "unknown field": said(messages=[{"role": "user"}]),
    "not ascii": said(team="équipe"),
    "escape": b'{"team":"a\\u0062",' + said()[1:],
    "control": said(team="a\x7f"),
    "array": b"[" + said(request_id="a1") + b"," + said(request_id="") + b"," + said(request_id="a3") + b"]",
    "lines": said(request_id="l1") + b"\n" + said(request_id="l2", end=NOON - 1) + b"\n" + said(request_id="l3"),
    "two in one": said(request_id="t1") + b"," + said(request_id="t2"),
    "cut off": said()[:-9],
    "begun": b'{"request_id":"x","model":"m","host":"h","labels":{"env":"',
    "ended": b'"},"start":1780000000,"end":1780000001}',
    "open array": b'{"request_id":"x","model":"m","devices":["',
    "empty": b"",
    "white": b" \n ",
    "tombstone": None,
    "no json": b"\xff\x00",
    "number": b"12",
    "of the future": said(end=NOON + 86_400),
    "too large": said(request_id="r" * 5_000),
    "long, spaced": said() + b" " * 5_000,
    "wrong order": said(first_token=NOON + 9),
    "twice a device": said(devices=["GPU-1", "GPU-1"]),
    "more cached than read": said(input_tokens=1, cached_input_tokens=2),
    "deep": said(x=[[[[[[1]]]]]]).replace(b"[[[[[[1]]]]]]", b"[" * 80 + b"]" * 80),
}


def records(names: list[str]) -> list[Any]:
    """As Kafka gives them."""
    head = ("llm", 3, 0)
    return [
        ConsumerRecord(*head, offset, 1_780_000_000_000, 0, None, MESSAGES[name], [], None, -1, -1, -1)
        for offset, name in enumerate(names)
    ]


def outcome(messages: list[Any], each: int, placer: Any, trust_team: bool) -> object:
    """All that comes of these, read so many at a time: what is placed, what is not, why, and how many were taken."""
    topic = SourceTopic(Source(name="gw", kind="kafka", topics=("llm",), trust_team=trust_team), CONFIG)
    placed: list[Placed] = []
    refused, taken = Refusals(), 0
    for begin in range(0, len(messages), each):
        taken += topic.read(messages[begin : begin + each], placer, NOON, placed, refused)
    parts = [{name: getattr(part, name) for name in (*part.__struct_fields__, "weight")} for part in placed]
    for part in parts:  # of the fast path's own type alone
        part.pop("schema", None)
        part.pop("arrived", None)
    return parts, refused.letters, refused.bodies, refused.unplaced_tokens, taken


@given(
    st.lists(st.one_of(st.just("good"), st.sampled_from(sorted(MESSAGES))), max_size=12),
    st.sampled_from([0, 120, 126]),
    st.booleans(),
    st.booleans(),
)
def test_many_at_once_are_as_one_by_one(names: list[str], before: int, trust_team: bool, places: bool) -> None:
    """Each poison message is a letter with its own offset, and its neighbours are as if it were not there."""
    messages = records(["good", "another"] * (before // 2) + names)
    placer = Placer(FACTS) if places else AsTheyAre()
    assert outcome(messages, 1_000, placer, trust_team) == outcome(messages, 1, placer, trust_team)


@pytest.mark.parametrize("at", [0, 127, 128, 199])
@pytest.mark.parametrize(
    ("poison", "reason", "events"),
    [
        ("two in one", "not_json", 1),
        ("tombstone", "no_value", 1),
        ("cut off", "truncated", 1),
        ("number", "not_object", 1),
        ("of the future", "future", 1),
        ("too large", "too_large", 1),
        ("long, spaced", "too_large", 1),
        ("unplaced", "unplaced", 1),
        ("deep", "too_deep", 1),
        ("array", "missing_request_id", 3),
    ],
)
def test_a_poison_message_loses_no_neighbour(at: int, poison: str, reason: str, events: int) -> None:
    """One among two hundred, wherever it stands: 199 others count, and it is named by its offset."""
    names = ["good"] * 199
    names.insert(at, poison)
    parts, letters, *_, taken = outcome(records(names), 1_000, Placer(FACTS), trust_team=True)  # type: ignore[misc]
    place = f"3/{at}" + ("/1" if events > 1 else "")
    assert [(letter.position, letter.reason) for letter in letters] == [(place, reason)]
    assert (len(parts), taken) == (199 + events - 1, 199 + events - 1)


@pytest.mark.parametrize("pair", [("begun", "ended"), ("open array", "good"), ("two in one", "empty")])
def test_halves_of_an_event_are_no_event(pair: tuple[str, str]) -> None:
    """What would be one event with its neighbour is refused as what it is."""
    messages = records(["good", *pair, "good"])
    parts, letters, *_ = outcome(messages, 1_000, Placer(FACTS), trust_team=True)  # type: ignore[misc]
    wrong = [f"3/{offset}" for offset, name in enumerate(pair, 1) if name != "good"]
    assert [letter.position for letter in letters] == wrong
    assert len(parts) == 4 - len(wrong)
