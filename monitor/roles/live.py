"""The roles of one live process on one data folder: wired, started in order, stopped so that nothing taken is left.

meters --> collect --\\                              /--> web
files, http --> ingest --> log --> aggregate --> store --> query
             jobs --------/
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from collectors.clock import Clock, monotonic
from collectors.units import UnixSeconds
from monitor.config.sections import Config, Role
from monitor.roles.collect import CollectRole
from monitor.roles.embedded import Embedded
from monitor.roles.loop import Loop
from monitor.roles.sourced import Sourced
from monitor.selfmetrics import DaemonSnapshot

if TYPE_CHECKING:  # numpy comes with it: role collect alone does without
    from monitor.roles.aggregate import AggregateRole
    from monitor.roles.alerting import Alerting

STEP_SECONDS: Final = 1.0
STALLED_SECONDS: Final = {"collect": 45.0, "ingest": 45.0, "aggregate": 600.0}
"""So long may a role's loop not come round before the process counts as stuck; accounting a backlog takes long."""
STOP_SECONDS: Final = 5.0


class _Part(Protocol):
    def start(self) -> None: ...

    def stop(self) -> None: ...


class LiveRoles:
    """Everything that the configuration's roles run, between `start` and `stop`.

    Raises TermsChanged where the configuration names other books than the data folder keeps, Broken where an address
    cannot be listened on.
    """

    def __init__(
        self, house: Embedded, config: Config, *, host: str, clock: Clock, snapshot: Callable[[], DaemonSnapshot]
    ) -> None:
        self.config, self.host = config, host
        self._house, self._clock = house, clock
        self.collect: CollectRole | None = None
        self.sourced: Sourced | None = None
        self.aggregate: AggregateRole | None = None
        self.alerting: Alerting | None = None
        self.loops: list[Loop] = []
        self._parts: list[_Part] = []
        self._started: list[_Part] = []
        if self._has("aggregate", "control"):
            self._add_accounting()
        if self._has("ingest"):
            self._add_ingest()
        if self._has("collect"):
            from monitor.roles.meters import meters_of

            self.collect = CollectRole(house.log, config, meters_of(config, clock), host=host, clock=clock)
            self._parts.append(self.collect)
        if self._has("control") and config.alerts:
            self._add_alerts()
        if self._has("web"):
            from monitor.roles.web import WebRole

            self._parts.append(WebRole(house, config, snapshot, clock))

    def start(self) -> None:
        """Starts what reads the log first, then what writes it."""
        for part in self._parts:
            part.start()
            self._started.append(part)

    def stop(self) -> None:
        """Stops in the order of the flow, so that what was taken is in the log, and accounted as far as time allows."""
        while self._started:
            self._started.pop().stop()

    def troubles(self) -> list[str]:
        """Roles that have died or have not come round for too long; empty while all is well."""
        now = monotonic()
        found = [f"{loop.name} has ended by an error" for loop in self.loops if not loop.alive]
        beats = {loop.name: loop.beat for loop in self.loops}
        if self.collect is not None:
            beats["collect"] = self.collect.beat
            if not self.collect.alive:
                found.append("collect has ended by an error")
        return found + [
            f"{name} has not come round for {now - beat:.0f} s"
            for name, beat in beats.items()
            if now - beat > STALLED_SECONDS[name]
        ]

    def final_until(self) -> UnixSeconds | None:
        """Everything before it is final; None where nothing of what the log holds is."""
        end = None if self.aggregate is None else self.aggregate.final_until
        start = self._house.log.start()
        return None if end is None or start is None or end <= start[0] else end

    def now(self) -> UnixSeconds:
        """The present moment."""
        return self._clock.now()

    def log_time(self) -> UnixSeconds | None:
        """How far the log is."""
        return self._house.log.log_time()

    def missing(self) -> list[str]:
        """What there has to be before the process counts as ready: a first reading, where it meters at all."""
        if self.collect is not None and self.collect.readings == 0 and not self.collect.last_watts:
            return ["no meter has given a reading yet"]
        return []

    def _has(self, *roles: Role) -> bool:
        return bool(set(roles) & set(self.config.roles))

    def _add_accounting(self) -> None:
        from monitor.roles.aggregate import AggregateRole
        from monitor.roles.control import accounting_of, agree_on_terms
        from monitor.roles.jobs import Jobs

        house, config = self._house, self.config
        terms = agree_on_terms(house.log, house.log, accounting_of(config), self._clock.now())
        self._parts.append(Jobs(house.log, house.store, config, host=self.host, clock=self._clock))
        if self._has("aggregate"):
            aggregate = AggregateRole(house.log, house.store, terms, show_provisional=True)
            self.aggregate = aggregate
            self._add_loop("aggregate", lambda: 0.0 if aggregate.step() else STEP_SECONDS)

    def _add_alerts(self) -> None:
        from monitor.roles.alerting import Alerting, AlertingRole
        from monitor.store.sqlite import SqliteStore

        store = SqliteStore(self._house.store_path, read_only=True)
        self.alerting = Alerting(store, self.config, folder=self._house.folder, host=self.host, clock=self._clock)
        self._parts.append(AlertingRole(self.alerting, store))

    def _add_ingest(self) -> None:
        self.sourced = Sourced(self._house, self.config, host=self.host, clock=self._clock)
        self._add_loop("ingest", self.sourced.step)
        self._parts.append(self.sourced)

    def _add_loop(self, name: str, step: Callable[[], float]) -> None:
        loop = Loop(name, step)
        self.loops.append(loop)
        self._parts.append(_LoopPart(loop))


class _LoopPart:
    """A loop as a part: a stop waits for the step under way, but not for ever."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def start(self) -> None:
        self._loop.start()

    def stop(self) -> None:
        self._loop.stop(STOP_SECONDS)
