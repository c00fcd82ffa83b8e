"""Which rows to read for an interval: whole days, whole hours, windows for the rest. Pure."""

from collections.abc import Callable, Collection, Iterator
from typing import Literal

import msgspec

from collectors.units import SECONDS_PER_DAY, SECONDS_PER_HOUR, UnixSeconds

Resolution = Literal["window", "hour", "day"]


class Segment(msgspec.Struct, frozen=True):
    """A stretch [start, end) to be read at one resolution."""

    start: UnixSeconds
    end: UnixSeconds
    resolution: Resolution


def segments(
    start: UnixSeconds,
    end: UnixSeconds,
    *,
    days: Collection[UnixSeconds],
    hours: Collection[UnixSeconds],
    fits: Callable[[UnixSeconds, UnixSeconds], bool] = lambda start, end: True,
) -> list[Segment]:
    """Segments in order that cover [start, end) without overlap, the coarsest that there is.

    `days` and `hours` are the starts of what is rolled up; `fits` tells whether a stretch lies within one step of the
    answer. 23:00 to 02:00 the day after next, all rolled up: an hour, a day, two hours.
    """
    whole: dict[UnixSeconds, Segment] = {}
    for begin in days:
        _place(whole, Segment(begin, begin + SECONDS_PER_DAY, "day"), start, end, fits)
    covered = set(whole)
    for begin in hours:
        if begin // SECONDS_PER_DAY * SECONDS_PER_DAY not in covered:
            _place(whole, Segment(begin, begin + SECONDS_PER_HOUR, "hour"), start, end, fits)
    return list(_joined(_with_windows(whole, start, end)))


def _place(
    whole: dict[UnixSeconds, Segment],
    segment: Segment,
    start: UnixSeconds,
    end: UnixSeconds,
    fits: Callable[[UnixSeconds, UnixSeconds], bool],
) -> None:
    if start <= segment.start and segment.end <= end and fits(segment.start, segment.end):
        whole[segment.start] = segment


def _with_windows(whole: dict[UnixSeconds, Segment], start: UnixSeconds, end: UnixSeconds) -> Iterator[Segment]:
    position = start
    for begin in sorted(whole):
        if begin > position:
            yield Segment(position, begin, "window")
        yield whole[begin]
        position = whole[begin].end
    if position < end:
        yield Segment(position, end, "window")


def _joined(parts: Iterator[Segment]) -> Iterator[Segment]:
    """Neighbours of one resolution become one read."""
    last: Segment | None = None
    for part in parts:
        if last is not None and last.resolution == part.resolution:
            last = Segment(last.start, part.end, part.resolution)
            continue
        if last is not None:
            yield last
        last = part
    if last is not None:
        yield last
