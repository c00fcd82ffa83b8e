"""A window cut at every edge of a reading or a request, and sums over its pieces. One sort, then cumulative sums.

In: columns of seconds from the window's start. Out: columns with a value for each piece, or for each interval.
"""

from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]
Flags = NDArray[np.bool_]
Places = NDArray[np.intp]


class Pieces:
    """[0, length) cut at each of the given edges, so that within a piece nothing changes.

    `starts` and `seconds` have one value for each piece, `places` holds for each group of edges where they came to
    stand. Edges outside the window move to its border. Equal edges stay apart, in the order of the groups; the piece
    between them lasts 0 s and holds nothing.
    """

    def __init__(self, length_seconds: float, *groups: Column) -> None:
        every = np.clip(np.concatenate((np.zeros(1), *groups, np.full(1, length_seconds))), 0.0, length_seconds)
        order = np.argsort(every, kind="stable")  # stable: the same bits on every processor
        place = np.empty(len(order), dtype=np.intp)
        place[order] = np.arange(len(order))
        ends = list(accumulate((len(group) for group in groups), initial=1))
        self.places: list[Places] = [place[begin:end] for begin, end in pairwise(ends)]
        self.edges: Column = every[order]
        self.starts: Column = self.edges[:-1]
        self.seconds: Column = np.diff(self.edges)

    def over(self, values: Column, begin: Places, end: Places) -> Column:
        """For each interval the sum of the values of its pieces: (1, 2, 4) over the second and third piece is 6."""
        total = self.totals(values)
        return total[end] - total[begin]

    def totals(self, values: Column) -> Column:
        """At each edge the sum of the values of the pieces before it: of (1, 2, 4) 0, 1, 3 and 7."""
        total = np.zeros(len(self.edges))
        np.cumsum(values, out=total[1:])
        return total

    def running(self, values: Column, begin: Places, end: Places) -> Column:
        """For each piece the sum of the values of the intervals that it lies in."""
        change = np.zeros(len(self.edges))
        change[begin] = values
        change[end] = -values
        return np.cumsum(change[:-1])
