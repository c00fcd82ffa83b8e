"""How active a board's MIG instances were, on the wire: columns, so that long names stand once in a record.

Seven instances tell 70 figures in a window. As readings these are 11 200 bytes, nearly all of them the names of board,
instances and fields; as columns 1 260, and a day of the board is 11 MB and not 97. Pure.

    board, (instance 1, instance 2) | round 1: start, end | busy seconds 0.25, 1.0
                                    | round 2: start, end | busy seconds 0.5,  1.0
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from collectors.readings import ActivityReading
from collectors.units import UnixSeconds

_INSTANCE: Final = "instance:"


class InstanceRounds(msgspec.Struct, frozen=True, kw_only=True):
    """Rounds of one board, [starts, ends) each; `busy_seconds` are those of every consumer in turn, round by round."""

    device: str
    consumers: tuple[str, ...]
    starts: tuple[UnixSeconds, ...]
    ends: tuple[UnixSeconds, ...]
    busy_seconds: tuple[float, ...]

    def activities(self) -> list[ActivityReading]:
        """The readings they were made of. Raises msgspec.ValidationError where a column has another length."""
        rounds, width = len(self.starts), len(self.consumers)
        if len(self.ends) != rounds or len(self.busy_seconds) != rounds * width:
            sizes = f"{len(self.ends)} ends and {len(self.busy_seconds)} busy_seconds"
            raise msgspec.ValidationError(f"{sizes} of {rounds} rounds of {width} instances")
        busy = iter(self.busy_seconds)
        return [
            ActivityReading(device=self.device, start=start, end=end, consumer=consumer, busy_seconds=next(busy))
            for start, end in zip(self.starts, self.ends, strict=True)
            for consumer in self.consumers
        ]


def rounds_of(
    activities: Iterable[ActivityReading],
) -> tuple[tuple[InstanceRounds, ...], tuple[ActivityReading, ...]]:
    """The instances' activities as columns, those of equal consumers together, and all that is no instance's.

    Of readings with the same board, time and instance each is kept.
    """
    rounds: dict[tuple[str, UnixSeconds, UnixSeconds], list[ActivityReading]] = {}
    others = []
    for each in activities:
        if each.consumer.startswith(_INSTANCE) and not each.state:
            rounds.setdefault((each.device, each.start, each.end), []).append(each)
        else:
            others.append(each)
    alike: dict[tuple[str, tuple[str, ...]], list[list[ActivityReading]]] = {}
    for (device, _, _), told in rounds.items():
        alike.setdefault((device, tuple(each.consumer for each in told)), []).append(told)
    return tuple(_columns(*key, group) for key, group in alike.items()), tuple(others)


def _columns(device: str, consumers: tuple[str, ...], group: Sequence[Sequence[ActivityReading]]) -> InstanceRounds:
    return InstanceRounds(
        device=device,
        consumers=consumers,
        starts=tuple(told[0].start for told in group),
        ends=tuple(told[0].end for told in group),
        busy_seconds=tuple(each.busy_seconds for told in group for each in told),
    )
