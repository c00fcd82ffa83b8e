"""The connections to the brokers, and what they last failed on. Every client of ours connects through these.

kafka-python retries for ever and keeps the reason to itself: a wrong password, an expired certificate and a broker that
is down all look like silence. Here each failed connection leaves its reason, in words that say what to mend, and each
one reads its secrets anew, so that what a person mended counts at the next try.
"""

import threading
from pathlib import Path
from typing import Any

import structlog
from kafka import errors as kafka_errors
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.sasl.oauth import AbstractTokenProvider
from kafka.net.selector import NetworkSelector

from monitor.config.output_sections import Kafka
from monitor.log.kafka_errors import reason_of
from monitor.log.kafka_transport import connected

logger = structlog.get_logger()


class KafkaTrouble:
    """Why the connections of one client fail, per broker; thread-safe. Each reason is logged once, and its end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reasons: dict[Any, tuple[str, str]] = {}
        self._reached: set[Any] = set()

    def note(self, node: Any, broker: str, reason: str) -> None:
        """A connection to `broker` failed. `node` is the client's id for it."""
        with self._lock:
            known = (broker, reason) in self._reasons.values()
            self._reasons.pop(node, None)  # the newest stands last
            self._reasons[node] = (broker, reason)
            self._reached.discard(node)
        if not known:
            logger.warning("kafka cannot be reached", source=broker, why=reason)

    def clear(self, node: Any) -> None:
        """A connection to that broker stands; so what an address of bootstrap_servers failed on is past, too."""
        with self._lock:
            self._reached.add(node)
            past = [each for each in self._reasons if each == node or str(each).startswith("bootstrap")]
            brokers = [self._reasons.pop(each)[0] for each in past]
            over = brokers and not self._reasons
        if over:
            logger.info("kafka is reached again", source=brokers[-1])

    @property
    def reason(self) -> str | None:
        """The newest reason that still stands, with its broker; None while nothing is known to fail."""
        with self._lock:
            if not self._reasons:
                return None
            broker, reason = list(self._reasons.values())[-1]
            others = "; other brokers are reached, and what needs this one waits" if self._reached else ""
            return f"{broker}: {reason}{others}"


class KafkaClients:
    """Makes the network part of each client: the value of `kafka_client` in the settings of all three kinds."""

    def __init__(self, kafka: Kafka) -> None:
        self.kafka, self.trouble = kafka, KafkaTrouble()

    def __call__(self, **configs: Any) -> KafkaNetClient:
        net = NetworkSelector(**configs)
        return KafkaNetClient(net=net, manager=_Connections(net, self.kafka, self.trouble, **configs), **configs)


class TokenFromFile(AbstractTokenProvider):  # type: ignore[misc]
    """The token of SASL OAUTHBEARER as it stands in the file when a connection is made. Another process renews it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file

    def token(self) -> str:
        """The file's text; raises OSError."""
        return secret(self._file)


def secret(file: Path) -> str:
    """What a secret's file holds, without the end of its line. Raises OSError."""
    return file.read_text().rstrip("\r\n")


class _Connections(KafkaConnectionManager):  # type: ignore[misc]
    """kafka-python's own, which also notes failures, reads the password anew and waits longer after each failure."""

    def __init__(self, net: NetworkSelector, kafka: Kafka, trouble: KafkaTrouble, **configs: Any) -> None:
        super().__init__(net, **configs)
        self._kafka, self._trouble = kafka, trouble
        # The clients' own allow_auto_create_topics does not get here: a topic that is read or written before
        # `wattribute topics create` would come to be with the broker's defaults.
        self.cluster.config["allow_auto_create_topics"] = False

    def get_connection(self, node_id: Any, *args: Any, **options: Any) -> Any:
        """A new connection takes the password from its file; raises NodeNotReadyError while that cannot be read."""
        if node_id in self._conns or self.connection_delay(node_id) > 0:
            return super().get_connection(node_id, *args, **options)
        node = self.cluster.broker_metadata(node_id)
        broker = "?" if node is None else f"{node.host}:{node.port}"
        if self._kafka.password_file is not None:
            try:
                self.config["sasl_plain_password"] = secret(self._kafka.password_file)
            except (OSError, UnicodeDecodeError) as error:
                self._trouble.note(node_id, broker, f"password_file cannot be read: {error}; mend it")
                self.update_backoff(node_id)
                raise kafka_errors.NodeNotReadyError(node_id) from error
        connection = super().get_connection(node_id, *args, **options)
        connection.init_future.add_errback(lambda error: self._failed(node_id, broker, error))
        if self.cluster.is_bootstrap(node_id):
            # A broker that expects a login connects, and hangs up at the first question; only the connections to the
            # brokers that the answer names show that all is well.
            connection.close_future.add_errback(lambda error: self._failed(node_id, broker, error))
        else:
            connection.init_future.add_callback(lambda _: self._trouble.clear(node_id))
        return connection

    def maybe_raise_auth_failure(self, node_id: Any) -> None:
        """Never: a refused password is tried again, since it may have been mended on either side."""

    async def _build_transport(self, node: Any, timeout_at: float | None = None) -> Any:
        return await connected(self._net, self.config, node.host, node.port, timeout_at)

    async def _connect(
        self, node: Any, conn: Any, reset_backoff_on_connect: bool = True, timeout_at: float | None = None
    ) -> None:
        # kafka-python starts its waiting anew where a connection stood but was refused in the exchange after it:
        # a wrong password would be tried ten times a second.
        before = self._backoff.get(node.node_id)
        await super()._connect(node, conn, reset_backoff_on_connect=False, timeout_at=timeout_at)
        if not reset_backoff_on_connect:
            return  # bootstrapping, which keeps its own count
        if conn.init_future.succeeded():
            self.reset_backoff(node.node_id)
        elif self._backoff.get(node.node_id) == before:
            self.update_backoff(node.node_id)

    def _failed(self, node_id: Any, broker: str, error: BaseException) -> None:
        if not self.closed:
            self._trouble.note(node_id, broker, reason_of(self._kafka, error))
