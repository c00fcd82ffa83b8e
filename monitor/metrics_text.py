"""The daemon's self-metrics in Prometheus' text format. In: a DaemonSnapshot. Out: bytes.

Names are wattribute_ + what + base unit, _total for what only rises (prometheus.io/docs/practices/naming).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from monitor.selfmetrics import (
    AgentCost,
    AlertSnapshot,
    DaemonSnapshot,
    DeviceSnapshot,
    LedgerSnapshot,
    MeterSnapshot,
    ShipSnapshot,
    Spread,
)

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[Sequence[str], float | None]
"""Values of the labels, and the value; None is left out."""


def render(snapshot: DaemonSnapshot) -> bytes:
    """All families, and the process_* ones of this process."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(snapshot))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Snapshot(Collector):
    def __init__(self, snapshot: DaemonSnapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        yield from _daemon(self._snapshot)
        yield from _meters(self._snapshot.meters)
        yield from _devices(self._snapshot.meters)
        yield from _sources(self._snapshot)
        if self._snapshot.ship is not None:
            yield from _shipped(self._snapshot.ship)
        yield from _refused(self._snapshot)
        yield from _alerts(self._snapshot.alerts)
        if self._snapshot.cost is not None:
            yield from _cost(self._snapshot.cost)
        if self._snapshot.ledger is not None:
            yield from _ledger(self._snapshot.ledger)


def _daemon(snapshot: DaemonSnapshot) -> Iterator[Metric]:
    yield _gauge("build_info", "Which program this is.", ("version",), [((snapshot.version,), 1)])
    started = [((), snapshot.started_at)]
    yield _gauge("start_timestamp_seconds", "When the process started, in unix seconds.", (), started)
    yield _gauge("ready", "Whether a first good sample has passed.", (), [((), float(snapshot.ready))])
    yield _gauge("loop_age_seconds", "Since the main loop last came round.", (), [((), snapshot.loop_age_seconds)])
    roles = [((role.name,), float(role.state == "running")) for role in snapshot.roles]
    yield _gauge("role_up", "Whether a role runs.", ("role",), roles)


def _cost(cost: AgentCost) -> Iterator[Metric]:
    cpu, memory = [((), cost.cpu_seconds)], [((), cost.memory_bytes)]
    yield _counter("agent_cpu_seconds_total", "Processor time of the process and its children.", (), cpu)
    yield _gauge("agent_memory_pss_bytes", "Memory of both, shared pages in proportion.", (), memory)


def _meters(meters: Sequence[MeterSnapshot]) -> Iterator[Metric]:
    errors = [((each.name, reaction), count) for each in meters for reaction, count in each.read_errors.items()]
    events = [
        ((each.name, device, word), count)
        for each in meters
        for device, words in each.events.items()
        for word, count in words.items()
    ]
    yield _gauge(
        "meter_up", "Whether a meter works.", ("meter",), [((m.name,), float(m.state == "ok")) for m in meters]
    )
    reads = [((each.name,), each.reads) for each in meters]
    skipped = [((each.name,), each.skipped) for each in meters]
    yield _counter("meter_reads_total", "Reads asked of a meter, failed ones included.", ("meter",), reads)
    yield _counter("meter_deadlines_skipped_total", "Deadlines that passed during a read.", ("meter",), skipped)
    yield _counter("meter_read_errors_total", "Reads that failed, by what follows.", ("meter", "reaction"), errors)
    yield _counter("meter_events_total", "What a meter noticed, by its word.", ("meter", "device", "event"), events)
    yield from _spreads("meter_read", "How long a read took", meters, lambda each: each.read)
    yield from _spreads("meter_late", "How late after its deadline a read began", meters, lambda each: each.late)


def _spreads(
    name: str, what: str, meters: Sequence[MeterSnapshot], spread: Callable[[MeterSnapshot], Spread]
) -> Iterator[Metric]:
    summary = SummaryMetricFamily(f"wattribute_{name}_seconds", f"{what}.", labels=("meter",))
    for each in meters:
        summary.add_metric((each.name,), spread(each).count, spread(each).total_seconds)
    yield summary
    longest = [((each.name,), spread(each).longest_seconds) for each in meters]
    yield _gauge(f"{name}_longest_seconds", f"{what}: the longest since the start.", ("meter",), longest)


def _devices(meters: Sequence[MeterSnapshot]) -> Iterator[Metric]:
    found = [((meter.name, each.device), each) for meter in meters for each in meter.devices]

    def gauge(name: str, about: str, value: Callable[[DeviceSnapshot], float | None]) -> Metric:
        return _gauge(name, about, ("meter", "device"), [(labels, value(each)) for labels, each in found])

    yield gauge("device_up", "Whether a device is metered.", lambda each: float(each.state == "ok"))
    yield gauge("device_power_watts", "Mean power in the last reading.", lambda each: each.power_watts)
    yield gauge(
        "device_last_reading_timestamp_seconds",
        "When the last reading ended, in unix seconds.",
        lambda each: each.last_reading_at,
    )
    yield gauge(
        "device_counter_disagreement_ratio",
        "(counter - integral of power) / integral.",
        lambda each: each.counter_disagreement_ratio,
    )


def _sources(snapshot: DaemonSnapshot) -> Iterator[Metric]:
    sources = snapshot.sources
    accepted = [((each.name,), each.accepted) for each in sources]
    rejected = [((each.name, reason), count) for each in sources for reason, count in each.rejected.items()]
    up = [((each.name,), float(each.state in ("ok", "waiting"))) for each in sources]
    yield _gauge("source_up", "Whether a source can be read.", ("source",), up)
    yield _counter("events_accepted_total", "Request events that are in the log.", ("source",), accepted)
    yield _counter("events_rejected_total", "Request events not used, by reason.", ("source", "reason"), rejected)


def _shipped(ship: ShipSnapshot) -> Iterator[Metric]:
    totals = [(("shipped",), ship.shipped_records), (("lost",), ship.lost_records)]
    yield _counter("ship_records_total", "Records of this host's log: at the brokers, or lost.", ("what",), totals)
    waiting = [((), ship.waiting_records)]
    yield _gauge("ship_waiting_records", "Records of this host's log that are not at the brokers yet.", (), waiting)


def _refused(snapshot: DaemonSnapshot) -> Iterator[Metric]:
    records = [((), snapshot.refused_records)]
    rows = [((reason,), count) for reason, count in (snapshot.refused_rows or {}).items()]
    yield _counter("log_records_refused_total", "Records that Kafka will never take, left out.", (), records)
    yield _counter("store_rows_refused_total", "Rows that InfluxDB will never take, left out.", ("reason",), rows)


def _alerts(alerts: Sequence[AlertSnapshot]) -> Iterator[Metric]:
    firing = [((each.name,), each.count("firing")) for each in alerts]
    missing = [((each.name,), sum(one.missing_since is not None for one in each.instances)) for each in alerts]
    posts = [
        ((each.name, what), count) for each in alerts for what, count in (("sent", each.sent), ("failed", each.failed))
    ]
    judged = [((each.name,), each.judged_until) for each in alerts]
    yield _gauge("alerts_firing", "Alerts of a rule that fire now.", ("alert",), firing)
    yield _gauge("alerts_missing", "Alerts of a rule whose value is not known now.", ("alert",), missing)
    yield _counter("alert_posts_total", "Posts to a rule's webhook, by outcome.", ("alert", "outcome"), posts)
    yield _gauge("alert_judged_timestamp_seconds", "How far the books were judged.", ("alert",), judged)


def _ledger(ledger: LedgerSnapshot) -> Iterator[Metric]:
    final_until, log_time = [((), ledger.final_until)], [((), ledger.log_time)]
    yield _gauge("ledger_final_until_timestamp_seconds", "How far the books are final on all hosts.", (), final_until)
    yield _gauge("log_time_timestamp_seconds", "How far the log is.", (), log_time)
    windows = [((), ledger.windows_final)]
    yield _counter("ledger_windows_final_total", "Windows of a host that were made final.", (), windows)
    parts = [((), None if ledger.partitions is None else len(ledger.partitions))]
    yield _gauge("log_partitions", "Partitions of the fleet's log that are accounted here.", (), parts)
    waiting = [((), ledger.waiting_records)]
    yield _gauge("log_waiting_records", "Records of these partitions that are not fetched yet.", (), waiting)
    lost = [((), sum(hole.end - hole.start for hole in ledger.holes))]
    yield _gauge("books_missing_seconds", "Of all hosts, what the log lost before it was accounted.", (), lost)
    worst = [((), ledger.worst_imbalance_ratio)]
    yield _gauge(
        "books_worst_imbalance_ratio", "The largest |imbalance| / measured of a window since the start.", (), worst
    )


def _gauge(name: str, about: str, labels: Sequence[str], samples: Sequence[Sample]) -> Metric:
    return _filled(GaugeMetricFamily(f"wattribute_{name}", about, labels=labels), samples)


def _counter(name: str, about: str, labels: Sequence[str], samples: Sequence[Sample]) -> Metric:
    return _filled(CounterMetricFamily(f"wattribute_{name}", about, labels=labels), samples)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, samples: Sequence[Sample]) -> Metric:
    for labels, value in samples:
        if value is not None:
            family.add_metric(labels, value)
    return family
