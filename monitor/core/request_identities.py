"""Tells new requests from repeated and contradicting ones, those of many records at once. Pure.

The rule is that of `Identities`: a request is a conflict if another one with the same identity and other content
stands at most one horizon of log time before it. Nearly all requests are new: that is asked of all of them in one go,
by digests of their ids in sorted columns, 16 bytes for each request. What a request said is kept as it came, in
columns, and compared only where its identity comes again.
"""

from bisect import bisect_right
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from collectors.units import UnixSeconds
from monitor.core.attribution.pieces import Flags
from monitor.core.usage import Identity, Usage
from monitor.core.usage_columns import Index, UsageColumns


class _Said(NamedTuple):
    """What a request said, and when it did so last; whether it is in the book."""

    usage: Usage
    log_time: UnixSeconds
    entered: bool


_Digests = NDArray[np.int64]


class Judged(NamedTuple):
    """Of each request: whether it contradicts one, and whether it repeats one that is in the book."""

    conflict: Flags
    repeated: Flags


class _Generation:
    """What was seen from one turn to the next: the digests of identities, sorted, and each request's number.

    In runs, each at least twice as long as the one after it: a new one is merged with those that are not.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[_Digests, Index]] = []
        self._first: list[int] = []
        self._kept: list[UsageColumns] = []
        self.said: dict[Identity, tuple[_Said, ...]] = {}
        """Of those that came more than once."""

    def keep(self, usages: UsageColumns, digests: _Digests, numbers: Index) -> None:
        """Requests, and their digests and numbers, sorted by the former."""
        self._first.append(int(usages.number[0]))
        self._kept.append(usages)
        while self._runs and len(self._runs[-1][0]) < 2 * len(digests):
            before, theirs = self._runs.pop()
            digests, numbers = np.concatenate((before, digests)), np.concatenate((theirs, numbers))
            order = np.argsort(digests, kind="stable")  # of two sorted halves: no more than a merge
            digests, numbers = digests[order], numbers[order]
        self._runs.append((digests, numbers))

    def holds(self, digests: _Digests) -> Flags:
        """Which of these are here; sorted, they are looked for fast."""
        found = np.zeros(len(digests), dtype=np.bool_)
        for mine, _ in self._runs:
            found |= mine[np.minimum(np.searchsorted(mine, digests), len(mine) - 1)] == digests
        return found

    def find(self, who: Identity, digest: int, since: UnixSeconds) -> tuple[_Said, ...]:
        """What requests of that identity said; nothing if none came. What stands before `since` is not in the book."""
        if (several := self.said.get(who)) is not None:
            return several
        for number in self._numbers(digest):
            usages = self._kept[bisect_right(self._first, number) - 1]
            place = int(np.searchsorted(usages.number, number))
            if usages.identity(place) == who:
                return (_said(usages, place, since),)
        return ()

    def _numbers(self, digest: int) -> list[int]:
        """Of all requests with it; hardly ever of two identities."""
        found: list[int] = []
        for mine, numbers in self._runs:
            begin, end = np.searchsorted(mine, digest), np.searchsorted(mine, digest, side="right")
            found += numbers[begin:end].tolist()
        return found


def _said(usages: UsageColumns, place: int, since: UnixSeconds) -> _Said:
    log_time = float(usages.log_time[place])
    return _Said(usages.usage(place), log_time, log_time >= since)


class RequestIdentities:
    """Remembers requests for one horizon of log time, and longer."""

    def __init__(self, horizon_seconds: float, since: UnixSeconds, digest: Callable[[object], int] = hash) -> None:
        """What stands before `since` is not in the book. `digest` is of 64 bits; identities that have the same are told
        apart all the same.
        """
        self._horizon, self._since, self._digest = horizon_seconds, since, digest
        self._now, self._before = _Generation(), _Generation()
        self._turned_at = float("-inf")

    def judge(self, usages: UsageColumns) -> Judged:
        """Judges the requests that stand next in the log, and remembers them. Numbers and log times ascend."""
        judged = Judged(np.zeros(len(usages), dtype=np.bool_), np.zeros(len(usages), dtype=np.bool_))
        if not len(usages):
            return judged
        log_time = float(usages.log_time[0])
        if log_time - self._turned_at > self._horizon:
            # What was seen before the turn before this one is more than a horizon old.
            self._before, self._now, self._turned_at = self._now, _Generation(), log_time
        digests = self._digests(usages)
        order = np.argsort(digests, kind="stable")
        told = digests[order]
        doubtful = self._now.holds(told) | self._before.holds(told)
        alike = told[1:] == told[:-1]
        doubtful[1:] |= alike
        doubtful[:-1] |= alike
        for place in np.sort(order[doubtful]).tolist():
            self._look_closer(usages, place, int(digests[place]), judged)
        self._now.keep(usages, told, usages.number[order])
        return judged

    def _digests(self, usages: UsageColumns) -> _Digests:
        """Of each one's id, and of all else that tells it from others."""
        ids = np.fromiter(map(self._digest, usages.request_id.tolist()), np.int64, len(usages))
        others = [self._digest((each.host, each.namespace, each.attempt)) for each in usages.routes]
        return ids ^ np.array(others, dtype=np.int64)[usages.route]

    def _look_closer(self, usages: UsageColumns, place: int, digest: int, judged: Judged) -> None:
        """Judges one whose digest came before, or comes again among these."""
        who = usages.identity(place)
        known = self._now.find(who, digest, self._since) or self._before.find(who, digest, self._since)
        if known:
            self._now.said[who] = self._compare(usages, place, known, judged)
        else:
            self._now.said[who] = (_said(usages, place, self._since),)

    def _compare(self, usages: UsageColumns, place: int, known: tuple[_Said, ...], judged: Judged) -> tuple[_Said, ...]:
        """Judges one whose identity came before, and returns what is remembered of it from now on."""
        usage, log_time = usages.usage(place), float(usages.log_time[place])
        oldest = log_time - self._horizon
        judged.conflict[place] = any(each.log_time >= oldest and each.usage != usage for each in known)
        same = next((each for each in known if each.usage == usage), None)
        judged.repeated[place] = same is not None and same.entered
        entered = judged.repeated[place] or (log_time >= self._since and not judged.conflict[place])
        others = tuple(each for each in known if each is not same)
        return (*others, _Said(usage, log_time, bool(entered)))
