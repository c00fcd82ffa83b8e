"""A request placed on a host."""

import msgspec

from collectors.requests.event import RequestEvent, Work
from monitor.core.usage import Identity, Usage, canonical_labels, usage_of

EVENT = RequestEvent(
    namespace="gateway",
    request_id="r1",
    attempt=2,
    source="kafka",
    model="llama2-13b",
    team="search",
    devices=("gpu0", "gpu1"),
    deployment="blue",
    start=10.0,
    scheduled=11.0,
    first_token=12.0,
    end=20.0,
    input_tokens=100,
    cached_input_tokens=40,
    output_tokens=50,
    work=Work(unit="image", amount=4.0),
    labels={"use_case": "chat"},
    trace_id="t1",
    status="error",
)


def test_the_part_of_an_event_on_a_host() -> None:
    """Everything that the accounting needs, at the weight of the placement; traces and sources stay behind."""
    assert usage_of(EVENT, "h1", weight=0.5) == Usage(
        host="h1",
        namespace="gateway",
        request_id="r1",
        attempt=2,
        model="llama2-13b",
        team="search",
        deployment="blue",
        devices=("gpu0", "gpu1"),
        weight=0.5,
        start=10.0,
        scheduled=11.0,
        first_token=12.0,
        end=20.0,
        input_tokens=100,
        cached_input_tokens=40,
        output_tokens=50,
        work=Work(unit="image", amount=4.0),
        labels={"use_case": "chat"},
        status="error",
    )


def test_where_it_is_placed_tells_what_the_event_does_not() -> None:
    """The placement's devices stand in for those of an event that names none; its deployment is the one that counts."""
    silent = msgspec.structs.replace(EVENT, devices=None, deployment="")
    placed = usage_of(silent, "h1", devices=("gpu7",), deployment="green")
    assert (placed.devices, placed.deployment) == (("gpu7",), "green")
    assert (usage_of(silent, "h1").devices, usage_of(silent, "h1").deployment) == (None, "")
    outspoken = usage_of(EVENT, "h1", devices=("gpu7",), deployment="green")
    assert (outspoken.devices, outspoken.deployment) == (("gpu0", "gpu1"), "green")
    assert usage_of(EVENT, "h1", devices=("gpu7",)).deployment == "blue"


def test_the_same_request_on_two_hosts_is_two_identities() -> None:
    """The host is part of it, the content is not."""
    assert usage_of(EVENT, "h1").identity == Identity("h1", "gateway", "r1", 2)
    assert usage_of(EVENT, "h2").identity != usage_of(EVENT, "h1").identity


def test_time_in_a_queue_is_not_active_time() -> None:
    """Active from 11 s, when an engine took it; from its start where nobody said."""
    assert usage_of(EVENT, "h1").active_start == 11.0
    assert usage_of(msgspec.structs.replace(EVENT, scheduled=None), "h1").active_start == 10.0


def test_it_comes_back_from_the_log_as_it_went_in() -> None:
    """Also what is unknown: None, not 0."""
    usage = Usage(host="h1", namespace="default", request_id="r", model="m", team="t", start=1.0, end=1.0)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(usage), type=Usage) == usage
    assert usage.input_tokens is None


def test_labels_as_one_tag_value() -> None:
    """Keys in sorted order, so that equal labels are one series; none are "" ."""
    assert canonical_labels({"b": "2", "a": "é"}) == '{"a":"é","b":"2"}'
    assert canonical_labels({}) == ""
