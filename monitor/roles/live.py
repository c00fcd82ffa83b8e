"""The roles of one live process on one data folder: wired, started in order, stopped so that nothing taken is left.

meters --> collect --\\                              /--> web
files, http --> ingest --> log --> aggregate --> store --> query
             jobs --------/
"""

from collections.abc import Callable, Mapping
from typing import Final

from collectors.clock import Clock
from collectors.units import UnixSeconds
from monitor.config.sections import Config
from monitor.roles.collect import CollectRole
from monitor.roles.embedded import Embedded
from monitor.roles.placement import place_by_config
from monitor.roles.running import RunningRoles
from monitor.roles.sourced import Sourced
from monitor.selfmetrics import DaemonSnapshot

STEP_SECONDS: Final = 1.0


class LiveRoles(RunningRoles):
    """Everything that the configuration's roles run, between `start` and `stop`.

    Raises TermsChanged where the configuration names other books than the data folder keeps, Broken where an address
    cannot be listened on.
    """

    def __init__(
        self, house: Embedded, config: Config, *, host: str, clock: Clock, snapshot: Callable[[], DaemonSnapshot]
    ) -> None:
        super().__init__(config, host=host, clock=clock)
        self._house = house
        if self._has("aggregate", "control"):
            self._add_accounting()
        if self._has("ingest"):
            self._add_ingest()
        if self._has("collect"):
            from monitor.roles.meters import meters_of, servers_of
            from monitor.roles.servers_found import on_devices_of
            from monitor.roles.servers_now import ServersNow

            servers = servers_of(config)
            models = self._add_model_facts(servers)
            meters = meters_of(config, clock, servers)
            now = ServersNow(servers, on_devices_of(meters), procfs=config.collect.procfs)
            self.collect = CollectRole(
                house.log, config, meters, host=host, clock=clock, residents=now.residents, models=models
            )
            self._parts.append(self.collect)
        if self._has("control") and config.alerts:
            self._add_alerts()
        if self._has("web"):
            from monitor.roles.web import WebRole

            web = WebRole(config, house.store_path, rejected=house.log.rejected, snapshot=snapshot, clock=clock)
            self._parts.append(web)

    def final_until(self) -> UnixSeconds | None:
        """Everything before it is final; None where nothing of what the log holds is."""
        end = None if self.aggregate is None else self.aggregate.final_until
        start = self._house.log.start()
        return None if end is None or start is None or end <= start[0] else end

    def log_time(self) -> UnixSeconds | None:
        """How far the log is."""
        return self._house.log.log_time()

    def refused_rows(self) -> Mapping[str, int] | None:
        writes_there = self.config.store.kind == "influxdb" and self.aggregate is not None
        return self._house.quarantine.all_counts if writes_there else None

    def _add_accounting(self) -> None:
        from monitor.roles.aggregate import AggregateRole
        from monitor.roles.control import FactsReader, accounting_of, agree_on_terms
        from monitor.roles.jobs import Jobs

        house, config = self._house, self.config
        terms = agree_on_terms(FactsReader(house.log), house.log, accounting_of(config), self._clock.now())
        self._parts.append(Jobs(house.log, house.store, config, host=self.host, clock=self._clock))
        if self._has("aggregate"):
            aggregate = AggregateRole(house.log, house.store, terms, show_provisional=True)
            self.aggregate = aggregate
            self._add_loop("aggregate", lambda: 0.0 if aggregate.step() else STEP_SECONDS)

    def _add_alerts(self) -> None:
        from monitor.roles.alerting import Alerting, AlertingRole
        from monitor.store.open import open_store

        store = open_store(self.config, self._house.store_path, read_only=True)
        self.alerting = Alerting(store, self.config, folder=self._house.folder, host=self.host, clock=self._clock)
        self._parts.append(AlertingRole(self.alerting, store))

    def _add_ingest(self) -> None:
        house = self._house
        sourced = Sourced(
            self.config,
            folder=house.folder,
            log=house.log,
            posts_log=house.log,
            placer=place_by_config(self.config, self.host),
            clock=self._clock,
        )
        self.sourced = sourced
        self._add_loop("ingest", sourced.step)
        self._parts.append(sourced)


class LiveHouse(Embedded):
    """An embedded log and store, for a process that runs its roles on them."""

    def begin(self, config: Config, *, host: str, clock: Clock, snapshot: Callable[[], DaemonSnapshot]) -> LiveRoles:
        """The roles of that configuration, not started yet."""
        return LiveRoles(self, config, host=host, clock=clock, snapshot=snapshot)
