"""Enters one record of the log into a book: decodes it, judges its identity, and tells what it touched."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import accumulate
from typing import NamedTuple

import msgspec
import numpy as np

from collectors.errors import Rejected
from collectors.readings import ActivityReading, EnergyReading, EngineReading
from collectors.units import SECONDS_PER_DAY, UnixSeconds
from monitor.core.attribution.pieces import Column
from monitor.core.book import Book
from monitor.core.membership import FUTURE_LIMIT_SECONDS, Accounting, Identities
from monitor.core.readings import PARENT_REACH_SECONDS
from monitor.core.request_identities import RequestIdentities
from monitor.core.usage_columns import Index, UsageColumns
from monitor.core.usage_windows import FAR_WINDOW, windows_of_each, windows_touched
from monitor.core.window import windows_of
from monitor.log.codec import Decoder, ReadingBatch, Restate
from monitor.log.protocol import DeadLetter, LogRecord
from monitor.log.usage_reading import columns_of_batches, wrong_usages
from monitor.log.usage_wire import UsageBatch

Entered = EnergyReading | ActivityReading | EngineReading | Restate

LENGTH_LIMIT_SECONDS = 7 * SECONDS_PER_DAY
"""A longer reading, request or order is refused: one wrong clock must not touch every window since 1970."""


class Touch(msgspec.Struct, frozen=True, gc=False):
    """What one reading or order did: the windows it touches, wherever they stand."""

    host: str
    windows: range
    entered: Entered
    log_time: UnixSeconds

    def since(self, window: float) -> "Touch | None":
        """What it touches from that window on; None for nothing."""
        first = int(max(self.windows.start, window))
        if first >= self.windows.stop:
            return None
        return Touch(self.host, range(first, self.windows.stop), self.entered, self.log_time)

    def touched(self) -> Iterable[int]:
        """All windows."""
        return self.windows


class RequestsTouch(msgspec.Struct, frozen=True, gc=False):
    """What requests of one host did: the first and the last window that each touches, and where it stands in the log.

    Length n >= 1 each.
    """

    host: str
    first: Index
    last: Index
    log_time: Column

    def since(self, window: float) -> "RequestsTouch | None":
        """What they touch from that window on; None for nothing."""
        there = self.last >= window
        if not there.any():
            return None
        first = np.maximum(self.first[there], int(max(window, -FAR_WINDOW)))
        return RequestsTouch(self.host, first, self.last[there], self.log_time[there])

    def touched(self) -> Iterable[int]:
        """All windows that any of them touches."""
        return windows_touched(self.first, self.last)

    def late(self, terms: Accounting) -> Iterator[tuple[range, UnixSeconds]]:
        """The windows of each that touches one that was final when it came, and its log time."""
        final = np.floor((self.log_time - terms.horizon_seconds) / terms.window_seconds) - 1
        late = self.first <= final
        columns = (self.first[late].tolist(), self.last[late].tolist(), self.log_time[late].tolist())
        for first, last, log_time in zip(*columns, strict=True):
            yield range(first, last + 1), log_time


class _Waiting(NamedTuple):
    """A record of usage that is read, and not entered yet."""

    record: LogRecord
    batch: UsageBatch


class Entering:
    """Puts records into the book one after the other, in the order of the log."""

    def __init__(
        self,
        terms: Accounting,
        book: Book,
        reject: Callable[[DeadLetter], None],
        decoder: Decoder | None = None,
        *,
        since: UnixSeconds = float("-inf"),
        owns: Callable[[str], bool] = lambda _host: True,
    ) -> None:
        """What stands before `since` is remembered by its identity alone: it is read to judge what comes after it.

        Hosts that are not owned are passed by: they have moved to another partition, and are accounted there.
        """
        self._terms = terms
        self._since, self._owns = since, owns
        self._book = book
        self._reject = reject
        self._decoder = decoder or Decoder()
        self._identities = Identities(terms.horizon_seconds)
        self._identities_of_requests = RequestIdentities(terms.horizon_seconds, since)
        self._waiting: list[_Waiting] = []
        self._entered = 1
        self._encode = msgspec.msgpack.Encoder(order="sorted").encode

    def enter(self, record: LogRecord) -> Iterator[Touch]:
        """What the record touches; nothing for a tick, a duplicate's conflict or what cannot be decoded.

        Requests wait for `requests`: a record of few costs as much as one of many.
        """
        try:
            content = self._decoder.decode(record)
        except Rejected as rejected:
            self._refuse(record, 0, rejected.reason, rejected.detail)
            return
        if isinstance(content, Restate):
            sane = record.stamp >= self._since and self._has_sane_span(record, 0, content)
            if sane and self._owns(content.host):
                windows = windows_of(content.start, content.end, self._terms.window_seconds)
                yield Touch(content.host, windows, content, record.stamp)
        elif not self._owns(record.key):
            return
        elif isinstance(content, ReadingBatch):
            yield from self._enter_readings(record, content)
        elif isinstance(content, UsageBatch):
            self._waiting.append(_Waiting(record, content))

    def _enter_readings(self, record: LogRecord, batch: ReadingBatch) -> Iterator[Touch]:
        host = batch.profile.host
        families = {device.id for device in batch.profile.devices if device.parent is not None}
        families |= {device.parent for device in batch.profile.devices if device.parent is not None}
        self._book.has_families = self._book.has_families or bool(families)
        for i, reading in enumerate(batch.readings):
            if not self._has_sane_span(record, i, reading):
                continue
            identity = (host, reading.device, reading.start)
            digest = self._encode((reading.end, reading.energy_joules, reading.method))
            if self._identities.is_conflict(identity, digest, record.stamp):
                self._refuse(record, i, "conflict", f"another reading of {reading.device} at {reading.start!r}")
                continue
            if record.stamp < self._since:
                continue
            windows = self._book.add_reading(reading, batch.profile, record.stamp)
            if reading.device in families:
                windows = _reaching(windows, self._terms.window_seconds)
            yield Touch(host, windows, reading, record.stamp)
        if record.stamp >= self._since:
            yield from self._enter_work(record, batch)

    def _enter_work(self, record: LogRecord, batch: ReadingBatch) -> Iterator[Touch]:
        """Who used the devices, and what model servers did. One with a wrong clock is passed by."""
        host = batch.profile.host
        told: tuple[ActivityReading | EngineReading, ...] = (*batch.activities, *batch.engines)
        for each in told:
            if each.end > record.stamp + FUTURE_LIMIT_SECONDS or each.end - each.start > LENGTH_LIMIT_SECONDS:
                continue
            if isinstance(each, ActivityReading):
                self._book.add_activity(host, each, record.stamp)
            else:
                self._book.add_engine(host, each, record.stamp)
            yield Touch(host, windows_of(each.start, each.end, self._terms.window_seconds), each, record.stamp)

    def requests(self) -> Iterator[RequestsTouch]:
        """Enters the requests that wait, before any window that they touch is accounted; what they touch, by host."""
        waiting, self._waiting = self._waiting, []
        usages = columns_of_batches(
            [each.batch for each in waiting], self._entered, [each.record.stamp for each in waiting]
        )
        places = _Places(waiting, self._entered)
        self._entered += len(usages)
        usages = self._without_wrong_ones(usages, places)
        conflict, repeated = self._identities_of_requests.judge(usages)
        if conflict.any():
            for number in usages.number[conflict].tolist():
                record, part, request_id = places.of(number)
                self._refuse(record, part, "conflict", f"another content under request_id {request_id!r:.80}")
        counts = ~conflict & (usages.log_time >= self._since)
        if not counts.all():
            usages, repeated = usages.take(counts), repeated[counts]
        self._book.add_usages(usages.take(~repeated) if repeated.any() else usages)
        first, last = windows_of_each(usages, self._terms.window_seconds)
        for host, mine in usages.by_host():
            yield RequestsTouch(host, first[mine], last[mine], usages.log_time[mine])

    def _without_wrong_ones(self, usages: UsageColumns, places: "_Places") -> UsageColumns:
        """Those that are sane, one by one: nothing of a record is lost for what stands beside it."""
        with np.errstate(invalid="ignore", over="ignore"):  # of wrong ones
            wrong = wrong_usages(usages)
            future = usages.end > usages.log_time + FUTURE_LIMIT_SECONDS
            odd = future | (usages.end - usages.start > LENGTH_LIMIT_SECONDS)
        odd[list(wrong)] = True
        if not odd.any():
            return usages
        for place in np.flatnonzero(odd).tolist():
            record, part, _ = places.of(int(usages.number[place]))
            if place in wrong:
                self._refuse(record, part, "bad_value", wrong[place])
            else:
                start, end = float(usages.start[place]), float(usages.end[place])
                self._check_span(record, part, start, end, may_be_ahead=False)
        return usages.take(~odd)

    def _has_sane_span(self, record: LogRecord, part: int, entered: EnergyReading | Restate) -> bool:
        may_be_ahead = isinstance(entered, Restate)
        return self._check_span(record, part, entered.start, entered.end, may_be_ahead=may_be_ahead)

    def _check_span(
        self, record: LogRecord, part: int, start: UnixSeconds, end: UnixSeconds, *, may_be_ahead: bool
    ) -> bool:
        if end > record.stamp + FUTURE_LIMIT_SECONDS and not may_be_ahead:
            ahead = end - record.stamp
            self._refuse(record, part, "future", f"ends {ahead:.0f} s after its log time: check that host's clock")
            return False
        if end - start > LENGTH_LIMIT_SECONDS:
            seconds = end - start
            self._refuse(record, part, "too_long", f"lasts {seconds:.0f} s, more than {LENGTH_LIMIT_SECONDS:.0f} s")
            return False
        return True

    def _refuse(self, record: LogRecord, part: int, reason: str, detail: str) -> None:
        self._reject(
            DeadLetter(
                source=f"log/{record.stream}",
                position=f"{record.offset}.{part}",
                reason=reason,
                detail=detail,
                sha256=sha256(record.body).hexdigest(),
                at=record.stamp,
            )
        )


def _reaching(windows: range, length_seconds: UnixSeconds) -> range:
    """A child's reading changes its parent's own part over the parent's whole reading, as far as that reaches."""
    reach = int(PARENT_REACH_SECONDS // length_seconds) + 1
    return range(windows.start - reach, windows.stop + reach)


class _Places:
    """Where requests that were entered together stood."""

    def __init__(self, waiting: Sequence[_Waiting], first_number: int) -> None:
        self._waiting = waiting
        self._first = first_number
        self._begins: list[int] = []

    def of(self, number: int) -> tuple[LogRecord, int, str]:
        """The record of the request of that number, its place in it, and its id. Few are asked for, mostly none."""
        self._begins = self._begins or list(
            accumulate((len(each.batch) for each in self._waiting), initial=self._first)
        )
        at = bisect_right(self._begins, number) - 1
        record, batch = self._waiting[at]
        part = number - self._begins[at]
        return record, part, batch.request_ids[part]
