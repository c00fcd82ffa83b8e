"""Whether an aggregator's memory rises: any number of requests through the Ledger, made while it goes, RSS told."""

import os
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from bench._ledger_load import START, ListLog, NullStore, fleet_records
from monitor.core.facts import Facts
from monitor.core.membership import Accounting
from monitor.ledger.ledger import Ledger
from monitor.log.protocol import Append, LogRecord

HOSTS, GPUS, REQUESTS_PER_SECOND, RECORD = 4, 8, 500, 500
PIECE_SECONDS = 60
"""Records are made for so long at a time."""
KEPT_SECONDS = 400.0
"""The log forgets what is older: nothing is read again that stands two horizons and a mark behind."""
TERMS = Accounting(horizon_seconds=60.0, mark_seconds=60.0)


class PassingLog(ListLog):
    """A log whose records are made when they are read and forgotten when they are old. Offsets are counted from 0."""

    def __init__(self, appends: Iterator[Append]) -> None:
        super().__init__([])
        self._coming, self._kept, self._first = appends, deque[LogRecord](), 0

    def read(self, positions: Mapping[str, int], limit: int) -> list[LogRecord]:
        """The next ones."""
        begin = max(positions.values(), default=0)
        while self._first + len(self._kept) < begin + limit:
            each = next(self._coming, None)
            if each is None:
                break
            stamp = max(each.stamp or 0.0, self._kept[-1].stamp if self._kept else 0.0)
            offset = self._first + len(self._kept)
            self._kept.append(
                LogRecord(
                    stream=each.stream, offset=offset, stamp=stamp, key=each.key, schema=each.schema, body=each.body
                )
            )
        while self._kept and self._kept[0].stamp < self._kept[-1].stamp - KEPT_SECONDS:
            self._kept.popleft()
            self._first += 1
        return list(islice(self._kept, begin - self._first, begin - self._first + limit))

    def log_time(self) -> float | None:
        """The newest stamp."""
        return self._kept[-1].stamp if self._kept else None

    def position_at(self, stream: str, log_time: float) -> int:
        """The first record that stands then or later."""
        return self._first + sum(record.stamp < log_time for record in self._kept)

    def start(self) -> tuple[float, bool] | None:
        """Whole."""
        return (START, False)


def rise(events: int) -> str:
    """Resident memory after a tenth of about so many events, at half and at their end."""
    events = _pieces(events) * HOSTS * REQUESTS_PER_SECOND * PIECE_SECONDS
    log, store = PassingLog(_records(events)), NullStore()
    ledger = Ledger(log, store, TERMS, lambda: Facts([]), show_provisional=False, request_rows=False)
    end = START + events / HOSTS / REQUESTS_PER_SECOND
    seen: list[tuple[float, int]] = []
    while ledger.step(200):
        seen.append(((ledger.watermark - START) / (end - START), _resident_bytes()))
    tenth, half, last = (next(held for part, held in seen if part >= least) for least in (0.1, 0.5, seen[-1][0]))
    most = max(held for part, held in seen if part >= 0.1)
    least = min(held for part, held in seen if part >= 0.1)
    return (
        f"memory: {tenth / 2**20:.0f} MiB after a tenth of {events:,} requests, {half / 2**20:.0f} at half,"
        f" {last / 2**20:.0f} at the end, {least / 2**20:.0f} to {most / 2**20:.0f} between; {store.rows:,} rows"
    )


def _pieces(events: int) -> int:
    least = 10  # ten minutes: the log of fewer is still filling when they end
    return max(round(events / (HOSTS * REQUESTS_PER_SECOND * PIECE_SECONDS)), least)


def _records(events: int) -> Iterator[Append]:
    """Of all hosts in the order of the log."""
    for piece in range(_pieces(events)):
        records = fleet_records(
            HOSTS,
            gpus=GPUS,
            requests_per_second=REQUESTS_PER_SECOND,
            seconds=PIECE_SECONDS,
            batch=RECORD,
            seed=piece * HOSTS,
            start=START + piece * PIECE_SECONDS,
        )
        yield from sorted(records, key=lambda record: record.stamp or 0.0)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
