"""A store that is waited for. In: a store. Out: the same, which returns when the store has done what was asked.

While the store is down nothing is finalised and nothing is committed: whoever asked stands still, with what he has
computed in his hands, and the log holds the rest. So an outage costs no work done twice and no memory.
"""

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, ParamSpec, TypeVar

from collectors.units import UnixSeconds
from monitor.core.points import Measurement, Row
from monitor.store.protocol import Resolution, Store, StoreBusy, StoreUnavailable

FIRST_WAIT_SECONDS: Final = 0.5
LONGEST_WAIT_SECONDS: Final = 15.0
_P = ParamSpec("_P")
_T = TypeVar("_T")


class NotOurs(StoreUnavailable):
    """The partition is no longer ours, or the process stops: nothing is written any more."""


class PatientStore:
    """A Store. `may_go_on` is asked before each try: False ends the waiting with NotOurs.

    `waiting` is told why it waits, again with every try, and "" when it goes on.
    """

    def __init__(
        self,
        store: Store,
        *,
        may_go_on: Callable[[], bool],
        waiting: Callable[[str], None],
        stop: threading.Event,
    ) -> None:
        self._store, self._may_go_on, self._waiting, self._stop = store, may_go_on, waiting, stop

    def write(self, rows: Sequence[Row], *, resolution: Resolution = "window") -> None:
        self._patiently(self._store.write, rows, resolution=resolution)

    def replace_provisional(self, host: str, window_start: UnixSeconds, rows: Sequence[Row]) -> None:
        self._patiently(self._store.replace_provisional, host, window_start, rows)

    def replace_provisional_pages(self, pages: Mapping[tuple[str, UnixSeconds], Sequence[Row]]) -> None:
        self._patiently(self._store.replace_provisional_pages, pages)

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
        return self._patiently(
            self._store.read, measurement, start, end, where=where, resolution=resolution, limit=limit, after=after
        )

    def stream(
        self,
        measurement: Measurement,
        start: UnixSeconds,
        end: UnixSeconds,
        *,
        where: Mapping[str, Collection[str]] | None = None,
        resolution: Resolution = "window",
    ) -> Iterator[Row]:
        """All of them at once: an answer that breaks off halfway is asked for again from its start."""

        def whole() -> list[Row]:
            return list(self._store.stream(measurement, start, end, where=where, resolution=resolution))

        return iter(self._patiently(whole))

    def hosts(self, measurement: Measurement, start: UnixSeconds, end: UnixSeconds) -> frozenset[str]:
        return self._patiently(self._store.hosts, measurement, start, end)

    def span(
        self, measurement: Measurement, *, resolution: Resolution = "window"
    ) -> tuple[UnixSeconds, UnixSeconds] | None:
        return self._patiently(self._store.span, measurement, resolution=resolution)

    def last_times(self, measurement: Measurement, tag: str) -> dict[str, UnixSeconds]:
        return self._patiently(self._store.last_times, measurement, tag)

    def rolled_up(
        self, start: UnixSeconds, end: UnixSeconds, resolution: Resolution
    ) -> Mapping[UnixSeconds, frozenset[str]]:
        return self._patiently(self._store.rolled_up, start, end, resolution)

    def mark_rolled_up(self, starts: Iterable[UnixSeconds], resolution: Resolution, hosts: Collection[str]) -> None:
        self._patiently(self._store.mark_rolled_up, list(starts), resolution, hosts)

    def trim(self, now: UnixSeconds) -> int:
        return self._patiently(self._store.trim, now)

    def close(self) -> None:
        self._store.close()

    def _patiently(self, ask: Callable[_P, _T], *args: _P.args, **named: _P.kwargs) -> _T:
        wait_seconds = FIRST_WAIT_SECONDS
        waited = False
        while True:
            if not self._may_go_on():
                raise NotOurs("the partition went to another aggregator, or this one stops; its owner writes the same")
            try:
                answer = ask(*args, **named)
            except StoreUnavailable as error:
                self._waiting(str(error))
                waited = True
                self._stop.wait(_pause(error, wait_seconds))
                wait_seconds = min(2 * wait_seconds, LONGEST_WAIT_SECONDS)
            else:
                if waited:
                    self._waiting("")
                return answer


def _pause(error: StoreUnavailable, else_seconds: float) -> float:
    """What the store asks for, within bounds: 0 s would be a flood of tries, an hour is longer than our place lasts."""
    asked = error.retry_after_seconds if isinstance(error, StoreBusy) else None
    return else_seconds if asked is None else max(FIRST_WAIT_SECONDS, min(asked, LONGEST_WAIT_SECONDS))
