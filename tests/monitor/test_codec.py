"""Log records on the wire: round trips, versions, and every refusal by its name."""

from math import inf, nan

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from collectors.errors import Rejected
from collectors.readings import CounterMark, Device, EnergyReading, EngineReading, HostProfile, ModelFacts
from collectors.requests.event import Work
from monitor.core.emissions.factors import Intensity
from monitor.core.membership import Accounting
from monitor.core.usage import Usage
from monitor.log.codec import (
    Decoder,
    ReadingBatch,
    Restate,
    Tick,
    accounting_record,
    intensity_record,
    readings_record,
    restate_record,
    tick_record,
    usage_record,
)
from monitor.log.protocol import Append, LogRecord
from monitor.log.usage_wire import batch_of

PROFILE = HostProfile(
    host="h1",
    zone="FR",
    pue=1.2,
    devices=(Device(id="gpu0", kind="gpu", hardware="NVIDIA A100-SXM4-40GB", idle_watts=55.0),),
    models=(ModelFacts(name="llama", parameters=7e9, devices=("gpu0",)),),
)
READING = EnergyReading(device="gpu0", start=10.0, end=10.1, energy_joules=0.1 + 0.2, method="counter")
MARK = CounterMark(device="gpu0", at=10.1, raw_joules=1e6, range_joules=None, boot_id="b")
BATCH = ReadingBatch(profile=PROFILE, readings=(READING, replace(READING, start=10.1, end=10.2)), marks=(MARK,))
ENGINE = EngineReading(
    server="vllm-8000",
    model="llama",
    devices=("gpu0",),
    start=10.0,
    end=11.0,
    steps=31.0,
    decode_tokens=62.0,
    running=2,
)
USAGE = Usage(
    host="h1",
    namespace="default",
    request_id="r1",
    model="llama",
    team="blue",
    devices=("gpu0",),
    weight=0.25,
    start=1.0,
    scheduled=1.5,
    first_token=2.0,
    end=3.0,
    input_tokens=5,
    output_tokens=0,
    work=Work(unit="image", amount=4.0),
    labels={"use_case": "chat"},
)


def _stood(record: Append, **changes: object) -> LogRecord:
    stood = LogRecord(stream=record.stream, offset=1, stamp=5.0, key=record.key, schema=record.schema, body=record.body)
    return replace(stood, **changes)


def _refusal(record: LogRecord) -> Rejected:
    with pytest.raises(Rejected) as refused:
        Decoder().decode(record)
    return refused.value


@pytest.mark.parametrize(
    ("record", "expected", "place"),
    [
        (readings_record(BATCH, 7.0), BATCH, ("readings", "h1", "readings.v1", 7.0)),
        (
            readings_record(replace(BATCH, engines=(ENGINE,)), 7.0),
            replace(BATCH, engines=(ENGINE,)),
            ("readings", "h1", "readings.v1", 7.0),
        ),
        (usage_record("h1", [USAGE]), batch_of("h1", [USAGE]), ("usage", "h1", "usage.v2", None)),
        (tick_record("h1", 8.0), Tick(), ("usage", "h1", "tick.v1", 8.0)),
        (
            restate_record(Restate(host="h1", start=0.0, end=9.0, reason="wrong team")),
            Restate(host="h1", start=0.0, end=9.0, reason="wrong team"),
            ("usage", "h1", "restate.v1", None),
        ),
        (
            accounting_record(Accounting(label_keys=("use_case",))),
            Accounting(label_keys=("use_case",)),
            ("facts", "accounting", "accounting.v1", None),
        ),
        (
            intensity_record(Intensity(zone="FR", grams_per_kwh=41.4, source="mix", year=2023)),
            Intensity(zone="FR", grams_per_kwh=41.4, source="mix", year=2023),
            ("facts", "FR", "intensity.v1", None),
        ),
    ],
)
def test_what_is_encoded_is_decoded(
    record: Append, expected: object, place: tuple[str, str, str, float | None]
) -> None:
    """Every record comes back equal, and stands in its stream under its key and schema."""
    assert (record.stream, record.key, record.schema, record.stamp) == place
    assert Decoder().decode(_stood(record)) == expected


def test_a_profile_is_decoded_once() -> None:
    """Batches of one host share the profile as long as its bytes are the same."""
    decoder = Decoder()
    one, two = (decoder.decode(_stood(readings_record(BATCH))) for _ in range(2))
    changed = decoder.decode(_stood(readings_record(replace(BATCH, profile=replace(PROFILE, pue=1.3)))))
    assert isinstance(one, ReadingBatch)
    assert isinstance(two, ReadingBatch)
    assert isinstance(changed, ReadingBatch)
    assert one.profile is two.profile
    assert changed.profile.pue == 1.3


def test_the_profiles_kept_are_bounded() -> None:
    """A host whose profile changes all the time does not fill the memory."""
    decoder = Decoder()
    for number in range(1_100):
        decoder.decode(_stood(readings_record(replace(BATCH, profile=replace(PROFILE, site=str(number))))))
    assert len(decoder._profiles) == 1_024


def test_a_newer_version_with_more_fields_is_read() -> None:
    """One version up: fields that are not known are passed by, in the batch and in what it holds."""
    wire = msgspec.msgpack.decode(readings_record(BATCH).body)
    wire["weather"] = {"deep": [1, 2]}
    wire["readings"][0]["quality"] = 9
    wire["profile"]["altitude"] = 3
    record = _stood(readings_record(BATCH), schema="readings.v2", body=msgspec.msgpack.encode(wire))
    assert Decoder().decode(record) == BATCH


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ("readings.v3", "schema_version"),
        ("readings.v0", "schema_version"),
        ("readings.v99999999999999999999999", "schema_version"),
        ("weather.v1", "unknown_schema"),
        ("readings", "unknown_schema"),
        ("readings.v", "unknown_schema"),
        ("readings.v-1", "unknown_schema"),
        ("readings.v²", "unknown_schema"),
        ("", "unknown_schema"),
    ],
)
def test_a_schema_that_cannot_be_read_is_refused_by_name(schema: str, reason: str) -> None:
    """Too far in version, or not known at all."""
    assert _refusal(_stood(readings_record(BATCH), schema=schema)).reason == reason


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        (replace(READING, energy_joules=nan), "readings[1].energy_joules"),
        (replace(READING, energy_joules=inf), "readings[1].energy_joules"),
        (replace(READING, energy_joules=-0.1), "readings[1].energy_joules"),
        (replace(READING, end=READING.start), "readings[1].end"),
        (replace(READING, start=nan), "readings[1].end"),
        (replace(READING, end=inf), "readings[1].end"),
        (replace(MARK, raw_joules=nan), "marks[0].raw_joules"),
        (replace(MARK, at=inf), "marks[0].at"),
        (replace(MARK, range_joules=0.0), "marks[0].range_joules"),
        (replace(PROFILE, pue=0.9), "profile.pue"),
        (replace(PROFILE, host="h2"), "profile.host"),
        (replace(PROFILE, devices=PROFILE.devices * 2), "profile.devices"),
    ],
)
def test_a_batch_that_breaks_the_contract_is_refused(
    changed: EnergyReading | CounterMark | HostProfile, field: str
) -> None:
    """NaN, negative energy, an interval that runs backwards: bad_value, and the field by name."""
    if isinstance(changed, EnergyReading):
        batch = replace(BATCH, readings=(READING, changed))
    elif isinstance(changed, CounterMark):
        batch = replace(BATCH, marks=(changed,))
    else:
        batch = replace(BATCH, profile=changed)
    refused = _refusal(_stood(readings_record(batch), key="h1"))
    assert refused.reason == "bad_value"
    assert refused.detail.startswith(field)


@pytest.mark.parametrize(
    "record",
    [
        restate_record(Restate(host="h1", start=9.0, end=9.0, reason="")),
        accounting_record(Accounting(window_seconds=0.0)),
        accounting_record(Accounting(horizon_seconds=inf)),
        intensity_record(Intensity(zone="FR", grams_per_kwh=nan, source="")),
    ],
)
def test_controls_and_facts_that_break_the_contract_are_refused(record: Append) -> None:
    """An empty span, a window of no length, an intensity that is no number."""
    assert _refusal(_stood(record)).reason == "bad_value"


@given(
    body=st.binary(max_size=60),
    position=st.integers(0, 400),
    schema=st.sampled_from(["readings.v1", "usage.v1", "usage.v2"]),
)
def test_no_bytes_raise_anything_but_rejected(body: bytes, position: int, schema: str) -> None:
    """Whatever bytes stand in a body, alone or in the middle of a good one, the answer is a record or Rejected."""
    usages = usage_record("h1", [USAGE]).body if schema == "usage.v2" else msgspec.msgpack.encode({"usages": [USAGE]})
    good = readings_record(BATCH).body if schema == "readings.v1" else usages
    for each in (body, good[:position] + body + good[position + len(body) :], good[:position]):
        record = LogRecord(stream="readings", offset=1, stamp=0.0, key="h1", schema=schema, body=each)
        try:
            Decoder().decode(record)
        except Rejected as refused:
            assert refused.reason in {"undecodable", "bad_value"}  # noqa: PT017


def test_a_body_nested_without_end_is_undecodable() -> None:
    """An unknown field of a hundred thousand lists does not take the reader down."""
    body = b"\x81\xa1x" + b"\x91" * 100_000 + b"\xc0"
    assert _refusal(_stood(readings_record(BATCH), body=body)).reason == "undecodable"
