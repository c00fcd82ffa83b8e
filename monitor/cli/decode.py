"""`wattribute decode`: how the newest messages of a topic would be read, before or while ingest does it."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from collectors.clock import SystemClock, rfc3339
from collectors.errors import Rejected

if TYPE_CHECKING:
    from monitor.config.sections import Config
    from monitor.core.usage import Placed
    from monitor.roles.placement import Placer
    from monitor.roles.topic_events import SourceTopic


@click.command()
@click.option("--topic", required=True, help="The topic to look into.")
@click.option("--sample", type=click.IntRange(1, 10_000), default=10, show_default=True, help="So many of its newest.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--config", "config_file", type=click.Path(path_type=Path, dir_okay=False), help="The configuration.")
def decode(*, topic: str, sample: int, as_json: bool, config_file: Path | None) -> None:
    """Show how each of the newest messages of a Kafka topic would be read: the request and its hosts, or why not.

    Reads beside a running ingest, joins no group and commits nothing. A topic that no [[sources]] names is read as
    one of the native format would be. Bodies are not shown, they may hold prompts.

    Exit codes: 0 all would be used, 1 some would not, 2 wrong configuration, 3 Kafka cannot be read.
    """
    from monitor.cli.logging import configure
    from monitor.config.load import load_config
    from monitor.log.kafka_newest import newest_messages

    config = load_config(config_file, environ=os.environ)
    configure(config.logging.level, config.logging.format)
    if not config.kafka.bootstrap_servers:
        raise click.UsageError("[kafka] bootstrap_servers names no broker; say where the topic is")
    messages = newest_messages(config.kafka, topic, sample)
    readings = list(_readings(messages, _topic_of(config, topic), _placer(config)))
    for reading in readings:
        click.echo(json.dumps(reading) if as_json else "\n".join(_lines(reading)))
    refused = sum("refused" in reading for reading in readings)
    if not as_json:
        click.echo(f"{len(readings)} events in {len(messages)} messages: {refused} would not be used")
    if refused:
        raise click.exceptions.Exit(1)


def _topic_of(config: "Config", topic: str) -> "SourceTopic":
    from monitor.config.input_sections import Source
    from monitor.roles.ingest_kafka import source_topics
    from monitor.roles.topic_events import SourceTopic

    known = source_topics(config).get(topic)
    if known is None:
        click.echo(f"no [[sources]] names {topic}: read as the native format, namespace default", err=True)
        return SourceTopic(Source(name=topic, kind="kafka", topics=(topic,)), config)
    return known


def _placer(config: "Config") -> "Placer":
    """By the facts, as ingest would; by the configuration alone where there are none to read."""
    from monitor.log.kafka_facts import KafkaFacts
    from monitor.log.protocol import LogUnavailable
    from monitor.roles.control import FactsReader
    from monitor.roles.placement import FACTS_BEFORE_SECONDS, Placer, place_by_config

    facts = KafkaFacts(config.kafka)
    try:
        return Placer(FactsReader(facts, lambda: facts.snapshot(SystemClock().now() - FACTS_BEFORE_SECONDS))())
    except LogUnavailable as error:
        click.echo(f"placed by [[deployments]] alone, as there are no facts: {error}", err=True)
        return place_by_config(config, "")
    finally:
        facts.close()


def _readings(messages: Sequence[Any], topic: "SourceTopic", placer: "Placer") -> Iterator[dict[str, Any]]:
    from collectors.requests.decoders.registry import events_in

    for message in messages:
        place = {"position": f"{message.partition}/{message.offset}", "time": rfc3339(message.timestamp / 1_000)}
        if message.value is None:
            yield place | {"refused": "no_value", "detail": "a tombstone: key and no value"}
            continue
        for index, raw in enumerate(parts := events_in(message.value)):
            where = place if len(parts) == 1 else place | {"position": f"{place['position']}/{index}"}
            came_at = message.timestamp / 1_000
            try:
                event = topic.event(raw, came_at)
                hosts = [_host(usage) for usage in topic.usages(raw, placer, came_at)]
                yield where | {"event": msgspec.to_builtins(event), "hosts": hosts}
            except Rejected as rejected:
                yield where | {"refused": rejected.reason, "detail": rejected.detail}


def _host(usage: "Placed") -> dict[str, Any]:
    said = {"host": usage.host, "weight": usage.weight, "devices": usage.devices, "deployment": usage.deployment}
    if usage.phases is None:
        return said
    return said | {"phases": [name for name in ("prefill", "decode") if getattr(usage.phases, name) is not None]}


def _lines(reading: Mapping[str, Any]) -> list[str]:
    head = f"{reading['position']}  {reading['time']}"
    if "refused" in reading:
        return [f"{head}  refused: {reading['refused']}: {reading['detail']}"]
    event = reading["event"]
    tokens = f"{_or_unknown(event, 'input_tokens')} in, {_or_unknown(event, 'output_tokens')} out"
    seconds = event["end"] - event["start"]
    what = f"{event['model']}, team {event.get('team', 'unknown')}, {tokens}, {seconds:.3f} s"
    lines = [f"{head}  {event.get('namespace', 'default')}/{event['request_id']}: {what}"]
    for place in reading["hosts"]:
        devices = ", ".join(place["devices"]) if place["devices"] else "devices unknown"
        weight = "" if place["weight"] == 1.0 else f", weight {place['weight']:.4g}"
        deployment = f", deployment {place['deployment']}" if place["deployment"] else ""
        phases = f", {' and '.join(place['phases'])}" if "phases" in place else ""
        lines.append(f"    on {place['host']} ({devices}){weight}{deployment}{phases}")
    return lines


def _or_unknown(event: Mapping[str, Any], field: str) -> str:
    value = event.get(field)
    return "unknown" if value is None else str(value)
