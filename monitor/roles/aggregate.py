"""Role aggregate: from the log to the books.

log --> Ledger (window, attribution, emissions, points) --> store
"""

from collectors.units import UnixSeconds
from monitor.core.membership import Accounting
from monitor.core.questions import Missing
from monitor.ledger.ledger import Ledger, Progress
from monitor.log.protocol import Log
from monitor.roles.control import FactsReader
from monitor.roles.known_holes import KnownHoles
from monitor.roles.teacher import Teacher
from monitor.store.protocol import Store


class AggregateRole:
    """Keeps the store in step with the log."""

    def __init__(self, log: Log, store: Store, terms: Accounting, *, show_provisional: bool) -> None:
        self._ledger = Ledger(
            log, store, terms, FactsReader(log), show_provisional=show_provisional, teach=Teacher(log, "0/1")
        )
        self._known_holes = KnownHoles(store)

    @property
    def progress(self) -> Progress:
        """What has been read and written since the start."""
        return self._ledger.progress

    @property
    def final_until(self) -> UnixSeconds | None:
        """Everything before it is final; None while nothing is."""
        end = self._ledger.watermark
        return end if end > float("-inf") else None

    @property
    def holes(self) -> tuple[Missing, ...]:
        """What is missing in the books."""
        return self._known_holes.holes

    def step(self) -> int:
        """Accounts the next records; returns how many. After the last of them windows that are over are shown."""
        taken = self._ledger.step()
        self._known_holes.look(self._ledger.progress.holes)
        return taken

    def drain(self) -> int:
        """Accounts everything that stands in the log now; returns the number of records."""
        taken = 0
        while records := self.step():
            taken += records
        return taken
