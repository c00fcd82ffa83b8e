"""Tells new requests from repeated and contradicting ones, those of many records at once. Pure.

The rule is that of `Identities`: a request is a conflict if another one with the same identity and other content
stands at most one horizon of log time before it. Nearly all requests are new: that is asked of all of them in one go.
What a request said is kept as it came, in columns, and compared only where its identity comes again.
"""

from bisect import bisect_right
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from collectors.units import UnixSeconds
from monitor.core.attribution.pieces import Flags
from monitor.core.usage import Usage
from monitor.core.usage_columns import Index, UsageColumns


class _Said(NamedTuple):
    """What a request said, and when it did so last; whether it is in the book."""

    usage: Usage
    log_time: UnixSeconds
    entered: bool


_Seen = dict[str, int | tuple[_Said, ...]]
"""By request_id: the number of the one that came, or all of them where it came more than once."""
_Who = tuple[str, str, int]
"""Host, namespace, attempt."""


class Judged(NamedTuple):
    """Of each request: whether it contradicts one, and whether it repeats one that is in the book."""

    conflict: Flags
    repeated: Flags


class _Generation:
    """What was seen from one turn to the next."""

    def __init__(self) -> None:
        self.seen: dict[_Who, _Seen] = {}
        self.numbers: list[int] = []
        self.kept: list[UsageColumns] = []

    def keep(self, usages: UsageColumns) -> None:
        self.numbers.append(int(usages.number[0]))
        self.kept.append(usages)

    def said(self, number: int) -> tuple[Usage, UnixSeconds]:
        """The request of that number, and its log time."""
        usages = self.kept[bisect_right(self.numbers, number) - 1]
        place = int(np.searchsorted(usages.number, number))
        return usages.usage(place), float(usages.log_time[place])


class RequestIdentities:
    """Remembers requests for one horizon of log time, and longer."""

    def __init__(self, horizon_seconds: float, since: UnixSeconds) -> None:
        """What stands before `since` is not in the book."""
        self._horizon, self._since = horizon_seconds, since
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
        self._now.keep(usages)
        whose = [(each.host, each.namespace, each.attempt) for each in usages.routes]
        groups = {who: group for group, who in enumerate(dict.fromkeys(whose))}
        if len(groups) == 1:
            self._judge(whose[0], usages, np.arange(len(usages)), judged)
            return judged
        group = np.array([groups[who] for who in whose], dtype=np.intp)[usages.route]
        order = np.argsort(group, kind="stable")
        begins = np.searchsorted(group[order], np.arange(len(groups) + 1)).tolist()
        for who, (begin, end) in zip(groups, pairwise(begins), strict=True):
            if begin < end:  # columns may have routes that none of them is of
                self._judge(who, usages, order[begin:end], judged)
        return judged

    def _judge(self, who: _Who, usages: UsageColumns, places: Index, judged: Judged) -> None:
        """Those at `places`, which have one host, namespace and attempt."""
        now, before = self._now.seen.setdefault(who, {}), self._before.seen.get(who, {})
        ids, numbers = usages.request_id[places].tolist(), usages.number[places].tolist()
        new = dict(zip(ids, numbers, strict=True))
        if len(new) == len(ids) and now.keys().isdisjoint(new) and before.keys().isdisjoint(new):
            now.update(new)
            return
        for place, request_id, number in zip(places.tolist(), ids, numbers, strict=True):
            known = now.get(request_id)
            generation, known = (self._before, before.get(request_id)) if known is None else (self._now, known)
            if known is None:
                now[request_id] = number
                continue
            if isinstance(known, int):
                usage, at = generation.said(known)
                known = (_Said(usage, at, at >= self._since),)
            now[request_id] = self._compare(usages, place, known, judged)

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
