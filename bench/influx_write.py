"""Rows into a real InfluxDB 2 of its own, beside the bare client that is given the same lines already joined.

Rounds alternate on one server; wall time holds the server's work too, as both share the machine, CPU seconds are ours
alone. Also what showing one window of a host costs: its provisional rows and their mark in one request.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS

from monitor.core.points import ENERGY, METER, PROVISIONAL_ENERGY, PROVISIONAL_METER, USAGE, Measurement, Row
from monitor.store.influx import InfluxStore
from monitor.store.influx_layout import lines
from monitor.store.influx_setup import Setup
from monitor.store.influx_write import MOST_LINES
from monitor.store.quarantine import Quarantine
from monitor.store.retention import Retention

if TYPE_CHECKING:
    from servers.influxd import InfluxServer

_ROUNDS: Final = 5
_WINDOWS: Final = 60
_HOSTS: Final = 25
_PAGES: Final = 200
_MODELS, _TEAMS, _DEVICES = 2, 5, 2  # 24 series of energy, 2 of meter, 10 of usage on each host


def run() -> list[str]:
    """Points per second of both, their ratio, and what a provisional window costs."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from servers.influxd import InfluxServer
    from servers.server_process import MissingServer

    with tempfile.TemporaryDirectory() as folder:
        try:
            server = InfluxServer(Path(folder))
        except MissingServer as missing:
            return [f"left out: {missing}"]
        keeper = ThreadPoolExecutor(1)  # the server ends with the thread that started it
        keeper.submit(server.start).result()
        try:
            return _lines(server)
        finally:
            server.stop()


def _lines(server: "InfluxServer") -> list[str]:
    settings = server.settings("bench", requests=False)
    setup = Setup(settings)
    list(setup.mend(Retention()))
    setup.close()
    quarantine = Quarantine()
    store = InfluxStore(settings, quarantine=quarantine)
    token = settings.token_file.read_text() if settings.token_file else ""
    client = InfluxDBClient(settings.url, token, org=settings.org)
    bare = client.write_api(write_options=SYNCHRONOUS)
    began = time.time() // 3_600 * 3_600 - 3_600
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    for number in range(_ROUNDS):
        rows = _rows(began + 600.0 * number)
        texts = lines(rows)[""]
        joined = ["\n".join(texts[first : first + MOST_LINES]) for first in range(0, len(texts), MOST_LINES)]

        def write_bare(bodies: list[str] = joined) -> None:
            for body in bodies:
                bare.write("bench", settings.org, body)

        ours.append(_rates(len(rows), lambda rows=rows: store.write(rows)))  # type: ignore[misc]
        theirs.append(_rates(len(rows), write_bare))
    told = [
        f"influx write: {name}: InfluxStore {median(one[kind] for one in ours):,.0f} points/s, bare client"
        f" {median(one[kind] for one in theirs):,.0f}, ratio"
        f" {median(one[kind] / other[kind] for one, other in zip(ours, theirs, strict=True)):.2f}"
        for kind, name in enumerate(("by wall time", "by our CPU time"))
    ]
    told.append(_provisional(store, began))
    assert quarantine.counts == {}
    store.close()
    client.close()  # type: ignore[no-untyped-call]
    return told


def _provisional(store: InfluxStore, began: float) -> str:
    page = [row for row in _rows(began, provisional=True) if row.tags[0] == "host-00" and row.time == began]
    wall, cpu = _seconds(lambda: [store.replace_provisional("host-00", began, page) for _ in range(_PAGES)])
    return (
        f"influx write: one provisional window of a host, {len(page)} rows and their mark:"
        f" {1e3 * wall / _PAGES:.2f} ms, {1e3 * cpu / _PAGES:.2f} ms of our CPU"
    )


def _rates(points: int, write: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = _seconds(write)
    return points / wall, points / cpu


def _seconds(do: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    do()
    return time.perf_counter() - wall, time.process_time() - cpu


def _rows(began: float, *, provisional: bool = False) -> list[Row]:
    """The windows of ten minutes of 25 hosts: 36 rows each, 54 000 in all."""
    energy, meter = (PROVISIONAL_ENERGY, PROVISIONAL_METER) if provisional else (ENERGY, METER)
    users = [(f"model-{model}", f"team-{team}") for model in range(_MODELS) for team in range(_TEAMS)]
    rows = []
    for window in range(_WINDOWS):
        for host in (f"host-{number:02}" for number in range(_HOSTS)):
            time_of = began + 10.0 * window
            if not provisional:
                rows += [_row(USAGE, time_of, (host, *user, "chat", "ok", "")) for user in users]
            for gpu in range(_DEVICES):
                place = (host, f"GPU-{gpu}", "gpu")
                rows.append(_row(meter, time_of, place))
                rows += [
                    _row(energy, time_of, (*place, account, "", "", "", "")) for account in ("idle", "unattributed")
                ]
                rows += [_row(energy, time_of, (*place, "attributed", *user, "chat", "")) for user in users]
    return rows


def _row(measurement: Measurement, moment: float, tags: tuple[str, ...]) -> Row:
    sums = tuple(moment % 977 / (3.0 + place) for place in range(len(measurement.sums)))
    return Row(measurement.name, moment, tags, (*sums, *(kind() for kind in measurement.types[len(sums) :])))


if __name__ == "__main__":
    print("\n".join(run()))
