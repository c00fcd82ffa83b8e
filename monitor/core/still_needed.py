"""Which facts are still needed by whoever computes from a moment on. Pure. In: facts with log times. Out: which stay.

The rules mirror those by which facts are in force (facts.py, lessons.py, serving.py): where one of them changes, the
law in tests/monitor/test_snapshots.py breaks.
"""

from collections.abc import Sequence

from collectors.units import UnixSeconds
from monitor.core.emissions.factors import Intensity
from monitor.core.facts import Fact
from monitor.core.lessons import IN_FORCE_AFTER_SECONDS, MEMORY_SECONDS, Lesson, UnitLesson, period_of
from monitor.core.membership import Accounting
from monitor.core.serving import Deployment, HostServers


def still_needed(facts: Sequence[tuple[UnixSeconds, Fact | None]], since: UnixSeconds) -> list[int]:
    """The places of those without which a question about `since` or later would be answered otherwise.

    In: (log time, fact) in the order of the log, None for what another version may know, which stays. A zone's yearly
    mixes of log times 0, 100 and 200 are two at 170: the second is in force from 160 on, the third stands behind it.
    """
    kept: set[int] = set()
    first: dict[tuple[str, str], int] = {}
    in_force: dict[tuple[str, str], int] = {}
    for place, (log_time, fact) in enumerate(facts):
        match fact:
            case Lesson() | UnitLesson():
                if fact.start >= period_of(since) - MEMORY_SECONDS:
                    kept.add(place)
                continue
            case Accounting():
                first.setdefault(("accounting", ""), place)
                continue
            case Intensity():
                key = "intensity", fact.zone
            case HostServers():
                key = "servers", fact.host
            case Deployment():
                key = "deployment", fact.name
                first.setdefault(key, place)  # of two deployments of a model the one that was stated first counts
            case _:
                kept.add(place)
                continue
        if log_time + IN_FORCE_AFTER_SECONDS <= since:
            in_force[key] = place
        else:
            kept.add(place)
    return sorted({*kept, *first.values(), *in_force.values()})
