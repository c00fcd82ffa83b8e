"""Plays a schedule and compares: what a storm left behind, and the account of one undisturbed member."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from accounting_model.content import Content, content_of
from accounting_model.partition import MemoryLog, Partition
from accounting_model.storm import CALM, Storm, Weather, weather_of
from accounting_model.tables import Tables
from monitor.core.points import BOOKS, HOLE, MEASUREMENTS, REQUEST_ENERGY, RESTATEMENT, TOO_LATE, FieldValue
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
    storm.play()
    return Verdict(seed, _differences(undisturbed(content), storm), storm.trace)


def undisturbed(content: Content) -> Storm:
    """One member that reads the whole log and nothing happens to it."""
    calm = Storm(content, Random(0), CALM)
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


def _differences(calm: Storm, storm: Storm) -> list[str]:
    expected, found = books_of(calm.tables), books_of(storm.tables)
    lines = [
        f"{key}: expected {expected.get(key, 'nothing')}, found {found.get(key, 'nothing')}"
        for key in sorted(expected.keys() | found.keys(), key=str)
        if expected.get(key) != found.get(key)
    ]
    letters = {letter: each.reason for letter, each in calm.partition.letters.items()}
    others = {letter: each.reason for letter, each in storm.partition.letters.items()}
    return lines + [f"letter {each}" for each in sorted(set(letters.items()) ^ set(others.items()))]
