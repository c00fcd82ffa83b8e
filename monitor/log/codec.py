"""What stands in a log record's body. In: the records of the house. Out: msgpack under a schema name with a version.

Fields are only ever added, readers ignore those they do not know: a reader takes records of one version up and down.
Encoding makes an `Append`, `Decoder.decode` turns a `LogRecord` back. Readings, ticks, usage and controls are keyed by
host; ticks and controls stand in the usage stream, so that a host's newest record of readings is always a batch.
"""

from collections.abc import Callable, Iterable

import msgspec

from collectors.errors import Rejected
from collectors.readings import ActivityReading, CounterMark, EnergyReading, EngineReading, HostProfile
from collectors.units import UnixSeconds
from monitor.core.emissions.factors import Intensity
from monitor.core.lessons import Lesson, UnitLesson
from monitor.core.membership import Accounting
from monitor.core.serving import Deployment, HostServers
from monitor.core.usage import Placed, Usage
from monitor.log.activity_wire import InstanceRounds, rounds_of
from monitor.log.contract import (
    check_accounting,
    check_activities,
    check_batch,
    check_deployment,
    check_engines,
    check_host,
    check_intensity,
    check_lesson,
    check_profile,
    check_servers,
    check_span,
    check_unit_lesson,
)
from monitor.log.protocol import Append, LogRecord, Stream
from monitor.log.usage_wire import UsageBatch, batch_of, check_whole

READINGS_SCHEMA = "readings.v1"
USAGE_SCHEMA = "usage.v2"
USAGE_OBJECTS_SCHEMA = "usage.v1"
"""Each request as an object of its own: what releases before usage.v2 wrote."""
RESTATE_SCHEMA = "restate.v1"
TICK_SCHEMA = "tick.v1"
ACCOUNTING_SCHEMA = "accounting.v1"
INTENSITY_SCHEMA = "intensity.v1"
DEPLOYMENT_SCHEMA = "deployment.v1"
SERVERS_SCHEMA = "servers.v1"
LESSON_SCHEMA = "lesson.v1"
UNIT_LESSON_SCHEMA = "unit-lesson.v1"

_PROFILES_KEPT = 1_024
_encoder = msgspec.msgpack.Encoder()


class ReadingBatch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one host's meters said, with the facts of the host, and the raw counters to go on from after a restart."""

    profile: HostProfile
    readings: tuple[EnergyReading, ...]
    marks: tuple[CounterMark, ...] = ()
    activities: tuple[ActivityReading, ...] = ()
    engines: tuple[EngineReading, ...] = ()


class _WithRounds(ReadingBatch, frozen=True, kw_only=True, omit_defaults=True):
    """A ReadingBatch as it is written: what MIG instances did stands in columns, not among the activities."""

    instances: tuple[InstanceRounds, ...] = ()


class _UsageObjects(msgspec.Struct, frozen=True, kw_only=True):
    """Requests' parts on one host, as usage.v1 has them."""

    usages: tuple[Usage, ...]


class Restate(msgspec.Struct, frozen=True, kw_only=True):
    """A person's order to account [start, end) of a host again at the next mark, and why."""

    host: str
    start: UnixSeconds
    end: UnixSeconds
    reason: str


class Tick(msgspec.Struct, frozen=True):
    """Nothing but its stamp: log time goes on where no host speaks."""


class AccountingFact(msgspec.Struct, frozen=True, kw_only=True):
    """The wire form of the terms under which books are kept."""

    accounting: Accounting


Decoded = (
    ReadingBatch | UsageBatch | Restate | Tick | Accounting | Intensity | Deployment | HostServers | Lesson | UnitLesson
)


def readings_record(batch: ReadingBatch, stamp: UnixSeconds | None = None) -> Append:
    """A batch of readings, keyed by the host of its profile."""
    instances, others = rounds_of(batch.activities)
    fields = msgspec.structs.asdict(batch) | {"activities": others, "instances": instances}
    body = _encoder.encode(_WithRounds(**fields) if instances else batch)
    return Append(stream="readings", key=batch.profile.host, schema=READINGS_SCHEMA, body=body, stamp=stamp)


def usage_record(host: str, parts: Iterable[Placed], stamp: UnixSeconds | None = None) -> Append:
    """Requests' parts on that host."""
    return batch_record(batch_of(host, parts), stamp)


def batch_record(batch: UsageBatch, stamp: UnixSeconds | None = None) -> Append:
    """A batch of them, keyed by its host."""
    return Append(stream="usage", key=batch.host, schema=USAGE_SCHEMA, body=_encoder.encode(batch), stamp=stamp)


def tick_record(host: str, stamp: UnixSeconds | None = None, *, stream: Stream = "usage") -> Append:
    """A tick; its body is empty."""
    return Append(stream=stream, key=host, schema=TICK_SCHEMA, body=b"", stamp=stamp)


def restate_record(order: Restate, stamp: UnixSeconds | None = None) -> Append:
    """An order to restate, in the usage of its host."""
    return Append(stream="usage", key=order.host, schema=RESTATE_SCHEMA, body=_encoder.encode(order), stamp=stamp)


def accounting_record(accounting: Accounting, stamp: UnixSeconds | None = None) -> Append:
    """The terms of the books, a fact."""
    body = _encoder.encode(AccountingFact(accounting=accounting))
    return Append(stream="facts", key="accounting", schema=ACCOUNTING_SCHEMA, body=body, stamp=stamp)


def intensity_record(intensity: Intensity, stamp: UnixSeconds | None = None) -> Append:
    """A zone's carbon intensity, a fact keyed by the zone."""
    body = _encoder.encode(intensity)
    return Append(stream="facts", key=intensity.zone, schema=INTENSITY_SCHEMA, body=body, stamp=stamp)


def deployment_record(deployment: Deployment, stamp: UnixSeconds | None = None) -> Append:
    """Where a model is served, a fact keyed by the deployment."""
    body = _encoder.encode(deployment)
    return Append(stream="facts", key=deployment.name, schema=DEPLOYMENT_SCHEMA, body=body, stamp=stamp)


def servers_record(servers: HostServers, stamp: UnixSeconds | None = None) -> Append:
    """The model servers found on a host, a fact keyed by the host."""
    body = _encoder.encode(servers)
    return Append(stream="facts", key=servers.host, schema=SERVERS_SCHEMA, body=body, stamp=stamp)


def lesson_record(lesson: Lesson | UnitLesson, stamp: UnixSeconds | None = None) -> Append:
    """What a period's windows taught of a GPU type, or of a unit of work on it, a fact keyed by all that it is of."""
    if isinstance(lesson, UnitLesson):
        key = f"{lesson.gpu}/{lesson.model}/{lesson.unit}/{lesson.partition}/{lesson.start:.0f}"
        return Append(stream="facts", key=key, schema=UNIT_LESSON_SCHEMA, body=_encoder.encode(lesson), stamp=stamp)
    key = f"{lesson.gpu}/{lesson.partition}/{lesson.start:.0f}"
    return Append(stream="facts", key=key, schema=LESSON_SCHEMA, body=_encoder.encode(lesson), stamp=stamp)


class _WireBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A ReadingBatch whose profile is still bytes: they are the same in nearly every batch of a host."""

    profile: msgspec.Raw
    readings: tuple[EnergyReading, ...]
    marks: tuple[CounterMark, ...] = ()
    activities: tuple[ActivityReading, ...] = ()
    engines: tuple[EngineReading, ...] = ()
    instances: tuple[InstanceRounds, ...] = ()


class Decoder:
    """Turns log records back. It remembers the last profiles it saw by their bytes, so keep one; one thread each."""

    def __init__(self) -> None:
        self._profiles: dict[bytes, HostProfile] = {}
        self._profile = msgspec.msgpack.Decoder(HostProfile)
        self._batch = msgspec.msgpack.Decoder(_WireBatch)
        self._usage = msgspec.msgpack.Decoder(UsageBatch)
        self._usage_objects = msgspec.msgpack.Decoder(_UsageObjects)
        self._restate = msgspec.msgpack.Decoder(Restate)
        self._accounting = msgspec.msgpack.Decoder(AccountingFact)
        self._intensity = msgspec.msgpack.Decoder(Intensity)
        self._deployment = msgspec.msgpack.Decoder(Deployment)
        self._servers = msgspec.msgpack.Decoder(HostServers)
        self._lesson = msgspec.msgpack.Decoder(Lesson)
        self._unit_lesson = msgspec.msgpack.Decoder(UnitLesson)
        self._readers: dict[str, Callable[[LogRecord], Decoded]] = {
            READINGS_SCHEMA: self._read_batch,
            USAGE_OBJECTS_SCHEMA: self._read_usage_objects,
            USAGE_SCHEMA: self._read_usage,
            RESTATE_SCHEMA: self._read_restate,
            TICK_SCHEMA: _read_tick,
            ACCOUNTING_SCHEMA: self._read_accounting,
            INTENSITY_SCHEMA: self._read_intensity,
            DEPLOYMENT_SCHEMA: self._read_deployment,
            SERVERS_SCHEMA: self._read_servers,
            LESSON_SCHEMA: self._read_lesson,
            UNIT_LESSON_SCHEMA: self._read_unit_lesson,
        }

    def decode(self, record: LogRecord) -> Decoded:
        """What the record says. Raises Rejected: unknown_schema, schema_version, undecodable or bad_value."""
        reader = self._readers.get(record.schema) or self._reader_of(record.schema)
        try:
            return reader(record)
        except (msgspec.DecodeError, UnicodeDecodeError, OverflowError, RecursionError) as error:
            raise Rejected("undecodable", f"{record.schema} at offset {record.offset}: {error}") from error

    def _reader_of(self, schema: str) -> Callable[[LogRecord], Decoded]:
        """The reader of a schema one version up or down; there is none before version 1."""
        name, _, version = schema.rpartition(".v")
        known = {each.rpartition(".v")[0]: each for each in self._readers}.get(name)
        if known is None or not (version.isascii() and version.isdigit()):
            raise Rejected("unknown_schema", f"{schema[:80]!r}: known are {', '.join(self._readers)}")
        if len(version) > 9 or abs(int(version) - int(known.rpartition(".v")[2])) > 1 or int(version) < 1:
            raise Rejected("schema_version", f"{schema[:80]} is too far from {known}: this version cannot read it")
        return self._readers[known]

    def _read_batch(self, record: LogRecord) -> ReadingBatch:
        wire = self._batch.decode(record.body)
        profile = self._profile_of(bytes(wire.profile))
        batch = ReadingBatch(
            profile=profile,
            readings=wire.readings,
            marks=wire.marks,
            activities=(*wire.activities, *(each for rounds in wire.instances for each in rounds.activities())),
            engines=wire.engines,
        )
        check_batch(profile.host, record.key, batch.readings, batch.marks)
        check_activities(batch.activities)
        check_engines(batch.engines)
        return batch

    def _profile_of(self, raw: bytes) -> HostProfile:
        known = self._profiles.get(raw)
        if known is not None:
            return known
        profile = self._profile.decode(raw)
        check_profile(profile)
        if len(self._profiles) >= _PROFILES_KEPT:
            del self._profiles[next(iter(self._profiles))]
        self._profiles[raw] = profile
        return profile

    def _read_usage(self, record: LogRecord) -> UsageBatch:
        batch = self._usage.decode(record.body)
        check_whole(batch)
        check_host(batch.host, record.key)
        return batch

    def _read_usage_objects(self, record: LogRecord) -> UsageBatch:
        usages = self._usage_objects.decode(record.body).usages
        for usage in usages:
            check_host(usage.host, record.key)
        return batch_of(record.key, usages)

    def _read_restate(self, record: LogRecord) -> Restate:
        order = self._restate.decode(record.body)
        check_span("restate", order.host, record.key, order.start, order.end)
        return order

    def _read_accounting(self, record: LogRecord) -> Accounting:
        accounting = self._accounting.decode(record.body).accounting
        check_accounting(accounting)
        return accounting

    def _read_intensity(self, record: LogRecord) -> Intensity:
        intensity = self._intensity.decode(record.body)
        check_intensity(intensity)
        return intensity

    def _read_lesson(self, record: LogRecord) -> Lesson:
        lesson = self._lesson.decode(record.body)
        check_lesson(lesson)
        return lesson

    def _read_unit_lesson(self, record: LogRecord) -> UnitLesson:
        lesson = self._unit_lesson.decode(record.body)
        check_unit_lesson(lesson)
        return lesson

    def _read_deployment(self, record: LogRecord) -> Deployment:
        deployment = self._deployment.decode(record.body)
        check_deployment(deployment, record.key)
        return deployment

    def _read_servers(self, record: LogRecord) -> HostServers:
        servers = self._servers.decode(record.body)
        check_servers(servers, record.key)
        return servers


def _read_tick(_record: LogRecord) -> Tick:
    return Tick()
