"""What a fleet's processes stand on: the topics in Kafka, the buckets in InfluxDB. Looks only. Out: for `doctor`."""

from collections.abc import Sequence
from contextlib import closing

from collectors.meter import Finding
from monitor.cli.host_findings import State
from monitor.config.sections import Config
from monitor.log.kafka_topics import check_topics, topics_not_there
from monitor.log.protocol import LogUnavailable
from monitor.store.influx_setup import Difference, Setup
from monitor.store.protocol import StoreUnavailable
from monitor.store.retention import retention_of


def topics(config: Config) -> Sequence[Finding]:
    """Whether brokers are reached with this user's password and certificates, and the topics are as books need them.

    Whoever accounts may read how topics are set; a collector's user may only use its own, so no more is asked of it.
    """
    try:
        if {"aggregate", "control"}.isdisjoint(config.roles):
            absent = topics_not_there(config, _used(config))
            lines = [f"{name}: is not there; make it with: wattribute topics create" for name in absent]
        else:
            lines = check_topics(config)
    except LogUnavailable as error:
        return [_finding("brokers", "broken", str(error))]
    reached = _finding("brokers", "ok", f"reached at {', '.join(config.kafka.bootstrap_servers)}")
    return [reached, *map(_difference, lines)] if lines else [reached, _finding("topics", "ok", "as the books need")]


def buckets(config: Config) -> Sequence[Finding]:
    """Whether the server answers, takes the token, and has the buckets with their retentions."""
    try:
        with closing(Setup(config.influxdb)) as asked:
            differences = asked.differences(retention_of(config))
    except StoreUnavailable as error:
        return [_finding("server", "broken", str(error))]
    reached = _finding("server", "ok", f"reached at {config.influxdb.url}")
    if not differences:
        return [reached, _finding("buckets", "ok", "as configured")]
    return [reached, *map(_bucket, differences)]


def _used(config: Config) -> list[str]:
    names = config.kafka.topics
    used = {"collect": (names.readings, names.facts), "ingest": (names.usage, names.facts, names.dead_letters)}
    return list(dict.fromkeys(name for role in config.roles for name in used.get(role, (names.facts,))))


def _difference(line: str) -> Finding:
    """A line of `topics check`, NAME: WHAT; what to do."""
    name, _, rest = line.partition(": ")
    what, _, mend = rest.rpartition("; ")
    return _finding(name, "broken", what, mend)


def _bucket(difference: Difference) -> Finding:
    """Where only the retention differs, points are still written and read."""
    usable = difference.found_seconds is not None and difference.readable
    subject = f"bucket {difference.wanted.name}"
    return _finding(subject, "warning" if usable else "broken", str(difference), "wattribute store setup")


def _finding(subject: str, state: State, what: str, mend: str = "") -> Finding:
    return Finding(area="fleet", subject=subject, state=state, what=what, mend=mend)
