"""Following a file through everything that log rotation does to it: each complete line once, what is lost named."""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.errors import RetryLater
from collectors.requests.file import EventFile
from collectors.requests.file_part import READ_BYTES, Place


class Following:
    """A follower of one file, restarted at will, as a role would do it."""

    def __init__(self, path: Path, **more: float) -> None:
        self.path, self._more = path, more
        self.file = EventFile("gateway", path, **more)
        self.events: Counter[str] = Counter()

    def read(self) -> list[bytes]:
        """All lines there are now; none where the file is not there."""
        found: list[bytes] = []
        try:
            while lines := self.file.read():
                found += [line.raw for line in lines]
        except RetryLater:
            pass
        return found

    def restart(self) -> None:
        """A new process with the place that the old one kept."""
        kept = msgspec.json.encode(self.file.place)
        self.close()
        self.file = EventFile("gateway", self.path, msgspec.json.decode(kept, type=Place), **self._more)

    def close(self) -> None:
        """Lets go, and remembers what happened."""
        self.events += self.file.events
        self.file.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of the file; nothing is there yet."""
    return tmp_path / "events.jsonl"


@pytest.fixture
def following(path: Path) -> Iterator[Following]:
    """Its follower."""
    one = Following(path)
    yield one
    one.close()


def append(path: Path, text: bytes) -> None:
    """As a gateway writes."""
    with path.open("ab") as file:
        file.write(text)


def test_a_file_that_comes_later_is_read_from_its_beginning(path: Path, following: Following) -> None:
    """Until then the reading says what is missing; a folder that is not there, or one in the file's place, too."""
    with pytest.raises(RetryLater, match=r"events\.jsonl: No such file"):
        following.file.read()
    append(path, b"one\ntw")
    assert following.read() == [b"one"]
    append(path, b"o\r\n\n  \nthree\n")
    assert following.read() == [b"two", b"three"]
    nowhere = EventFile("x", path.parent / "nowhere" / "x")
    with pytest.raises(RetryLater, match="No such file"):
        nowhere.read()
    with pytest.raises(RetryLater, match="not a regular file"):
        EventFile("x", path.parent).read()


def test_the_rest_of_a_rotated_file_comes_first(path: Path, following: Following) -> None:
    """What was written before the rename, and by a writer that noticed it late, is read, then the new file."""
    append(path, b"one\n")
    assert following.read() == [b"one"]
    append(path, b"two\nthr")
    old = path.with_name("events.jsonl.1")
    path.rename(old)
    assert following.read() == [b"two"]
    append(path, b"four\n")
    append(old, b"ee\n")
    assert following.read() == [b"three", b"four"]
    append(old, b"late\n")
    assert following.read() == [b"late"]
    assert following.file.events == {"rotated": 1}


def test_after_a_restart_the_old_file_is_found_by_its_identity(path: Path, following: Following) -> None:
    """Whatever it is called now; the generations that came and went meanwhile are read as well, in their order."""
    path.with_name("events.jsonl.9").write_bytes(b"history\n")
    append(path, b"one\n")
    assert following.read() == [b"one"]
    append(path, b"two\n")
    path.rename(path.with_name("moved-away"))
    append(path, b"three\n")
    os.utime(path, ns=(path.stat().st_atime_ns, path.with_name("moved-away").stat().st_mtime_ns + 10**7))
    path.rename(path.with_name("events.jsonl.1"))
    append(path, b"four\n")
    following.restart()
    assert following.read() == [b"two", b"three", b"four"]
    following.restart()
    assert following.read() == []


def test_a_truncated_file_begins_anew(path: Path, following: Following) -> None:
    """Also where it has grown beyond its old length since, and its copy is not read again."""
    append(path, b"one\ntwo\n")
    assert following.read() == [b"one", b"two"]
    shutil.copy(path, path.with_name("events.jsonl.1"))
    os.truncate(path, 0)
    append(path, b"3\n")
    assert following.read() == [b"3"]
    os.truncate(path, 0)
    append(path, b"four, and longer than before\n")
    assert following.read() == [b"four, and longer than before"]
    assert following.file.events == {"truncated": 2}
    path.rename(path.with_name("events.jsonl.2"))
    append(path, b"five\n")
    assert following.read() == [b"five"]
    following.restart()
    os.truncate(path, 0)
    append(path, b"6\n")
    assert following.read() == [b"6"]


def test_another_file_under_the_same_inode_number_is_another_file(path: Path, following: Following) -> None:
    """The kernel gives numbers of deleted files to new ones: the first bytes tell them apart."""
    append(path, b"one\ntwo\n")
    assert following.read() == [b"one", b"two"]
    kept = following.file.place
    other = path.with_name("other")
    other.write_bytes(b"another file, just longer\n")
    other.rename(path)
    reused = msgspec.structs.replace(kept, inode=path.stat().st_ino)
    again = EventFile("gateway", path, reused)
    assert [line.raw for line in again.read()] == [b"another file, just longer"]
    assert again.events == {"not_found": 1}
    again.close()


def test_a_line_beyond_any_limit_is_one_line(path: Path, following: Following) -> None:
    """Its beginning stands for it, to be refused; the next line is whole, also after a restart in its middle."""
    append(path, b"before\n" + b"x" * (READ_BYTES + 10))
    assert [len(raw) for raw in following.read()] == [6, READ_BYTES]
    following.restart()
    append(path, b"x" * READ_BYTES + b'{"request_id": "smuggled"}\nafter\n')
    assert following.read() == [b"after"]


def test_many_lines_come_in_portions(path: Path, following: Following) -> None:
    """No read takes more than a few MiB into memory, and none is lost at an edge."""
    lines = [b"%07d" % number + b"y" * 1_000 for number in range(9_000)]
    append(path, b"\n".join(lines) + b"\n")
    first = following.file.read()
    assert 4_000 < len(first) < 4_300
    assert [line.raw for line in first] + following.read() == lines


def test_the_unfinished_end_of_an_old_file_is_handed_on_at_last(path: Path) -> None:
    """Once nobody has written to it for long: a lost line is then at least a rejected one."""
    following = Following(path, grace_seconds=0.0)
    append(path, b"one\ncut of")
    assert following.read() == [b"one"]
    path.rename(path.with_name("events.jsonl.1"))
    append(path, b"two\n")
    assert sorted(following.read()) == [b"cut of", b"two"]
    assert following.read() == []
    following.restart()
    assert following.read() == []
    following.close()


def test_positions_name_a_line_for_good(path: Path, following: Following) -> None:
    """The same line read twice has the same; another one at the same place in a cut file has not."""
    append(path, b"one\n")
    (first,) = following.file.read()
    following.file.rewind()
    assert following.file.read() == [first]
    os.truncate(path, 0)
    append(path, b"two\n")
    (second,) = following.file.read()
    assert first.position != second.position


def test_a_deleted_file_is_read_to_its_end(path: Path, following: Following) -> None:
    """While it is open; after a restart it is gone, and counted as not found."""
    append(path, b"one\n")
    assert following.read() == [b"one"]
    append(path, b"two\n")
    path.unlink()
    assert following.read() == [b"two"]
    following.restart()
    append(path, b"three, longer than what was\n")
    assert following.read() == [b"three, longer than what was"]
    assert following.file.events == {"not_found": 1}


STEPS = st.lists(
    st.sampled_from(["line", "line", "half", "rotate", "truncate", "restart", "read", "read"]), max_size=40
)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_each_complete_line_comes_once(steps: list[str]) -> None:
    """Any sequence of appends, rotations, cuts and restarts: lines come once each, all but what a cut took unread."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.jsonl"
        following = Following(path)
        found, written, at_risk, lost = following.read(), 0, [], set()
        open_end = b""
        generations = 0
        complete: list[bytes] = []
        for step in steps:
            if step == "line":
                raw = open_end + b"line-%d" % written
                append(path, b"line-%d\n" % written)
                complete.append(raw)
                at_risk.append(raw)
                open_end = b""
                written += 1
            elif step == "half":
                append(path, b"half-%d-" % written)
                open_end += b"half-%d-" % written
                written += 1
            elif step == "rotate" and path.exists():
                generations += 1
                path.rename(path.with_name(f"events.jsonl.{generations}"))
                at_risk, open_end = [], b""
            elif step == "truncate" and path.exists():
                os.truncate(path, 0)
                lost |= set(at_risk)
                at_risk, open_end = [], b""
            elif step == "restart":
                following.restart()
            elif step == "read":
                found += following.read()
                at_risk = []
        append(path, b"\n")  # a generation that was never seen is looked for once there is a file again
        if open_end:
            complete.append(open_end)
        found += following.read()
        following.close()
        assert len(found) == len(set(found))
        assert set(found) <= set(complete)
        assert set(complete) - set(found) <= lost
