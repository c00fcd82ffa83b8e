"""Appends of many threads, grouped: what waits while one append is on its way to the disk goes there in the next."""

import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from collectors.clock import Clock
from collectors.collector import SinkFull
from collectors.errors import RetryLater
from monitor.core.usage import Placed
from monitor.log.protocol import DeadLetter, LogUnavailable, LogWriter
from monitor.roles.usage_batches import append_events

MOST_WAITING: Final = 256
MOST_USAGES: Final = 20_000
PATIENCE_SECONDS: Final = 20.0

logger = structlog.get_logger()


@dataclass(slots=True)
class _Entry:
    events: Sequence[Sequence[Placed]]
    letters: Sequence[DeadLetter]
    refused: Sequence[int] = ()
    stored: threading.Event = field(default_factory=threading.Event)
    error: str | None = "wattribute is stopping"


class GroupedAppends:
    """One thread that writes for all others, and tells each when its part is on the disk."""

    def __init__(self, log: LogWriter, clock: Clock) -> None:
        self._log, self._clock = log, clock
        self._entries: queue.Queue[_Entry | None] = queue.Queue(MOST_WAITING)
        self._stopping = False
        self._available = True
        self._thread = threading.Thread(target=self._run, name="ingest-append", daemon=True)

    def start(self) -> None:
        """From now on what is stored is written."""
        self._thread.start()

    def stop(self, seconds: float = 5.0) -> None:
        """What waits is still written, within that time; who comes later is told to retry."""
        self._stopping = True
        if self._thread.is_alive():
            try:
                self._entries.put(None, timeout=seconds)
            except queue.Full:
                return
            self._thread.join(seconds)

    def store(self, events: Sequence[Sequence[Placed]], letters: Sequence[DeadLetter]) -> Sequence[int]:
        """Returns once they are in the log: which events it refused for good, by index, each an event's parts.

        Raises SinkFull, or RetryLater where the log takes nothing. After RetryLater they may be in the log all the
        same: sent again they are the same requests, and change nothing.
        """
        if self._stopping or not self._thread.is_alive():
            raise RetryLater("wattribute is stopping; send it again")
        entry = _Entry(events, letters)
        try:
            self._entries.put_nowait(entry)
        except queue.Full:
            raise SinkFull(f"{MOST_WAITING} posts wait to be stored; send it again") from None
        if not entry.stored.wait(PATIENCE_SECONDS):
            raise RetryLater(f"the log did not answer within {PATIENCE_SECONDS:.0f} s; send it again")
        if entry.error is not None:
            raise RetryLater(entry.error)
        return entry.refused

    def _run(self) -> None:
        group: list[_Entry] = []
        try:
            while True:
                group, last = self._next_group()
                self._write(group)
                _release(group)
                if last:
                    return
        finally:
            self._stopping = True
            _release(group)
            self._release_the_rest()

    def _next_group(self) -> tuple[list[_Entry], bool]:
        """The first that comes and all that wait behind it, and whether it is the last group."""
        group: list[_Entry] = []
        usages = 0
        entry = self._entries.get()
        while entry is not None:
            group.append(entry)
            usages += sum(map(len, entry.events))
            if usages >= MOST_USAGES:
                return group, False
            try:
                entry = self._entries.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _write(self, group: Sequence[_Entry]) -> None:
        """Stores the group as a whole; each entry knows afterwards whether it is stored."""
        letters = [letter for entry in group for letter in entry.letters]
        try:
            self._log.reject(letters)
            refused = append_events(self._log, [event for entry in group for event in entry.events], self._clock.now())
        except LogUnavailable as error:
            if self._available:
                logger.error("events cannot be stored; senders are told to retry", error=str(error))
            self._available = False
            for entry in group:
                entry.error = str(error)
            return
        self._available = True
        first = 0
        for entry in group:
            end = first + len(entry.events)
            entry.refused = [index - first for index in refused if first <= index < end]
            entry.error = None
            first = end

    def _release_the_rest(self) -> None:
        while True:
            try:
                entry = self._entries.get_nowait()
            except queue.Empty:
                return
            if entry is not None:
                entry.stored.set()


def _release(group: Sequence[_Entry]) -> None:
    for entry in group:
        entry.stored.set()
