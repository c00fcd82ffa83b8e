"""What late requests cost: two hours of a host with one request in 2 000 late, beside the same hours with none.

In seconds of CPU. Each mark with a late request reads a part of the log again: its windows, the horizon before them,
and what follows until the mark. Also the hours with a new life at each mark, which knows less of what stands where.
"""

import random
import time

from bench._ledger_load import START, ListLog, NullStore, host_records, in_log_time
from monitor.core.facts import Facts
from monitor.core.membership import Accounting
from monitor.garbage import look_seldom
from monitor.ledger.ledger import Ledger
from monitor.log.codec import Decoder, usage_record
from monitor.log.protocol import Append
from monitor.log.usage_wire import UsageBatch

GPUS, SECONDS, REQUESTS_PER_SECOND, RECORD = 2, 7_200, 20, 100
TERMS = Accounting(horizon_seconds=300.0, mark_seconds=300.0)
LATE_RATIO = 0.0005


def run() -> list[str]:
    """The ratio."""
    look_seldom()  # as an aggregator does
    records = list(host_records("h", gpus=GPUS, requests_per_second=REQUESTS_PER_SECOND, seconds=SECONDS, batch=RECORD))
    events = REQUESTS_PER_SECOND * SECONDS
    in_time, (late, count) = _stood(records), _with_late(records)
    none, _ = _account(in_time)
    some, restated = _account(late)
    lives, _ = _account(late, lives=True)
    return [
        f"restate: {count} of {events} requests late, {restated} windows restated at marks of"
        f" {TERMS.mark_seconds:.0f} s: {some / none:.2f}x the CPU of none late ({1e6 * none / events:.0f} us a"
        f" request); with a new life at each mark {lives / none:.2f}x"
    ]


def _account(records: list[Append], *, lives: bool = False) -> tuple[float, int]:
    log, store, begun, restated = ListLog(records), NullStore(), time.process_time(), 0

    def life() -> Ledger:
        return Ledger(log, store, TERMS, lambda: Facts([]), show_provisional=False, request_rows=False)

    ledger = life()
    while ledger.step(500):
        if lives and ledger.progress.restated:
            restated += ledger.progress.restated
            ledger = life()
    return time.process_time() - begun, restated + ledger.progress.restated


def _stood(records: list[Append]) -> list[Append]:
    return in_log_time(records, START + SECONDS + 4 * TERMS.horizon_seconds)


def _with_late(records: list[Append]) -> tuple[list[Append], int]:
    """The same requests, some of them in records of their own that stand one to two horizons later."""
    chance, decoder = random.Random(1), Decoder()
    found: list[Append] = []
    count = 0
    for record in records:
        content = decoder.decode(ListLog([record]).read({}, 1)[0])
        if not isinstance(content, UsageBatch):
            found.append(record)
            continue
        late = [usage for usage in content.usages() if chance.random() < LATE_RATIO]
        count += len(late)
        found.append(usage_record(record.key, [usage for usage in content.usages() if usage not in late], record.stamp))
        for usage in late:
            behind = (1.0 + chance.random()) * TERMS.horizon_seconds
            found.append(usage_record(record.key, [usage], usage.end + 10.0 + behind))
    return _stood(found), count


if __name__ == "__main__":
    print("\n".join(run()))
