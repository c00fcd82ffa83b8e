"""A board's MIG instances as the books know them. Pure. In: what the child says of GPU instances. Out: activity.

A MIG device, which is what requests name, is a compute instance; the driver tells activity of the GPU instance that it
lies in. Two compute instances of one GPU instance share its figure: each is told it, and Device.instance_units says
that they are one.
"""

from collections import Counter
from collections.abc import Sequence

from collectors.nvml_samples import Active, MigInstance
from collectors.readings import ActivityReading
from collectors.units import UnixSeconds


def slices_of(instances: Sequence[MigInstance]) -> tuple[float, ...]:
    """The size of each, those that lie in one GPU instance with equal parts of it; () where one is not told.

    A GPU instance of 3 slices with one compute instance and one of 4 with two: 3, 2 and 2.
    """
    within = Counter(each.gpu_instance for each in instances)
    sizes = tuple(each.slices / within[each.gpu_instance] for each in instances if each.slices is not None)
    return sizes if len(sizes) == len(instances) and all(size > 0.0 for size in sizes) else ()


def units_of(instances: Sequence[MigInstance]) -> tuple[int, ...]:
    """The GPU instance of each where two share one; () where each is its own, or it is not told."""
    told = tuple(each.gpu_instance for each in instances if each.gpu_instance is not None)
    return told if len(set(told)) < len(told) == len(instances) else ()


class InstanceTrack:
    """Follows one board from round to round, whichever child made them; `device` is its id."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._round: tuple[float, UnixSeconds] | None = None  # its tick and when that was
        self._busiest = 0.0
        self._is_whole = False  # whether every moment since the last look is told

    def take(
        self, active: Active | None, tick: float, at: UnixSeconds, instances: Sequence[MigInstance]
    ) -> list[ActivityReading]:
        """What a round tells of the time since the one before: of every instance, or nothing.

        Shares of a board's joules need all of them: one that is left out would count as at rest.
        """
        if active is None:
            return []
        before, self._round = self._round, (tick, at)
        ratios = dict(active.ratios)
        is_told = bool(instances) and all(each.gpu_instance in ratios for each in instances)
        if before is None or before[0] != active.since or not before[1] < at or not is_told:
            self._is_whole = False
            return []
        self._busiest = max(self._busiest, *ratios.values())
        return [
            ActivityReading(
                device=self._device,
                start=before[1],
                end=at,
                consumer=f"instance:{each.uuid}",
                busy_seconds=ratios[each.gpu_instance] * (at - before[1]),
            )
            for each in instances
            if each.gpu_instance is not None
        ]

    def look(self, at: UnixSeconds) -> float | None:
        """The highest ratio that any instance had since the last look (0-1); None where some of that is not told."""
        is_now = self._round is not None and self._round[1] == at
        busiest = self._busiest if self._is_whole and is_now else None
        self._busiest, self._is_whole = 0.0, is_now
        return busiest
