"""Role control: states the facts that everyone computes by.

config, carbon/mixes --> facts stream of the log
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import structlog

from collectors.clock import monotonic
from collectors.errors import Rejected
from collectors.units import UnixSeconds
from monitor.carbon.mixes import mix_of_zone
from monitor.config.sections import Config
from monitor.core.attribution.methods import METHODS
from monitor.core.facts import Fact, Facts
from monitor.core.facts_since import FactsSince
from monitor.core.lessons import Learned, Lesson, UnitLesson
from monitor.core.membership import Accounting
from monitor.log.codec import Decoder, accounting_record, intensity_record
from monitor.log.protocol import FactsLog, Log, LogRecord, LogUnavailable, LogWriter
from monitor.log.snapshots import Snapshot, is_snapshot

FACTS_SECONDS: Final = 2.0
"""Facts are in force a minute after they stand in the log, so reading them this often misses none."""
logger = structlog.get_logger()


class FactsReader:
    """The facts of a log; each call reads what came since the last.

    `start` gives the snapshot to begin at, None for the beginning of the log. It is for those who will ask about
    recent moments: an earlier one is answered too, when all facts have been read for it. Any thread's.
    """

    def __init__(self, log: FactsLog, start: Callable[[], Snapshot | None] = lambda: None) -> None:
        self._log, self._start = log, start
        self._begun = False
        self._in_use = threading.Lock()
        self._decoder = Decoder()
        self._forget()

    def _forget(self) -> None:
        self._known: list[tuple[UnixSeconds, Fact]] = []
        self._learned = Learned()
        self._terms: Accounting | None = None
        self._log_time = float("-inf")
        self._after = 0
        self._since = float("-inf")
        self._facts = Facts((), self._learned)

    def __call__(self) -> Facts:
        """What is in force."""
        with self._in_use:
            if self._begun:
                self._take_all(self._log.facts(self._after))
            else:
                self._begin(self._start())
            return self._facts

    def everything(self) -> Facts:
        """The same, whole for all time: begun at a snapshot, all facts are read now."""
        with self._in_use:
            if self._since > float("-inf"):
                self._begin(None)
            return self._facts

    def _begin(self, snapshot: Snapshot | None) -> None:
        records = self._log.facts(0 if snapshot is None else snapshot.through)
        self._forget()
        self._begun = True
        if snapshot is not None:
            self._since = snapshot.taken_at
            records = [*snapshot.records, *records]
        self._take_all(records)
        self._facts = self._made()

    def _take_all(self, records: Sequence[LogRecord]) -> None:
        if records:
            self._after = records[-1].offset
            before = len(self._known)
            for record in records:
                if not is_snapshot(record):
                    self._take(record)
            if len(self._known) > before:
                self._facts = self._made()

    def _made(self) -> Facts:
        if self._since == float("-inf"):
            return Facts(self._known, self._learned)
        return FactsSince(self._known, self._learned, since=self._since, earlier=self.everything)

    def _take(self, record: LogRecord) -> None:
        self._log_time = max(self._log_time, record.stamp)
        try:
            fact = self._decoder.decode(record)
            if isinstance(fact, Lesson | UnitLesson):
                self._learned.add(fact, self._log_time, self._terms or Accounting())
            elif isinstance(fact, Fact):
                self._known.append((record.stamp, fact))
                if self._terms is None and isinstance(fact, Accounting):
                    self._terms = fact
        except Rejected as rejected:  # a newer version's, or a stranger's: what we know is in force all the same
            logger.error("a fact is passed by", offset=record.offset, key=record.key, why=str(rejected))


class FreshFacts:
    """What is in force, read again every few seconds; whoever shares it shares one look. One thread's.

    Aggregators look once for all their ledgers: each one that asked for itself would wait for a broker that is away as
    long as the one before it, and begin again at its last commit for nothing.
    """

    def __init__(self, read: FactsReader) -> None:
        self._read = read
        self._read_at = float("-inf")
        self.latest = Facts(())
        """As of the last look; no facts before the first."""

    def look(self, max_age_seconds: float = FACTS_SECONDS) -> Facts:
        """Reads them to their end, if the last look is so long ago. Raises LogUnavailable."""
        if monotonic() - self._read_at >= max_age_seconds:
            self.latest = self._read()
            self._read_at = monotonic()
        return self.latest

    def look_anew(self) -> None:
        """Reads them to their end now. Raises LogUnavailable."""
        self.look(0.0)

    def __call__(self) -> Facts:
        return self.look()


class TermsChanged(Exception):
    """The configuration names other terms than the books are kept under."""


def accounting_of(config: Config) -> Accounting:
    """The terms that the configuration names."""
    return Accounting(
        window_seconds=config.accounting.window_seconds,
        horizon_seconds=config.accounting.horizon_seconds,
        mark_seconds=config.accounting.mark_interval_seconds,
        restate_seconds=config.log.restate_within_seconds,
        label_keys=config.accounting.label_keys,
    )


def agree_on_terms(read: FactsReader, writer: LogWriter, terms: Accounting, now: UnixSeconds) -> Accounting:
    """The terms in force; states them in a new log. Raises TermsChanged where the grid of the books would change.

    Of several who state them at once the first is believed, so they are read again.
    """
    if read().accounting() is None:
        writer.append([accounting_record(terms)], now)
    known = read().accounting()
    if known is None:
        raise LogUnavailable("the terms of the books were stated and do not stand in the log: try again")
    refuse_unknown_method(known)
    if known.method != terms.method:
        raise TermsChanged(
            f"the books are kept by the method {known.method}, not by {terms.method}: books are never kept by two; go"
            " on with `wattribute replay` and its --method and --fit as they were begun, or begin new books (another"
            " data folder)"
        )
    for name in ("window_seconds", "horizon_seconds", "mark_seconds"):
        if getattr(known, name) != getattr(terms, name):
            raise TermsChanged(
                f"[accounting] {name} is {getattr(terms, name)!r}, but the books are kept under "
                f"{getattr(known, name)!r}; set it back, or begin new books (another data folder or other topics)"
            )
    return known


def refuse_unknown_method(terms: Accounting) -> None:
    """Raises TermsChanged for books that this version cannot compute: it would make other rows beside the old ones."""
    if terms.method not in METHODS:
        raise TermsChanged(
            f"the books are kept by the method {terms.method!r}, of which this version knows nothing (it has "
            f"{', '.join(METHODS)}); run the version that began them, or begin new books (another data folder or "
            "other topics)"
        )


def state_intensities(log: Log, zones: Iterable[str], now: UnixSeconds) -> list[str]:
    """States the yearly mix of each zone where it is new; returns the zones of which nobody knows one."""
    facts = FactsReader(log)()
    unknown = []
    for zone in sorted(set(zones)):
        mix = mix_of_zone(zone) if zone else None
        if mix is None:
            unknown.append(zone)
        elif facts.intensity(zone, float("inf")) != mix:
            log.append([intensity_record(mix)], now)
    return unknown
