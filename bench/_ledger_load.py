"""A log in memory and a store of nothing, for benches of the ledger: records made beforehand, rows counted."""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np

from collectors.readings import Device, EnergyReading, HostProfile, ModelFacts
from monitor.core.points import Measurement, Row
from monitor.core.usage import Usage
from monitor.log.codec import ReadingBatch, readings_record, tick_record, usage_record
from monitor.log.protocol import Append, Commit, DeadLetter, Hole, LogRecord
from monitor.store.protocol import Resolution

START = 1_764_000_000.0


class ListLog:
    """A PartitionLog over a list of records in the order of log time."""

    def __init__(self, records: Iterable[Append]) -> None:
        self._records = [
            LogRecord(
                stream=each.stream,
                offset=offset,
                stamp=each.stamp or 0.0,
                key=each.key,
                schema=each.schema,
                body=each.body,
            )
            for offset, each in enumerate(records)
        ]
        self._stamps = [record.stamp for record in self._records]
        self._commit: Commit | None = None

    def read(self, positions: Mapping[str, int], limit: int) -> list[LogRecord]:
        """The next ones; both streams are read to the same place."""
        begin = max(positions.values(), default=0)
        return self._records[begin : begin + limit]

    def caught_up(self) -> bool:
        """Never: no provisional rows."""
        return False

    def again(self) -> "ListLog":
        """Itself: it has no positions of its own."""
        return self

    def log_time(self) -> float | None:
        """The newest stamp."""
        return self._stamps[-1] if self._stamps else None

    def position_at(self, stream: str, log_time: float) -> int:
        """The first record that stands then or later."""
        return bisect_left(self._stamps, log_time)

    def start(self) -> tuple[float, bool] | None:
        """Whole."""
        return (self._stamps[0], False) if self._stamps else None

    def hole(self) -> Hole | None:
        """None."""
        return None

    def commit(self, commit: Commit) -> None:
        """Kept as long as this lives."""
        self._commit = commit

    def committed(self) -> Commit | None:
        """The newest."""
        return self._commit

    def reject(self, letters: Sequence[DeadLetter]) -> None:
        """There are none in these records."""
        raise AssertionError(letters[0])

    def close(self) -> None:
        """Nothing to let go of."""


class NullStore:
    """A Store that counts rows and keeps none."""

    def __init__(self) -> None:
        self.rows = 0

    def write(self, rows: Sequence[Row], *, resolution: Resolution = "window") -> None:
        """Counts them."""
        self.rows += len(rows)

    def replace_provisional(self, host: str, window_start: float, rows: Sequence[Row]) -> None:
        """Counts them."""
        self.rows += len(rows)

    def read(self, measurement: Measurement, start: float, end: float, **_: object) -> list[Row]:
        """Nothing."""
        return []

    def stream(self, measurement: Measurement, start: float, end: float, **_: object) -> Iterator[Row]:
        """Nothing."""
        yield from ()

    def hosts(self, measurement: Measurement, start: float, end: float) -> frozenset[str]:
        """None."""
        return frozenset()

    def span(self, measurement: Measurement, *, resolution: Resolution = "window") -> tuple[float, float] | None:
        """None."""
        return None

    def last_times(self, measurement: Measurement, tag: str) -> dict[str, float]:
        """None."""
        return {}

    def rolled_up(self, start: float, end: float, resolution: Resolution) -> dict[float, frozenset[str]]:
        """None."""
        return {}

    def mark_rolled_up(self, starts: Iterable[float], resolution: Resolution, hosts: Collection[str]) -> None:
        """Forgotten."""

    def trim(self, now: float) -> int:
        """Nothing."""
        return 0

    def close(self) -> None:
        """Nothing to let go of."""


def host_records(
    name: str, *, gpus: int, requests_per_second: float, seconds: int, batch: int, seed: int = 1, start: float = START
) -> Iterator[Append]:
    """One host's log: a batch of 1 Hz readings every 10 s, usages in records of `batch`, or what 10 s bring.

    Requests of another seed are others.
    """
    profile = _profile(name, gpus)
    usages = _usages(name, gpus, requests_per_second, seconds, seed=seed, start=start)
    per_tick = max(1, min(batch, round(10 * requests_per_second)))
    for first in range(0, len(usages), per_tick):
        some = usages[first : first + per_tick]
        yield usage_record(name, some, max(usage.end for usage in some) + 0.5)
    for second in range(0, seconds, 10):
        begin = start + second
        readings = tuple(
            EnergyReading(
                device=device.id, start=begin + each, end=begin + each + 1.0, energy_joules=400.0, method="counter"
            )
            for each in range(10)
            for device in profile.devices
        )
        yield readings_record(ReadingBatch(profile=profile, readings=readings), begin + 10.5)


def fleet_records(
    hosts: int, *, gpus: int, requests_per_second: float, seconds: int, batch: int, seed: int = 0, start: float = START
) -> list[Append]:
    """`host_records` of so many hosts, one after the other, with seeds of their own from `seed` on."""
    return [
        record
        for number in range(hosts)
        for record in host_records(
            f"h{number}",
            gpus=gpus,
            requests_per_second=requests_per_second,
            seconds=seconds,
            batch=batch,
            seed=seed + number,
            start=start,
        )
    ]


def in_log_time(records: Iterable[Append], end: float) -> list[Append]:
    """In the order of the log, and a tick at the end that makes all final."""
    return [*sorted(records, key=lambda record: record.stamp or 0.0), tick_record("", end)]


def _profile(name: str, gpus: int) -> HostProfile:
    devices = tuple(Device(id=f"gpu{each}", kind="gpu", hardware="NVIDIA H100 80GB HBM3") for each in range(gpus))
    models = (ModelFacts(name="llama-3.1-8b", parameters=8.03e9, kv_bytes_per_token=131_072.0),)
    return HostProfile(host=name, zone="FR", pue=1.2, devices=devices, models=models)


def _usages(name: str, gpus: int, rate: float, seconds: int, *, seed: int, start: float) -> list[Usage]:
    """In the order of their ends; each on one GPU for 0.5 to 8 s."""
    random = np.random.default_rng(seed)
    count = round(rate * seconds)
    ends = np.sort(random.uniform(start + 10.0, start + seconds, count))
    lengths = random.uniform(0.5, 8.0, count)
    return [
        Usage(
            host=name,
            namespace="default",
            request_id=f"{name}-{number:08d}-{seed:04x}-9f0e",
            model="llama-3.1-8b",
            team=f"team-{number % 5}",
            deployment="chat",
            devices=(f"gpu{number % gpus}",),
            start=end - length,
            scheduled=end - length,
            first_token=end - length * 0.9,
            end=end,
            input_tokens=500 + number % 700,
            cached_input_tokens=0,
            output_tokens=100 + number % 300,
            labels={"use_case": "chat"},
        )
        for number, (end, length) in enumerate(zip(ends.tolist(), lengths.tolist(), strict=True))
    ]
