"""What a store is to the rest of the house: rows in, rows out. Sums and policies are nobody's business here."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Literal, Protocol

from collectors.units import UnixSeconds
from monitor.core.points import Measurement, Row

Resolution = Literal["window", "hour", "day"]
RESOLUTION_SECONDS: Mapping[Resolution, float] = {"hour": 3_600.0, "day": 86_400.0}


class Store(Protocol):
    """Rows by identity: what is written again overwrites. One writer of a host's rows; any number of readers, in other
    processes too. Every method raises StoreUnavailable.
    """

    def write(self, rows: Sequence[Row], *, resolution: Resolution = "window") -> None:
        """Returns once all rows are stored. After StoreUnavailable a store of many machines may hold some of them:
        written again they are whole. A row of a wrong shape is an error of ours before anything is stored.

        Rows of one identity overwrite whole: every field, not only those given. The rows of one host and window come
        in one call, provisional ones by `replace_provisional`.
        """
        ...

    def replace_provisional(self, host: str, window_start: UnixSeconds, rows: Sequence[Row]) -> None:
        """Makes these the only provisional rows of that host and window; none deletes them."""
        ...

    def replace_provisional_pages(self, pages: Mapping[tuple[str, UnixSeconds], Sequence[Row]]) -> None:
        """The same for many (host, window start) at once: a request to a server far away costs more than its rows."""
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

    def stream(
        self,
        measurement: Measurement,
        start: UnixSeconds,
        end: UnixSeconds,
        *,
        where: Mapping[str, Collection[str]] | None = None,
        resolution: Resolution = "window",
    ) -> Iterator[Row]:
        """What `read` gives, bit by bit: memory grows with the rows of one time, not with the interval."""
        ...

    def hosts(self, measurement: Measurement, start: UnixSeconds, end: UnixSeconds) -> frozenset[str]:
        """The hosts that have a row at window resolution with start <= time < end."""
        ...

    def span(
        self, measurement: Measurement, *, resolution: Resolution = "window"
    ) -> tuple[UnixSeconds, UnixSeconds] | None:
        """The times of the first and the last row, or None where there is none."""
        ...

    def last_times(self, measurement: Measurement, tag: str) -> dict[str, UnixSeconds]:
        """For each value of a tag, the time of its newest row at window resolution: how far each host's books are."""
        ...

    def rolled_up(
        self, start: UnixSeconds, end: UnixSeconds, resolution: Resolution
    ) -> Mapping[UnixSeconds, frozenset[str]]:
        """The starts of the hours (or days) in [start, end) that have been rolled up, each with its hosts."""
        ...

    def mark_rolled_up(self, starts: Iterable[UnixSeconds], resolution: Resolution, hosts: Collection[str]) -> None:
        """Records that these hosts' hours (or days) have their roll-up rows; queries then read those."""
        ...

    def trim(self, now: UnixSeconds) -> int:
        """Deletes what is past its retention; returns the number of rows. 0 where the store sees to it itself."""
        ...

    def close(self) -> None:
        """Lets go of the files."""
        ...


class StoreUnavailable(Exception):
    """The store did not take or give rows; nothing may be finalised or committed until it does."""


class StoreBusy(StoreUnavailable):
    """The store asks for patience: not before `retry_after_seconds`, where it says so."""

    def __init__(self, message: str, *, retry_after_seconds: float | None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
