"""Tells new requests from repeated and contradicting ones, a record's at once. Pure.

The rule is that of `Identities`: a request is a conflict if another one with the same identity and other content
stands at most one horizon of log time before it. Nearly all requests are new: that is asked of a whole record in one
go. What a request said is kept as it came, in the columns of its record, and compared only where its identity comes
again.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from collectors.units import UnixSeconds
from monitor.core.attribution.pieces import Flags
from monitor.core.usage import Usage
from monitor.core.usage_columns import UsageColumns


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
    """Of each request of a record: whether it contradicts one, and whether it repeats one that is in the book."""

    conflict: Flags
    repeated: Flags


class _Generation:
    """What was seen from one turn to the next."""

    def __init__(self) -> None:
        self.seen: dict[_Who, _Seen] = {}
        self.numbers: list[int] = []
        self.records: list[tuple[UsageColumns, UnixSeconds]] = []

    def keep(self, usages: UsageColumns, log_time: UnixSeconds) -> None:
        self.numbers.append(int(usages.number[0]))
        self.records.append((usages, log_time))

    def said(self, number: int) -> tuple[Usage, UnixSeconds]:
        """The request of that number, and its log time."""
        usages, log_time = self.records[bisect_right(self.numbers, number) - 1]
        return usages.usage(int(np.searchsorted(usages.number, number))), log_time


class RequestIdentities:
    """Remembers requests for one horizon of log time, and up to two."""

    def __init__(self, horizon_seconds: float, since: UnixSeconds) -> None:
        """What stands before `since` is not in the book."""
        self._horizon, self._since = horizon_seconds, since
        self._now, self._before = _Generation(), _Generation()
        self._turned_at = float("-inf")

    def judge(self, usages: UsageColumns, log_time: UnixSeconds) -> Judged:
        """Judges the requests of the record that stands next in the log, and remembers them. Numbers ascend."""
        judged = Judged(np.zeros(len(usages), dtype=np.bool_), np.zeros(len(usages), dtype=np.bool_))
        if not len(usages):
            return judged
        if log_time - self._turned_at > self._horizon:
            # What was seen before the turn before this one is more than a horizon old.
            self._before, self._now, self._turned_at = self._now, _Generation(), log_time
        self._now.keep(usages, log_time)
        who = {(route.host, route.namespace, route.attempt) for route in usages.routes}
        if len(who) == 1:
            self._judge(who.pop(), usages, range(len(usages)), log_time, judged)
            return judged
        apart: dict[_Who, list[int]] = {}
        whose = [(route.host, route.namespace, route.attempt) for route in usages.routes]
        for place, route in enumerate(usages.route.tolist()):
            apart.setdefault(whose[route], []).append(place)
        for each, places in apart.items():
            self._judge(each, usages, places, log_time, judged)
        return judged

    def _judge(
        self, who: _Who, usages: UsageColumns, places: Sequence[int], log_time: UnixSeconds, judged: Judged
    ) -> None:
        """Those at `places`, which have one host, namespace and attempt."""
        now, before = self._now.seen.setdefault(who, {}), self._before.seen.get(who, {})
        chosen = np.asarray(places, dtype=np.intp)
        ids, numbers = usages.request_id[chosen].tolist(), usages.number[chosen].tolist()
        if len(set(ids)) == len(ids) and now.keys().isdisjoint(ids) and before.keys().isdisjoint(ids):
            now.update(zip(ids, numbers, strict=True))
            return
        for place, request_id, number in zip(places, ids, numbers, strict=True):
            known = now.get(request_id)
            generation, known = (self._before, before.get(request_id)) if known is None else (self._now, known)
            if known is None:
                now[request_id] = number
                continue
            if isinstance(known, int):
                usage, at = generation.said(known)
                known = (_Said(usage, at, at >= self._since),)
            now[request_id] = self._compare(usages, place, known, log_time, judged)

    def _compare(
        self, usages: UsageColumns, place: int, known: tuple[_Said, ...], log_time: UnixSeconds, judged: Judged
    ) -> tuple[_Said, ...]:
        """Judges one whose identity came before, and returns what is remembered of it from now on."""
        usage, oldest = usages.usage(place), log_time - self._horizon
        judged.conflict[place] = any(each.log_time >= oldest and each.usage != usage for each in known)
        same = next((each for each in known if each.usage == usage), None)
        judged.repeated[place] = same is not None and same.entered
        entered = judged.repeated[place] or (log_time >= self._since and not judged.conflict[place])
        others = tuple(each for each in known if each is not same)
        return (*others, _Said(usage, log_time, bool(entered)))
