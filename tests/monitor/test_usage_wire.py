"""Requests as columns of bytes: they say what their objects said, and a bad one loses nobody beside it."""

import struct
from math import inf, nan

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from collectors.errors import Rejected
from collectors.readings import Device, EnergyReading, HostProfile
from collectors.requests.event import RequestEvent, Work
from monitor.core.book import Book
from monitor.core.membership import Accounting
from monitor.core.phases import PHASE_FIGURES, Phase, Phases
from monitor.core.usage import Usage, usage_of
from monitor.core.usage_columns import columns_of, joined
from monitor.ledger.entering import Entering
from monitor.log.codec import Decoder, ReadingBatch, batch_record, readings_record, usage_record
from monitor.log.protocol import Append, DeadLetter, LogRecord
from monitor.log.usage_reading import columns_of_batches, wrong_usages
from monitor.log.usage_wire import UsageBatch, batch_of
from monitor.roles.usage_batches import Gathered

TERMS = Accounting(horizon_seconds=60.0, mark_seconds=60.0)
_names = st.sampled_from(["", "a", "b"])
_counts = st.none() | st.integers(0, 2**53)


def _usage(request_id: str = "r1", **changes: object) -> Usage:
    usage = Usage(
        host="h1",
        namespace="default",
        request_id=request_id,
        model="llama",
        team="blue",
        devices=("gpu0",),
        start=1.0,
        end=3.0,
        input_tokens=5,
        output_tokens=7,
    )
    return replace(usage, **changes)


@st.composite
def _usages(draw: st.DrawFn) -> Usage:
    """Sane ones of h1 within 40 s; whatever may be left out sometimes is, and ids come twice."""
    start, end = sorted(draw(st.tuples(st.floats(0, 40), st.floats(0, 40))))
    return _usage(
        draw(st.sampled_from("abcd")),
        start=start,
        end=end,
        namespace=draw(_names),
        model=draw(_names),
        team=draw(_names),
        deployment=draw(_names),
        devices=draw(st.sampled_from([None, (), ("gpu0",), ("gpu0", "gpu1")])),
        attempt=draw(st.sampled_from([0, 1, 2**64 - 1])),
        scheduled=draw(st.none() | st.just(start)),
        first_token=draw(st.none() | st.just(end)),
        input_tokens=draw(_counts),
        cached_input_tokens=draw(_counts),
        output_tokens=draw(_counts),
        work=draw(st.none() | st.builds(Work, unit=_names, amount=st.floats(0, 1e9))),
        labels=draw(st.dictionaries(_names, _names, max_size=2)),
        status=draw(st.sampled_from(["ok", "error"])),
        weight=draw(st.sampled_from([1.0, 0.5])),
        phases=draw(st.none() | _phases(start, end)),
    )


def _phases(start: float, end: float) -> st.SearchStrategy[Phases]:
    """What a host may have done of a request over that time: one phase or both."""
    phases = st.builds(
        Phase,
        st.just(start),
        st.just(end),
        st.sampled_from([1.0, 0.25]),
        st.sampled_from([None, (), ("gpu0",), ("gpu0", "gpu1")]),
    )
    return (
        st.builds(Phases, phases, st.none()) | st.builds(Phases, st.none(), phases) | st.builds(Phases, phases, phases)
    )


def _stood(record: Append, offset: int = 1, stamp: float = 45.0) -> LogRecord:
    return LogRecord(
        stream=record.stream, offset=offset, stamp=stamp, key=record.key, schema=record.schema, body=record.body
    )


def _as_objects(usages: list[Usage]) -> Append:
    """As a release before usage.v2 wrote them."""
    return Append(stream="usage", key="h1", schema="usage.v1", body=msgspec.msgpack.encode({"usages": usages}))


def test_a_record_is_columns_of_little_endian_bytes() -> None:
    """Two requests of two routes: what nobody tells takes no bytes, what one tells is NaN of the other."""
    batch = batch_of("h1", [_usage(), _usage("r2", team="red", first_token=2.0, labels={"a": "1"})])
    assert batch.request_ids == ("r1", "r2")
    assert [(route.team, route.labels) for route in batch.routes] == [("blue", {}), ("red", {"a": "1"})]
    assert batch.route == b"\0\0\0\0\1\0\0\0"
    assert batch.start == struct.pack("<2d", 1.0, 1.0)
    assert batch.first_token == struct.pack("<2d", nan, 2.0)
    assert batch.input_tokens == struct.pack("<2d", 5.0, 5.0)
    assert (batch.scheduled, batch.weight, batch.work_amount) == (b"", b"", b"")


@given(st.lists(st.lists(_usages(), max_size=3), max_size=4))
def test_what_is_written_is_read(parts: list[list[Usage]]) -> None:
    """Record by record, and all of them at once as columns, each at its record's log time."""
    decoder = Decoder()
    batches = [decoder.decode(_stood(usage_record("h1", part))) for part in parts]
    assert all(isinstance(batch, UsageBatch) for batch in batches)
    batches = [batch for batch in batches if isinstance(batch, UsageBatch)]
    assert [list(batch.usages()) for batch in batches] == parts
    log_times = [float(number) for number in range(len(parts))]
    columns = columns_of_batches(batches, 7, log_times)
    said = [usage for part in parts for usage in part]
    assert columns.equals(columns_of(said))
    assert columns.number.tolist() == list(range(7, 7 + len(said)))
    assert columns.log_time.tolist() == [at for at, part in zip(log_times, parts, strict=True) for _ in part]


@given(st.lists(_usages(), max_size=5), st.integers(0, 5))
def test_records_of_either_version_make_the_same_books(found: list[Usage], at: int) -> None:
    """Repeated and contradicting requests among them, some records of the one and some of the other."""
    books = [
        _entered(_as_objects(found[:at]), _as_objects(found[at:])),
        _entered(usage_record("h1", found[:at]), usage_record("h1", found[at:])),
        _entered(_as_objects(found[:at]), usage_record("h1", found[at:])),
    ]
    assert books[1:] == books[:-1]


def _entered(*records: Append) -> tuple[list[object], list[tuple[str, str, str]]]:
    """The rows of all windows, and what was refused."""
    letters: list[DeadLetter] = []
    book = Book(TERMS, lambda _zone, _at: None)
    entering = Entering(TERMS, book, letters.append)
    devices = tuple(Device(id=f"gpu{number}", kind="gpu", hardware="NVIDIA L4") for number in range(2))
    profile = HostProfile(host="h1", zone="FR", pue=1.0, devices=devices)
    readings = tuple(
        EnergyReading(device=device.id, start=at, end=at + 1.0, energy_joules=60.0, method="counter")
        for at in map(float, range(50))
        for device in devices
    )
    for offset, record in enumerate((*records, readings_record(ReadingBatch(profile=profile, readings=readings)))):
        list(entering.enter(_stood(record, offset)))
    list(entering.requests())
    rows = [row for window in range(5) for row in book.account("h1", window, line=1e9).rows]
    return list(rows), [(letter.position, letter.reason, letter.detail) for letter in letters]


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"end": 0.9}, "usage times are not"),
        ({"start": nan}, "usage times are not"),
        ({"end": nan}, "usage times are not"),
        ({"start": -inf}, "usage times are not"),
        ({"end": inf}, "usage times are not"),
        ({"scheduled": 0.5}, "usage times are not"),
        ({"first_token": 3.1}, "usage times are not"),
        ({"scheduled": 2.0, "first_token": 1.5}, "usage times are not"),
        ({"weight": 0.0}, "usage.weight is not in"),
        ({"weight": 1.5}, "usage.weight is not in"),
        ({"weight": nan}, "usage.weight is not in"),
        ({"attempt": -1}, "usage.attempt is negative"),
        ({"input_tokens": -1}, "usage.input_tokens is not"),
        ({"cached_input_tokens": 0.5}, "usage.cached_input_tokens is not"),
        ({"output_tokens": 2**54}, "usage.output_tokens is not"),
        ({"output_tokens": inf}, "usage.output_tokens is not"),
        ({"work": Work(unit="image", amount=nan)}, "usage.work.amount is not"),
        ({"work": Work(unit="image", amount=-1.0)}, "usage.work.amount is not"),
    ],
)
def test_a_wrong_request_is_refused_alone(changes: dict[str, object], detail: str) -> None:
    """By its place in its record and the first thing wrong; those beside it are in the book."""
    good = [_usage("r0"), _usage("r2", work=Work(unit="image", amount=2.0))]
    bad = _usage("r1", **changes)
    columns = columns_of_batches([batch_of("h1", [good[0], bad, good[1]])])
    assert [(place, said[: len(detail)]) for place, said in wrong_usages(columns).items()] == [(1, detail)]
    letters: list[DeadLetter] = []
    book = Book(TERMS, lambda _zone, _at: None)
    entering = Entering(TERMS, book, letters.append)
    list(entering.enter(_stood(usage_record("h1", [good[0], bad, good[1]]), offset=4)))
    list(entering.requests())
    assert [(each.position, each.reason, each.detail[: len(detail)]) for each in letters] == [
        ("4.1", "bad_value", detail)
    ]
    assert list(book.usages("h1", 0).usages()) == good


@given(st.lists(st.tuples(_usages(), st.sampled_from(["h1", "h2"]))))
def test_what_is_gathered_stands_by_host_under_its_number(found: list[tuple[Usage, str]]) -> None:
    """Each part once, in the record of its host, in the order in which it came."""
    parts = [replace(usage, host=host) for usage, host in found]
    gathered = Gathered()
    gathered.extend(parts)
    there: dict[int, Usage] = {}
    for record, batch, numbers in gathered.records(7.0):
        assert (record.key, record.stamp, list(numbers)) == (batch.host, 7.0, sorted(numbers))
        assert batch.names() == [(usage.namespace, usage.request_id, usage.attempt) for usage in batch.usages()]
        there |= dict(zip(numbers, batch.usages(), strict=True))
    assert [there[number] for number in range(len(parts))] == parts
    assert len(there) == len(parts) == len(gathered)


def test_what_is_gathered_is_cut_at_500_parts_and_at_half_a_megabyte() -> None:
    """Records of 500 and 1, the second without the routes of the first; three of 200 kB are halved until they fit."""
    many = Gathered()
    many.extend(_usage(f"r{number}", team="blue" if number < 500 else "red") for number in range(501))
    first, second = (batch for _, batch, _ in many.records())
    assert (len(first), len(second), [route.team for route in second.routes]) == (500, 1, ["red"])
    large = Gathered()
    large.extend(_usage(f"r{number}", labels={"a": str(number) * 200_000}) for number in range(3))
    assert [list(numbers) for _, _, numbers in large.records()] == [[0], [1, 2]]


def test_an_event_that_says_its_host_stands_as_its_usage_would() -> None:
    """All of its figures; no other object is made of it."""
    event = RequestEvent(
        request_id="r1",
        model="llama",
        host="h1",
        start=1.0,
        end=3.0,
        scheduled=1.5,
        output_tokens=7,
        work=Work(unit="image", amount=2.0),
        labels={"b": "1", "a": "2"},
        source="gateway",
        trace_id="t",
    )
    assert batch_of("h1", [event]) == batch_of("h1", [usage_of(event, "h1")])
    assert batch_of("h1", [event]).usages() == (usage_of(event, "h1"),)


@given(st.lists(st.tuples(*[st.floats() | st.sampled_from([1.0, 2.0, 3.0])] * 9), min_size=1, max_size=4))
def test_whatever_figures_stand_in_a_record_each_request_counts_or_is_refused(rows: list[tuple[float, ...]]) -> None:
    """Any 64 bits are a figure: infinities, ends of the number range, NaN. Nothing else is raised, nobody is lost."""
    columns = [struct.pack(f"<{len(rows)}d", *column) for column in zip(*rows, strict=True)]
    names = ("start", "end", "scheduled", "first_token", "input_tokens", "cached_input_tokens", "output_tokens")
    usages = [_usage(f"r{number}", work=Work(unit="image", amount=1.0)) for number in range(len(rows))]
    changes = dict(zip((*names, "weight", "work_amount"), columns, strict=True))
    batch = replace(batch_of("h1", usages), **changes)
    letters: list[DeadLetter] = []
    book = Book(TERMS, lambda _zone, _at: None)
    entering = Entering(TERMS, book, letters.append)
    list(entering.enter(_stood(batch_record(batch))))
    touched = {window for touch in entering.requests() for window in touch.touched()}
    counted = {usage.request_id for window in touched for usage in book.usages("h1", window).usages()}
    assert {each.reason for each in letters} <= {"bad_value", "future", "too_long"}
    assert {f"r{each.position.partition('.')[2]}" for each in letters} | counted == {
        usage.request_id for usage in usages
    }
    assert len(letters) + len(counted) == len(rows)


@given(st.lists(st.tuples(*[st.floats() | st.sampled_from([1.0, 2.0, 3.0])] * 6), min_size=1, max_size=4))
def test_whatever_figures_of_phases_stand_in_a_record_each_request_counts_or_is_refused(
    rows: list[tuple[float, ...]],
) -> None:
    """Those that count have phases within [1, 3), and read back they say what stood there."""
    columns = [struct.pack(f"<{len(rows)}d", *column) for column in zip(*rows, strict=True)]
    usages = [_usage(f"r{number}", phases=Phases(Phase(1.0, 2.0), None)) for number in range(len(rows))]
    batch = replace(batch_of("h1", usages), **dict(zip(PHASE_FIGURES, columns, strict=True)))
    columns_of_them = columns_of_batches([replace(batch, phase_devices=((None, ()),))])
    wrong = wrong_usages(columns_of_them)
    for place, row in enumerate(rows):
        (start, end, weight), other = row[:3], row[3:]
        is_right = 1.0 <= start <= end <= 3.0 and 1e-9 <= weight <= 1.0
        if is_right and other[2] != other[2]:
            assert place not in wrong
            assert columns_of_them.usage(place).phases == Phases(Phase(start, end, weight), None)
        if not is_right:
            assert place in wrong


def test_whole_requests_beside_parts_are_as_if_they_stood_alone() -> None:
    """What a figure of a phase says of them is not read, and columns with and without such figures are equal."""
    whole, part = _usage(), _usage("r2", phases=Phases(Phase(1.0, 2.0, 0.5, ("gpu1",)), None), weight=0.25)
    batch = batch_of("h1", [whole, part])
    assert batch.phase_devices == (None, (("gpu1",), ()))
    assert batch.prefill_end == struct.pack("<2d", nan, 2.0)
    odd = replace(batch, prefill_weight=struct.pack("<2d", 7.0, 0.5))
    columns = columns_of_batches([odd])
    assert wrong_usages(columns) == {}
    assert list(columns.usages()) == [whole, part]
    assert columns.take(columns.number == 0).equals(columns_of([whole]))
    assert not columns.take(columns.number == 1).equals(columns_of([replace(part, phases=None)]))
    assert list(joined([columns_of([whole]), columns]).usages()) == [whole, whole, part]


def test_a_reader_from_before_parts_sees_whole_requests_of_their_weight() -> None:
    """It passes by what it does not know."""
    part = _usage(phases=Phases(None, Phase(1.5, 3.0, 1.0, ("gpu1",))), weight=0.5)
    known = ("host", "request_ids", "routes", "route", "start", "end", "input_tokens", "output_tokens", "weight")
    wire = msgspec.msgpack.decode(usage_record("h1", [part]).body)
    older = {name: wire[name] for name in known}
    record = replace(_stood(usage_record("h1", [])), body=msgspec.msgpack.encode(older))
    decoded = Decoder().decode(record)
    assert isinstance(decoded, UsageBatch)
    assert decoded.usages() == (replace(part, phases=None),)
    assert set(wire) - set(older) == {"phase_devices", *PHASE_FIGURES}


def test_an_amount_of_no_unit_is_not_told() -> None:
    """Two records of the same request are the same request, whatever stands where nothing counts."""
    odd = replace(batch_of("h1", [_usage()]), work_amount=struct.pack("<d", 4.0))
    assert columns_of_batches([odd]).equals(columns_of([_usage()]))


@pytest.mark.parametrize(
    "changes",
    [
        {"start": b"\0" * 7},
        {"start": b""},
        {"end": b"\0" * 24},
        {"weight": b"\0" * 8},
        {"decode_end": b"\0" * 8},
        {"phase_devices": [None, None, None]},
        {"phase_devices": [["gpu0", []]]},
        {"route": b"\0" * 9},
        {"route": b"\0\0\0\0\1\0\0\0"},
        {"route": b"\0\0\0\0\xff\xff\xff\xff"},
        {"request_ids": ["r1"]},
        {"request_ids": ["r1", 2]},
        {"routes": []},
        {"routes": [["default"]]},
        {"host": None},
    ],
)
def test_a_damaged_record_is_refused_whole(changes: dict[str, object]) -> None:
    """A column that is too short or long, a route that is not there: nobody knows what belonged to whom."""
    wire = msgspec.msgpack.decode(usage_record("h1", [_usage(), _usage("r2")]).body) | changes
    record = replace(_stood(usage_record("h1", [])), body=msgspec.msgpack.encode(wire))
    with pytest.raises(Rejected) as refused:
        Decoder().decode(record)
    assert refused.value.reason == "undecodable"


@pytest.mark.parametrize("record", [usage_record("h2", [_usage()]), _as_objects([_usage(host="h2")])])
def test_requests_of_another_host_than_the_key_are_refused(record: Append) -> None:
    """Under another key they stand in another partition, beside readings that are not theirs."""
    with pytest.raises(Rejected) as refused:
        Decoder().decode(replace(_stood(record), key="h1"))
    assert (refused.value.reason, refused.value.detail) == ("bad_value", "usage.host is not the record's key")


def test_the_next_version_with_more_in_it_is_read() -> None:
    """A figure and a fact of the route that nobody here knows are passed by."""
    wire = msgspec.msgpack.decode(usage_record("h1", [_usage()]).body)
    wire["reasoning_tokens"] = struct.pack("<d", 17.0)
    wire["routes"][0].append("eco")
    record = replace(_stood(usage_record("h1", [])), schema="usage.v3", body=msgspec.msgpack.encode(wire))
    decoded = Decoder().decode(record)
    assert isinstance(decoded, UsageBatch)
    assert decoded.usages() == (_usage(),)
