"""How fast the embedded log takes records, beside bare sqlite3 inserts under the same durability in the same run."""

import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from collectors.readings import Device, EnergyReading, HostProfile
from monitor.log.codec import Decoder, ReadingBatch, readings_record
from monitor.log.protocol import Append
from monitor.log.sqlite import SqliteLog

_ROUNDS = 5
_BATCHES = {1: 200, 60: 50}  # records in a transaction: transactions in a round
_READ_ROWS = 3_000


def run() -> list[str]:
    """A line for each batch size, medians of interleaved rounds with their ratio, and one of reading."""
    record = _record()
    with tempfile.TemporaryDirectory() as folder:
        lines = [_append_line(Path(folder), record, size, count) for size, count in _BATCHES.items()]
        lines.append(_read_line(Path(folder), record))
    return lines


def _append_line(folder: Path, record: Append, size: int, count: int) -> str:
    log = SqliteLog(folder / f"log{size}.db")
    bare = _bare(folder / f"bare{size}.db")
    ours, theirs = [], []
    for _ in range(_ROUNDS):
        ours.append(_rate(lambda: log.append([record] * size, 1.0), size, count))
        theirs.append(_rate(lambda: _insert(bare, record, size), size, count))
    log.close()
    bare.close()
    ratio = median(one / other for one, other in zip(ours, theirs, strict=True))
    return (
        f"log append: batches of {size}: {median(ours):,.0f} rows/s, bare sqlite3 {median(theirs):,.0f} rows/s,"
        f" ratio {ratio:.2f} ({len(record.body)} byte bodies, WAL, synchronous FULL)"
    )


def _read_line(folder: Path, record: Append) -> str:
    log = SqliteLog(folder / "read.db")
    log.append([record] * _READ_ROWS, 1.0)
    decoder = Decoder()
    rates = []
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        for found in log.read({}, _READ_ROWS):
            decoder.decode(found)
        rates.append(_READ_ROWS / (time.perf_counter() - begun))
    log.close()
    return f"log read: checked and decoded {median(rates):,.0f} rows/s"


def _rate(store: Callable[[], None], size: int, count: int) -> float:
    begun = time.perf_counter()
    for _ in range(count):
        store()
    return size * count / (time.perf_counter() - begun)


def _bare(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE log (offset INTEGER PRIMARY KEY AUTOINCREMENT, stamp REAL, key TEXT, body BLOB)")
    return connection


def _insert(connection: sqlite3.Connection, record: Append, size: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    rows = [(1.0, record.key, record.body)] * size
    connection.executemany("INSERT INTO log (stamp, key, body) VALUES (?, ?, ?)", rows)
    connection.execute("COMMIT")


def _record() -> Append:
    """One second of a host with two GPUs, sampled at 1 Hz."""
    devices = tuple(Device(id=f"gpu{each}", kind="gpu", hardware="NVIDIA A100-SXM4-40GB") for each in range(2))
    readings = tuple(
        EnergyReading(device=device.id, start=1.0, end=2.0, energy_joules=250.0, method="counter") for device in devices
    )
    profile = HostProfile(host="gpu-node-1", zone="FR", pue=1.2, devices=devices)
    return readings_record(ReadingBatch(profile=profile, readings=readings))


if __name__ == "__main__":
    print("\n".join(run()))
