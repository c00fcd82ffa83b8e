"""Windows cut at every edge of a reading or a request, and sums over their pieces. One sort, then cumulative sums.

In: columns of seconds from the window's start. Out: columns with a value for each piece, or for each interval.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]
Flags = NDArray[np.bool_]
Places = NDArray[np.intp]


class Pieces:
    """[0, length) cut at each of the given edges, so that within a piece nothing changes; once for each device.

    The devices stand one after the other in every column, so that all of them cost as few steps as one. Sums begin
    anew with each: none depends on what stands beside it. `edges`, `starts` and `seconds` have one value for each
    piece, the last of a device begins at its last edge and lasts 0 s; `places` holds for each group of edges where they
    came to stand. Edges outside the window move to its border. Equal edges stay apart, in the order of the groups; the
    piece between them lasts 0 s and holds nothing.
    """

    def __init__(self, length_seconds: float, devices: Sequence[Sequence[Column]]) -> None:
        """Of each device its groups of edges; equally many groups."""
        zero, full = np.zeros(1), np.full(1, length_seconds)
        columns = [each for groups in devices for each in (zero, *groups, full)]
        every = np.clip(np.concatenate(columns), 0.0, length_seconds)
        begins = list(accumulate(map(len, columns), initial=0))
        per_device = len(columns) // len(devices)
        self.bounds = list(pairwise(begins[::per_device]))
        order = np.empty(len(every), dtype=np.intp)
        for begin, end in self.bounds:
            order[begin:end] = np.argsort(every[begin:end], kind="stable")  # the same bits on every processor
            order[begin:end] += begin
        place = np.empty(len(order), dtype=np.intp)
        place[order] = np.arange(len(order))
        self.places: list[Places] = [
            np.concatenate([place[begin:end] for begin, end in list(pairwise(begins))[group::per_device]])
            for group in range(1, per_device - 1)
        ]
        self.edges: Column = every[order]
        self.starts: Column = self.edges
        self.seconds: Column = self.differences(self.edges)

    def differences(self, at_edges: Column) -> Column:
        """For each piece by how much this is more at its end than at its start; 0 for the last of each device."""
        more = np.empty(len(at_edges))
        np.subtract(at_edges[1:], at_edges[:-1], out=more[:-1])
        for _, end in self.bounds:
            more[end - 1] = 0.0
        return more

    def of_each(self, values: Column) -> Iterator[Column]:
        """The values of each device's pieces, without the last one, which holds nothing."""
        return (values[begin : end - 1] for begin, end in self.bounds)

    def over(self, values: Column, begin: Places, end: Places) -> Column:
        """For each interval the sum of the values of its pieces: (1, 2, 4) over the second and third piece is 6."""
        total = self.totals(values)
        return total[end] - total[begin]

    def totals(self, values: Column) -> Column:
        """At each edge the sum of the values of the device's pieces before it: of (1, 2, 4) 0, 1, 3 and 7."""
        total = np.zeros(len(self.edges))
        for begin, end in self.bounds:
            np.cumsum(values[begin : end - 1], out=total[begin + 1 : end])
        return total

    def running(self, values: Column | float, begin: Places, end: Places) -> Column:
        """For each piece the sum of the values of the intervals that it lies in."""
        change = np.zeros(len(self.edges))
        change[begin] = values
        change[end] = -values
        for first, last in self.bounds:
            np.cumsum(change[first:last], out=change[first:last])
        return change
