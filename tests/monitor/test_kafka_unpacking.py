"""What is taken out of batches quickly is what the client takes out of them, and so is what is wrong with them."""

import struct
from typing import Any

import kafka
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord, Fetcher
from kafka.errors import CorruptRecordError
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder
from kafka.record.util import calc_crc32c
from servers.server_process import server_port

from monitor.log.kafka_unpacking import KNOWN_CLIENTS, QuickRecords, read_quickly

PART = TopicPartition("llm.requests", 3)
NOON_MS = 1_780_000_000_000
NONE, GZIP, LZ4 = 0, 1, 3
_LENGTH, _EPOCH, _CRC, _ATTRIBUTES, _MAX_TIME, _HEAD = 8, 12, 17, 21, 35, 61

sizes = st.one_of(st.integers(0, 70), st.sampled_from([63, 64, 8_191, 8_192, 1_048_576]))
some_bytes = st.one_of(st.none(), sizes.map(lambda size: b"x" * size), st.binary(max_size=5))
messages = st.tuples(
    st.one_of(st.integers(-70, 9_000), st.sampled_from([2**21, 2**40, -(2**40)])),  # ms from noon
    some_bytes,
    some_bytes,
    st.lists(st.tuples(st.text(max_size=3), some_bytes), max_size=2),
    st.sampled_from([1, 2, 64, 9_000, 2**21]),  # offsets on, as compaction leaves them
)
batches = st.tuples(st.lists(messages, max_size=4), st.sampled_from([NONE, GZIP, LZ4]))


def batch(said: Any, codec: int, offset: int) -> tuple[bytearray, int]:
    """Bytes of one batch as a broker sends it, and the offset behind it."""
    builder = MemoryRecordsBuilder(2, codec, 2**30)
    at = 0
    for moment, key, value, headers, step in said:
        builder.skip(step - 1)
        builder.append(NOON_MS + moment, key, value, headers)
        at += step
    builder.close()
    raw = bytearray(builder.buffer())
    struct.pack_into(">q", raw, 0, offset)
    return sealed(raw), offset + at


def sealed(raw: bytearray) -> bytearray:
    """The same, whole as far as its checksum says."""
    struct.pack_into(">I", raw, _CRC, calc_crc32c(memoryview(raw)[_ATTRIBUTES:]))
    return raw


def read(kind: Any, raw: bytes, first: int = 0, each: int | None = None) -> list[object]:
    """All that a reader gives and stands at, take by take, up to what it raises."""
    found: list[object] = []
    try:
        reader = kind(first, PART, MemoryRecords(bytes(raw)))
        while reader:
            taken = reader.take(each)
            found.append((taken, reader.next_fetch_offset, reader.leader_epoch, bool(reader)))
            if not taken and reader:
                break
    except Exception as error:  # noqa: BLE001 - whatever it is, both raise it
        found.append((type(error), str(error)))
    return found


@given(st.lists(batches, max_size=3), st.sampled_from([None, 1, 3]), st.integers(0, 5))
def test_the_same_messages(fetch: list[Any], each: int | None, first: int) -> None:
    """Of any batches, from any offset on, however many are taken at a time."""
    raw, offset = bytearray(), 0
    for said, codec in fetch:
        more, offset = batch(said, codec, offset)
        raw += more
    assert read(QuickRecords, raw, first, each) == read(Fetcher.PartitionRecords, raw, first, each)


@given(st.lists(batches, min_size=1, max_size=2), st.data())
def test_the_same_of_damaged_batches(fetch: list[Any], data: st.DataObject) -> None:
    """A byte is another one, under a checksum that fits: the client's verdict, behind the client's messages."""
    raw, offset = bytearray(), 0
    for said, codec in fetch:
        more, offset = batch(said, codec, offset)
        at = data.draw(st.integers(_ATTRIBUTES, len(more) - 1))
        more[at] = data.draw(st.integers(0, 255))
        raw += sealed(more)
    assert read(QuickRecords, raw) == read(Fetcher.PartitionRecords, raw)


@given(st.integers(0, 60), st.integers(0, 255))
@example(5, 3)  # a value of -2 bytes
def test_a_length_that_is_not_true(at: int, byte: int) -> None:
    """Wherever a varint of a record says another thing, nobody reads more or less for it than the client."""
    raw, _ = batch(
        [(0, None, None, [], 1), (1, b"key", b"value", [("a", b"b")], 1), (2, None, b"v" * 40, [], 1)], NONE, 0
    )
    raw[min(_HEAD + at, len(raw) - 1)] = byte
    assert read(QuickRecords, sealed(raw)) == read(Fetcher.PartitionRecords, raw)


def test_what_a_message_says() -> None:
    """Offset, time, key and value as they were sent, in the client's own type."""
    raw, behind = batch([(5, b"k", b"{}", [("schema", b"v1")], 1), (9, None, None, [], 2)], LZ4, 40)
    ((taken, *_),) = read(QuickRecords, raw)  # type: ignore[misc]
    assert taken == [
        ConsumerRecord(*PART, 0, 40, NOON_MS + 5, 0, b"k", b"{}", [("schema", b"v1")], None, 1, 2, 8),
        ConsumerRecord(*PART, 0, 42, NOON_MS + 9, 0, None, None, [], None, -1, -1, -1),
    ]
    assert [type(each) for each in taken] == [ConsumerRecord, ConsumerRecord]
    assert behind == 43


@pytest.mark.parametrize("attributes", [0x08, 0x10, 0x20, 0x30], ids=["by the broker", "transaction", "control", "end"])
def test_batches_of_brokers(attributes: int) -> None:
    """Times of the broker stand at the batch; what a broker says of transactions is no message."""
    marker = struct.pack(">hh", 0, 1)
    first, at = batch([(0, marker, b"a", [], 1), (7, marker, b"b", [], 1)], NONE, 0)
    struct.pack_into(">h", first, _ATTRIBUTES, attributes)
    struct.pack_into(">q", first, _MAX_TIME, NOON_MS + 99)
    struct.pack_into(">i", first, _EPOCH, 5)
    second, _ = batch([(1, None, b"c", [], 1)], LZ4, at)
    raw = sealed(first) + second
    found = read(QuickRecords, raw)
    assert found == read(Fetcher.PartitionRecords, raw)
    values = [message.value for message in found[0][0]]  # type: ignore[index]
    assert values == ([b"c"] if attributes & 0x20 else [b"a", b"b", b"c"])


def test_a_wrong_checksum_is_the_clients_word() -> None:
    """What came before it is handed on first."""
    good, at = batch([(0, None, b"a", [], 1)], LZ4, 0)
    bad, _ = batch([(0, None, b"b", [], 1)], LZ4, at)
    bad[-1] ^= 1
    reader = QuickRecords(0, PART, MemoryRecords(bytes(good + bad)))
    assert [message.value for message in reader.take()] == [b"a"]
    with pytest.raises(CorruptRecordError, match="failed crc check"):
        reader.take()


def test_the_old_format_is_left_to_the_client() -> None:
    """Behind a batch of today, too."""
    old = MemoryRecordsBuilder(1, NONE, 2**20, offset=1)
    old.append(NOON_MS, b"k", b"old", [])
    old.close()
    new, _ = batch([(0, None, b"new", [], 1)], NONE, 0)
    raw = new + bytearray(old.buffer())
    found = read(QuickRecords, raw)
    assert [message.value for message in found[0][0]] == [b"new", b"old"]  # type: ignore[index]
    assert found == read(Fetcher.PartitionRecords, raw)


@pytest.mark.parametrize(
    ("settings", "version", "quick"),
    [
        ({}, KNOWN_CLIENTS[-1], True),
        ({"isolation_level": "read_committed"}, KNOWN_CLIENTS[-1], False),
        ({}, "3.0.13", False),
    ],
    ids=["all that is there", "what is committed", "another client"],
)
def test_who_is_read_quickly(
    settings: dict[str, str], version: str, quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer of a client that is known, which reads all there is; no other consumer changes with it."""
    monkeypatch.setattr(kafka, "__version__", version)
    address = f"127.0.0.1:{server_port()}"  # nobody answers there
    consumer, other = (KafkaConsumer(bootstrap_servers=address, api_version=(3, 9), **settings) for _ in range(2))
    read_quickly(consumer)
    assert (consumer._fetcher.PartitionRecords is QuickRecords) == quick
    assert other._fetcher.PartitionRecords is Fetcher.PartitionRecords
    consumer.close()
    other.close()


def test_the_client_here_is_known() -> None:
    """With a new kafka-python: read its fetcher again, run the tests above with it, and add it to KNOWN_CLIENTS."""
    assert kafka.__version__ in KNOWN_CLIENTS
