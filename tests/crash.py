"""A replayed hour on real servers, killed at random points, beside the same hour on one undisturbed embedded host.

Collectors, gateway, ingest and aggregators are processes; Kafka and InfluxDB are killed too. What the disturbed run
leaves in InfluxDB has to be the undisturbed books, byte for byte, revision aside. Everything random comes from a seed.
Beside the kills a run takes disturbances of a test's own (tests/fleet_faults.py).
"""

import json
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
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

    With `clock` "broker" it runs in real time, from `start` on: records are stamped by Kafka, aggregators tick; the
    hosts' clocks are `clocks_behind_seconds` behind the broker's. The gateway's clock, which stamps its messages, is
    `gateway_behind_seconds` behind the hosts'. Of the requests `late_ratio` come `late_seconds`
    after their end, where not told otherwise just behind the horizon.
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
    clocks_behind_seconds: float = 0.0
    gateway_behind_seconds: float = 0.0
    read_every_seconds: int = 1
    late_ratio: float = 0.005
    late_seconds: tuple[float, float] | None = None

    @property
    def span_seconds(self) -> float:
        """How long it is played, in the test's own time."""
        return self.minutes * 60 / self.speed

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
    """A host with a GPU and a CPU package."""
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
    each = plan.read_every_seconds
    for second in range(0, int(plan.minutes * 60) + 1, each):
        rows.append(f"{plan.start + second},gpu0,,{gpu_joules:.3f}")
        rows.append(f"{plan.start + second},cpu0,,{cpu_joules:.3f}")
        gpu_joules += each * (150.0 + 120.0 * math.sin(second / 40.0 + number) + chance.uniform(0.0, 30.0))
        cpu_joules += each * (80.0 + chance.uniform(0.0, 20.0))
    (folder / "readings.csv").write_text("\n".join(rows) + "\n")
    return folder


def arrivals(plan: Plan) -> Iterator[tuple[float, int, bytes]]:
    """(when it arrived, which host's, the event): one in 50 comes twice, some come late."""
    chance = random.Random(f"{plan.seed}/requests")
    found: list[tuple[float, int, bytes]] = []
    start = plan.start
    late_seconds = plan.late_seconds or (plan.horizon_seconds, 1.5 * plan.horizon_seconds)
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
        if chance.random() < plan.late_ratio:
            delay += chance.uniform(*late_seconds)
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


Disturbance = tuple[float, Callable[["CrashRun"], None]]
"""(second of the run, what happens then). Below 0 nothing but the servers runs yet; what is later than the last event
happens behind it."""


@dataclass(kw_only=True)
class Servers:
    """Where a run plays: servers that go on after it, and how its processes reach them, perhaps through a proxy.

    `links` maps processes by name to another address of Kafka; without `token_file` it is the server's.
    """

    kafka: KafkaServer
    influx: InfluxServer
    influx_url: str
    token_file: Path | None = None
    links: dict[str, str] = field(default_factory=dict)


class CrashRun:
    """Plays one plan in a folder, on servers of its own where none are given.

    `books` keeps what an undisturbed run leaves, by plan, for the runs of the same plan. `last` is done when everything
    is final, before the books are compared.
    """

    fleet: Fleet
    recordings: list[Path]
    wanted: list[str]

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        say: Callable[[str], None] = lambda _text: None,
        *,
        servers: Servers | None = None,
        disturbances: Sequence[Disturbance] = (),
        last: Callable[["CrashRun"], None] = lambda _run: None,
        books: dict[Plan, list[str]] | None = None,
    ) -> None:
        self.plan, self.folder, self._say = plan, folder, say
        self._chance = random.Random(plan.seed)
        self._own = servers is None
        if servers is None:
            kafka, influx = KafkaServer(folder / "kafka"), InfluxServer(folder / "influxd")
            servers = Servers(kafka=kafka, influx=influx, influx_url=influx.url)
        self.servers, self.kafka, self.influx = servers, servers.kafka, servers.influx
        self._disturbances, self._last = list(disturbances), last
        self._books = {} if books is None else books
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Everything, from the servers' start to the comparison."""
        began = time.monotonic()
        plan = self.plan
        self.recordings = [write_recording(self.folder / f"host-{each:02d}", plan, each) for each in range(plan.hosts)]
        started = False
        try:
            if self._own:
                self.kafka.start()
                self.influx.start()
            self.fleet = self._make_fleet()
            started = True
            self.kafka.create_topic(
                self.fleet.gateway_topic, plan.partitions, message_timestamp_type="CreateTime", retention_ms=-1
            )
            self.fleet.make_places(check=self._own)
            self._play()
            self._finish()
            self._last(self)
            self._compare()
        finally:
            if started:
                self.fleet.stop()
            if self._own:
                self.influx.stop()
                self.kafka.stop()
        self.outcome.wall_seconds = time.monotonic() - began
        return self.outcome

    def start_process(self, name: str) -> None:
        """One of the plan's processes, by its name: aggregate-0, ingest-1, collect-2."""
        kind, _, number = name.partition("-")
        if kind == "collect":
            self.fleet.start_collector(name, self.recordings[int(number)], self.plan.speed)
        else:
            self.fleet.start(name, kind)

    def named(self, kind: str) -> list[str]:
        """The processes of one role."""
        plan = self.plan
        counts = {"collect": plan.hosts, "ingest": plan.ingests, "aggregate": plan.aggregators}
        return [f"{kind}-{number}" for number in range(counts[kind])]

    def _make_fleet(self) -> Fleet:
        plan = self.plan
        return Fleet(
            folder=self.folder / "fleet",
            bootstrap=self.kafka.bootstrap,
            influx_url=self.servers.influx_url,
            influx_org=self.influx.settings("any").org,
            influx_token_file=self.servers.token_file or self.influx.token_file,
            partitions=plan.partitions,
            horizon=f"{plan.horizon_seconds:g}s",
            mark_interval=f"{plan.mark_seconds:g}s",
            session="6s",
            clock=plan.clock,
            links=self.servers.links,
        )

    def _play(self) -> None:
        plan = self.plan
        for _, disturb in [each for each in self._disturbances if each[0] < 0]:
            disturb(self)
        for kind in ("aggregate", "ingest", "collect"):
            for name in self.named(kind):
                self.start_process(name)
        gateway = Gateway(self.fleet.config.kafka, self.fleet.gateway_topic, plan.partitions)
        began = time.monotonic()
        if plan.clock == "broker":
            began += plan.start + plan.clocks_behind_seconds - time.time()
        happenings = iter(self._happenings())
        due, waiting = next(happenings, None), [[] for _ in range(plan.hosts)]
        for arrived, host, raw in arrivals(plan):
            elapsed = min((arrived - plan.start) / plan.speed, plan.span_seconds)  # hours late need no hours here
            while (now := time.monotonic() - began) < elapsed or (due is not None and due[0] <= now):
                if due is not None and due[0] <= now:
                    due[1](self)
                    due = next(happenings, None)
                else:
                    time.sleep(max(0.0, min(0.02, elapsed - now)))
            waiting[host].append(raw)
            if len(waiting[host]) >= EVENTS_PER_MESSAGE:
                gateway.send(arrived - plan.gateway_behind_seconds, waiting[host])
                waiting[host].clear()
        for rest in waiting:
            if rest:
                gateway.send(arrived - plan.gateway_behind_seconds, rest)
        gateway.close()
        self.outcome.events = gateway.events
        while due is not None:  # the last ones fall while the end is caught up
            time.sleep(max(0.0, due[0] - (time.monotonic() - began)))
            due[1](self)
            due = next(happenings, None)

    def _happenings(self) -> list[Disturbance]:
        """Kills and disturbances in their order."""

        def killing(name: str) -> Callable[[CrashRun], None]:
            return lambda run: run._kill(name)

        kills: list[Disturbance] = [(at, killing(name)) for at, name in self._victims(self.plan.span_seconds)]
        given = [each for each in self._disturbances if each[0] >= 0]
        return sorted([*kills, *given], key=lambda each: each[0])

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

    def _kill(self, name: str) -> None:
        fleet = self.fleet
        kind = name.partition("-")[0]
        if kind in ("kafka", "influxd"):
            server = self.kafka if kind == "kafka" else self.influx
            server.kill()
            server.start(wait=False)
        else:
            if kind == "collect" and fleet.processes[name].poll() == 0:
                busy = [each for each, process in fleet.processes.items() if process.poll() is None]
                name = self._chance.choice([each for each in busy if not each.startswith("collect")] or busy)
                kind = name.partition("-")[0]
            assert fleet.processes[name].poll() is None, f"{name} had ended by itself:\n{fleet.said(name)[-3000:]}"
            fleet.kill(name)
            self.start_process(name)
        self.outcome.kills[kind] = self.outcome.kills.get(kind, 0) + 1

    def _finish(self) -> None:
        plan, fleet = self.plan, self.fleet
        for name in self.named("collect"):
            assert fleet.processes[name].wait(plan.patience_seconds) == 0, fleet.said(name)[-3000:]
        self.wait_for("ingest to read everything", lambda: fleet.ingest_lag() == 0)
        self.settle(self.settled())
        self._say(f"everything is final; {sum(self.outcome.kills.values())} kills")

    def settle(self, log_time: float) -> None:
        """Returns when everything before is final, and the marks up to that log time are carried out."""
        plan = self.plan
        if plan.clock == "records":
            self.fleet.tick_all(log_time)
        end = plan.start + plan.minutes * 60
        held = {partition_of(f"host-{number:02d}", self.fleet.partitions) for number in range(plan.hosts)}
        self.wait_for("everything to be final", lambda: _all_final(self.fleet, held, end, log_time))

    def settled(self) -> float:
        """A log time behind every horizon, and behind the mark that restates the last that came late."""
        plan = self.plan
        latest = max(4 * plan.horizon_seconds, plan.late_seconds[1] if plan.late_seconds else 0.0)
        end = time.time() if plan.clock == "broker" else plan.start + plan.minutes * 60 + latest
        return (end // plan.mark_seconds + 2) * plan.mark_seconds

    def wait_for(self, what: str, done: Callable[[], bool]) -> None:
        """Returns once it is so; AssertionError where the plan's patience ends before."""
        deadline = time.monotonic() + self.plan.patience_seconds
        while not done():
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            time.sleep(0.2)

    def _compare(self) -> None:
        fleet, recordings = self.fleet, self.recordings
        if self.plan not in self._books:
            self._books[self.plan] = undisturbed(self.folder / "undisturbed", recordings, self.plan, fleet.config)
        wanted = self.wanted = self._books[self.plan]
        found = fleet.books()
        outcome = self.outcome
        outcome.lines = len(wanted)
        outcome.missing = sorted(set(wanted) - set(found))
        outcome.surplus = sorted(set(found) - set(wanted))
        for name in ("missing", "surplus"):
            (self.folder / f"{name}.txt").write_text("\n".join(getattr(outcome, name)))
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
