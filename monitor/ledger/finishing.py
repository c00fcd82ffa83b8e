"""Sums a request's energy over the windows it touched, once the last of them is final. In: accounts. Out: entries.

A request that was known before its first window was final gets its entry, revision 0, when its last window is final.
Any other gets it at the first mark behind that and behind itself. A mark that restates a window gives new entries to
the requests in it, and to all others that end in the same window as one of them. Each is made of what the books hold
at that moment, which is a property of the log: whoever computes, after how many crashes, gives the same.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from collectors.units import UnixSeconds
from monitor.core.account import Account
from monitor.core.attribution.pieces import Flags
from monitor.core.book import Book
from monitor.core.membership import Accounting
from monitor.core.request_energy import Part, RequestEnergy, request_energies
from monitor.core.shares import Shares
from monitor.core.usage_columns import Index
from monitor.core.usage_windows import final_lines, windows_of_each
from monitor.core.window import window_start
from monitor.ledger.late import finishing_marks

Page = tuple[int, str]
"""A window and a host."""

NEAR_SECONDS = 120.0
"""Requests of this length are found whole in one pass over the log; longer ones take another."""


class Finishing:
    """Entries of requests as their windows become final. One ledger owns it."""

    def __init__(self, terms: Accounting, book: Book, first: int) -> None:
        """Windows before `first` are not in the books: the log has lost them, or never held them."""
        self._terms, self._book, self._first = terms, book, first
        self._kept: dict[Page, tuple[UnixSeconds, Shares]] = {}

    def final(self, host: str, window: int, account: Account) -> Sequence[RequestEnergy]:
        """The entries of requests that end in this window, which has just become final with this account."""
        line, shares = self._terms.final_line(window), _asked(account)
        self._kept[window, host] = line, self._going_on(window, shares)
        first, _ = windows_of_each(shares.usages, self._terms.window_seconds)
        due = shares.usages.end < self._starts(window + 1)
        if len(earlier := np.flatnonzero(due & (first < window))):
            due[earlier] = self._is_known_before(host, window, shares.usages.number[earlier], first[earlier])
        shares, first = shares.take(due), first[due]
        begin = max(int(first.min(initial=window)), self._first)
        parts = [
            Part(kept, kept.places_of(shares.usages.number))
            for each in range(begin, window)
            if len(kept := self._shares(host, each, line))
        ]
        return request_energies(shares, parts, window - first + 1, 0)

    def forget_before(self, first: int) -> None:
        """Drops windows before `first`."""
        for page in [page for page in self._kept if page[0] < first]:
            del self._kept[page]

    def _is_known_before(self, host: str, window: int, numbers: Index, first: Index) -> Flags:
        """Whether each was known before its first window was final; else a mark gives its entry."""
        usages = self._book.usages(host, window)
        places = np.searchsorted(usages.number, numbers)  # a book numbers them as they come
        return np.asarray(usages.log_time[places] < final_lines(self._terms, first))

    def _starts(self, window: int) -> UnixSeconds:
        return window_start(window, self._terms.window_seconds)

    def _shares(self, host: str, window: int, now: UnixSeconds) -> Shares:
        """Those of a final window as the books hold it now: restated by marks that lie behind its own line."""
        line = max(self._terms.final_line(window), self._terms.mark_before(now))
        kept = self._kept.get((window, host))
        if kept is None or kept[0] != line:
            shares = _asked(self._book.account(host, window, line=line))
            kept = self._kept[window, host] = line, self._going_on(window, shares)
        return kept[1]

    def _going_on(self, window: int, shares: Shares) -> Shares:
        """The shares of requests that do not end before the window does."""
        return shares.by_number(shares.usages.end >= self._starts(window + 1))


def _asked(account: Account) -> Shares:
    assert account.shares is not None, "the book was made to give shares"
    return account.shares


def near(terms: Accounting, windows: Collection[int]) -> set[int]:
    """These windows and those that requests of a usual length reach from them."""
    reach = int(NEAR_SECONDS // terms.window_seconds) + 1
    return {each for window in windows for each in range(window - reach, window + reach + 1)}


class MarkedRequests:
    """What a mark gives of requests, from a book of what stands before it."""

    def __init__(
        self,
        terms: Accounting,
        mark: UnixSeconds,
        whole: Callable[[Collection[int]], frozenset[int]],
        read: Callable[[Collection[int]], Book],
    ) -> None:
        """`whole` tells which of some windows the log still holds all of; `read` makes a book of some windows."""
        self._terms, self._mark, self._whole, self._read = terms, mark, whole, read

    def entries(
        self,
        book: Book,
        held: Collection[int],
        changed: Mapping[str, Collection[int]],
        finishing: Mapping[str, Collection[int]],
    ) -> list[RequestEnergy]:
        """Those of requests in `changed` windows and of late ones whose last window is among `finishing`, by host.

        `book` holds the windows `held`. A request is passed by where the log no longer holds all of its windows.
        """
        ends = self._ends(book, changed, finishing)
        while missing := self._needed(book, ends) - set(held):
            held = {*held, *missing}
            book = self._read(held)
        return [entry for window, host in sorted(ends) for entry in self._ending(book, host, window)]

    def _ends(
        self, book: Book, changed: Mapping[str, Collection[int]], finishing: Mapping[str, Collection[int]]
    ) -> set[Page]:
        """The windows whose requests get new entries. One that is not final yet gives its own when it is."""
        ends: set[Page] = set()
        for host, windows in changed.items():
            for window in windows:
                usages = book.usages(host, window)
                _, last = windows_of_each(usages, self._terms.window_seconds)
                over = (usages.log_time < self._mark) & (final_lines(self._terms, last) < self._mark)
                ends |= {(each, host) for each in np.unique(last[over]).tolist()}
        for host, windows in finishing.items():
            ends |= {(window, host) for window in windows if self._finishes(book, host, window)}
        return ends

    def _finishes(self, book: Book, host: str, window: int) -> bool:
        """Whether this mark gives a late request that ended in the window its first entry."""
        usages = book.usages(host, window)
        first, last = windows_of_each(usages, self._terms.window_seconds)
        late = (last == window) & (final_lines(self._terms, first) <= usages.log_time)
        return bool((late & (finishing_marks(self._terms, window, usages.log_time) == self._mark)).any())

    def _needed(self, book: Book, ends: Collection[Page]) -> set[int]:
        needed = {window for window, _ in ends}
        for window, host in ends:
            usages = book.usages(host, window)
            first, last = windows_of_each(usages, self._terms.window_seconds)
            needed.update(range(int(first[last == window].min(initial=window)), window))
        return set(self._whole(needed))

    def _ending(self, book: Book, host: str, window: int) -> Sequence[RequestEnergy]:
        shares = self._shares(book, host, window)
        first, last = windows_of_each(shares.usages, self._terms.window_seconds)
        touched = range(int(first[last == window].min(initial=window)), window + 1)
        lost = max(set(touched) - self._whole(touched), default=touched.start - 1)
        whole = (last == window) & (first > lost)
        shares, first = shares.take(whole), first[whole]
        parts = [
            Part(each, each.places_of(shares.usages.number))
            for each in (self._going_on(book, host, earlier) for earlier in touched[:-1] if earlier > lost)
        ]
        return request_energies(shares, parts, window - first + 1, int(self._mark))

    def _going_on(self, book: Book, host: str, window: int) -> Shares:
        shares = self._shares(book, host, window)
        return shares.by_number(np.ones(len(shares), dtype=np.bool_))

    def _shares(self, book: Book, host: str, window: int) -> Shares:
        return _asked(book.account(host, window, line=self._mark))
