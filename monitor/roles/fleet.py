"""The roles of one process of a fleet: Kafka carries what flows between them, a store holds the books.

meters --> collect --> host's log --> Shipper --\\
topics, http, files --> ingest ------------------> Kafka --> aggregate --> store --> web, alerts
[[deployments]] --> control --------------------/
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import structlog

from collectors.clock import Clock
from collectors.errors import Broken
from collectors.units import UnixSeconds
from monitor.config.sections import Config
from monitor.log.kafka_facts import KafkaFacts
from monitor.log.kafka_writer import KafkaWriter
from monitor.log.sqlite import SqliteLog
from monitor.roles.collect import CollectRole
from monitor.roles.control import FactsReader, FreshFacts
from monitor.roles.embedded import LOG_FILE, STORE_FILE
from monitor.roles.ingest_kafka import KafkaIngest, source_topics
from monitor.roles.leader import Leader
from monitor.roles.loop import Loop
from monitor.roles.placement import FACTS_BEFORE_SECONDS, PlacerByFacts
from monitor.roles.running import STOP_SECONDS, ClosedAtStop, RunningRoles
from monitor.roles.shipper import Shipper
from monitor.roles.sourced import Sourced
from monitor.selfmetrics import DaemonSnapshot, ShipSnapshot, SourceSnapshot
from monitor.store.quarantine import Quarantine

if TYPE_CHECKING:  # numpy and the store's client come with it: role collect alone does without
    from monitor.roles.aggregate_group import GroupAggregate

logger = structlog.get_logger()


class FleetHouse:
    """A process's own folder, and the host's log where it meters."""

    def __init__(self, folder: Path, config: Config) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.config, self.folder = config, folder
        self.host_log = SqliteLog(folder / LOG_FILE) if "collect" in config.roles else None
        self.store_path = folder / STORE_FILE

    def begin(self, config: Config, *, host: str, clock: Clock, snapshot: Callable[[], DaemonSnapshot]) -> "FleetRoles":
        """The roles of that configuration, not started yet."""
        return FleetRoles(self, config, host=host, clock=clock, snapshot=snapshot)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.host_log is not None:
            self.host_log.close()


class FleetRoles(RunningRoles):
    """What the configuration's roles run in a fleet. Raises Broken where an address cannot be listened on."""

    def __init__(
        self, house: FleetHouse, config: Config, *, host: str, clock: Clock, snapshot: Callable[[], DaemonSnapshot]
    ) -> None:
        super().__init__(config, host=host, clock=clock)
        self._house, self._snapshot = house, snapshot
        self._group: GroupAggregate | None = None
        self._shipper: Shipper | None = None
        self._quarantine: Quarantine | None = None
        self._writers: list[KafkaWriter] = []
        self._leader: Leader | None = None
        if self._has("aggregate"):
            self._add_aggregate()
        if self._has("control"):
            self._add_control()
        if self._has("collect"):
            self._add_collect()
        # Those that listen start first: where an address is taken the process ends, and has joined no group in vain.
        others, self._parts = self._parts, []
        if self._has("ingest"):
            self._add_ingest()
        if self._has("web"):
            self._add_web()
        self._parts += others

    def final_until(self) -> UnixSeconds | None:
        """Everything before it is final in all partitions of this process; None where something is not yet."""
        return None if self.aggregate is None else self.aggregate.final_until

    def partitions(self) -> tuple[int, ...] | None:
        return None if self._group is None else self._group.numbers

    def lag(self) -> int | None:
        return None if self._group is None else self._group.lag()

    def shipped(self) -> ShipSnapshot | None:
        return None if self._shipper is None else self._shipper.snapshot()

    def refused_records(self) -> int | None:
        counts = [writer.refused for writer in self._writers]
        counts += [self._group.refused_records] if self._group is not None else []
        return sum(counts) if counts else None

    def refused_rows(self) -> Mapping[str, int] | None:
        return None if self._quarantine is None else self._quarantine.all_counts

    def troubles(self) -> list[str]:
        """Also a place in a consumer group that is lost for good: its role would wait for partitions for ever."""
        places = {"aggregate": None if self._group is None else self._group.member, "control": self._leader}
        lost = [name for name, place in places.items() if place is not None and not place.alive]
        return super().troubles() + [f"{name} has left its consumer group by an error" for name in lost]

    def waits(self) -> dict[str, str]:
        """What each role waits for; of role aggregate also the partitions that it cannot account."""
        found = super().waits()
        if self._group is not None and "aggregate" not in found and (why := self._group.waits_for):
            found["aggregate"] = why
        return found

    def _add_web(self) -> None:
        from monitor.roles.store_probe import StoreProbe
        from monitor.roles.web import WebRole
        from monitor.store.open import open_store

        path, clock = self._house.store_path, self._clock
        self._parts.append(WebRole(self.config, path, rejected=lambda: None, snapshot=self._snapshot, clock=clock))
        store = open_store(self.config, path, read_only=True)
        self._parts.append(ClosedAtStop(store.close))
        self._add_loop("web", StoreProbe(store, clock).step)

    def _add_aggregate(self) -> None:
        from monitor.roles.aggregate_group import GroupAggregate
        from monitor.store.open import open_store

        if self.config.store.kind == "influxdb":
            self._quarantine = Quarantine()
        store = open_store(self.config, self._house.store_path, quarantine=self._quarantine)
        told: list[Loop] = []
        aggregate = GroupAggregate(
            self.config, store, clock=self._clock, waiting=lambda why: told[0].say(why) if told else None
        )
        loop = Loop("aggregate", aggregate.step)
        told.append(loop)
        self.aggregate = self._group = aggregate
        self.loops.append(loop)
        self._parts.append(ClosedAtStop(store.close))
        self._parts.append(_AggregatePart(aggregate, loop))

    def _add_control(self) -> None:
        from monitor.roles.fleet_control import FleetControl

        leader = self._leader = Leader(self.config.kafka)
        self._parts.append(ClosedAtStop(leader.stop))
        check = self._add_alerting(leader) if self.config.alerts else lambda: None
        control = FleetControl(self.config, self._writer(), leader, clock=self._clock, check=check)
        self._parts.append(ClosedAtStop(control.close))
        self._add_loop("control", control.step)

    def _add_alerting(self, leader: Leader) -> Callable[[], None]:
        """Returns what asks whether the store can be read at all: who cannot judge must not lead."""
        from monitor.roles.alerting import Alerting, AlertingRole
        from monitor.roles.store_probe import probe
        from monitor.store.open import open_store

        store, probed = (open_store(self.config, self._house.store_path, read_only=True) for _ in range(2))
        self.alerting = Alerting(
            store,
            self.config,
            folder=self._house.folder,
            host=self.host,
            clock=self._clock,
            is_leader=leader.leads,
        )
        self._parts.append(ClosedAtStop(probed.close))
        self._parts.append(AlertingRole(self.alerting, store))
        return lambda: probe(probed, self._clock)

    def _add_ingest(self) -> None:
        this_host = self.host if self._has("collect") else ""
        config, writer, facts = self.config, self._writer(), KafkaFacts(self.config.kafka)
        read = FactsReader(facts, lambda: facts.snapshot(self._clock.now() - FACTS_BEFORE_SECONDS))
        self._parts.append(ClosedAtStop(facts.close))
        sourced = Sourced(
            config,
            folder=self._house.folder,
            log=writer,
            posts_log=self._writer(),
            placer=PlacerByFacts(FreshFacts(read), this_host),
            clock=self._clock,
        )
        topics = KafkaIngest(config, writer, clock=self._clock, this_host=this_host) if source_topics(config) else None
        self.sourced = _FleetSources(sourced, topics)
        self._parts.append(self.sourced)
        self._add_loop("ingest", self.sourced.step)

    def _add_collect(self) -> None:
        from monitor.roles.control import state_intensities
        from monitor.roles.meters import meters_of, servers_of
        from monitor.roles.servers_found import ServersFound, on_devices_of
        from monitor.roles.servers_now import ServersNow

        log, config = self._house.host_log, self.config
        if log is None:
            raise Broken("role collect was not among the roles when this process began; restart it")
        for zone in state_intensities(log, [config.host.zone], self._clock.now()):
            logger.warning("emissions are missing, not zero: no carbon intensity is known", zone=zone)
        servers = servers_of(config)
        meters = meters_of(config, self._clock, servers)
        shipper = self._shipper = Shipper(log, self._writer(), most_bytes=config.log.max_size_bytes, clock=self._clock)
        self.loops.append(shipper)
        self._parts.append(shipper)
        found = ServersFound(
            log, servers, on_devices_of(meters), host=self.host, clock=self._clock, procfs=config.collect.procfs
        )
        self._add_loop("servers", found.step)
        now = ServersNow(servers, on_devices_of(meters), procfs=config.collect.procfs)
        models = self._add_model_facts(servers)
        self.collect = CollectRole(
            log, config, meters, host=self.host, clock=self._clock, residents=now.residents, models=models
        )
        self._parts.append(self.collect)

    def _writer(self) -> KafkaWriter:
        """A writer into Kafka for one thread, closed when the roles that are added after it have stopped."""
        writer = KafkaWriter(self.config.kafka)
        self._writers.append(writer)
        self._parts.append(ClosedAtStop(writer.close))
        return writer


class _AggregatePart:
    """Stops in this order: what waits for the store, the step under way, the place in the group."""

    def __init__(self, aggregate: "GroupAggregate", loop: Loop) -> None:
        self._aggregate, self._loop = aggregate, loop

    def start(self) -> None:
        self._loop.start()

    def stop(self) -> None:
        self._aggregate.stop()
        self._loop.stop(STOP_SECONDS)
        self._aggregate.close()


class _FleetSources:
    """Topics beside the sources that need no broker, in one loop."""

    def __init__(self, sourced: Sourced, topics: KafkaIngest | None) -> None:
        self._sourced, self._topics = sourced, topics

    def start(self) -> None:
        self._sourced.start()

    def stop(self) -> None:
        self._sourced.stop()
        if self._topics is not None:
            self._topics.close()

    def step(self) -> float:
        """Reads what has come on all of them; returns how long to wait before the next."""
        pause_seconds = self._sourced.step()
        return pause_seconds if self._topics is None else min(pause_seconds, self._topics.step())

    def snapshots(self) -> tuple[SourceSnapshot, ...]:
        return self._sourced.snapshots() + (() if self._topics is None else self._topics.snapshots())
