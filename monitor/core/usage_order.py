"""The one order of requests, whoever computes, and what came twice once. In: columns. Out: the same, in order."""

from collections import Counter

import msgspec
import numpy as np

from monitor.core.usage_columns import Index, UsageColumns


def in_order(usages: UsageColumns) -> UsageColumns:
    """By start, end, identity and content, which is the same for whoever computes; of equal ones the first that came.

    The costly rest is asked only where some start together.
    """
    order = np.argsort(usages.start)  # not stable, which takes thrice as long: where none are equal there is one order
    start = usages.start[order]
    if (start[1:] == start[:-1]).any():
        order = _told_apart(usages, np.lexsort((usages.number, usages.end, usages.start)))
    return usages.take(order)


_encode = msgspec.msgpack.Encoder(order="sorted").encode


def _told_apart(usages: UsageColumns, order: Index) -> Index:
    """`order` is that of start, end and number; those that start and end together in the order of what they are."""
    start, end = usages.start[order], usages.end[order]
    together = (start[1:] == start[:-1]) & (end[1:] == end[:-1])
    if not together.any():
        return order
    begins = np.flatnonzero(np.concatenate(([True], ~together)))
    ends = np.append(begins[1:], len(order))
    kept: list[int] = []
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        places = order[begin:end].tolist()
        if len(places) > 1:
            places = _distinct(usages, places)
        kept += places
    return np.array(kept, dtype=np.intp)


def _distinct(usages: UsageColumns, places: list[int]) -> list[int]:
    """Those that differ, in the order of identity and content, which is asked where an identity comes twice."""
    who = {place: usages.identity(place) for place in places}
    times = Counter(who.values())
    content = {
        place: (identity, _encode(usages.usage(place)) if times[identity] > 1 else b"")
        for place, identity in who.items()
    }
    ordered = sorted(places, key=content.__getitem__)  # stable: equal ones in the order in which they came
    return [place for i, place in enumerate(ordered) if i == 0 or content[place] != content[ordered[i - 1]]]
