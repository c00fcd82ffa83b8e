"""Plays a schedule and compares: what a storm left behind, and the account of one undisturbed member."""

from collections.abc import Callable
from dataclasses import dataclass
from math import fsum
from random import Random

import msgspec

from accounting_model.content import Content, content_of
from accounting_model.partition import MemoryLog, Partition
from accounting_model.storm import CALM, Storm, Weather, weather_of
from accounting_model.tables import Tables
from monitor.core.points import BOOKS, HOLE, MEASUREMENTS, REQUEST_ENERGY, RESTATEMENT, TOO_LATE, FieldValue
from monitor.core.request_energy import RequestEnergy
from monitor.ledger.ledger import Ledger
from monitor.log.protocol import PartitionLog

FINAL = tuple(measurement.name for measurement in (*BOOKS, REQUEST_ENERGY, RESTATEMENT, TOO_LATE, HOLE))
Books = dict[tuple[object, ...], tuple[FieldValue, ...]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The differences of a seed's schedule, one a line; none where the books are those of the undisturbed account."""

    seed: int
    differences: list[str]
    trace: list[str]

    def told(self) -> str:
        """The whole story, for whoever has to find out."""
        lines = [f"seed {self.seed}: {len(self.differences)} differences", *self.differences[:20]]
        return "\n".join([*lines, "what happened:", *self.trace])


def judge(
    seed: int,
    *,
    ledger_of: Callable[..., Ledger] = Ledger,
    log_of: Callable[[Partition], PartitionLog] = MemoryLog,
    weather: Weather | None = None,
) -> Verdict:
    """The schedule of this seed, by the given rules in the storm and by the Ledger's own in calm."""
    random = Random(seed)
    content = content_of(random)
    storm = Storm(content, random, weather or weather_of(random), ledger_of, log_of)
    storm.show_provisional = seed % 16 == 0
    storm.whole_requests = seed % 2 == 0
    storm.play()
    calm = undisturbed(content, whole_requests=storm.whole_requests)
    return Verdict(seed, _differences(calm, storm), storm.trace)


def undisturbed(content: Content, *, whole_requests: bool = False) -> Storm:
    """One member that reads the whole log and nothing happens to it."""
    calm = Storm(content, Random(0), CALM)
    calm.whole_requests = whole_requests
    calm.settle()
    return calm


def books_of(tables: Tables) -> Books:
    """All final rows and roll-ups by identity, revision aside."""
    found: Books = {("rolled up", *each): () for each in tables.rolled_up}
    for (name, resolution), table in tables.rows.items():
        if name in FINAL:
            assert MEASUREMENTS[name].facts[-1] == "revision"
            found.update(
                ((name, resolution, time, tags), row.fields[:-1])
                for time, rows in table.items()
                for tags, row in rows.items()
            )
    return found


def entries_of(storm: Storm) -> list[RequestEnergy]:
    """What was said of whole requests."""
    return [msgspec.json.decode(each, type=RequestEnergy) for each in sorted(storm.entries)]


def window_sums(tables: Tables) -> dict[tuple[str, str, float, float], float]:
    """The joules of each request, over the rows of its windows: by host, id, start and end."""
    id_at, start_at, end_at = (
        REQUEST_ENERGY.tags.index("request_id"),
        REQUEST_ENERGY.fields.index("start"),
        REQUEST_ENERGY.fields.index("end"),
    )
    found: dict[tuple[str, str, float, float], list[float]] = {}
    for rows in tables.rows.get((REQUEST_ENERGY.name, "window"), {}).values():
        for tags, row in rows.items():
            start, end, joules = (float(row.fields[place] or 0.0) for place in (start_at, end_at, 0))
            if len(tags[id_at]) > 1:
                found.setdefault((tags[0], tags[id_at], start, end), []).append(joules)
    return {key: fsum(joules) for key, joules in found.items()}


def _differences(calm: Storm, storm: Storm) -> list[str]:
    expected, found = books_of(calm.tables), books_of(storm.tables)
    lines = [
        f"{key}: expected {expected.get(key, 'nothing')}, found {found.get(key, 'nothing')}"
        for key in sorted(expected.keys() | found.keys(), key=str)
        if expected.get(key) != found.get(key)
    ]
    lines += [f"entry {each.decode()}" for each in sorted(calm.entries ^ storm.entries)]
    letters = {letter: each.reason for letter, each in calm.partition.letters.items()}
    others = {letter: each.reason for letter, each in storm.partition.letters.items()}
    return lines + [f"letter {each}" for each in sorted(set(letters.items()) ^ set(others.items()))]
