"""Whether a store answers at all, asked before anybody needs it. In: a store. Out: StoreUnavailable, or nothing.

A process with a wrong token or bucket takes no part of a group's work that others could do, and says what is wrong
before somebody asks it for figures.
"""

from typing import Final

from collectors.clock import Clock
from monitor.core.points import METER
from monitor.store.protocol import Store

PROBE_SECONDS: Final = 15.0
_ASKED_SECONDS: Final = 60.0


def probe(store: Store, clock: Clock) -> None:
    """Asks for the hosts of the last minute. Raises StoreUnavailable, with what to do."""
    now = clock.now()
    store.hosts(METER, now - _ASKED_SECONDS, now)


class StoreProbe:
    """`step` for the loop of a role that only answers questions: nobody may ask for hours."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock

    def step(self) -> float:
        """Asks; returns how long to wait before the next time. Raises StoreUnavailable."""
        probe(self._store, self._clock)
        return PROBE_SECONDS
