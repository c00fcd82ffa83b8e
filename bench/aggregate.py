"""How fast one core accounts requests: usage records as they stand in Kafka, through the Ledger, to rows for no store.

    python -m bench aggregate                     120 000 requests
    EVENTS=10000000 python -m bench aggregate     memory alone, over ten million

In seconds of CPU, so that a busy machine changes little; and where they go: the same records decoded alone, and entered
into a book that nothing is accounted from.
"""

import os
import time
from collections.abc import Callable, Sequence

from bench import _ledger_memory
from bench._ledger_load import START, ListLog, NullStore, fleet_records, in_log_time
from monitor.core.book import Book
from monitor.core.facts import Facts
from monitor.core.membership import Accounting
from monitor.core.request_energy import RequestEnergy
from monitor.freed_memory import keep_freed_memory
from monitor.garbage import look_seldom
from monitor.ledger.entering import Entering
from monitor.ledger.ledger import Ledger
from monitor.log.codec import Decoder
from monitor.log.protocol import LogRecord
from monitor.roles.request_energy import batches

HOSTS, GPUS, SECONDS = 4, 8, 60
REQUESTS_PER_SECOND = 500
"""Of each host: nodes of eight GPUs that serve a small model to many."""
USAGES_IN_A_RECORD = 500
TERMS = Accounting(horizon_seconds=60.0, mark_seconds=60.0)
_ROUNDS = 2


def run() -> list[str]:
    """The rate of the whole, and what the stages take of it."""
    look_seldom()  # as an aggregator does, both
    keep_freed_memory()
    if "EVENTS" in os.environ:
        return [_ledger_memory.rise(int(os.environ["EVENTS"]))]
    records = fleet_records(
        HOSTS, gpus=GPUS, requests_per_second=REQUESTS_PER_SECOND, seconds=SECONDS, batch=USAGES_IN_A_RECORD
    )
    appends = in_log_time(records, START + SECONDS + 200.0)
    held = ListLog(appends).read({}, len(appends))
    events = HOSTS * REQUESTS_PER_SECOND * SECONDS
    store = NullStore()
    sums = _best(lambda: _account(ListLog(appends), store))
    each = _best(lambda: _account(ListLog(appends), NullStore(), finished=_write))
    decoded, entered = _best(lambda: _decode(held)), _best(lambda: _enter(held))
    parts = {
        "decoding and its checks": decoded,
        "identities and the book": entered - decoded,
        "accounts, to rows": sums - entered,
        "an entry for each request, written as JSON, besides": each - sums,
    }
    told = ", ".join(f"{name} {1e6 * seconds / events:.2f} us" for name, seconds in parts.items())
    return [
        f"aggregate: {events / sums:,.0f} events/s on one core to the books, {events / each:,.0f} with an entry for"
        f" each request, as a fleet makes them unless told otherwise; from records of {USAGES_IN_A_RECORD} usages"
        f" ({HOSTS} hosts of {GPUS} GPUs, {REQUESTS_PER_SECOND} requests/s each) to"
        f" {store.rows / _ROUNDS / events:.2f} rows an event; an event: {told}"
    ]


def _account(log: ListLog, store: NullStore, finished: Callable[[Sequence[RequestEnergy]], None] | None = None) -> None:
    ledger = Ledger(log, store, TERMS, lambda: Facts([]), show_provisional=False, request_rows=False, finished=finished)
    while ledger.step():
        pass


def _write(entries: Sequence[RequestEnergy]) -> None:
    """As for their topic."""
    for _batch in batches(entries):
        pass


def _decode(records: list[LogRecord]) -> None:
    decoder = Decoder()
    for record in records:
        decoder.decode(record)


def _enter(records: list[LogRecord]) -> None:
    entering = Entering(TERMS, Book(TERMS, lambda _zone, _at: None), reject=lambda _letter: None)
    entered = START
    for record in records:
        if record.stamp >= entered + TERMS.window_seconds:  # as the ledger enters them, when windows become final
            entered = record.stamp
            for _touch in entering.requests():
                pass
        for _ in entering.enter(record):
            pass
    for _touch in entering.requests():
        pass


def _best(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(_ROUNDS):
        begun = time.process_time()
        work()
        best = min(best, time.process_time() - begun)
    return best


if __name__ == "__main__":
    print("\n".join(run()))
