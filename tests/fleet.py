"""A small fleet on real servers: a configuration of its own, processes that play one role each, and a gateway.

The recordings' own clock drives everything: records carry their time (`[kafka] clock = "records"`), so that an hour
passes as fast as the machine allows, and the log comes out the same at any speed but for what came late.
"""

import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
from kafka import KafkaConsumer, TopicPartition
from servers.influxd import InfluxServer
from servers.kafka import KafkaServer
from servers.server_process import server_port

from collectors.recording import Recording
from monitor.config.load import load_config
from monitor.config.output_sections import Kafka
from monitor.config.sections import Config
from monitor.core.points import BOOKS
from monitor.log.codec import tick_record
from monitor.log.kafka_claims import Claim
from monitor.log.kafka_client import client_settings
from monitor.log.kafka_producer import Outgoing, Sender
from monitor.log.kafka_writer import KafkaWriter
from monitor.log.protocol import LogUnavailable
from monitor.store.open import open_store
from monitor.store.protocol import Resolution

WATTRIBUTE: Final = str(Path(sys.executable).with_name("wattribute"))
STEP_SECONDS: Final = 1.0


@dataclass(kw_only=True)
class Fleet:
    """`kafka` and `influx` are addresses as [kafka] and [influxdb] name them; `more` is TOML that is laid over it.

    `links` maps processes by name to another address of Kafka, as one behind a proxy.
    """

    folder: Path
    bootstrap: str
    influx_url: str
    influx_org: str
    influx_token_file: Path
    partitions: int = 4
    horizon: str = "15m"
    mark_interval: str = "15m"
    session: str = "30s"
    clock: str = "records"
    more: str = ""
    tag: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    links: dict[str, str] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)

    @classmethod
    def on(cls, kafka: KafkaServer, influx: InfluxServer, folder: Path, **more: Any) -> "Fleet":
        """On servers that run, reached without a detour."""
        return cls(
            folder=folder,
            bootstrap=kafka.bootstrap,
            influx_url=influx.url,
            influx_org=influx.settings("any").org,
            influx_token_file=influx.token_file,
            **more,
        )

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config_file = self.folder / "fleet.toml"
        self.gateway_partitions = self.partitions
        self.write_config()

    def write_config(self) -> None:
        """What processes that are started from now on read."""
        self.config_file.write_text(self._toml())

    @property
    def gateway_topic(self) -> str:
        """Where the gateway writes request events."""
        return f"{self.tag}.gateway"

    @property
    def config(self) -> Config:
        """As the processes read it."""
        return load_config(self.config_file, environ={})

    def make_places(self, *, check: bool = True) -> None:
        """Topics and buckets, by the commands that an operator gives."""
        for command in (["topics", "create"], ["topics", "check"], ["store", "setup"], ["store", "check"]):
            if check or command[1] != "check":
                self.run(*command)

    def run(self, *arguments: str) -> str:
        """A command with the fleet's configuration; what it prints. AssertionError where it fails."""
        done = self.ask(*arguments)
        assert done.returncode == 0, f"wattribute {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The same, however it ends."""
        command = [WATTRIBUTE, *arguments, "--config", str(self.config_file)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def start(self, name: str, role: str, *, config: Path | None = None) -> subprocess.Popen[bytes]:
        """A process of one role, with a data folder that outlives it."""
        if config is None and name in self.links:
            config = self.folder / f"{name}.toml"
            config.write_text(self._toml(bootstrap=self.links[name]))
        command = [WATTRIBUTE, "run", "--config", str(config or self.config_file), "--roles", role]
        self.metrics[name] = f"127.0.0.1:{server_port()}"
        command += ["--data", str(self.folder / name), "--metrics", self.metrics[name]]
        with (self.folder / f"{name}.log").open("ab") as out:
            self.processes[name] = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
        return self.processes[name]

    def start_collector(self, name: str, recording: Path, speed: float | None) -> subprocess.Popen[bytes]:
        """Role collect on a recorded host, `speed` times as fast as it was recorded."""
        config = self.folder / f"{name}.toml"
        source = f'[[sources]]\nname = "{name}"\nkind = "recording"\npath = "{recording}"\n'
        source += f"speed = {speed}\n" if speed else 'speed = "max"\n'
        config.write_text(self._toml(gateway=False, bootstrap=self.links.get(name)) + source)
        return self.start(name, "collect", config=config)

    def kill(self, name: str) -> None:
        """kill -9, and its end."""
        process = self.processes[name]
        process.kill()
        process.wait()

    def stop(self) -> None:
        """Asks every process to stop, and ends those that do not within ten seconds."""
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self.processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def said(self, name: str) -> str:
        """What a process has written so far."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def tick_all(self, log_time: float) -> None:
        """Moves the log time of every partition on: where no record comes any more, everything before becomes final."""
        writer = KafkaWriter(self.config.kafka)
        try:
            for partition in range(self.partitions):
                for stream in ("readings", "usage"):
                    writer.send([tick_record("", stamp=log_time, stream=stream)], log_time, partition=partition)
            writer.flush(log_time)
        finally:
            writer.close()

    def claims(self) -> dict[int, Claim]:
        """What the aggregators have claimed of each partition."""
        kafka = self.config.kafka
        consumer = KafkaConsumer(
            bootstrap_servers=self.bootstrap, group_id=f"{kafka.group}-aggregate", enable_auto_commit=False
        )
        try:
            found = {
                number: consumer.committed(TopicPartition(kafka.topics.usage, number), metadata=True)
                for number in range(self.partitions)
            }
        finally:
            consumer.close()
        return {
            number: msgspec.json.decode(each.metadata, type=Claim) for number, each in found.items() if each is not None
        }

    def ingest_lag(self) -> int:
        """Messages of the gateway that no ingest has committed yet."""
        group = f"{self.config.kafka.group}-ingest"
        consumer = KafkaConsumer(bootstrap_servers=self.bootstrap, group_id=group, enable_auto_commit=False)
        try:
            parts = [TopicPartition(self.gateway_topic, number) for number in range(self.gateway_partitions)]
            ends = consumer.end_offsets(parts)
            return sum(ends[part] - (consumer.committed(part) or 0) for part in parts)
        finally:
            consumer.close()

    def books(self) -> list[str]:
        """Every row of the books in the store, revision aside: windows, hours and days."""
        store = open_store(self.config, self.folder / "none")
        try:
            return book_lines(store)
        finally:
            store.close()

    def _toml(self, *, gateway: bool = True, bootstrap: str | None = None) -> str:
        sources = f'[[sources]]\nname = "gateway"\nkind = "kafka"\ntopics = ["{self.gateway_topic}"]\n'
        return f"""
[accounting]
horizon = "{self.horizon}"
mark_interval = "{self.mark_interval}"
[log]
restate_within = "20d"
retention = "30d"
[store]
kind = "influxdb"
windows_retention = "3650d"
requests_retention = "3650d"
provisional_retention = "3650d"
hours_retention = "3650d"
days_retention = "3660d"
[kafka]
bootstrap_servers = ["{bootstrap or self.bootstrap}"]
group = "{self.tag}"
session = "{self.session}"
clock = "{self.clock}"
[kafka.topics]
readings = "{self.tag}.readings"
usage = "{self.tag}.usage"
facts = "{self.tag}.facts"
requests = "{self.tag}.requests"
request_energy = "{self.tag}.request-energy"
dead_letters = "{self.tag}.dead-letters"
partitions = {self.partitions}
replication = 1
[influxdb]
url = "{self.influx_url}"
org = "{self.influx_org}"
bucket = "b{self.tag}"
token_file = "{self.influx_token_file}"
[logging]
format = "json"
{self.more}
{sources if gateway else ""}
"""


def book_lines(store: Any) -> list[str]:
    """The books of any store as sorted lines, without the revision that a restatement leaves."""
    resolutions: tuple[Resolution, ...] = ("window", "hour", "day")
    return sorted(
        repr((measurement.name, resolution, row.time, row.tags, row.fields[:-1]))
        for measurement in BOOKS
        for resolution in resolutions
        for row in store.read(measurement, float("-inf"), float("inf"), resolution=resolution)
    )


class Gateway:
    """Writes request events as JSON lines into the gateway's topic, stamped with the moment at which each arrived.

    What a broker did not acknowledge it sends again, so some events stand there twice and none is lost.
    """

    def __init__(self, kafka: Kafka, topic: str, partitions: int) -> None:
        self._topic, self._partitions = topic, partitions
        self._sender = Sender(client_settings(kafka))
        self._unflushed: list[Outgoing] = []
        self._next = 0
        self.events = 0

    def send(self, log_time: float, events: Sequence[bytes], partition: int | None = None) -> None:
        """One message of all these events, to the partitions in turn where none is named."""
        self._next += 1
        message = Outgoing(
            topic=self._topic,
            key=b"",
            value=b"\n".join(events),
            partition=self._next % self._partitions if partition is None else partition,
            timestamp_ms=round(log_time * 1_000),
        )
        self._unflushed.append(message)
        self.events += len(events)
        try:
            self._sender.send(message)
        except LogUnavailable:
            self._flush(again=True)
        if len(self._unflushed) >= 200:
            self._flush()

    def close(self) -> None:
        """Returns once everything is at the broker."""
        self._flush()
        self._sender.close()

    def _flush(self, *, again: bool = False) -> None:
        while self._unflushed:
            try:
                for message in self._unflushed if again else ():
                    self._sender.send(message)
                refused = self._sender.flush()
            except LogUnavailable:
                again = True
                continue
            assert not refused, refused
            self._unflushed.clear()


def events_of(recording: Recording) -> Iterator[tuple[float, bytes]]:
    """(when it arrived, the event as JSON) of a recording's requests, on the host that it recorded."""
    for arrival in sorted(recording.requests, key=lambda each: each.arrived):
        event = msgspec.structs.replace(arrival.event, host=recording.profile.host)
        yield arrival.arrived, msgspec.json.encode(event)
