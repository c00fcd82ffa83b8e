"""Sums a request's energy over the windows it touched, once the last of them is final. In: accounts. Out: entries.

A request that was known before its first window was final gets its entry, revision 0, when its last window is final.
Any other gets it at the first mark behind that and behind itself. A mark that restates a window gives new entries to
the requests in it, and to all others that end in the same window as one of them. Each is made of what the books hold
at that moment, which is a property of the log: whoever computes, after how many crashes, gives the same.
"""

from collections.abc import Callable, Collection, Iterator, Mapping

from collectors.units import UnixSeconds
from monitor.core.account import Account, Share
from monitor.core.book import Book
from monitor.core.membership import Accounting
from monitor.core.request_energy import RequestEnergy, request_energy
from monitor.core.usage import Usage
from monitor.core.window import window_at, window_start
from monitor.ledger.late import finishing_mark

Page = tuple[int, str]
"""A window and a host."""
SharesAt = Callable[[int], Mapping[int, Share]]
"""A window's shares by the `id` of their usage, which is one object in all windows of a book."""

NEAR_SECONDS = 120.0
"""Requests of this length are found whole in one pass over the log; longer ones take another."""


class Finishing:
    """Entries of requests as their windows become final. One ledger owns it."""

    def __init__(self, terms: Accounting, book: Book, first: int) -> None:
        """Windows before `first` are not in the books: the log has lost them, or never held them."""
        self._terms, self._book, self._first = terms, book, first
        self._kept: dict[Page, tuple[UnixSeconds, dict[int, Share]]] = {}

    def final(self, host: str, window: int, account: Account) -> Iterator[RequestEnergy]:
        """The entries of requests that end in this window, which has just become final with this account."""
        length = self._terms.window_seconds
        line, begin, end = (
            self._terms.final_line(window),
            window_start(window, length),
            window_start(window + 1, length),
        )
        self._kept[window, host] = line, _going_on(end, account)
        stands: dict[int, UnixSeconds] = {}

        def shares_at(earlier: int) -> Mapping[int, Share]:
            return self._shares(host, earlier, line)

        for share in account.shares:
            usage = share.usage
            if usage.end >= end:
                continue
            if usage.start >= begin:
                yield request_energy(usage, [share], 1, 0)
                continue
            windows = windows_touched(self._terms, usage)
            stands = stands or {id(each): at for at, each in self._book.usages(host, window)}
            if not self._terms.is_final(windows.start, stands[id(usage)]):  # else a mark gives it
                parts = _parts(usage, range(max(windows.start, self._first), window), shares_at)
                yield request_energy(usage, [*parts, share], len(windows), 0)

    def forget_before(self, first: int) -> None:
        """Drops windows before `first`."""
        for page in [page for page in self._kept if page[0] < first]:
            del self._kept[page]

    def _starts(self, window: int) -> UnixSeconds:
        return window_start(window, self._terms.window_seconds)

    def _shares(self, host: str, window: int, now: UnixSeconds) -> Mapping[int, Share]:
        """Those of a final window as the books hold it now: restated by marks that lie behind its own line."""
        line = max(self._terms.final_line(window), self._terms.mark_before(now))
        kept = self._kept.get((window, host))
        if kept is None or kept[0] != line:
            account = self._book.account(host, window, line=line)
            kept = self._kept[window, host] = (
                line,
                _going_on(self._starts(window + 1), account),
            )
        return kept[1]


def windows_touched(terms: Accounting, usage: Usage) -> range:
    """The windows of a request, the one that it ends in included."""
    length = terms.window_seconds
    return range(window_at(usage.start, length), window_at(usage.end, length) + 1)


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
                for at, usage in book.usages(host, window):
                    last = windows_touched(self._terms, usage)[-1]
                    if at < self._mark and self._terms.final_line(last) < self._mark:
                        ends.add((last, host))
        for host, windows in finishing.items():
            ends |= {
                (window, host)
                for window in windows
                if any(self._is_due(at, usage, window) for at, usage in book.usages(host, window))
            }
        return ends

    def _is_due(self, at: UnixSeconds, usage: Usage, last: int) -> bool:
        windows = windows_touched(self._terms, usage)
        late = self._terms.is_final(windows.start, at)
        return windows[-1] == last and late and finishing_mark(self._terms, windows, at) == self._mark

    def _needed(self, book: Book, ends: Collection[Page]) -> set[int]:
        needed = {window for window, _ in ends}
        for window, host in ends:
            for _, usage in book.usages(host, window):
                windows = windows_touched(self._terms, usage)
                if windows[-1] == window:
                    needed.update(windows)
        return set(self._whole(needed))

    def _ending(self, book: Book, host: str, window: int) -> Iterator[RequestEnergy]:
        made: dict[int, dict[int, Share]] = {}

        def shares_at(each: int) -> Mapping[int, Share]:
            if each not in made:
                shares = book.account(host, each, line=self._mark).shares
                made[each] = {id(share.usage): share for share in shares}
            return made[each]

        for share in list(shares_at(window).values()):
            windows = windows_touched(self._terms, share.usage)
            if windows[-1] == window and len(self._whole(windows)) == len(windows):
                parts = _parts(share.usage, windows, shares_at)
                yield request_energy(share.usage, parts, len(windows), int(self._mark))


def _going_on(end: UnixSeconds, account: Account) -> dict[int, Share]:
    """The shares of requests that do not end before the window does."""
    return {id(share.usage): share for share in account.shares if share.usage.end >= end}


def _parts(usage: Usage, windows: range, shares_at: SharesAt) -> list[Share]:
    return [share for window in windows if (share := shares_at(window).get(id(usage))) is not None]
