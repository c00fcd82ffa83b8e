"""`make demo-fleet`: a fleet on real servers, in processes of their own, and the same recording on one embedded host.

Apache Kafka and InfluxDB 2.x; two collectors on simulated hosts, a gateway, one ingest, two aggregators. It ends with
`wattribute report`, read from InfluxDB, held against the embedded path digit by digit.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from fleet import WATTRIBUTE, Fleet, Gateway, events_of
from servers.influxd import InfluxServer
from servers.kafka import KafkaServer
from servers.server_process import MissingServer

from collectors.recording import Recording, load_recording

MINUTES, SPEED, PATIENCE_SECONDS = 30.0, 60.0, 300.0
HOSTS, SIMULATED_HOST = ("gpu-a", "gpu-b"), "gpu-host-1"
WINDOW_SECONDS, HORIZON_SECONDS, MARK_SECONDS = 10.0, 900.0, 900.0


def main() -> int:
    """0 where both reports hold the same digits."""
    folder = Path(tempfile.mkdtemp(prefix="wattribute-fleet-"))
    try:
        kafka, influx = KafkaServer(folder / "kafka"), InfluxServer(folder / "influxd")
    except MissingServer as missing:
        print(f"demo-fleet {missing}", file=sys.stderr)
        return 1
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)

    recordings = [_recorded(folder / host, host, seed) for seed, host in enumerate(HOSTS, start=1)]
    say(f"simulated {MINUTES:.0f} minutes of {', '.join(HOSTS)}")
    fleet = None
    try:
        kafka.start()
        influx.start()
        say(f"Apache Kafka at {kafka.bootstrap}, InfluxDB at {influx.url}")
        fleet = Fleet.on(kafka, influx, folder / "fleet")
        kafka.create_topic(fleet.gateway_topic, fleet.partitions, message_timestamp_type="CreateTime", retention_ms=-1)
        fleet.make_places()
        say("wattribute topics create, check; wattribute store setup, check")
        loaded = [load_recording(each) for each in recordings]
        _play(fleet, recordings, loaded, say)
        report = ["report", *_interval(loaded), "--by", "host,model,team", "--include-idle"]
        print(fleet.run(*report))
        of_fleet = json.loads(fleet.run(*report, "--format", "json"))
        say("the same recordings on one embedded host")
        replay = [WATTRIBUTE, "replay", *map(str, recordings), "--data", str(folder / "embedded"), "--speed", "max"]
        subprocess.run(replay, check=True, capture_output=True)
        embedded = [WATTRIBUTE, *report, "--data", str(folder / "embedded"), "--format", "json"]
        of_one = json.loads(subprocess.run(embedded, check=True, capture_output=True).stdout)
        same = of_fleet["lines"] == of_one["lines"] and of_fleet["totals"] == of_one["totals"]
        say(f"{len(of_fleet['lines'])} lines and the totals are {'equal' if same else 'NOT equal'}, to the last digit")
        return 0 if same else 1
    finally:
        if fleet is not None:
            fleet.stop()
        influx.stop()
        kafka.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _recorded(folder: Path, host: str, seed: int) -> Path:
    command = [WATTRIBUTE, "simulate", str(folder), "--minutes", str(MINUTES), "--seed", str(seed)]
    subprocess.run([*command, "--permutations", "2"], check=True, capture_output=True)
    for file in (folder / "host.toml", folder / "requests.jsonl"):
        file.write_text(file.read_text().replace(f'"{SIMULATED_HOST}"', f'"{host}"'))
    return folder


def _play(fleet: Fleet, recordings: list[Path], loaded: list[Recording], say: Callable[[str], None]) -> None:
    for number in (1, 2):
        fleet.start(f"aggregate-{number}", "aggregate")
    fleet.start("ingest", "ingest")
    for host, recording in zip(HOSTS, recordings, strict=True):
        fleet.start_collector(f"collect-{host}", recording, SPEED)
    say("two aggregators, one ingest, two collectors: six processes with the gateway")
    gateway = Gateway(fleet.config.kafka, fleet.gateway_topic, fleet.partitions)
    arrivals = sorted(each for recording in loaded for each in events_of(recording))
    start, began = arrivals[0][0], time.monotonic()
    for arrived, event in arrivals:
        time.sleep(max(0.0, began + (arrived - start) / SPEED - time.monotonic()))
        gateway.send(arrived, [event])
    gateway.close()
    say(f"{gateway.events} request events went through the gateway's topic")
    for host in HOSTS:
        assert fleet.processes[f"collect-{host}"].wait(PATIENCE_SECONDS) == 0, fleet.said(f"collect-{host}")
    _wait_for(lambda: fleet.ingest_lag() == 0, "ingest")
    ends = [reading.end for recording in loaded for reading in recording.readings]
    end = max(ends + [arrival.event.end for recording in loaded for arrival in recording.requests])
    settled = (end + WINDOW_SECONDS + HORIZON_SECONDS) // MARK_SECONDS * MARK_SECONDS + MARK_SECONDS
    fleet.tick_all(settled)
    _wait_for(lambda: _all_final(fleet, end), "the aggregators")
    say("everything is final")


def _all_final(fleet: Fleet, end: float) -> bool:
    claims = fleet.claims()
    return len(claims) == fleet.partitions and all((claim.watermark or 0.0) >= end for claim in claims.values())


def _interval(loaded: list[Recording]) -> list[str]:
    start = min(reading.start for recording in loaded for reading in recording.readings)
    end = max(reading.end for recording in loaded for reading in recording.readings) + MARK_SECONDS
    return [
        "--from",
        str(start // WINDOW_SECONDS * WINDOW_SECONDS),
        "--to",
        str(end // WINDOW_SECONDS * WINDOW_SECONDS),
    ]


def _wait_for(done: Callable[[], bool], who: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        assert time.monotonic() < deadline, f"{who} did not come to the end within {PATIENCE_SECONDS:.0f} s"
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
