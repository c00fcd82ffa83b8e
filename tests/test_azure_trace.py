"""Token totals through the fleet: Azure's 2023 code trace as request events at 60x, shuffled, doubled and under kills.

The trace is public (Azure/AzurePublicDataset, CC-BY-4.0) and lies beside the repository, never in it; a generated twin
of the same columns always runs. It has start times alone, so an end is modelled: this is about counting, not energy.
"""

import csv
import json
import math
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from fleet import Fleet, Gateway
from servers.influxd import InfluxServer
from servers.kafka import KafkaServer

from monitor.core.points import USAGE
from monitor.roles.aggregate_group import partition_of
from monitor.store.open import open_store

TRACE = Path(__file__).parents[2] / "shared/data/azure-llm-2023/AzureLLMInferenceTrace_code.csv"
SPEED = 60.0
HOSTS = ("azure-a", "azure-b", "azure-c")
PATIENCE_SECONDS = 240.0
HORIZON_SECONDS = MARK_SECONDS = 120.0


class Request(NamedTuple):
    """One line of the trace."""

    start: float
    input_tokens: int
    output_tokens: int


def real() -> list[Request]:
    """All 8 819 of them."""
    if not TRACE.exists():
        pytest.skip("the Azure trace is not at ../shared/data of the repository: only its generated twin is tested")
    with TRACE.open() as file:
        return [
            Request(_seconds(line["TIMESTAMP"]), int(line["ContextTokens"]), int(line["GeneratedTokens"]))
            for line in csv.DictReader(file)
        ]


def twin() -> list[Request]:
    """Ten minutes of the same kind: bursts, inputs up to 7 437 tokens, answers of a few."""
    chance = random.Random(20_231_116)
    start, found = 1_700_158_623.98, []
    while len(found) < 1_500:
        start += chance.choice((0.0, 0.02, 0.1, 1.2))
        found.append(Request(round(start, 6), chance.randrange(3, 7_438), chance.randrange(1, 60)))
    return found


def _seconds(text: str) -> float:
    """Seven digits of a second, no zone: UTC."""
    whole, _, fraction = text.partition(".")
    moment = datetime.strptime(whole, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC) + timedelta(
        seconds=float(f"0.{fraction}")
    )
    return moment.timestamp()


def events_of(requests: Sequence[Request], chance: random.Random) -> list[tuple[float, bytes]]:
    """(arrival, event): a tenth comes twice, and each up to half a minute out of order."""
    found = []
    for number, request in enumerate(requests):
        end = request.start + 0.2 + request.output_tokens / 40.0
        event = {
            "request_id": f"azure-{number}",
            "model": "code-model",
            "team": f"team-{number % 7}",
            "host": HOSTS[number % len(HOSTS)],
            "start": round(request.start, 6),
            "end": round(end, 6),
            "input_tokens": request.input_tokens,
            "output_tokens": request.output_tokens,
        }
        times = 2 if chance.random() < 0.1 else 1
        found += [(end + chance.uniform(0.0, 30.0), json.dumps(event).encode()) for _ in range(times)]
    return sorted(found)


@pytest.mark.parametrize("trace", [real, twin], ids=["azure", "generated twin"])
def test_no_token_is_lost_or_counted_twice(
    trace: Callable[[], list[Request]], kafka: KafkaServer, influxd: InfluxServer, tmp_path: Path
) -> None:
    """What the trace says is what the books say: of the real one 18 059 974 tokens in and 245 896 out."""
    requests = trace()
    chance = random.Random(7)
    fleet = Fleet(
        folder=tmp_path,
        bootstrap=kafka.bootstrap,
        influx_url=influxd.url,
        influx_org=influxd.settings("any").org,
        influx_token_file=influxd.token_file,
        horizon=f"{HORIZON_SECONDS:g}s",
        mark_interval=f"{MARK_SECONDS:g}s",
        session="6s",
    )
    kafka.create_topic(fleet.gateway_topic, fleet.partitions, message_timestamp_type="CreateTime", retention_ms=-1)
    fleet.make_places()
    try:
        _play(fleet, events_of(requests, chance), chance)
        end = max(request.start for request in requests) + 300.0
        settled = (end // MARK_SECONDS + 3) * MARK_SECONDS
        _wait_for(lambda: fleet.ingest_lag() == 0)
        fleet.tick_all(settled)
        _wait_for(lambda: all_final(fleet, settled))
        totals = _totals(fleet)
    finally:
        fleet.stop()
    assert totals == (
        len(requests),
        sum(request.input_tokens for request in requests),
        sum(request.output_tokens for request in requests),
    )
    if trace is real:
        assert totals == (8_819, 18_059_974, 245_896)


def _play(fleet: Fleet, events: Sequence[tuple[float, bytes]], chance: random.Random) -> None:
    """At 60x, with a kill of one ingest or aggregator every eighth of the way."""
    for number in range(2):
        fleet.start(f"aggregate-{number}", "aggregate")
        fleet.start(f"ingest-{number}", "ingest")
    gateway = Gateway(fleet.config.kafka, fleet.gateway_topic, fleet.partitions)
    began, first = time.monotonic(), events[0][0]
    for number, (arrived, event) in enumerate(events):
        time.sleep(max(0.0, began + (arrived - first) / SPEED - time.monotonic()))
        gateway.send(arrived, [event], partition=chance.randrange(fleet.partitions))
        if number % (len(events) // 8) == len(events) // 16:
            role = chance.choice(("ingest", "aggregate"))
            name = f"{role}-{chance.randrange(2)}"
            fleet.kill(name)
            fleet.start(name, role)
    gateway.close()


def all_final(fleet: Fleet, mark: float) -> bool:
    """Whether every mark up to that one is carried out wherever one of the hosts is."""
    claims = fleet.claims()
    held = {partition_of(host, fleet.partitions) for host in HOSTS}
    return claims.keys() >= held and all((claims[number].mark or 0.0) >= mark for number in held)


def _totals(fleet: Fleet) -> tuple[float, float, float]:
    store = open_store(fleet.config, fleet.folder / "none")
    try:
        rows = store.read(USAGE, float("-inf"), float("inf"))
    finally:
        store.close()
    places = [USAGE.fields.index(name) for name in ("requests", "input_tokens", "output_tokens")]
    requests, given, made = (math.fsum(float(row.fields[place] or 0.0) for row in rows) for place in places)
    return requests, given, made


def _wait_for(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.5)
