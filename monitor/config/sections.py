"""Config: everything that config.toml can say, as one frozen value. `Config()` is the default."""

from collections.abc import Iterator
from typing import Annotated, Literal

from msgspec import Meta

from monitor.config.books_sections import DAY_SECONDS, Accounting, Accuracy, Carbon, Idle, Log, Store
from monitor.config.host_sections import Collect, Data, Host, Logging
from monitor.config.input_sections import Deployment, Model, Requests, Source
from monitor.config.output_sections import Alert, InfluxDb, Kafka, Metrics, Web
from monitor.config.problems import KeyPath
from monitor.config.section import Section

Role = Literal["collect", "ingest", "aggregate", "control", "web"]
ALL_ROLES: tuple[Role, ...] = ("collect", "ingest", "aggregate", "control", "web")


class Config(Section, frozen=True, kw_only=True):
    """The order of the fields is the order of the sample."""

    roles: Annotated[tuple[Role, ...], Meta(min_length=1)] = ALL_ROLES
    data: Data = Data()
    host: Host = Host()
    collect: Collect = Collect()
    accounting: Accounting = Accounting()
    log: Log = Log()
    store: Store = Store()
    requests: Requests = Requests()
    sources: tuple[Source, ...] = ()
    deployments: tuple[Deployment, ...] = ()
    models: tuple[Model, ...] = ()
    idle: Idle = Idle()
    accuracy: Accuracy = Accuracy()
    carbon: Carbon = Carbon()
    web: Web = Web()
    metrics: Metrics = Metrics()
    alerts: tuple[Alert, ...] = ()
    kafka: Kafka = Kafka()
    influxdb: InfluxDb = InfluxDb()
    logging: Logging = Logging()

    def faults(self) -> Iterator[tuple[KeyPath, str]]:
        log, store = self.log, self.store
        finality_seconds = self.accounting.horizon_seconds + self.accounting.mark_interval_seconds
        if log.restate_within_seconds < finality_seconds:
            yield ("log", "restate_within"), "must not be shorter than [accounting] horizon and mark_interval together"
        if store.provisional_retention_seconds < finality_seconds:
            yield (
                ("store", "provisional_retention"),
                "must not be shorter than [accounting] horizon and mark_interval together",
            )
        if store.windows_retention_seconds < log.restate_within_seconds + DAY_SECONDS:
            yield (
                ("store", "windows_retention"),
                "must be at least a day longer than [log] restate_within: a restated day is summed from its windows",
            )
        if store.kind == "influxdb" and not self.influxdb.url:
            yield ("influxdb", "url"), 'is missing; [store] kind = "influxdb" needs it'
        yield from self._clashes()
        if len(set(self.roles)) < len(self.roles):
            yield ("roles",), "names a role twice; remove one"

    def _clashes(self) -> Iterator[tuple[KeyPath, str]]:
        """Two listeners on one address."""
        taken = {self.metrics.listen: "[metrics]"}
        listeners: list[tuple[KeyPath, str, str]] = (
            [(("web", "listen"), self.web.listen, "[web]")] if "web" in self.roles else []
        )
        listeners += [
            (("sources", number, "listen"), source.listen, f"source {source.name}")
            for number, source in enumerate(self.sources)
            if source.listen is not None and "ingest" in self.roles
        ]
        for key, address, name in listeners:
            if address in taken:
                yield key, f"is the address of {taken[address]} too; give each its own port"
            taken.setdefault(address, name)
