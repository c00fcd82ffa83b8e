"""What stands behind the line of a final window, until the next mark restates it."""

from dataclasses import dataclass, field

import numpy as np

from collectors.readings import ActivityReading, EnergyReading, EngineReading
from collectors.units import UnixSeconds
from monitor.core.attribution.pieces import Column
from monitor.core.exact import ExactSum
from monitor.core.membership import Accounting
from monitor.log.codec import Restate


@dataclass(slots=True)
class LateOnHost:
    """Late records of one host that the same mark restates, and the final windows they touch."""

    windows: set[int] = field(default_factory=set)
    readings: int = 0
    requests: int = 0
    controls: int = 0
    activities: int = 0
    engines: int = 0
    energy_joules: ExactSum = field(default_factory=ExactSum)
    reasons: set[str] = field(default_factory=set)
    finishing: dict[int, UnixSeconds] = field(default_factory=dict)
    """Last windows of requests that get their entry at this mark, with the log time of the first of them."""

    def note(self, entered: EnergyReading | ActivityReading | EngineReading | Restate) -> None:
        """Counts a late record that is no request."""
        if isinstance(entered, EnergyReading):
            self.readings += 1
            self.energy_joules.add(entered.energy_joules)
        elif isinstance(entered, ActivityReading):
            self.activities += 1
        elif isinstance(entered, EngineReading):
            self.engines += 1
        else:
            self.controls += 1
            self.reasons.add(entered.reason)

    def why(self) -> str:
        """One line for the restatement record."""
        counts = (
            (self.readings, "reading", "readings"),
            (self.requests, "request", "requests"),
            (self.activities, "reading of who used a device", "readings of who used a device"),
            (self.engines, "reading of a model server's work", "readings of model servers' work"),
        )
        said = [f"{count} late {one if count == 1 else more}" for count, one, more in counts if count]
        return ", ".join(said + sorted(self.reasons))


class Late:
    """Late records by mark and host. What an earlier mark has carried out already is not noted again."""

    def __init__(self, terms: Accounting, carried_out: UnixSeconds) -> None:
        self._terms = terms
        self._carried_out = carried_out
        self._marks: dict[UnixSeconds, dict[str, LateOnHost]] = {}

    def touched(self, host: str, windows: range, log_time: UnixSeconds) -> LateOnHost | None:
        """Notes the final ones of these windows, and returns where to count the record; None if it is not late."""
        last = min(windows.stop - 1, self._terms.last_final(log_time))
        mark = self._terms.mark_after(log_time)
        if last < windows.start or mark <= self._carried_out:
            return None
        entry = self._entry(mark, host)
        entry.windows.update(range(windows.start, last + 1))
        return entry

    def finishes(self, host: str, windows: range, log_time: UnixSeconds) -> None:
        """Notes a request that was not known before its first window was final: a mark gives it its entry."""
        if not self._terms.is_final(windows.start, log_time) or not windows:
            return
        mark = finishing_mark(self._terms, windows, log_time)
        if mark > self._carried_out:
            self._entry(mark, host).finishing.setdefault(windows[-1], log_time)

    def finishing_since(self) -> UnixSeconds:
        """The earliest log time of a request whose entry is still to come with a mark; infinity for none."""
        entries = (entry for hosts in self._marks.values() for entry in hosts.values())
        return min((at for entry in entries for at in entry.finishing.values()), default=float("inf"))

    def due(self, log_time: UnixSeconds) -> list[tuple[UnixSeconds, dict[str, LateOnHost]]]:
        """The marks to carry out at this log time, the oldest first; they are forgotten here."""
        marks = sorted(mark for mark in self._marks if mark <= log_time)
        self._carried_out = max(self._carried_out, self._terms.mark_before(log_time))
        return [(mark, self._marks.pop(mark)) for mark in marks]

    def _entry(self, mark: UnixSeconds, host: str) -> LateOnHost:
        return self._marks.setdefault(mark, {}).setdefault(host, LateOnHost())


def finishing_marks(terms: Accounting, last: int, log_times: Column) -> Column:
    """`finishing_mark` of requests that ended in window `last` and stand at these log times."""
    after = np.floor(log_times / terms.mark_seconds) * terms.mark_seconds + terms.mark_seconds
    return np.maximum(after, terms.mark_after(terms.final_line(last)))


def finishing_mark(terms: Accounting, windows: range, log_time: UnixSeconds) -> UnixSeconds:
    """The mark that gives a late request of these windows its entry: they are all final then, and it is in them."""
    return max(terms.mark_after(log_time), terms.mark_after(terms.final_line(windows[-1])))
