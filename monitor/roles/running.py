"""What the roles of one process have in common: parts that are started in order and stopped in the opposite one."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from collectors.clock import Clock, monotonic
from collectors.units import UnixSeconds
from monitor.config.sections import Config, Role
from monitor.roles.collect import CollectRole
from monitor.roles.loop import Loop
from monitor.selfmetrics import ShipSnapshot, SourceSnapshot

if TYPE_CHECKING:  # numpy comes with some: role collect alone does without
    from collectors.readings import ModelFacts
    from collectors.servers import KnownServers
    from monitor.core.questions import Missing
    from monitor.ledger.ledger import Progress
    from monitor.roles.alerting import Alerting

STALLED_SECONDS: Final = {
    "collect": 45.0,
    "ingest": 240.0,
    "ship": 120.0,
    "servers": 120.0,
    "control": 120.0,
    "web": 120.0,
    "aggregate": 600.0,
}
"""So long may a role's loop not come round before the process counts as stuck; accounting a backlog takes long.

Longer than the brokers may take for all that a step asks of them: an outage is waited for, and ends no process.
"""
STOP_SECONDS: Final = 5.0


class Part(Protocol):
    """Something that runs between start and stop."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


class Beating(Protocol):
    """A part whose coming round is watched."""

    @property
    def name(self) -> str: ...

    @property
    def beat(self) -> float: ...

    @property
    def alive(self) -> bool: ...

    @property
    def waits_for(self) -> str: ...


class Accounting(Protocol):
    """Role aggregate, embedded or in a group."""

    @property
    def progress(self) -> "Progress": ...

    @property
    def final_until(self) -> UnixSeconds | None: ...

    @property
    def holes(self) -> "tuple[Missing, ...]": ...


class Sources(Protocol):
    """Role ingest: what came from each source."""

    def snapshots(self) -> tuple[SourceSnapshot, ...]: ...


class RunningRoles:
    """Everything that the configuration's roles run, between `start` and `stop`. Its kinds fill in the parts."""

    def __init__(self, config: Config, *, host: str, clock: Clock) -> None:
        self.config, self.host, self._clock = config, host, clock
        self.collect: CollectRole | None = None
        self.sourced: Sources | None = None
        self.aggregate: Accounting | None = None
        self.alerting: Alerting | None = None
        self.loops: list[Beating] = []
        self._parts: list[Part] = []
        self._started: list[Part] = []

    def start(self) -> None:
        """Starts what reads the log first, then what writes it. Raises Broken where an address cannot be had."""
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

    def waits(self) -> dict[str, str]:
        """What each role waits for, or what it cannot do; only those that do."""
        return {loop.name: loop.waits_for for loop in self.loops if loop.waits_for}

    def now(self) -> UnixSeconds:
        """The present moment."""
        return self._clock.now()

    def final_until(self) -> UnixSeconds | None:
        """Everything before it is final; None where nothing of what the log holds is."""
        return None if self.aggregate is None else self.aggregate.final_until

    def log_time(self) -> UnixSeconds | None:
        """How far the log is; None where this process does not know."""
        return None

    def partitions(self) -> tuple[int, ...] | None:
        """The partitions of a fleet's log that are accounted here; None of a log that has none."""
        return None

    def lag(self) -> int | None:
        """Records of these that wait in Kafka; None where nobody knows."""
        return None

    def refused_records(self) -> int | None:
        """Records that Kafka will never take, since these roles began; None where they write none there."""
        return None

    def refused_rows(self) -> Mapping[str, int] | None:
        """Rows that InfluxDB will never take, since it was opened, by reason; None where they write none there."""
        return None

    def shipped(self) -> ShipSnapshot | None:
        """How far this host's records are at the brokers; None where they stay here."""
        return None

    def missing(self) -> list[str]:
        """What there has to be before the process counts as ready: a first reading, where it meters at all."""
        if self.collect is not None and self.collect.readings == 0 and not self.collect.last_watts:
            return ["no meter has given a reading yet"]
        return []

    def _has(self, *roles: Role) -> bool:
        return bool(set(roles) & set(self.config.roles))

    def _add_model_facts(self, servers: "KnownServers") -> "Callable[[], Sequence[ModelFacts]]":
        """Has the model servers' own folders read, where servers are looked for at all; gives what is known of them."""
        engine = self.config.collect.engine
        if not (engine.enabled and engine.discover):
            return tuple
        from collectors.model_folder import ModelFolders
        from monitor.roles.model_folders import ModelFactsRole

        role = ModelFactsRole(ModelFolders(servers, procfs=self.config.collect.procfs))
        self._parts.append(role)
        return role.now

    def _add_loop(self, name: str, step: Callable[[], float]) -> Loop:
        loop = Loop(name, step)
        self.loops.append(loop)
        self._parts.append(LoopPart(loop))
        return loop


class LoopPart:
    """A loop as a part: a stop waits for the step under way, but not for ever."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def start(self) -> None:
        self._loop.start()

    def stop(self) -> None:
        self._loop.stop(STOP_SECONDS)


class ClosedAtStop:
    """What the parts behind it use, as a part: it outlives them."""

    def __init__(self, close: Callable[[], None]) -> None:
        self._close = close

    def start(self) -> None:
        """Opened by who uses it."""

    def stop(self) -> None:
        self._close()
