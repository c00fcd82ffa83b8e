"""Raw JSON topics to usage, on a real Kafka of its own: beside a bare poll + msgspec loop, and beside quixstreams.

    python -m bench ingest_kafka                     200 000 events
    EVENTS=10000000 python -m bench ingest_kafka     memory alone, over ten million

CPU seconds of the process are compared, as broker and client share the machine; wall time is told too. The bare loop is
what users of the client write, with its own way through batches, for a third of which ours goes (docs/decisions/0044).
Every event is of the common form and says its host; docs/scaling.md has what others cost. quixstreams (a 10 s tumbling
sum per model and team) runs in a virtual environment of its own in the cache folder, made on demand; where it cannot be
had it is named and left out.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import msgspec
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from collectors.clock import SystemClock
from collectors.requests.decoders.native_wire import WireEvent
from monitor.config.input_sections import Source
from monitor.config.output_sections import Kafka, KafkaTopics
from monitor.config.sections import Config
from monitor.log.kafka_writer import KafkaWriter
from monitor.roles.ingest_kafka import KafkaIngest

ROUNDS: Final = 3
MOST_COMPARED: Final = 1_000_000
PARTITIONS: Final = 8
TOPIC: Final = "llm.requests"
_QUIX: Final = """
import sys, time
from datetime import timedelta
from quixstreams import Application
broker, topic, events, group = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
app = Application(broker_address=broker, consumer_group=group, auto_offset_reset="earliest", loglevel="ERROR",
                  state_dir=sys.argv[5], commit_interval=5.0)
raw = app.topic(topic, value_deserializer="json", timestamp_extractor=lambda v, *_: int(v["end"] * 1e3))
frame = app.dataframe(raw)
frame = frame.group_by(lambda v: v["model"] + "|" + v["team"], name="key")
frame = frame.apply(lambda v: v["output_tokens"]).tumbling_window(timedelta(seconds=10)).sum().final()
began = time.process_time(); wall = time.perf_counter()
app.run(count=events, timeout=20.0)
print(time.process_time() - began, time.perf_counter() - wall)
"""


def run() -> list[str]:
    """The lines of the report."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from servers.kafka import KafkaServer
    from servers.server_process import MissingServer

    events = int(os.environ.get("EVENTS", "200000"))
    with tempfile.TemporaryDirectory() as folder:
        try:
            server = KafkaServer(Path(folder) / "kafka")
        except MissingServer as missing:
            return [f"left out: {missing}"]
        keeper = ThreadPoolExecutor(1)  # the server ends with the thread that started it
        keeper.submit(server.start).result()
        try:
            return _lines(server, events, Path(folder))
        finally:
            server.stop()
            keeper.shutdown()


def _lines(server: Any, events: int, folder: Path) -> list[str]:
    house = _house(server)
    _fill(server.bootstrap, events)
    if events > MOST_COMPARED:
        return [_rise_of_memory(house, events)]
    pairs = []
    for each in range(ROUNDS):
        bare = _cost(lambda: _bare(server.bootstrap, events))
        ours = _cost(lambda number=each: _ours(house, events, f"bench-{number}"))  # type: ignore[misc]
        pairs.append((bare, ours))
    (bare_cpu, bare_wall), (cpu, wall) = sorted(pairs, key=lambda pair: pair[0][0] / pair[1][0])[ROUNDS // 2]
    return [
        f"ingest: {events:,} events of 400 bytes, one a message: {cpu / events * 1e6:.1f} us of CPU an event, that is"
        f" {events / cpu:,.0f} events/s per core ({events / wall:,.0f}/s by the clock beside the broker)",
        f"bare poll of kafka-python + msgspec: {bare_cpu / events * 1e6:.1f} us, {events / bare_cpu:,.0f} events/s per"
        f" core ({events / bare_wall:,.0f}/s by the clock); ratio of CPU {bare_cpu / cpu:.2f} (goal >= 0.7)",
        f"memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB at the most, both loops in one"
        " process; whether it rises, EVENTS=10000000 tells",
        _quix_line(server.bootstrap, events, cpu, folder),
    ]


def _house(server: Any) -> Kafka:
    topics = KafkaTopics(partitions=PARTITIONS)
    for name, count in ((TOPIC, PARTITIONS), (topics.usage, PARTITIONS), (topics.facts, 1), (topics.dead_letters, 1)):
        server.create_topic(name, count)
    return Kafka(bootstrap_servers=(server.bootstrap,), topics=topics)


def _fill(bootstrap: str, events: int) -> None:
    producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=20, batch_size=2**16, compression_type="lz4")
    begin = time.time() - 60
    for number in range(events):
        producer.send(TOPIC, _event(number, begin), partition=number % PARTITIONS)
        if number % 50_000 == 0:
            producer.flush()
    producer.flush()
    producer.close()


def _event(number: int, begin: float) -> bytes:
    start = begin + number / 10_000
    return msgspec.json.encode(
        {
            "schema": "wattribute.request.v1",
            "request_id": f"req-{number:032x}",
            "model": f"llama2-{number % 3}",
            "team": f"team-{number % 20}",
            "host": f"gpu-{number % 8:02d}",
            "start": start,
            "first_token": start + 0.3,
            "end": start + 2.0,
            "input_tokens": 100 + number % 1000,
            "output_tokens": 50 + number % 200,
            "labels": {"env": "prod", "app": "chat"},
            "status": "ok",
            "conversation_id": f"c-{number // 10:032x}",
            "trace_id": f"{number:032x}",
        }
    )


def _cost(work: Callable[[], object]) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def _bare(bootstrap: str, events: int) -> None:
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", max_poll_records=5_000)
    consumer.assign([TopicPartition(TOPIC, number) for number in range(PARTITIONS)])
    decoder, seen = msgspec.json.Decoder(WireEvent), 0
    while seen < events:
        for messages in consumer.poll(500).values():
            for message in messages:
                decoder.decode(message.value)
            seen += len(messages)
    consumer.close()


def _ours(house: Kafka, events: int, group: str, each: Callable[[int], None] = lambda _taken: None) -> None:
    source = Source(name="bench", kind="kafka", topics=(TOPIC,))
    config = Config(kafka=msgspec.structs.replace(house, group=group), sources=(source,))
    writer = KafkaWriter(house)
    ingest = KafkaIngest(config, writer, clock=SystemClock())
    while ingest.counts.accepted["bench"] < events:
        ingest.step()
        each(ingest.counts.accepted["bench"])
    ingest.close()
    writer.close()


def _rise_of_memory(house: Kafka, events: int) -> str:
    """Resident memory after a tenth of the events and at their end."""
    seen: list[int] = []

    def look(taken: int) -> None:
        if taken >= events / 10:
            seen.append(_resident_bytes())

    _ours(house, events, "bench-memory", look)
    half = seen[len(seen) // 2]
    return (
        f"memory: {seen[0] / 2**20:.0f} MiB after a tenth of {events:,} events, {half / 2**20:.0f} at half,"
        f" {seen[-1] / 2**20:.0f} at the end ({(seen[-1] / half - 1) * 100:+.1f} % over the second half)"
    )


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _quix_line(bootstrap: str, events: int, ours_cpu: float, folder: Path) -> str:
    python = _quix_python()
    if python is None:
        return "quixstreams: left out, it cannot be installed here"
    command = [python, "-c", _QUIX, bootstrap, TOPIC, str(events), "bench-quix", str(folder / "quix")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1_800)
    if done.returncode:
        return f"quixstreams: failed: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'no word'}"
    cpu, wall = map(float, done.stdout.split())
    return (
        f"quixstreams, 10 s tumbling sum per model and team: {cpu / events * 1e6:.1f} us of CPU an event"
        f" ({events / wall:,.0f}/s by the clock); ingest takes {cpu / ours_cpu:.1f} times less (goal >= 3)"
    )


def _quix_python() -> Path | None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wattribute" / "quixstreams"
    python = cache / "bin" / "python"
    if not python.exists():
        venv.create(cache, with_pip=True)
    known = subprocess.run([python, "-c", "import quixstreams"], capture_output=True, check=False)
    if known.returncode:
        subprocess.run([python, "-m", "pip", "install", "-q", "quixstreams"], capture_output=True, check=False)
        known = subprocess.run([python, "-c", "import quixstreams"], capture_output=True, check=False)
    return None if known.returncode else python
