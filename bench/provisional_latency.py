"""From the end of a window to its provisional point readable in InfluxDB, in real time, at 1 000 requests/s.

One collecting host (this machine's CPU), a gateway's topic, one ingest, one aggregator, each a process of its own, on a
real Kafka and a real InfluxDB 2.x. Two figures: when the window is first readable, and when the row holds the requests
that ended in the window's last second too. SECONDS=300 makes it longer.
"""

import json
import os
import random
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

from collectors.clock import SystemClock
from monitor.core.points import PROVISIONAL_METER, PROVISIONAL_USAGE, USAGE
from monitor.store.open import open_store

RATE: Final = 1_000.0
WARM_UP_SECONDS: Final = 30.0
WINDOW_SECONDS: Final = 10.0
HOST: Final = "bench-host"
GOAL_SECONDS: Final = 5.0


def run() -> list[str]:
    """The lines of the report."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from fleet import Fleet
    from servers.influxd import InfluxServer
    from servers.kafka import KafkaServer
    from servers.server_process import MissingServer

    seconds = float(os.environ.get("SECONDS", "120"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            kafka, influx = KafkaServer(folder / "kafka"), InfluxServer(folder / "influxd")
        except MissingServer as missing:
            return [f"left out: {missing}"]
        kafka.start()
        influx.start()
        host = f'[host]\nname = "{HOST}"\nzone = "FR"\n'
        fleet = Fleet.on(kafka, influx, folder / "fleet", clock="broker", more=host)
        try:
            kafka.create_topic(fleet.gateway_topic, fleet.partitions)
            fleet.make_places()
            for role in ("aggregate", "ingest", "collect"):
                fleet.start(role, role)
            return _measured(fleet, seconds)
        finally:
            fleet.stop()
            influx.stop()
            kafka.stop()


def _measured(fleet: Any, seconds: float) -> list[str]:
    from fleet import Gateway

    stop = threading.Event()
    sent = [0]
    gateway = Gateway(fleet.config.kafka, fleet.gateway_topic, fleet.partitions)
    feeder = threading.Thread(target=_feed, args=(gateway, stop, sent), daemon=True)
    feeder.start()
    store = open_store(fleet.config, fleet.folder / "none")
    clock = SystemClock()
    began = clock.now()
    shown: dict[float, float] = {}
    whole: dict[float, float] = {}
    counts: dict[float, float] = {}
    requests = USAGE.fields.index("requests")
    while clock.now() < began + WARM_UP_SECONDS + seconds:
        now = clock.now()
        for row in store.read(PROVISIONAL_METER, now - 60.0, now):
            shown.setdefault(row.time, clock.now())
        sums: dict[float, float] = {}
        for row in store.read(PROVISIONAL_USAGE, now - 60.0, now):
            sums[row.time] = sums.get(row.time, 0.0) + float(row.fields[requests] or 0.0)
        for window, count in sums.items():
            if count > counts.get(window, -1.0):
                counts[window], whole[window] = count, clock.now()
        time.sleep(0.1)
    stop.set()
    feeder.join()
    store.close()
    fresh = [each for each in sorted(shown) if each > began + WARM_UP_SECONDS and each + 30.0 < clock.now()]
    first = sorted(shown[window] - window - WINDOW_SECONDS for window in fresh)
    last = sorted(whole[window] - window - WINDOW_SECONDS for window in fresh if window in whole)
    if not first or not last:
        return ["no window was shown; the processes said:", *(fleet.said(role)[-500:] for role in fleet.processes)]
    return [
        f"{len(fresh)} windows, {sent[0] / (WARM_UP_SECONDS + seconds):.0f} requests/s, counts in a window"
        f" {min(counts[each] for each in fresh if each in counts):.0f} to {max(counts.values()):.0f}",
        f"window's end to first readable        p50 {_quantile(first, 0.5):.2f} s   p99 {_quantile(first, 0.99):.2f} s"
        f"   ({_quantile(first, 0.99) / GOAL_SECONDS:.2f} of the goal, {GOAL_SECONDS:.0f} s)",
        f"window's end to its last change shown p50 {_quantile(last, 0.5):.2f} s   p99 {_quantile(last, 0.99):.2f} s",
    ]


def _feed(gateway: Any, stop: threading.Event, sent: list[int]) -> None:
    """Requests that end now, a hundredth of a second's worth in a message."""
    chance, clock, began = random.Random(1), SystemClock(), time.monotonic()
    while not stop.is_set():
        due = int((time.monotonic() - began) * RATE)
        if due - sent[0] < RATE / 100:
            time.sleep(0.005)
            continue
        now = clock.now()
        events = [
            json.dumps(
                {
                    "request_id": f"b{number}",
                    "model": chance.choice(("small", "large")),
                    "team": chance.choice(("search", "support", "coding")),
                    "host": HOST,
                    "start": now - chance.uniform(0.2, 8.0),
                    "end": now,
                    "input_tokens": chance.randrange(1, 2_000),
                    "output_tokens": chance.randrange(1, 400),
                }
            ).encode()
            for number in range(sent[0], due)
        ]
        gateway.send(now, events)
        sent[0] = due
    gateway.close()


def _quantile(values: list[float], part: float) -> float:
    return values[min(len(values) - 1, int(part * len(values)))]
