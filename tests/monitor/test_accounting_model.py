"""The accounting under every misfortune: seeded schedules end in the books of the undisturbed account, to the byte.

More of them: WATTRIBUTE_SCHEDULES=20000, or `python -m accounting_model` in the folder `tests`, which tells a seed too.
"""

import os
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from accounting_model import mutants
from accounting_model.content import content_of
from accounting_model.kafka import MemoryKafka
from accounting_model.partition import MemoryLog, Partition
from accounting_model.plain import plain_arithmetic
from accounting_model.storm import Weather
from accounting_model.verdict import Verdict, entries_of, judge, undisturbed, window_sums
from structlog.testing import capture_logs

from monitor.log.protocol import PartitionLog

SCHEDULES = int(os.environ.get("WATTRIBUTE_SCHEDULES", "120"))
PIECES = 3
KILLS = Weather(kill=0.02)


@pytest.fixture
def _plainly() -> Iterator[None]:
    with plain_arithmetic(), capture_logs():
        yield


def first_failure(seeds: range, **rules: Any) -> Verdict | None:
    """The first of these seeds whose books come out wrong."""
    verdicts = (judge(seed, **rules) for seed in seeds)
    return next((verdict for verdict in verdicts if verdict.differences), None)


@pytest.mark.usefixtures("_plainly")
@pytest.mark.parametrize("log_of", [MemoryLog, MemoryKafka], ids=["log", "kafka"])
@pytest.mark.parametrize("piece", range(PIECES))
def test_no_misfortune_changes_the_books(piece: int, log_of: Callable[[Partition], PartitionLog]) -> None:
    """Kills, zombies, torn and lost commits; writes that fail, that only seem to, that land long after newer ones.

    Over a log of the model's own, and over the real KafkaPartition with feed and commits in memory.
    """
    failed = first_failure(range(piece, SCHEDULES, PIECES), log_of=log_of)
    assert failed is None, failed.told()


@pytest.mark.usefixtures("_plainly")
def test_an_entry_of_a_request_is_the_sum_of_its_windows() -> None:
    """Late, restated, longer than the horizon: the newest entry holds what the rows of its windows hold."""
    told = 0
    for seed in range(SCHEDULES):
        content = content_of(Random(seed))
        if content.terms.restate_seconds < 3_600.0:
            continue  # some windows are too old for their mark
        sums = window_sums(undisturbed(content).tables)
        newest = {
            (entry.host, entry.request_id, entry.start, entry.end): entry.energy_joules
            for entry in sorted(entries_of(undisturbed(content, whole_requests=True)), key=lambda each: each.revision)
            if len(entry.request_id) > 1  # ids of one letter are used again, and two requests may share a row
        }
        assert {key: energy or 0.0 for key, energy in newest.items()} == sums
        told += len(newest)
    assert told > SCHEDULES // 2


def test_it_holds_with_the_whole_arithmetic() -> None:
    """A few schedules with the virtual-energy integral instead of the plain account."""
    failed = first_failure(range(1_000, 1_000 + SCHEDULES // 12))
    assert failed is None, failed.told()


def test_a_seed_is_all_there_is_to_know() -> None:
    """The same seed gives the same story, so whatever fails can be played again."""
    assert judge(17).trace == judge(17).trace


@pytest.mark.usefixtures("_plainly")
def test_a_commit_may_begin_at_what_is_needed_when_it_says_the_log_time() -> None:
    """Positions behind leading ticks do as well, in the weather in which they fail without the log time."""
    failed = first_failure(range(60), log_of=mutants.BeginsAtWhatIsNeeded, weather=KILLS)
    assert failed is None, failed.told()


@pytest.mark.usefixtures("_plainly")
@pytest.mark.parametrize(
    ("rules", "weather"),
    [
        ({"ledger_of": mutants.CommitsBeforeStoring}, Weather(refuse=0.02, kill=0.02)),
        ({"ledger_of": mutants.ForgetsWhatToRestate}, KILLS),
        ({"ledger_of": mutants.LooksNoHorizonBack}, KILLS),
        ({"ledger_of": mutants.NeverLooksBack}, Weather(delay=0.1, freeze=0.05)),
        ({"log_of": mutants.CommitsNoLogTime}, KILLS),
        ({"log_of": mutants.ReadsOutOfStep}, Weather()),
    ],
    ids=lambda each: getattr(next(iter(each.values())), "__name__", "") if isinstance(each, dict) else "",
)
def test_wrong_rules_are_found_out(rules: dict[str, Any], weather: Weather) -> None:
    """Each of the rules that the books rest on, left out, fails some schedule."""
    assert first_failure(range(50, 2_000), weather=weather, **rules) is not None
