"""A real Apache Kafka in a folder: one node, broker and controller in one process (KRaft), as fetch.sh fetched it.

`KafkaServer(folder).start()`; clients take `bootstrap`. Listeners beside the plain one are for TLS and SASL:

    KafkaServer(folder, listeners={"TLS": "SSL"}, properties={"ssl.keystore.type": "PEM", ...})
"""

import base64
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from kafka import KafkaAdminClient
from servers.server_process import MissingServer, ServerProcess, cache_folder, program, server_port

VERSION = "4.1.1"
STARTED = "Kafka Server started"
LOGGING = """\
rootLogger.level = WARN
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %p %c{1} %m%n
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = INFO
"""
FAST = {
    "broker.session.timeout.ms": "2000",  # after a SIGKILL the new process waits until the old one's session is over
    "broker.heartbeat.interval.ms": "500",
    "offsets.topic.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "auto.create.topics.enable": "false",
    "num.network.threads": "1",
    "num.io.threads": "2",
    "log.cleaner.dedupe.buffer.size": "16777216",
}
ONE_NODE = {
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
}


class KafkaServer(ServerProcess):
    """One node on 127.0.0.1. `listeners` maps further listeners' names to their protocols (SSL, SASL_SSL, ..).

    `scram` are arguments of StorageTool's --add-scram, as "SCRAM-SHA-512=[name=alice,password=secret]".
    """

    def __init__(
        self,
        folder: Path,
        properties: Mapping[str, str] | None = None,
        listeners: Mapping[str, str] | None = None,
        scram: Sequence[str] = (),
        advertised: Mapping[str, int] | None = None,
    ) -> None:
        jars = cache_folder() / f"kafka-{VERSION}"
        if not jars.is_dir():
            raise MissingServer("needs Apache Kafka: run `make services`")
        java = program("Java for Apache Kafka", "java")
        self.protocols = {"PLAINTEXT": "PLAINTEXT"} | dict(listeners or {})
        self.ports = {name: server_port() for name in (*self.protocols, "CONTROLLER")}
        self._advertised = dict(advertised or {})
        self._extra, self._scram = dict(properties or {}), tuple(scram)
        # The first byte is 0, since one random id in 64 begins with "-", which Kafka's own tool takes for an option.
        self.cluster_id = base64.urlsafe_b64encode(b"\0" + os.urandom(15)).decode().rstrip("=")
        self._config, self._formatted = folder / "server.properties", False
        self._java = [
            str(java),
            "-Xms256m",
            "-Xmx512m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",  # half the CPU of a start, which counts beside the tests on two cores
            f"-Dlog4j2.configurationFile={folder / 'log4j2.properties'}",
            "-cp",
            f"{jars}/*",
        ]
        command = [*self._java, "kafka.Kafka", self._config]
        super().__init__("kafka", command, folder, lambda: STARTED in self.written())

    @property
    def bootstrap(self) -> str:
        """host:port of the plain listener."""
        return self.bootstrap_of("PLAINTEXT")

    def bootstrap_of(self, listener: str) -> str:
        """host:port of a listener."""
        return f"127.0.0.1:{self.ports[listener]}"

    def advertise(self, listener: str, port: int) -> None:
        """From the next start clients are sent to this port of 127.0.0.1: where a proxy before the broker listens."""
        self._advertised[listener] = port

    def set(self, **properties: str) -> None:
        """Broker properties from the next start on; `_` in a name stands for `.`."""
        self._extra |= {name.replace("_", "."): value for name, value in properties.items()}

    def start(self, wait: bool = True) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "log4j2.properties").write_text(LOGGING)
        self._config.write_text("".join(f"{name}={value}\n" for name, value in self._properties().items()))
        if not self._formatted:
            self._format()
        super().start(wait)

    def create_topic(self, name: str, partitions: int = 1, **settings: str | int) -> str:
        """Makes a topic, and returns its name; `_` in a setting's name stands for `.` (`retention_ms=-1`)."""
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            configs = {key.replace("_", "."): str(value) for key, value in settings.items()}
            admin.create_topics(
                {name: {"num_partitions": partitions, "replication_factor": 1, "configs": configs}}, timeout_ms=30_000
            )
        finally:
            admin.close()
        return name

    def _format(self) -> None:
        cluster = self.cluster_id
        scram = [word for user in self._scram for word in ("--add-scram", user)]
        storage = ["kafka.tools.StorageTool", "format", "--config", str(self._config), "--cluster-id", cluster]
        done = subprocess.run(
            [*self._java, *storage, "--ignore-formatted", *scram], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"kafka storage could not be formatted:\n{done.stdout}{done.stderr}"
        self._formatted = True

    def _properties(self) -> dict[str, str]:
        def listener_list(names: Sequence[str], ports: Mapping[str, int]) -> str:
            return ",".join(f"{name}://127.0.0.1:{ports[name]}" for name in names)

        protocols = self.protocols | {"CONTROLLER": "PLAINTEXT"}
        return (
            {
                "process.roles": "broker,controller",
                "node.id": "1",
                "listeners": listener_list(tuple(protocols), self.ports),
                "advertised.listeners": listener_list(tuple(self.protocols), self.ports | self._advertised),
                "listener.security.protocol.map": ",".join(f"{name}:{kind}" for name, kind in protocols.items()),
                "controller.listener.names": "CONTROLLER",
                "inter.broker.listener.name": "PLAINTEXT",
                "controller.quorum.voters": f"1@127.0.0.1:{self.ports['CONTROLLER']}",
                "log.dirs": str(self.folder / "logs"),
            }
            | ONE_NODE
            | FAST
            | self._extra
        )
