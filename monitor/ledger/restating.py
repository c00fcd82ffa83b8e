"""Restates final windows at a mark: one pass over the log, the account before and the account now, and the difference.

Both accounts are made from the log alone, never from what a store holds, so a restating that was cut off by a crash is
simply done again and gives the same rows.
"""

from collections.abc import Collection, Mapping
from math import fsum

import msgspec

from collectors.units import UnixSeconds
from monitor.core.account import IntensityAt
from monitor.core.book import Book, restated_rows
from monitor.core.membership import FUTURE_LIMIT_SECONDS, Accounting
from monitor.core.points import ATTRIBUTED, ENERGY, RESTATEMENT, TOO_LATE, Row
from monitor.core.readings import PARENT_REACH_SECONDS
from monitor.core.window import window_start
from monitor.ledger.entering import Entering
from monitor.ledger.late import LateOnHost
from monitor.log.codec import Decoder
from monitor.log.protocol import Log, Stream

READ_LIMIT = 2_000
STREAMS: tuple[Stream, ...] = ("readings", "usage")


class Source(msgspec.Struct, frozen=True):
    """What a restating reads: the log, and the terms and factors it is accounted by."""

    log: Log
    terms: Accounting
    intensity_at: IntensityAt
    decoder: Decoder


class Restated(msgspec.Struct, frozen=True):
    """The rows of one mark, and the windows they belong to."""

    rows: list[Row]
    windows: frozenset[int]


def restate(source: Source, mark: UnixSeconds, late: Mapping[str, LateOnHost]) -> Restated:
    """What the mark writes: restated windows with why and by how much, and what came too late for it."""
    log, terms = source.log, source.terms
    in_time = {host: _recomputable(log, terms, mark, entry.windows) for host, entry in late.items()}
    wanted = {(window, host) for host, windows in in_time.items() for window in windows}
    book = _read_again(source, mark, {window for window, _ in wanted})
    rows: list[Row] = []
    for host in sorted(late):
        entry, windows = late[host], sorted(in_time[host])
        if windows:
            rows += _restate_host(book, (host, windows), entry, terms, mark)
        if len(windows) < len(entry.windows):
            rows.append(_too_late(terms, mark, host, sorted(entry.windows - set(windows)), entry))
    return Restated(rows, frozenset(window for window, _ in wanted))


def _earliest(terms: Accounting, window: int) -> UnixSeconds:
    """The log time from which on records of a window may stand, conflicts with them included."""
    start = window_start(window, terms.window_seconds)
    return start - FUTURE_LIMIT_SECONDS - PARENT_REACH_SECONDS - terms.horizon_seconds


def _recomputable(log: Log, terms: Accounting, mark: UnixSeconds, windows: Collection[int]) -> frozenset[int]:
    """Those windows that are young enough, and of which the log still holds all."""
    beginning = log.start()
    oldest = beginning[0] if beginning is not None and beginning[1] else float("-inf")
    return frozenset(
        window
        for window in windows
        if window_start(window + 1, terms.window_seconds) >= mark - terms.restate_seconds
        and _earliest(terms, window) >= oldest
    )


def _read_again(source: Source, mark: UnixSeconds, windows: Collection[int]) -> Book:
    """A book of these windows with all that stands before the mark."""
    log, terms = source.log, source.terms
    reach = int(PARENT_REACH_SECONDS // terms.window_seconds) + 1
    keep = {near for window in windows for near in range(window - reach, window + reach + 1)}
    book = Book(terms, source.intensity_at, keep=keep.__contains__)
    if not windows:
        return book
    entering = Entering(terms, book, reject=lambda _letter: None, decoder=source.decoder)
    begin = _earliest(terms, min(windows))
    positions: dict[str, int] = {stream: log.position_at(stream, begin) for stream in STREAMS}
    while records := log.read(positions, READ_LIMIT):
        for record in records:
            if record.stamp >= mark:
                return book
            for _touch in entering.enter(record):
                pass
            positions[record.stream] = record.offset + 1
    return book


def _restate_host(
    book: Book, place: tuple[str, list[int]], entry: LateOnHost, terms: Accounting, mark: UnixSeconds
) -> list[Row]:
    host, windows = place
    rows: list[Row] = []
    old: list[Row] = []
    for window in windows:
        before = book.account(host, window, line=terms.line_before(window, mark)).rows
        rows += restated_rows(before, book.account(host, window, line=mark, revision=int(mark)).rows, int(mark))
        old += before
    sums = (entry.readings, entry.requests, entry.controls, len(windows), _attributed(old), _attributed(rows))
    facts = (entry.why(), *_ends(terms, windows), int(mark))
    return [*rows, Row(RESTATEMENT.name, mark, (host,), (*map(float, sums), *facts))]


def _too_late(terms: Accounting, mark: UnixSeconds, host: str, windows: list[int], entry: LateOnHost) -> Row:
    sums = (entry.readings, entry.requests, entry.energy_joules, len(windows))
    return Row(TOO_LATE.name, mark, (host,), (*map(float, sums), entry.why(), *_ends(terms, windows), int(mark)))


def _ends(terms: Accounting, windows: list[int]) -> tuple[float, float]:
    return window_start(windows[0], terms.window_seconds), window_start(windows[-1], terms.window_seconds)


def _attributed(rows: list[Row]) -> float:
    account = ENERGY.tags.index("account")
    return fsum(
        float(row.fields[0] or 0.0)
        for row in rows
        if row.measurement == ENERGY.name and row.tags[account] == ATTRIBUTED
    )
