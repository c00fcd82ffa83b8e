"""Rows of the SQLite log: the tables, and a record to and from its row, sealed with a checksum."""

import hashlib
import struct
import zlib
from typing import Any

from collectors.units import UnixSeconds
from monitor.log.protocol import Append, DeadLetter, LogRecord, Stream

TABLES = (
    "CREATE TABLE IF NOT EXISTS log (offset INTEGER PRIMARY KEY AUTOINCREMENT, stream TEXT NOT NULL,"
    " stamp REAL NOT NULL, key TEXT NOT NULL, schema TEXT NOT NULL, body BLOB NOT NULL, crc INTEGER NOT NULL)",
    # No index over a column that a damaged page may change: SQLite then refuses to delete the row, for ever.
    "CREATE INDEX IF NOT EXISTS log_facts ON log (offset) WHERE stream = 'facts'",
    "CREATE TABLE IF NOT EXISTS commits (id INTEGER PRIMARY KEY, body BLOB NOT NULL, crc INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS dead_letters (number INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL,"
    " position TEXT NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL, sha256 TEXT NOT NULL, at REAL NOT NULL,"
    " UNIQUE (source, position))",
    "CREATE TABLE IF NOT EXISTS trimmed (id INTEGER PRIMARY KEY, newest_stamp REAL NOT NULL)",
)
COLUMNS = "offset, stream, stamp, key, schema, body, crc"
STREAMS: dict[bytes, Stream] = {b"readings": "readings", b"usage": "usage", b"facts": "facts"}

_STAMP = struct.Struct("<d")


def checksum(stamp: UnixSeconds, stream: bytes, key: bytes, schema: bytes, body: bytes) -> int:
    """CRC-32 over everything of a record but its offset; a zero byte ends each name.

    Adding 0.0 makes -0.0 a 0.0, as SQLite does, and changes no other stamp.
    """
    head = b"\0".join((_STAMP.pack(stamp + 0.0), stream, key, schema, b""))
    return zlib.crc32(body, zlib.crc32(head))


def sealed(record: Append, stamp: UnixSeconds) -> tuple[object, ...]:
    """A record's row, without the offset that the table gives it."""
    crc = checksum(stamp, record.stream.encode(), record.key.encode(), record.schema.encode(), record.body)
    return (record.stream, stamp, record.key, record.schema, record.body, crc)


def opened(row: tuple[Any, ...]) -> LogRecord | None:
    """The record of a row; None if it is not the one that was sealed."""
    offset, stream, stamp, key, schema, body, crc = row
    try:
        intact = checksum(stamp, stream, key, schema, body) == crc
    except (TypeError, struct.error):  # damaged so that a column is of another type
        return None
    if not intact:
        return None
    return LogRecord(
        stream=STREAMS[stream], offset=offset, stamp=stamp, key=key.decode(), schema=schema.decode(), body=body
    )


def corrupt(row: tuple[Any, ...], at: UnixSeconds) -> DeadLetter:
    """The dead letter of a row that does not open."""
    offset, body = row[0], row[5]
    digest = hashlib.sha256(body if isinstance(body, bytes) else b"").hexdigest()
    detail = "the row does not match its checksum: the disk or another program changed it"
    return DeadLetter(source="log", position=str(offset), reason="corrupt", detail=detail, sha256=digest, at=at)
