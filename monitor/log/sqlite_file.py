"""The log's database file: opening, the one writer's lock, transactions, and SQLite's errors in words."""

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monitor.log.protocol import LogUnavailable


class LogFile:
    """A connection that any number of threads may use. A second writer on the file is refused.

    Raises LogUnavailable, here and in every method, when SQLite does not take or give rows. Text comes back as bytes:
    a damaged row may hold what is no UTF-8, and must not stop its reader.
    """

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._writer = None if read_only else _lock_for_writing(path)
        try:
            with self._guarded("open"):
                self._connection = _connect(path, read_only=read_only)
        except LogUnavailable:
            self._release()
            raise

    def fetch(self, text: str, bound: Sequence[object] = ()) -> list[Any]:
        """All rows of a SELECT."""
        with self._guarded("read"):
            return self._connection.execute(text, bound).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything that is executed within it or nothing; on disk when it ends without an error."""
        with self._guarded("write"):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Lets go of file and lock."""
        with self._lock:
            self._connection.close()
            self._release()

    def _release(self) -> None:
        if self._writer is not None:
            os.close(self._writer)
            self._writer = None

    @contextmanager
    def _guarded(self, doing: str) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except (sqlite3.ProgrammingError, sqlite3.InterfaceError):
                raise  # our mistake, not the disk's
            except sqlite3.Error as error:
                raise LogUnavailable(f"{self._path}: cannot {doing} the log: {error}; {_advice(error)}") from error


def _connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=5.0)
    connection.text_factory = bytes
    try:
        if read_only:
            connection.execute("SELECT 1 FROM sqlite_schema").fetchone()  # SQLite itself opens at the first question
        else:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _lock_for_writing(path: Path) -> int:
    """Takes `<path>.lock` until it is closed; the kernel lets go of it when the process dies, however it dies."""
    name = path.with_name(path.name + ".lock")
    try:
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LogUnavailable(
            f"{name}: cannot open the lock of the log: {error.strerror};"
            " check that the folder exists and that this user may write in it"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise LogUnavailable(
            f"{path}: another wattribute runs on this data folder; stop it, or give this one a folder of its own"
        ) from error
    return descriptor


def _advice(error: sqlite3.Error) -> str:
    """What to do about it. The low byte of SQLite's extended codes is the kind of error."""
    kind = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    return {
        sqlite3.SQLITE_FULL: "free space on its disk",
        sqlite3.SQLITE_CORRUPT: "the file is damaged: move it aside and restore a copy",
        sqlite3.SQLITE_ERROR: "it is no log, or one of another version: start the daemon of this version on it once",
        sqlite3.SQLITE_NOTADB: "it is no log: move it aside, or name another data folder",
        sqlite3.SQLITE_BUSY: "another program holds it open for writing: close that program",
        sqlite3.SQLITE_READONLY: "check that this user may write the file and its folder",
        sqlite3.SQLITE_CANTOPEN: "check that the folder exists and that this user may read and write in it",
        sqlite3.SQLITE_IOERR: "check the disk: the kernel's log says more",
    }.get(kind, "check the disk and the file's permissions")
