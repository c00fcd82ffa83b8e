"""Plays recordings into a data folder, and restates a data folder at rest.

recordings --> ReplayRole --> log --> AggregateRole --> store        (all on the recordings' own clock)

For `--fit whole` all of this is done twice: the first time in a folder of its own, for its lessons alone.
"""

import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from collectors.pace import Pace
from collectors.recording import Recording
from collectors.replay import Step
from collectors.units import UnixSeconds
from monitor.config.sections import Config
from monitor.core.attribution.methods import DEFAULT_METHOD
from monitor.core.lessons import Lesson, UnitLesson
from monitor.core.window import window_at, window_start
from monitor.ledger.ledger import Progress
from monitor.log.codec import Decoder, lesson_record, tick_record
from monitor.roles.aggregate import AggregateRole
from monitor.roles.control import FactsReader, accounting_of, agree_on_terms, refuse_unknown_method, state_intensities
from monitor.roles.embedded import Embedded
from monitor.roles.orders import carry_out_orders
from monitor.roles.replay import ReplayRole, with_model_facts

STEPS_AT_ONCE = 300


class ReplayRun(msgspec.Struct, frozen=True):
    """How a replay went. `finished` is False where it was told to stop before its end."""

    start: UnixSeconds
    end: UnixSeconds
    finished: bool
    progress: Progress
    zones_without_factor: list[str]

    def span(self, window_seconds: float) -> tuple[UnixSeconds, UnixSeconds]:
        """All windows that the replay touched, the one in which its last request ended included."""
        first, last = window_at(self.start, window_seconds), window_at(self.end, window_seconds)
        return window_start(first, window_seconds), window_start(last + 1, window_seconds)


def replay_into(
    house: Embedded,
    recordings: Sequence[Recording],
    *,
    speed: float = math.inf,
    on_progress: Callable[[float], None] = lambda _done: None,
    should_stop: Callable[[], bool] = lambda: False,
    method: str = DEFAULT_METHOD,
    taught: Sequence[Lesson | UnitLesson] = (),
) -> ReplayRun:
    """Plays recordings into the house, `speed` times as fast as they were made (infinity: as fast as it goes).

    `method` is how new books split energy; `taught` are lessons to be known from the start. A replay that stopped
    before goes on where its log ends. `on_progress` is told the part done, 0 to 1.
    """
    wanted = msgspec.structs.replace(accounting_of(house.config), method=method)
    told = [with_model_facts(recording, house.config) for recording in recordings]
    role = ReplayRole(house.log, told, wanted, trust_team=house.config.requests.trust_team)
    terms = agree_on_terms(FactsReader(house.log), house.log, wanted, role.before_start)
    zones = [recording.profile.zone for recording in recordings]
    unknown = state_intensities(house.log, zones, role.before_start)
    house.log.append([lesson_record(each, role.before_start) for each in taught], role.before_start)
    role.refuse_bad_input()
    paced = math.isfinite(speed)
    aggregate = AggregateRole(house.log, house.store, terms, show_provisional=paced)
    pace = Pace(speed)
    waiting: list[Step] = []
    span = max(role.replay.end - role.replay.start, 1.0)
    finished = True
    aggregate.drain()
    for step in role.steps():
        if should_stop():
            finished = False
            break
        waiting.append(step)
        if paced or len(waiting) >= STEPS_AT_ONCE:
            pace.wait_for(min(step.now, role.replay.end))
            _hand_on(house, role, aggregate, waiting)
            on_progress(min(1.0, (step.now - role.replay.start) / span))
    _hand_on(house, role, aggregate, waiting)
    return ReplayRun(role.replay.start, role.replay.end, finished, aggregate.progress, unknown)


def lessons_of(
    config: Config, recordings: Sequence[Recording], *, on_progress: Callable[[float], None] = lambda _done: None
) -> list[Lesson | UnitLesson]:
    """Everything that these recordings teach: played once into a folder that is thrown away.

    What a window teaches does not depend on what was known before, so books that begin with these lessons teach the
    same ones again, and of each key the first counts.
    """
    apart = msgspec.structs.replace(config, store=msgspec.structs.replace(config.store, kind="sqlite"))
    with tempfile.TemporaryDirectory(prefix="wattribute-fit-") as folder, Embedded(Path(folder), apart) as house:
        replay_into(house, recordings, on_progress=on_progress)
        decoder = Decoder()
        facts = [decoder.decode(record) for record in house.log.facts()]
        return [each for each in facts if isinstance(each, Lesson | UnitLesson)]


def _hand_on(house: Embedded, role: ReplayRole, aggregate: AggregateRole, waiting: list[Step]) -> None:
    if waiting:
        carry_out_orders(house.folder, house.log, waiting[0].now)
        role.append(waiting)
        waiting.clear()
        aggregate.drain()


def restate_now(house: Embedded, now: UnixSeconds) -> UnixSeconds | None:
    """Carries out waiting orders on a house whose log stands still; the mark, or None where it lies ahead of now."""
    log_time = house.log.log_time()
    if log_time is None:
        return None
    terms = FactsReader(house.log)().accounting() or agree_on_terms(
        FactsReader(house.log), house.log, accounting_of(house.config), log_time
    )
    refuse_unknown_method(terms)
    carry_out_orders(house.folder, house.log, log_time)
    mark = terms.mark_after(log_time)
    if mark > now:
        return None
    house.log.append([tick_record("", stamp=mark)], mark)
    AggregateRole(house.log, house.store, terms, show_provisional=False).drain()
    return mark
