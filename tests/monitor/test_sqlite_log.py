"""The SQLite log against damaged disks, killed processes and second writers."""

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from monitor.log.protocol import Append, Commit, LogUnavailable
from monitor.log.sqlite import SqliteLog

WRITER = """
import sys
from pathlib import Path
from monitor.log.protocol import Append
from monitor.log.sqlite import SqliteLog
log = SqliteLog(Path(sys.argv[1]))
for number in range(1_000_000):
    body = str(number).encode()
    log.append([Append(stream="readings", key="h", schema="test.v1", body=body) for _ in range(3)], float(number))
    print(number, flush=True)
"""


def _append(body: bytes, stream: str = "readings") -> Append:
    return Append(stream=stream, key="host-key", schema="test.v1", body=body)  # type: ignore[arg-type]


def _filled(path: Path) -> SqliteLog:
    log = SqliteLog(path)
    log.append([_append(b"first"), _append(b"second"), _append(b"fact", "facts"), _append(b"third", "usage")], 10.0)
    return log


def _flip(path: Path, what: bytes) -> None:
    """Flips the highest bit of a byte of the closed file, as a bad disk would."""
    raw = bytearray(path.read_bytes())
    assert raw.count(what) == 1
    raw[raw.index(what)] ^= 0x80
    path.write_bytes(raw)


@pytest.mark.parametrize("what", [b"second", b"readings\nhost-keytest.v1second", b"host-keytest.v1second"])
def test_a_flipped_bit_costs_one_record_which_is_named(tmp_path: Path, what: bytes) -> None:
    """Body, stream or key: the reader goes on, the row is one dead letter, and it can be trimmed."""
    path = tmp_path / "log.db"
    _filled(path).close()
    _flip(path, what)
    log = SqliteLog(path)
    for _ in range(2):
        assert [record.body for record in log.read({}, 1)] == [b"first"]
        assert [record.body for record in log.read({}, 2)] == [b"first", b"third"]
        assert log.rejected() == {"corrupt": 1}
    ((_, letter),) = log.rejections()
    assert (letter.source, letter.position, letter.at) == ("log", "2", 10.0)
    log.commit(Commit(positions={"readings": 4, "usage": 4}, watermark=0.0, mark=0.0, log_time=0.0))
    assert log.trim(11.0) == 2
    assert [record.body for record in log.read({}, 9)] == [b"third"]
    log.close()


@pytest.mark.parametrize("damage", ["stamp = 1e300", "stamp = 'soon'", "crc = crc + 1", "body = 'text'"])
def test_a_changed_column_of_the_newest_row_does_not_become_log_time(tmp_path: Path, damage: str) -> None:
    """The log's time is that of the newest intact row."""
    path = tmp_path / "log.db"
    log = _filled(path)
    log.append([_append(b"newest")], 20.0)
    log.close()
    raw = sqlite3.connect(path)
    raw.execute(f"UPDATE log SET {damage} WHERE offset = 5")
    raw.commit()
    raw.close()
    again = SqliteLog(path)
    assert again.log_time() == 10.0
    assert [record.body for record in again.read({}, 9)] == [b"first", b"second", b"third"]
    assert again.rejected() == {"corrupt": 1}
    assert [found.body for found in [again.last("readings", "host-key")] if found] == [b"second"]
    again.close()


def test_a_damaged_commit_is_not_taken_for_none(tmp_path: Path) -> None:
    """Starting over in silence would make other rows: a person decides."""
    path = tmp_path / "log.db"
    log = _filled(path)
    log.commit(Commit(positions={"readings": 4}, watermark=0.0, mark=0.0, log_time=0.0))
    log.close()
    raw = sqlite3.connect(path)
    raw.execute("UPDATE commits SET crc = crc + 1")
    raw.commit()
    raw.close()
    again = SqliteLog(path)
    with pytest.raises(LogUnavailable, match="commit is damaged"):
        again.committed()
    again.close()


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    """After a kill in the middle of writing every acknowledged batch is there, and every batch is whole."""
    path = tmp_path / "log.db"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    for acknowledged in writer.stdout:
        if int(acknowledged) == 40:
            break
    writer.kill()
    rest = writer.stdout.read().split("\n")[:-1]  # what it had said before it died
    writer.stdout.close()
    writer.wait()
    log = SqliteLog(path)  # its lock died with it
    numbers = [int(record.body) for record in log.read({}, 1_000_000)]
    count = len(numbers) // 3
    assert numbers == [number for number in range(count) for _ in range(3)]
    assert count > int(rest[-1] if rest else 40)
    log.append([_append(b"after")], 0.0)
    assert log.log_time() == float(count - 1)
    log.close()


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    """The message names the file and the reason; when the first one closes, the next may write."""
    path = tmp_path / "log.db"
    first = SqliteLog(path)
    with pytest.raises(LogUnavailable, match=r"log\.db: another wattribute runs on this data folder"):
        SqliteLog(path)
    first.close()
    SqliteLog(path).close()


def test_a_reader_of_another_process_needs_no_lock(tmp_path: Path) -> None:
    """It sees what the writer appends, its time too, and writes nothing, not even about a damaged row."""
    path = tmp_path / "log.db"
    log = _filled(path)
    reader = SqliteLog(path, read_only=True)
    assert reader.log_time() == 10.0
    log.append([_append(b"late")], 30.0)
    assert reader.log_time() == 30.0
    raw = sqlite3.connect(path)
    raw.execute("UPDATE log SET body = x'00' WHERE offset = 2")
    raw.commit()
    raw.close()
    assert [record.body for record in reader.read({}, 9)] == [b"first", b"third", b"late"]
    assert reader.rejected() == {}
    with pytest.raises(LogUnavailable, match="may write the file"):
        reader.append([_append(b"no")], 40.0)
    reader.close()
    log.close()


def test_a_full_disk_stores_nothing_of_the_batch(tmp_path: Path) -> None:
    """The message says what to do, nothing is half there, and it goes on when there is room."""
    log = _filled(tmp_path / "log.db")
    (pages,) = log._file.fetch("PRAGMA page_count")[0]
    log._file.fetch(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(LogUnavailable, match="free space"):
        log.append([_append(b"small"), _append(b"x" * 100_000)], 20.0)
    assert len(log.read({}, 9)) == 3
    log._file.fetch("PRAGMA max_page_count = 100000")
    log.append([_append(b"small")], 20.0)
    assert len(log.read({}, 9)) == 4
    log.close()


@pytest.mark.parametrize("read_only", [False, True])
def test_what_is_no_log_is_named(tmp_path: Path, read_only: bool) -> None:
    """A missing folder and a file of something else: the file, and what to do."""
    with pytest.raises(LogUnavailable, match="check that the folder exists"):
        SqliteLog(tmp_path / "missing" / "log.db", read_only=read_only)
    (tmp_path / "other.db").write_bytes(b"something else, and quite long" * 100)
    with pytest.raises(LogUnavailable, match="it is no log"):
        SqliteLog(tmp_path / "other.db", read_only=read_only)
    (tmp_path / "other.db").unlink()
    SqliteLog(tmp_path / "other.db").close()  # the lock was let go


def test_threads_append_whole_batches(tmp_path: Path) -> None:
    """Batches of two threads do not mix, and stamps rise over both."""
    log = SqliteLog(tmp_path / "log.db")

    def write(name: bytes) -> None:
        for number in range(20):
            log.append([_append(name), _append(name)], float(number))

    threads = [threading.Thread(target=write, args=(name,)) for name in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = log.read({}, 100)
    assert len(records) == 80
    assert all(one.body == other.body for one, other in zip(records[::2], records[1::2], strict=True))
    assert [record.stamp for record in records] == sorted(record.stamp for record in records)
    log.close()


def test_a_log_over_its_size_loses_its_oldest_records_behind_the_commit(tmp_path: Path) -> None:
    """Of 1 000 records in half their space about half stay, the newest; nothing goes that no commit has claimed."""
    log = SqliteLog(tmp_path / "log.db")
    body = b"x" * 4_000
    records = [Append(stream="usage", key="h", schema="usage.v1", body=body, stamp=1e9 + i) for i in range(1_000)]
    log.append(records, 0.0)
    assert log.trim_to_size(2_100_000) == 0
    end = log.position_at("usage", 2e9)
    log.commit(Commit(positions={"readings": end, "usage": end}, watermark=1e9, mark=1e9, log_time=1e9 + 999))
    assert log.trim_to_size(10_000_000) == 0
    dropped = log.trim_to_size(2_100_000)
    assert 400 < dropped < 600
    left = log.read({}, 2_000)
    assert [record.stamp for record in left] == [1e9 + i for i in range(dropped, 1_000)]
    log.close()
