"""Where the fault tests play: a broker and an InfluxDB for all of them, each with a door of its own and one by a proxy.

A test is one run of tests/crash.py with a disturbance or two. What it has to leave is the undisturbed books, line for
line; those of a plan are made once.

`make test` runs the ones that no smaller test comes near, half a minute to a minute each; `make soak` runs all, with
WATTRIBUTE_SOAK=1: also those marked SOAK_ONLY.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from crash import CrashRun, Disturbance, Outcome, Plan, Servers
from servers.influxd import InfluxServer
from servers.kafka import KafkaServer
from servers.toxiproxy import Toxiproxy

SMALL = Plan(
    seed=20_261_127,
    hosts=2,
    minutes=4.0,
    requests_per_second=20.0,
    kills=0,
    server_kills=0,
    speed=12.0,
    horizon_seconds=60.0,
    mark_seconds=60.0,
    partitions=2,
    ingests=1,
    patience_seconds=240.0,
)
"""20 seconds; the hosts are of different partitions, so each aggregator has one."""
AGGREGATORS = ("aggregate-0", "aggregate-1")
SOAK_ONLY = pytest.mark.skipif(
    os.environ.get("WATTRIBUTE_SOAK") != "1", reason="longer than a test may take: `make soak` runs it"
)


class FaultHouse:
    """`kafka_link` and `influx_link` are the proxies, whole before each run. Raises MissingServer where it is made."""

    def __init__(self, folder: Path, influx: InfluxServer, toxiproxy: Toxiproxy) -> None:
        self.influx, self.influx_link = influx, toxiproxy.proxy(influx.port)
        self.kafka = KafkaServer(folder, listeners={"LINK": "PLAINTEXT"})
        self.kafka_link = toxiproxy.proxy(self.kafka.ports["LINK"])
        self.kafka.advertise("LINK", self.kafka_link.port)
        self._books: dict[Plan, list[str]] = {}

    def start(self) -> None:
        """The broker; the other servers run."""
        self.kafka.start()

    def stop(self) -> None:
        """Likewise."""
        self.kafka.stop()

    def crash_run(
        self,
        plan: Plan,
        folder: Path,
        *disturbances: Disturbance,
        linked: Sequence[str] = (),
        influx_url: str | None = None,
        token_file: Path | None = None,
        last: Callable[[CrashRun], None] = lambda _run: None,
    ) -> CrashRun:
        """A run whose processes `linked` reach Kafka by the proxy; `influx_url` is where all reach InfluxDB."""
        self.kafka_link.clear()
        self.influx_link.clear()
        if not self.kafka.running:
            self.kafka.start()
        servers = Servers(
            kafka=self.kafka,
            influx=self.influx,
            influx_url=influx_url or self.influx.url,
            token_file=token_file,
            links=dict.fromkeys(linked, self.kafka_link.address),
        )
        return CrashRun(plan, folder, servers=servers, disturbances=disturbances, last=last, books=self._books)

    @property
    def linked_influx_url(self) -> str:
        """InfluxDB by the proxy."""
        return f"http://{self.influx_link.address}"


class Ears:
    """Hears what processes of a run write from now on."""

    def __init__(self, run: CrashRun, *names: str) -> None:
        self._run = run
        self._from = {name: len(run.fleet.said(name)) for name in names}

    def wait_for(self, words: str) -> None:
        """Returns once each of them has said that."""
        self._run.wait_for(f"{', '.join(self._from)} to say {words!r}", lambda: all(map(self._has(words), self._from)))

    def wait_for_one(self, words: str) -> None:
        """Returns once one of them has."""
        self._run.wait_for(f"{', '.join(self._from)} to say {words!r}", lambda: any(map(self._has(words), self._from)))

    def _has(self, words: str) -> Callable[[str], bool]:
        return lambda name: words in self._run.fleet.said(name)[self._from[name] :]


def assert_undisturbed(outcome: Outcome) -> None:
    """Every row as in the undisturbed run, and each joule that was recorded."""
    assert (outcome.missing[:3], outcome.surplus[:3]) == ([], [])
    assert outcome.lines > 0
    assert outcome.measured_joules == pytest.approx(outcome.recorded_joules, rel=1e-9)
    assert (outcome.too_late, outcome.holes) == (0, 0)
