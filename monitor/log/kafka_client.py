"""What every Kafka client of ours is made with, and what its errors mean. In: [kafka]. Out: kafka-python's settings.

    settings = client_settings(config.kafka)
    KafkaProducer(**settings, linger_ms=5)       KafkaConsumer(**settings, group_id=..)       with admin(config.kafka)

Clients are lazy: they come to be while every broker is down, and connect when one is there.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from kafka import KafkaAdminClient
from kafka import errors as kafka_errors

from monitor.config.output_sections import Kafka
from monitor.log.kafka_connections import KafkaClients, TokenFromFile
from monitor.log.kafka_errors import advice, answered, said
from monitor.log.protocol import LogUnavailable

API_VERSION: Final = (3, 9)
"""The newest protocol that is used, given so that a client need not ask a broker before it exists. A connection to an
older broker goes down to what that one speaks; on Kafka 4.1 all that we use works with it."""
PATIENCE_SECONDS: Final = 15.0
"""How long a command waits for the brokers."""

_SECURITY: Final = {
    "plaintext": "PLAINTEXT",
    "tls": "SSL",
    "sasl_plaintext": "SASL_PLAINTEXT",
    "sasl_tls": "SASL_SSL",
}


def client_settings(kafka: Kafka) -> dict[str, Any]:
    """The settings that producer, consumer and admin client share. Names of brokers are always checked under TLS.

    Secrets and certificates are read at each connection. `trouble_of` gives what the connections fail on.
    """
    settings: dict[str, Any] = {
        "bootstrap_servers": list(kafka.bootstrap_servers),
        "client_id": "wattribute",
        "api_version": API_VERSION,
        "security_protocol": _SECURITY[kafka.security],
        "kafka_client": KafkaClients(kafka),
        "metadata_max_age_ms": 30_000,  # a topic that is made later is seen by then, and a new leader
        "reconnect_backoff_ms": 100,
        "reconnect_backoff_max_ms": 5_000,
    }
    if kafka.security in ("tls", "sasl_tls"):
        settings |= {
            "ssl_check_hostname": True,
            "ssl_cafile": _path(kafka.ca_file),
            "ssl_certfile": _path(kafka.certificate_file),
            "ssl_keyfile": _path(kafka.key_file),
        }
    if kafka.security.startswith("sasl"):
        settings["sasl_mechanism"] = kafka.sasl_mechanism.upper()
        if kafka.sasl_mechanism == "oauthbearer":
            assert kafka.password_file is not None, "checked with the configuration"
            settings["sasl_oauth_token_provider"] = TokenFromFile(kafka.password_file)
        else:
            settings["sasl_plain_username"] = kafka.user
    return settings


def trouble_of(settings: Mapping[str, Any]) -> str | None:
    """Which broker cannot be reached with these settings now, why, and what to do; None while nothing is known."""
    clients: KafkaClients = settings["kafka_client"]
    return clients.trouble.reason


def unavailable(settings: Mapping[str, Any], doing: str, error: BaseException) -> LogUnavailable:
    """What to raise when a client with these settings failed at `doing` ("cannot write to topic wattribute.usage")."""
    brokers = ", ".join(settings["bootstrap_servers"])
    return LogUnavailable(f"Kafka at {brokers}: {doing}: {told(settings, error)}")


def told(settings: Mapping[str, Any], error: BaseException) -> str:
    """What went wrong and what to do. Where no broker can be reached that is the reason, not the time-out it led to."""
    if not answered(error) and (trouble := trouble_of(settings)):
        return trouble
    return f"{said(error)}; {advice(settings['kafka_client'].kafka, error)}"


@contextmanager
def admin(kafka: Kafka) -> Iterator[KafkaAdminClient]:
    """An admin client, connected. Raises LogUnavailable when no broker is reached in time, and for any Kafka error."""
    settings = client_settings(kafka)
    try:
        client = KafkaAdminClient(**settings, bootstrap_timeout_ms=int(PATIENCE_SECONDS * 1000))
    except kafka_errors.KafkaError as error:
        raise unavailable(settings, "no broker can be reached", error) from error
    try:
        yield client
    except kafka_errors.KafkaError as error:
        raise unavailable(settings, "the request failed", error) from error
    finally:
        client.close()


def _path(file: object) -> str | None:
    return None if file is None else str(file)
