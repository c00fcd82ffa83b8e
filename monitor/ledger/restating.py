"""Restates final windows at a mark: one pass over the log, the account before and the account now, and the difference.

Both accounts are made from the log alone, never from what a store holds, so a restating that was cut off by a crash is
simply done again and gives the same rows.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from math import fsum

import msgspec

from collectors.units import UnixSeconds
from monitor.core.account import Account, IntensityAt, RequestsAs
from monitor.core.account_work import ScalarsAt
from monitor.core.book import Book, restated_rows
from monitor.core.membership import FUTURE_LIMIT_SECONDS, Accounting
from monitor.core.points import ATTRIBUTED, ENERGY, RESTATEMENT, TOO_LATE, Row
from monitor.core.readings import PARENT_REACH_SECONDS, Told
from monitor.core.request_energy import RequestEnergy
from monitor.core.window import window_start
from monitor.ledger.entering import Entering
from monitor.ledger.finishing import MarkedRequests, near
from monitor.ledger.late import LateOnHost
from monitor.ledger.notice import runs_text
from monitor.log.codec import Decoder
from monitor.log.protocol import PartitionLog, Stream

READ_LIMIT = 2_000
STREAMS: tuple[Stream, ...] = ("readings", "usage")


class Source(msgspec.Struct, frozen=True):
    """What a restating reads: the log, and the terms and factors it is accounted by.

    `beginning` is the log time from which on the log is whole, as far as its commits tell; `first_whole` is the first
    window that it is whole for, whenever its records came; `owns` tells whose records count. `stands_since` gives a
    log time before which no record of a window stands.
    """

    log: PartitionLog
    terms: Accounting
    intensity_at: IntensityAt
    scalars_at: ScalarsAt
    decoder: Decoder
    beginning: UnixSeconds
    requests: RequestsAs
    stands_since: Callable[[int], UnixSeconds]
    first_whole: float = float("-inf")
    owns: Callable[[str], bool] = lambda _host: True


class Restated(msgspec.Struct, frozen=True):
    """The rows of one mark, the (window, host) that they belong to, and new entries of requests if they are wanted."""

    rows: list[Row]
    pages: frozenset[tuple[int, str]]
    overlaps: list[Told]
    entries: list[RequestEnergy]


def restate(source: Source, mark: UnixSeconds, late: Mapping[str, LateOnHost]) -> Restated:
    """What the mark writes: restated windows with why and by how much, and what came too late for it."""
    terms, whole = source.terms, _recomputable(source, mark)
    in_time = {host: whole(entry.windows) for host, entry in late.items()}
    finishing = {host: whole(entry.finishing) for host, entry in late.items()}
    held = set[int]().union(*in_time.values())
    if source.requests == "shares":
        held = near(terms, held.union(*finishing.values()))
    book = read_again(source, mark, held)
    rows: list[Row] = []
    changed: dict[str, set[int]] = {}
    overlaps: list[Told] = []
    for host in sorted(late):
        entry, windows = late[host], sorted(in_time[host])
        pairs = _accounts(book, (host, windows), terms, mark, always=entry.controls > 0)
        if pairs:
            changed[host] = set(pairs)
            overlaps += [told for _, now in pairs.values() for told in now.overlaps]
            rows += _restated_host(host, pairs, entry, terms, mark)
        if len(windows) < len(entry.windows):
            rows.append(_too_late(terms, mark, host, sorted(entry.windows - set(windows)), entry))
    entries: list[RequestEnergy] = []
    if source.requests == "shares":
        requests = MarkedRequests(
            terms,
            mark,
            whole=whole,
            read=lambda windows: read_again(source, mark, windows),
        )
        entries = requests.entries(book, held, changed, finishing)
    pages = frozenset((window, host) for host, windows in changed.items() for window in windows)
    return Restated(rows, pages, overlaps, entries)


def restated_anew(source: Source, mark: UnixSeconds, stored: Mapping[tuple[str, int], list[Row]]) -> list[Row]:
    """The rows that a mark wrote of these (host, window), and zeros for what else is `stored` of them in the books."""
    windows = {window for _, window in stored}
    whole = _recomputable(source, mark)(windows)
    book = read_again(source, mark, windows & whole)
    rows: list[Row] = []
    for host, window in sorted(stored):
        if window in whole:
            anew = book.account(host, window, line=mark, revision=int(mark)).rows
            rows += restated_rows(stored[host, window], anew, int(mark))
    return rows


def earliest(terms: Accounting, window: int) -> UnixSeconds:
    """The log time from which on records of a window may stand at all, conflicts with them included."""
    start = window_start(window, terms.window_seconds)
    return start - FUTURE_LIMIT_SECONDS - PARENT_REACH_SECONDS - terms.horizon_seconds


def _recomputable(source: Source, mark: UnixSeconds) -> Callable[[Collection[int]], frozenset[int]]:
    """Tells of windows those that are young enough, and of which the log still holds all.

    The log is asked once for its beginning: Kafka takes a while to answer, and a mark has many requests.
    """
    terms, beginning = source.terms, source.log.start()
    oldest = max(source.beginning, beginning[0] if beginning is not None and beginning[1] else float("-inf"))

    def whole(windows: Collection[int]) -> frozenset[int]:
        return frozenset(
            window
            for window in windows
            if window_start(window + 1, terms.window_seconds) >= mark - terms.restate_seconds
            and earliest(terms, window) >= oldest
            and window >= source.first_whole
        )

    return whole


def read_again(source: Source, mark: UnixSeconds, windows: Collection[int]) -> Book:
    """A book of these windows with all that stands before the mark (a moment of log time; infinity: everything)."""
    log, terms = source.log, source.terms
    reach = int(PARENT_REACH_SECONDS // terms.window_seconds) + 1
    keep = {near for window in windows for near in range(window - reach, window + reach + 1)}
    # Whether a window has changed must not depend on what is wanted of requests.
    requests: RequestsAs = "shares" if source.requests == "neither" else source.requests
    book = Book(terms, source.intensity_at, scalars_at=source.scalars_at, keep=keep.__contains__, requests=requests)
    if not windows:
        return book
    entering = Entering(terms, book, reject=lambda _letter: None, decoder=source.decoder, owns=source.owns)
    begin = min(map(source.stands_since, keep)) - terms.horizon_seconds  # those that a record may contradict included
    again = log.again()
    try:
        positions: dict[str, int] = {stream: again.position_at(stream, begin) for stream in STREAMS}
        while records := again.read(positions, READ_LIMIT):
            for record in records:
                if record.stamp >= mark:
                    break
                _pass_by(entering.enter(record))
                positions[record.stream] = record.offset + 1
            _pass_by(entering.requests())
            if records[-1].stamp >= mark:
                break
    finally:
        again.close()
    return book


def _pass_by(touches: Iterator[object]) -> None:
    """Enters, and asks of nothing what it touches."""
    for _touch in touches:
        pass


def _accounts(
    book: Book, place: tuple[str, list[int]], terms: Accounting, mark: UnixSeconds, *, always: bool
) -> dict[int, tuple[Account, Account]]:
    """The accounts before and now of the windows that change; of `always` all. What came twice changes none."""
    host, windows = place
    pairs = {}
    for window in windows:
        before = book.account(host, window, line=terms.line_before(window, mark), revision=int(mark))
        now = book.account(host, window, line=mark, revision=int(mark))
        if always or not before.equals(now):
            pairs[window] = before, now
    return pairs


def _restated_host(
    host: str, pairs: Mapping[int, tuple[Account, Account]], entry: LateOnHost, terms: Accounting, mark: UnixSeconds
) -> list[Row]:
    rows = [row for before, now in pairs.values() for row in restated_rows(before.rows, now.rows, int(mark))]
    old = [row for before, _ in pairs.values() for row in before.rows]
    sums = (entry.readings, entry.requests, entry.controls, len(pairs), _attributed(old), _attributed(rows))
    windows = sorted(pairs)
    facts = (entry.why(), *_ends(terms, windows), runs_text(windows), int(mark))
    return [*rows, Row(RESTATEMENT.name, mark, (host,), (*map(float, sums), *facts))]


def _too_late(terms: Accounting, mark: UnixSeconds, host: str, windows: list[int], entry: LateOnHost) -> Row:
    sums = (entry.readings, entry.requests, entry.energy_joules.value(), len(windows))
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
