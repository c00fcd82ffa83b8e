"""[kafka], [influxdb], [web], [metrics] and [[alerts]]: what the roles of a fleet talk to, and what people see."""

import math
from collections.abc import Iterator
from typing import Annotated, Literal

from msgspec import Meta

from monitor.config.problems import KeyPath
from monitor.config.section import (
    Address,
    Delay,
    Duration,
    Name,
    OptionalName,
    OptionalPath,
    RequiredSecretFile,
    SecretFile,
    Section,
    Url,
)

PositiveInt = Annotated[int, Meta(ge=1, le=100_000)]


class KafkaTopics(Section, frozen=True, kw_only=True):
    """The topics of the house; those of the gateways stand in [[sources]]."""

    readings: Name = "wattribute.readings"
    usage: Name = "wattribute.usage"
    facts: Name = "wattribute.facts"
    requests: Name = "wattribute.requests"
    request_energy: Name = "wattribute.request-energy"
    dead_letters: Name = "wattribute.dead-letters"
    partitions: PositiveInt = 64
    replication: PositiveInt = 3


class Kafka(Section, frozen=True, kw_only=True):
    """The brokers of a fleet; with none, the log is embedded."""

    bootstrap_servers: tuple[Address, ...] = ()
    group: Name = "wattribute"
    session_seconds: Annotated[Duration, Meta(ge=6.0, le=300.0)] = 30.0
    security: Literal["plaintext", "tls", "sasl_plaintext", "sasl_tls"] = "plaintext"
    ca_file: OptionalPath = None
    certificate_file: OptionalPath = None
    key_file: SecretFile = None
    sasl_mechanism: Literal["plain", "scram-sha-256", "scram-sha-512", "oauthbearer"] = "scram-sha-512"
    user: OptionalName = ""
    password_file: SecretFile = None
    clock: Literal["broker", "records"] = "broker"
    dead_letter_bodies: bool = False
    request_energy: bool = True
    topics: KafkaTopics = KafkaTopics()

    def faults(self) -> Iterator[tuple[KeyPath, str]]:
        if self.security.startswith("sasl"):
            for key in ("password_file",) if self.sasl_mechanism == "oauthbearer" else ("user", "password_file"):
                if not getattr(self, key):
                    yield (key,), f'is missing; security = "{self.security}" needs it'
        if (self.certificate_file is None) != (self.key_file is None):
            yield (
                ("certificate_file" if self.certificate_file is None else "key_file",),
                "is missing; a client certificate needs both certificate_file and key_file",
            )


class InfluxDb(Section, frozen=True, kw_only=True):
    """The store of a fleet, for [store] kind = "influxdb". `requests`: whether energy per request is kept there too."""

    url: Url = ""
    api: Literal["v2", "v1"] = "v2"
    org: OptionalName = ""
    bucket: Name = "wattribute"
    token_file: SecretFile = None
    ca_file: OptionalPath = None
    requests: bool = False


class Web(Section, frozen=True, kw_only=True):
    """Where the API and the pages are served."""

    listen: Address = "127.0.0.1:8095"


class Metrics(Section, frozen=True, kw_only=True):
    """Where the process tells how it does itself: /metrics, /healthz, /readyz, /status."""

    listen: Address = "127.0.0.1:8097"


class Alert(Section, frozen=True, kw_only=True):
    """Fires when a measure, over a span, has been above a threshold for a time; once per team, model or host."""

    identity = "name"

    name: Name
    measure: Literal[
        "power_watts",
        "emissions_grams_per_hour",
        "joules_per_output_token",
        "idle_ratio",
        "unattributed_ratio",
        "missing_ratio",
    ]
    above: float
    over_seconds: Duration = 60.0
    for_seconds: Delay = 0.0
    per: tuple[Literal["team", "model", "host"], ...] = ()
    webhook_url_file: RequiredSecretFile

    def faults(self) -> Iterator[tuple[KeyPath, str]]:
        if not math.isfinite(self.above):
            yield ("above",), "is not a number that anything could be above"
        if self.measure in ("idle_ratio", "unattributed_ratio", "missing_ratio") and set(self.per) - {"host"}:
            yield ("per",), f'idle, unattributed and missing belong to no team or model; "{self.measure}" is per host'
        if len(set(self.per)) < len(self.per):
            yield ("per",), "names a dimension twice; remove one"
