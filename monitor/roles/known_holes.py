"""What is missing in the books, as an aggregator tells it. In: the store. Out: holes, those before its start too."""

from monitor.core.questions import Missing
from monitor.query import holes_of
from monitor.store.protocol import Store


class KnownHoles:
    """Asks the store at its start, and again when a ledger has named one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._named: int | None = None
        self.holes: tuple[Missing, ...] = ()

    def look(self, named: int) -> None:
        """`named` is how many the ledgers have named since their start. Raises StoreUnavailable."""
        if named != self._named:
            self.holes, self._named = holes_of(self._store), named
