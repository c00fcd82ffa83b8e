"""A replayed hour on real servers, killed at random points, beside the same hour on one undisturbed embedded host.

Collectors, gateway, ingest and aggregators are processes; Kafka and InfluxDB are killed too. What the disturbed run
leaves in InfluxDB has to be the undisturbed books, byte for byte, revision aside. Everything random comes from a seed.
"""

import json
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from fleet import Fleet, Gateway, book_lines
from servers.influxd import InfluxServer
from servers.kafka import KafkaServer

from collectors.recording import Recording, load_recording
from monitor.config.sections import Config
from monitor.core.points import HOLE, METER, RESTATEMENT, TOO_LATE
from monitor.roles.aggregate_group import partition_of
from monitor.roles.embedded import Embedded
from monitor.service import replay_into
from monitor.store.open import open_store

WINDOW_SECONDS = 10.0
MODELS, TEAMS = ("llama-8b", "qwen-14b", "gpt-oss-20b"), ("search", "support", "coding", "research")
EVENTS_PER_MESSAGE = 20


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One crash run. `speed`: how much faster than recorded; rates are of log time.

    With `clock` "broker" it runs in real time, from `start` on: records are stamped by Kafka, aggregators tick.
    """

    seed: int
    hosts: int
    minutes: float
    requests_per_second: float
    kills: int
    server_kills: int
    speed: float
    horizon_seconds: float = 300.0
    mark_seconds: float = 300.0
    partitions: int = 4
    start: float = 1_767_600_000.0
    clock: str = "records"
    aggregators: int = 2
    ingests: int = 2
    patience_seconds: float = 900.0

    @property
    def reread_bound_seconds(self) -> float:
        """Two horizons, one mark interval and two minutes of log time."""
        return 2 * self.horizon_seconds + self.mark_seconds + 120.0


@dataclass(kw_only=True)
class Outcome:
    """What a run left. `missing` and `surplus` are lines of the books beside the undisturbed ones."""

    kills: dict[str, int] = field(default_factory=dict)
    events: int = 0
    lines: int = 0
    missing: list[str] = field(default_factory=list)
    surplus: list[str] = field(default_factory=list)
    restatements: int = 0
    too_late: int = 0
    holes: int = 0
    resumed: int = 0
    most_reread_seconds: float = 0.0
    measured_joules: float = 0.0
    recorded_joules: float = 0.0
    wall_seconds: float = 0.0


def write_recording(folder: Path, plan: Plan, number: int) -> Path:
    """A host with a GPU and a CPU package, read once a second."""
    chance = random.Random(f"{plan.seed}/{number}")
    folder.mkdir(parents=True)
    host = f"host-{number:02d}"
    (folder / "host.toml").write_text(
        f'host = "{host}"\nzone = "FR"\npue = 1.2\n'
        '[[devices]]\nid = "gpu0"\nkind = "gpu"\nhardware = "NVIDIA A100-SXM4-40GB"\nidle_watts = 52.5\n'
        '[[devices]]\nid = "cpu0"\nkind = "cpu"\nidle_watts = 40.0\n'
    )
    gpu_joules = cpu_joules = 0.0
    rows = ["time,device,power_watts,energy_joules_total"]
    for second in range(int(plan.minutes * 60) + 1):
        rows.append(f"{plan.start + second},gpu0,,{gpu_joules:.3f}")
        rows.append(f"{plan.start + second},cpu0,,{cpu_joules:.3f}")
        gpu_joules += 150.0 + 120.0 * math.sin(second / 40.0 + number) + chance.uniform(0.0, 30.0)
        cpu_joules += 80.0 + chance.uniform(0.0, 20.0)
    (folder / "readings.csv").write_text("\n".join(rows) + "\n")
    return folder


def arrivals(plan: Plan) -> Iterator[tuple[float, int, bytes]]:
    """(when it arrived, which host's, the event): one in 50 comes twice, one in 200 later than the horizon."""
    chance = random.Random(f"{plan.seed}/requests")
    found: list[tuple[float, int, bytes]] = []
    start = plan.start
    end = start + plan.minutes * 60 - 30.0
    for number in range(int(plan.minutes * 60 * plan.requests_per_second)):
        begin = start + 5.0 + number / plan.requests_per_second * (end - start - 5.0) / (plan.minutes * 60)
        ends = begin + chance.uniform(0.2, 20.0)
        host = chance.randrange(plan.hosts)
        event = {
            "request_id": f"r{number}",
            "model": chance.choice(MODELS),
            "team": chance.choice(TEAMS),
            "host": f"host-{host:02d}",
            "devices": ["gpu0"],
            "start": round(begin, 3),
            "end": round(ends, 3),
            "input_tokens": chance.randrange(1, 4_000),
            "output_tokens": chance.randrange(1, 800),
        }
        raw = json.dumps(event).encode()
        delay = chance.uniform(0.05, 2.0)
        if chance.random() < 0.005:
            delay += plan.horizon_seconds * chance.uniform(1.0, 1.5)
        found.append((ends + delay, host, raw))
        if chance.random() < 0.02:
            found.append((ends + delay + chance.uniform(0.0, 30.0), host, raw))
    found.sort()
    yield from found


def undisturbed(folder: Path, recordings: list[Path], plan: Plan, config: Config) -> list[str]:
    """The same hour through one process on SQLite."""
    lines: dict[int, list[dict[str, Any]]] = {}
    for arrived, host, raw in arrivals(plan):
        lines.setdefault(host, []).append(json.loads(raw) | {"arrived": arrived})
    loaded = []
    for number, recording in enumerate(recordings):
        whole = folder / f"whole-{number}"
        whole.mkdir(parents=True)
        for name in ("host.toml", "readings.csv"):
            (whole / name).write_bytes((recording / name).read_bytes())
        text = b"\n".join(msgspec.json.encode(line) for line in lines.get(number, [])) + b"\n"
        (whole / "requests.jsonl").write_bytes(text)
        loaded.append(load_recording(whole))
    embedded = msgspec.structs.replace(config, kafka=Config().kafka, store=Config().store)
    with Embedded(folder / "books", embedded) as house:
        replay_into(house, loaded)
        return book_lines(house.store)


def recorded_joules(loaded: list[Recording]) -> float:
    """All energy that the recordings hold."""
    return math.fsum(reading.energy_joules for recording in loaded for reading in recording.readings)


class CrashRun:
    """Plays one plan on servers of its own, in a folder."""

    def __init__(self, plan: Plan, folder: Path, say: Callable[[str], None] = lambda _text: None) -> None:
        self.plan, self.folder, self._say = plan, folder, say
        self._chance = random.Random(plan.seed)
        self.kafka, self.influx = KafkaServer(folder / "kafka"), InfluxServer(folder / "influxd")
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Everything, from the servers' start to the comparison."""
        began = time.monotonic()
        plan = self.plan
        recordings = [write_recording(self.folder / f"host-{each:02d}", plan, each) for each in range(plan.hosts)]
        fleet = None
        try:
            self.kafka.start()
            self.influx.start()
            fleet = Fleet(
                folder=self.folder / "fleet",
                bootstrap=self.kafka.bootstrap,
                influx_url=self.influx.url,
                influx_org=self.influx.settings("any").org,
                influx_token_file=self.influx.token_file,
                partitions=plan.partitions,
                horizon=f"{plan.horizon_seconds:g}s",
                mark_interval=f"{plan.mark_seconds:g}s",
                session="6s",
                clock=plan.clock,
            )
            self.kafka.create_topic(
                fleet.gateway_topic, plan.partitions, message_timestamp_type="CreateTime", retention_ms=-1
            )
            fleet.make_places()
            self._play(fleet, recordings)
            self._finish(fleet)
            self._compare(fleet, recordings)
        finally:
            if fleet is not None:
                fleet.stop()
            self.influx.stop()
            self.kafka.stop()
        self.outcome.wall_seconds = time.monotonic() - began
        return self.outcome

    def _play(self, fleet: Fleet, recordings: list[Path]) -> None:
        plan = self.plan
        for number in range(plan.aggregators):
            fleet.start(f"aggregate-{number}", "aggregate")
        for number in range(plan.ingests):
            fleet.start(f"ingest-{number}", "ingest")
        for number, recording in enumerate(recordings):
            fleet.start_collector(f"collect-{number}", recording, plan.speed)
        gateway = Gateway(fleet.config.kafka, fleet.gateway_topic, plan.partitions)
        began, span_seconds = time.monotonic(), plan.minutes * 60 / plan.speed
        if plan.clock == "broker":
            began += plan.start - time.time()
        victims = self._victims(span_seconds)
        due, waiting = next(victims, None), [[] for _ in range(plan.hosts)]
        for arrived, host, raw in arrivals(plan):
            elapsed = (arrived - plan.start) / plan.speed
            while (now := time.monotonic() - began) < elapsed or (due is not None and due[0] <= now):
                if due is not None and due[0] <= now:
                    self._kill(fleet, due[1], recordings)
                    due = next(victims, None)
                else:
                    time.sleep(min(0.02, elapsed - now))
            waiting[host].append(raw)
            if len(waiting[host]) >= EVENTS_PER_MESSAGE:
                gateway.send(arrived, waiting[host])
                waiting[host].clear()
        for rest in waiting:
            if rest:
                gateway.send(arrived, rest)
        gateway.close()
        self.outcome.events = gateway.events
        while due is not None:  # the last ones fall while the end is caught up
            time.sleep(max(0.0, due[0] - (time.monotonic() - began)))
            self._kill(fleet, due[1], recordings)
            due = next(victims, None)

    def _victims(self, span_seconds: float) -> Iterator[tuple[float, str]]:
        """(second of the run, what is killed): collectors, ingests and aggregators alike, and now and then a server."""
        plan = self.plan
        kinds = ["collect", "ingest", "aggregate"] * (plan.kills // 3 + 1)
        kinds = kinds[: plan.kills] + ["kafka", "influxd"] * plan.server_kills
        self._chance.shuffle(kinds)
        counts = {"collect": plan.hosts, "ingest": plan.ingests, "aggregate": plan.aggregators}
        for number, kind in enumerate(kinds):
            at = (number + 0.5 + self._chance.uniform(-0.4, 0.4)) * span_seconds / len(kinds)
            yield at, kind if kind not in counts else f"{kind}-{self._chance.randrange(counts[kind])}"

    def _kill(self, fleet: Fleet, name: str, recordings: list[Path]) -> None:
        kind, _, number = name.partition("-")
        if kind in ("kafka", "influxd"):
            server = self.kafka if kind == "kafka" else self.influx
            server.kill()
            server.start(wait=False)
        else:
            if kind == "collect" and fleet.processes[name].poll() == 0:
                busy = [each for each, process in fleet.processes.items() if process.poll() is None]
                name = self._chance.choice([each for each in busy if not each.startswith("collect")] or busy)
                kind, _, number = name.partition("-")
            assert fleet.processes[name].poll() is None, f"{name} had ended by itself:\n{fleet.said(name)[-3000:]}"
            fleet.kill(name)
            if kind == "collect":
                fleet.start_collector(name, recordings[int(number)], self.plan.speed)
            else:
                fleet.start(name, kind)
        self.outcome.kills[kind] = self.outcome.kills.get(kind, 0) + 1

    def _finish(self, fleet: Fleet) -> None:
        plan = self.plan
        for number in range(plan.hosts):
            name = f"collect-{number}"
            assert fleet.processes[name].wait(plan.patience_seconds) == 0, fleet.said(name)[-3000:]
        self._wait_for("ingest", lambda: fleet.ingest_lag() == 0)
        settled = self._settled()
        if plan.clock == "records":
            fleet.tick_all(settled)
        end = plan.start + plan.minutes * 60
        held = {partition_of(f"host-{number:02d}", plan.partitions) for number in range(plan.hosts)}
        self._wait_for("the aggregators", lambda: _all_final(fleet, held, end, settled))
        self._say(f"everything is final; {sum(self.outcome.kills.values())} kills")

    def _settled(self) -> float:
        """A log time behind every horizon, and behind the mark that restates the last that came late."""
        plan = self.plan
        end = time.time() if plan.clock == "broker" else plan.start + plan.minutes * 60 + 4 * plan.horizon_seconds
        return (end // plan.mark_seconds + 2) * plan.mark_seconds

    def _wait_for(self, who: str, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self.plan.patience_seconds
        while not done():
            assert time.monotonic() < deadline, f"{who} did not come to the end"
            time.sleep(0.5)

    def _compare(self, fleet: Fleet, recordings: list[Path]) -> None:
        wanted = undisturbed(self.folder / "undisturbed", recordings, self.plan, fleet.config)
        found = fleet.books()
        outcome = self.outcome
        outcome.lines = len(wanted)
        outcome.missing = sorted(set(wanted) - set(found))
        outcome.surplus = sorted(set(found) - set(wanted))
        store = open_store(fleet.config, self.folder / "none")
        ever = (float("-inf"), float("inf"))
        outcome.restatements = len(store.read(RESTATEMENT, *ever))
        outcome.too_late = len(store.read(TOO_LATE, *ever))
        outcome.holes = len(store.read(HOLE, *ever))
        outcome.measured_joules = math.fsum(float(row.fields[0] or 0.0) for row in store.read(METER, *ever))
        store.close()
        outcome.recorded_joules = recorded_joules([load_recording(each) for each in recordings])
        for number in range(self.plan.aggregators):
            for line in fleet.said(f"aggregate-{number}").splitlines():
                if '"ledger resumes"' in line:
                    outcome.resumed += 1
                    outcome.most_reread_seconds = max(outcome.most_reread_seconds, json.loads(line)["reread_seconds"])


def _all_final(fleet: Fleet, partitions: set[int], end: float, settled: float) -> bool:
    claims = fleet.claims()
    return claims.keys() >= partitions and all(
        (claims[number].watermark or 0.0) >= end and (claims[number].mark or 0.0) >= settled for number in partitions
    )
