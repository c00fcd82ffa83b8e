"""Activity of MIG instances in the log: the same readings back, names once, and what releases before wrote."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict, replace

from collectors.errors import Rejected
from collectors.readings import ActivityReading, Device, EnergyReading, HostProfile
from monitor.log.activity_wire import rounds_of
from monitor.log.codec import Decoder, ReadingBatch, readings_record
from monitor.log.protocol import LogRecord

BOARD = "GPU-5f0d1f9a-3c1b-4d5e-9a57-0d6f1b2c3d4e"
INSTANCES = tuple(f"instance:MIG-1f3b7c6a-9d2e-5a41-8b70-4c2d9e6f0a1{number}" for number in range(7))
PROFILE = HostProfile(host="h", devices=(Device(id=BOARD, kind="gpu"),))
READING = EnergyReading(device=BOARD, start=0.0, end=10.0, energy_joules=3_000.0, method="counter")


def told(at: float, consumer: str, busy_seconds: float, **facts: object) -> ActivityReading:
    """One second from there on."""
    return ActivityReading(device=BOARD, start=at, end=at + 1.0, consumer=consumer, busy_seconds=busy_seconds, **facts)  # type: ignore[arg-type]


def batch(*activities: ActivityReading) -> ReadingBatch:
    """With these."""
    return ReadingBatch(profile=PROFILE, readings=(READING,), activities=activities)


def decoded(body: bytes) -> ReadingBatch:
    """What a reader makes of the body of a batch."""
    content = Decoder().decode(
        LogRecord(stream="readings", offset=0, key="h", schema="readings.v1", stamp=11.0, body=body)
    )
    assert isinstance(content, ReadingBatch)
    return content


WINDOW = [told(at, name, at / 16.0) for at in range(10) for name in INSTANCES]


def test_a_window_of_seven_instances_names_each_once() -> None:
    """Each name stands once in the record, and 70 figures cost an eighth of what they cost as readings at most."""
    body, bare = readings_record(batch(*WINDOW)).body, readings_record(batch()).body
    assert [body.count(name.encode()) for name in INSTANCES] == [1] * 7
    assert 8 * (len(body) - len(bare)) < len(msgspec.msgpack.encode(WINDOW))
    assert decoded(body).activities == tuple(WINDOW)


def test_what_is_no_instances_is_as_it_was() -> None:
    """A batch without instances has the bytes that it had; with a state an instance's figure stays a reading."""
    capped = told(0.0, "", 0.5, state=("power_capped",)), told(0.0, INSTANCES[0], 0.5, state=("power_capped",))
    assert readings_record(batch(*capped)).body == msgspec.msgpack.encode(batch(*capped))
    assert decoded(readings_record(batch(WINDOW[0], *capped)).body).activities == (*capped, WINDOW[0])


def test_what_releases_before_wrote_is_read() -> None:
    """Every figure a reading with all its names."""
    assert decoded(msgspec.msgpack.encode(batch(*WINDOW))).activities == tuple(WINDOW)


@pytest.mark.parametrize("broken", [{"ends": ()}, {"busy_seconds": (0.5,)}, {"consumers": ()}, {"starts": (1.0, 2.0)}])
def test_columns_of_other_lengths_are_refused(broken: dict[str, object]) -> None:
    """By name: nothing of such a record can be believed."""
    (columns,), _ = rounds_of(WINDOW[:7])
    wire = asdict(batch()) | {"instances": [replace(columns, **broken)]}
    with pytest.raises(Rejected) as refused:
        decoded(msgspec.msgpack.encode(wire))
    assert refused.value.reason == "undecodable"


def test_figures_that_cannot_be_are_refused() -> None:
    """As those of readings are."""
    (columns,), _ = rounds_of(WINDOW[:7])
    wire = asdict(batch()) | {"instances": [replace(columns, busy_seconds=(-1.0,) * 7)]}
    with pytest.raises(Rejected) as refused:
        decoded(msgspec.msgpack.encode(wire))
    assert refused.value.reason == "bad_value"


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["", "other", *INSTANCES[:3]]), st.floats(0.0, 1.0))))
def test_nothing_is_lost_whatever_rounds_lack(figures: list[tuple[int, str, float]]) -> None:
    """Any mixture of rounds, complete or not, some told twice: the same readings, each as often."""
    activities = [told(float(at), name, busy) for at, name, busy in figures]
    back = decoded(readings_record(batch(*activities)).body).activities
    assert sorted(back, key=repr) == sorted(activities, key=repr)
