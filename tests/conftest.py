"""Its place is its purpose: pytest puts this folder on the import path, so that tests find the helpers in it.

Also the servers that the whole session shares. One that is not on this machine skips its tests and is named at the end;
with CI=true it fails them.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

import pytest
from fleet_faults import FaultHouse
from hypothesis import HealthCheck, settings
from servers.influxd import InfluxServer
from servers.influxdb1 import InfluxServer1
from servers.kafka import KafkaServer
from servers.server_process import MissingServer
from servers.toxiproxy import Toxiproxy

# How long an example takes is the machine's business.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")


class Server(Protocol):
    """One process, or several."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


AnyServer = TypeVar("AnyServer", bound=Server)


def served(make: Callable[[Path], AnyServer], folder: Path) -> Iterator[AnyServer]:
    """Such a server in that folder, running; the tests that ask for it are skipped where it is missing."""
    try:
        server = make(folder)
    except MissingServer as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """A broker for the whole session: topics and groups of a test have names of their own, and it stays up."""
    yield from served(KafkaServer, tmp_path_factory.mktemp("kafka"))


@pytest.fixture(scope="session")
def toxiproxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toxiproxy]:
    """One toxiproxy for the session; each test makes its own proxies."""
    yield from served(Toxiproxy, tmp_path_factory.mktemp("toxiproxy"))


@pytest.fixture(scope="session")
def influxd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InfluxServer]:
    """An InfluxDB 2.x for the session; the buckets of a test have a name of their own."""
    yield from served(InfluxServer, tmp_path_factory.mktemp("influxd"))


@pytest.fixture(scope="session")
def influxdb1(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InfluxServer1]:
    """An InfluxDB 1.x for the session; likewise."""
    yield from served(InfluxServer1, tmp_path_factory.mktemp("influxdb1"))


@pytest.fixture(scope="session")
def faults(
    tmp_path_factory: pytest.TempPathFactory, influxd: InfluxServer, toxiproxy: Toxiproxy
) -> Iterator[FaultHouse]:
    """For runs of a whole fleet with a disturbance: a broker of their own, which they may stop."""
    yield from served(lambda folder: FaultHouse(folder, influxd, toxiproxy), tmp_path_factory.mktemp("faults"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names the servers that were missing, with how many tests were not run for it."""
    reasons = Counter(str(report.longrepr[2]) for report in terminalreporter.getreports("skipped") if report.longrepr)
    for reason, count in reasons.items():
        if found := re.search(r"needs (.*: run `make services`)", reason):
            terminalreporter.write_line(f"not run: {count} test{'s need' if count > 1 else ' needs'} {found[1]}")
