"""What is in force at a moment, from the facts of the log. Pure. In: facts with stamps. Out: factors, terms, places.

A fact is in force from a minute after its own log time on, so that whoever computes a window knows every fact that
counts for it. The first fact of a key also holds for all time before: a window's factor is then the same for whoever
computes it, and a fresh start has no minute without one.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from collectors.units import UnixSeconds
from monitor.core.attribution.methods import WHOLE_FIT
from monitor.core.attribution.priors import Scalars
from monitor.core.emissions.factors import Intensity
from monitor.core.lessons import EVER, IN_FORCE_AFTER_SECONDS, Learned, Lesson, UnitLesson
from monitor.core.membership import Accounting
from monitor.core.serving import Deployment, HostServers, Place, Serving

Fact = Intensity | Accounting | Deployment | HostServers | Lesson | UnitLesson


class Facts:
    """Built from (stamp, fact) in the order of the log; the log time is the running maximum of the stamps."""

    def __init__(self, facts: Iterable[tuple[UnixSeconds, Fact]], learned: Learned | None = None) -> None:
        """`learned` holds lessons that are kept apart, because there are many; others may stand among the facts."""
        self._accounting: Accounting | None = None
        self._since: dict[str, list[UnixSeconds]] = {}
        self._intensities: dict[str, list[Intensity]] = {}
        placing: list[tuple[UnixSeconds, Deployment | HostServers]] = []
        self.learned = Learned() if learned is None else learned
        log_time = float("-inf")
        for stamp, fact in facts:
            log_time = max(log_time, stamp)
            if isinstance(fact, Intensity):
                self._since.setdefault(fact.zone, []).append(log_time + IN_FORCE_AFTER_SECONDS)
                self._intensities.setdefault(fact.zone, []).append(fact)
            elif isinstance(fact, Deployment | HostServers):
                placing.append((log_time + IN_FORCE_AFTER_SECONDS, fact))
            elif isinstance(fact, Lesson | UnitLesson):
                self.learned.add(fact, log_time, self._accounting or Accounting())
            elif self._accounting is None:
                self._accounting = fact
        self.serving = Serving(placing)

    def intensity(self, zone: str, at: UnixSeconds) -> Intensity | None:
        """The zone's newest factor that is in force at a moment, its first before that, None if there never was one."""
        since = self._since.get(zone)
        return self._intensities[zone][max(0, bisect_right(since, at) - 1)] if since else None

    def scalars(self, gpu: str, at: UnixSeconds) -> Scalars:
        """What the work of a GPU type costs, as far as it was known at a moment; the priors where it was not."""
        return self.learned.scalars(gpu, self.learned_as_of(at))

    def learned_as_of(self, at: UnixSeconds) -> UnixSeconds:
        """The moment whose lessons a window that begins then is computed by: its own, or EVER (`--fit whole`)."""
        return EVER if self._accounting is not None and self._accounting.method == WHOLE_FIT else at

    def places(self, model: str, deployment: str, at: UnixSeconds) -> Sequence[Place]:
        """Where a request ran that began at that moment, as Serving has it."""
        return self.serving.places(model, deployment, at)

    def accounting(self) -> Accounting | None:
        """The terms of the books, None in a log without.

        They are those of the first such fact: windows of another length, begun halfway, would be other rows beside
        the old ones.
        """
        return self._accounting
