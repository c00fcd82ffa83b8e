"""Messages out of what a broker sent, at a fifth of the client's price. In: batches, as fetched. Out: ConsumerRecords.

To take a message out of its batch costs kafka-python 10 us, more than all that ingest does with it: a Python call for
each of its seven varints, two objects, a dozen properties. Here a batch is read in one loop, to the very same records.

    read_quickly(KafkaConsumer(..))

Whatever is not as usual (an old message format, a codec that is not there, a batch that does not hold what it says) is
left to the client, from that batch to the end of its fetch: what is wrong, and how that is said, is the client's.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import kafka
from kafka import codec
from kafka.consumer.fetcher import ConsumerRecord, Fetcher
from kafka.protocol.consumer import IsolationLevel
from kafka.record.util import decode_varint

KNOWN_CLIENTS: Final = ("3.0.12",)
"""Those whose inner ways this was read from. Another one is left as slow as it is."""
_MAGIC: Final = 2
_LOG_APPEND_TIME: Final = 1
_NULL: Final = -1
"""The length of no bytes at all."""
_CODECS: Final[Mapping[int, tuple[Callable[[], bool], Callable[[bytes], bytes]]]] = {
    0: (lambda: True, bytes),
    1: (codec.has_gzip, codec.gzip_decode),
    2: (codec.has_snappy, codec.snappy_decode),
    3: (codec.has_lz4, codec.lz4_decode),
    4: (codec.has_zstd, codec.zstd_decode),
}


def read_quickly(consumer: Any) -> None:
    """From now on this KafkaConsumer takes its messages so; nothing changes with a client that is not known here."""
    if kafka.__version__ in KNOWN_CLIENTS:
        fetcher = consumer._fetcher
        if fetcher._isolation_level == IsolationLevel.READ_UNCOMMITTED:
            fetcher.PartitionRecords = QuickRecords


class QuickRecords(Fetcher.PartitionRecords):  # type: ignore[misc]
    """The client's own reader of what one fetch brought of a partition, with another way through its batches."""

    def _unpack_records(
        self, tp: Any, records: Any, key_deserializer: Any, value_deserializer: Any
    ) -> Iterator[ConsumerRecord]:
        last = None
        while (batch := records.next_batch()) is not None:
            found = self._messages(tp, batch) if key_deserializer is value_deserializer is None else None
            if found is None:
                rest = _Rest(batch, records)
                yield from super()._unpack_records(tp, rest, key_deserializer, value_deserializer)
                return
            self.leader_epoch = batch.leader_epoch
            for message in found:
                self.next_fetch_offset = message.offset + 1
                yield message
            if found:
                self.records_read += len(found)
                self.bytes_read += batch.size_in_bytes
            elif batch.is_control_batch:
                self.next_fetch_offset = batch.next_offset
            last = batch
        if last is not None:  # behind its last message, though compaction may have taken that
            self.next_fetch_offset = last.next_offset
        self.drain()

    def _messages(self, tp: Any, batch: Any) -> list[ConsumerRecord] | None:
        """None where the client is to look at the batch itself."""
        if batch.magic != _MAGIC or (self.check_crcs and not batch.validate_crc()):
            return None
        return [] if batch.is_control_batch else messages_of(batch, tp.topic, tp.partition)


class _Rest:
    """Batches yet to come, for a reader that asks for the next one: one that was looked at, and those behind it."""

    def __init__(self, batch: Any, records: Any) -> None:
        self._batch, self._records = batch, records

    def next_batch(self) -> Any:
        batch, self._batch = self._batch, None
        return self._records.next_batch() if batch is None else batch


def messages_of(batch: Any, topic: str, partition: int) -> list[ConsumerRecord] | None:
    """What stands in a kafka-python DefaultRecordBatch, which stays unread; None where it is not what it says."""
    is_there, decode = _CODECS.get(batch.compression_type, (lambda: False, bytes))
    if not is_there():
        return None
    try:
        return _read(decode(bytes(memoryview(batch._buffer)[batch._pos :])), batch, topic, partition)
    except Exception:  # noqa: BLE001 - the codecs have no error in common; the client meets it again, and raises
        return None


class _Varints(dict[bytes, int]):
    """What a varint says, by its bytes. Those of one and two bytes are remembered: there are 16 512 of them."""

    def __missing__(self, raw: bytes) -> int:
        number: int = decode_varint(raw, 0)[0]
        if len(raw) <= 2:
            self[raw] = number
        return number


_NUMBERS: Final = _Varints()
_VARINT: Final = rb"([\x80-\xff]*+[\x00-\x7f])"
_HEAD: Final = re.compile(
    _VARINT  # length of what follows
    + rb"[\x00-\x7f]"  # attributes, of which none is in use
    + _VARINT  # time, from that of the batch
    + _VARINT  # offset, from that of the batch
    + rb"(?:\x01"  # no key
    + _VARINT  # length of the value
    + rb"|"
    + _VARINT  # length of the key
    + rb")",
    re.DOTALL,
)


def _read(data: bytes, batch: Any, topic: str, partition: int) -> list[ConsumerRecord] | None:
    """One long loop: a call for each field is what makes the client dear."""
    epoch, base_offset, time_type = batch.leader_epoch, batch.base_offset, batch.timestamp_type
    by_broker, base_time, last_time = time_type == _LOG_APPEND_TIME, batch.first_timestamp, batch.max_timestamp
    number, head_at, new = _NUMBERS, _HEAD.match, tuple.__new__
    found: list[ConsumerRecord] = []
    no_headers: list[Any] = []
    pos = 0
    for _ in range(batch.records_count):
        head: Any = head_at(data, pos)  # None at the end of what is cut off: an error as good as any
        length, told_time, told_offset, told_size, told_key_size = head.groups()
        end, pos = head.end(1) + number[length], head.end()
        key, key_size, value = None, _NULL, None
        if told_key_size is None:
            size = number[told_size]
        else:
            if (key_size := number[told_key_size]) < 0:
                return None
            key, pos = data[pos : pos + key_size], pos + key_size
            size, pos = decode_varint(data, pos)
        if size >= 0:
            value, pos = data[pos : pos + size], pos + size
        headers, headers_size = no_headers, -1
        if data[pos]:
            headers, headers_size, pos = _headers(data, pos)
        else:
            pos += 1
        if pos != end or size < _NULL:
            return None
        time = last_time if by_broker else base_time + number[told_time]
        offset = base_offset + number[told_offset]
        sizes = key_size, size, headers_size
        found.append(
            new(ConsumerRecord, (topic, partition, epoch, offset, time, time_type, key, value, headers, None, *sizes))
        )
    return found if pos == len(data) else None


def _headers(data: bytes, pos: int) -> tuple[list[tuple[str, bytes | None]], int, int]:
    """The headers, how many bytes they hold, and the place behind them."""
    found: list[tuple[str, bytes | None]] = []
    size = 0
    count, pos = decode_varint(data, pos)
    if count < 0:
        raise ValueError("headers fewer than none")
    for _ in range(count):
        length, pos = decode_varint(data, pos)
        if length < 0:
            raise ValueError("a header without a name")
        name, pos = data[pos : pos + length].decode(), pos + length
        size += length
        length, pos = decode_varint(data, pos)
        value = None if length < 0 else data[pos : pos + length]
        found.append((name, value))
        pos, size = pos + max(0, length), size + max(0, length)
    return found, size, pos
