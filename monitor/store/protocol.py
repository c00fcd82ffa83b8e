"""What a store is to the rest of the house: rows in, rows out. Sums and policies are nobody's business here."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal, Protocol

from collectors.units import UnixSeconds
from monitor.core.points import Measurement, Row

Resolution = Literal["window", "hour", "day"]
RESOLUTION_SECONDS: Mapping[Resolution, float] = {"hour": 3_600.0, "day": 86_400.0}


class Store(Protocol):
    """Rows by identity: what is written again overwrites. One writer; any number of readers, in other processes too."""

    def write(self, rows: Sequence[Row], *, resolution: Resolution = "window") -> None:
        """Stores all rows or none; returns once they are on disk. Raises StoreUnavailable.

        Rows of one identity overwrite whole: every field, not only those given.
        """
        ...

    def replace_provisional(self, host: str, window_start: UnixSeconds, rows: Sequence[Row]) -> None:
        """Makes these the only provisional rows of that host and window; none deletes them."""
        ...

    def read(
        self,
        measurement: Measurement,
        start: UnixSeconds,
        end: UnixSeconds,
        *,
        where: Mapping[str, Collection[str]] | None = None,
        resolution: Resolution = "window",
        limit: int | None = None,
        after: Row | None = None,
    ) -> list[Row]:
        """Rows with start <= time < end in the order of (time, tags), whose tags are among `where`'s values.

        `limit` and `after` page: the next rows behind `after`.
        """
        ...

    def span(
        self, measurement: Measurement, *, resolution: Resolution = "window"
    ) -> tuple[UnixSeconds, UnixSeconds] | None:
        """The times of the first and the last row, or None where there is none."""
        ...

    def last_times(self, measurement: Measurement, tag: str) -> dict[str, UnixSeconds]:
        """For each value of a tag, the time of its newest row at window resolution: how far each host's books are."""
        ...

    def rolled_up(self, start: UnixSeconds, end: UnixSeconds, resolution: Resolution) -> frozenset[UnixSeconds]:
        """The starts of the hours (or days) in [start, end) that have been rolled up."""
        ...

    def mark_rolled_up(self, starts: Iterable[UnixSeconds], resolution: Resolution) -> None:
        """Records that these hours (or days) have their roll-up rows; queries then read those."""
        ...

    def trim(self, now: UnixSeconds) -> int:
        """Deletes what is past its retention; returns the number of rows."""
        ...

    def close(self) -> None:
        """Lets go of the files."""
        ...


class StoreUnavailable(Exception):
    """The store did not take or give rows; nothing may be finalised or committed until it does."""
