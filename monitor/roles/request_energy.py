"""Where the energy of whole requests goes in a fleet: to a topic, for whoever joins it to a request log, and a bucket.

Ledger --> RequestEnergySink --> wattribute.request-energy
                            \\--> store, BUCKET_requests
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, islice
from operator import attrgetter
from typing import Final

import msgspec

from monitor.config.sections import Config
from monitor.core.request_energy import RequestEnergy, request_row
from monitor.log.kafka_writer import KafkaWriter
from monitor.store.protocol import Store

REQUEST_ENERGY_SCHEMA: Final = "request-energy.v1"
MOST_ENTRIES: Final = 500
MOST_BYTES: Final = 512 * 2**10
"""Of one record, well below what a topic takes."""


class RequestEnergySink:
    """Takes entries of one partition; returns once they are stored. Raises LogUnavailable, StoreUnavailable."""

    def __init__(self, config: Config, writer: KafkaWriter, store: Store) -> None:
        self._topic = config.kafka.topics.request_energy if config.kafka.request_energy else None
        self._writer = writer
        self._store = store if keeps_requests(config) else None

    def __call__(self, entries: Sequence[RequestEnergy]) -> None:
        """In the order in which they became final."""
        if self._store is not None:
            self._store.write([request_row(entry) for entry in entries])
        if self._topic is not None:
            for host, last_end, body in batches(entries):
                self._writer.send_to(self._topic, host, REQUEST_ENERGY_SCHEMA, body, last_end)
            self._writer.flush(entries[-1].end)


def keeps_requests(config: Config) -> bool:
    """Whether the store has a place for single requests."""
    return config.store.kind != "influxdb" or config.influxdb.requests


def wants_requests(config: Config) -> bool:
    """Whether anybody asks for the energy of single requests."""
    return config.kafka.request_energy or keeps_requests(config)


def batches(entries: Iterable[RequestEnergy]) -> Iterator[tuple[str, float, bytes]]:
    """(host, the latest end, a JSON array) of entries that follow each other on one host."""
    encode = msgspec.json.Encoder().encode
    for host, its in groupby(entries, key=attrgetter("host")):
        while some := list(islice(its, MOST_ENTRIES)):
            text = encode(some)  # at once, which costs half of one by one
            if len(text) <= MOST_BYTES:
                yield host, max(entry.end for entry in some), text
            else:
                yield from _smaller(host, some, encode)


def _smaller(
    host: str, entries: Iterable[RequestEnergy], encode: Callable[[RequestEnergy], bytes]
) -> Iterator[tuple[str, float, bytes]]:
    """As many in each as there may be."""
    texts: list[bytes] = []
    size, last_end = 0, 0.0
    for entry in entries:
        text = encode(entry)
        if texts and size + len(text) > MOST_BYTES:
            yield host, last_end, b"[%s]" % b",".join(texts)
            texts, size, last_end = [], 0, 0.0
        texts.append(text)
        size += len(text) + 1
        last_end = max(last_end, entry.end)
    yield host, last_end, b"[%s]" % b",".join(texts)
