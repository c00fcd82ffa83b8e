"""Lessons: what windows teach, when it is in force, and the same for whoever computes and whatever was killed."""

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from taught import BYTE, FLOP, GPU, H100, PROFILE, taught_for_50_minutes
from taught import ENGINE as TEN_SECONDS

from collectors.errors import Rejected
from collectors.readings import ActivityReading, Device, EngineReading
from collectors.recording import load_recording
from collectors.simulate.presets import PRESETS
from collectors.simulate.simulate import simulate
from collectors.units import SECONDS_PER_DAY
from monitor.config.sections import Config
from monitor.core.attribution.learning import FitSums, sums_of
from monitor.core.attribution.methods import DEFAULT_METHOD, WHOLE_FIT
from monitor.core.attribution.priors import PRIOR
from monitor.core.attribution.work import Work
from monitor.core.facts import Facts
from monitor.core.lessons import MOST_TYPES, PERIOD_SECONDS, Learned, Learning, Lesson
from monitor.core.membership import Accounting
from monitor.core.points import REQUEST_ENERGY, Row
from monitor.core.readings import Piece
from monitor.core.teaching import lesson_in
from monitor.ledger.ledger import Ledger
from monitor.log.codec import Decoder, lesson_record, tick_record
from monitor.log.protocol import Append, LogRecord
from monitor.log.sqlite import SqliteLog
from monitor.roles.control import FactsReader
from monitor.roles.embedded import Embedded
from monitor.roles.teacher import Teacher
from monitor.service import lessons_of, replay_into
from monitor.store.sqlite import SqliteStore

T = SECONDS_PER_DAY * 20_000.0
"""Midnight."""
ENGINE = replace(TEN_SECONDS, start=T, end=T + 10)
PIECE = Piece(T, T + 10, 3_000.0, 0.0, 3_000.0, "counter", 1.0)
BUSY = ActivityReading(device="g0", start=T, end=T + 10, consumer="other", busy_seconds=1.0)


def lesson(
    device: Device = GPU,
    pieces: Sequence[Piece] = (PIECE,),
    engines: Sequence[EngineReading] = (ENGINE,),
    activities: Sequence[ActivityReading] = (),
) -> FitSums | None:
    """What the window [T, T + 10) teaches."""
    return lesson_in(device, pieces, engines, activities, profile=PROFILE, interval=(T, T + 10))


def test_a_window_worked_by_hand() -> None:
    """3 000 J less 100 W x 10 s; 10 000 tokens x 1.6e10 FLOP; 100 steps x 16e9 B."""
    assert lesson() == sums_of(Work(1.6e14, 1.6e12), 2_000.0)


@pytest.mark.parametrize(
    ("device", "pieces", "activities"),
    [
        pytest.param(replace(GPU, idle_watts=None), (PIECE,), (), id="idle power unknown"),
        pytest.param(replace(GPU, idle_source="table"), (PIECE,), (), id="idle power from a table"),
        pytest.param(replace(GPU, hardware=""), (PIECE,), (), id="a board without a name"),
        pytest.param(GPU, (replace(PIECE, end=T + 9),), (), id="not metered to the end"),
        pytest.param(GPU, (replace(PIECE, method="recovered"),), (), id="out of a hole"),
        pytest.param(GPU, (replace(PIECE, energy_joules=900.0),), (), id="below idle"),
        pytest.param(GPU, (PIECE,), (BUSY,), id="another process"),
        pytest.param(GPU, (PIECE,), (replace(BUSY, consumer="", state=("power_capped",)),), id="capped"),
    ],
)
def test_doubtful_windows_teach_nothing(
    device: Device, pieces: Sequence[Piece], activities: Sequence[ActivityReading]
) -> None:
    """None, which is not a window of zeros."""
    assert lesson(device, pieces, activities=activities) is None


@pytest.mark.parametrize(
    "engine",
    [
        pytest.param(replace(ENGINE, prefill_tokens=1e6), id="1.6 PFLOP/s, an H100 does 0.989"),
        pytest.param(replace(ENGINE, steps=2_500.0), id="4 TB/s, an H100 reads 3.35"),
        pytest.param(replace(ENGINE, model="x-" + "9" * 160 + "b"), id="a size that is none"),
    ],
)
def test_more_work_than_the_board_can_do_teaches_nothing(engine: EngineReading) -> None:
    """A counter gone wrong, or a model's size: one such window would outweigh a day of others."""
    assert lesson(engines=(engine,)) is None


def test_more_power_than_the_board_can_draw_teaches_nothing() -> None:
    """An H100 draws 700 W; of a board that is not in the table a bound above all that are sold holds."""
    above = replace(PIECE, energy_joules=8_500.0)
    assert lesson(pieces=(above,)) is None
    assert lesson(replace(GPU, hardware="a new one"), pieces=(above,)) is not None


def test_a_neighbour_that_tells_nothing_is_a_doubt() -> None:
    """The board's joules are of both; on another board it is none, which the account sees to."""
    silent = EngineReading(server="ollama", model="", devices=("g0",), start=T - 5, end=T + 5)
    assert lesson(engines=(ENGINE, silent)) is None


def test_another_boards_state_and_model_servers_are_no_doubt() -> None:
    """Who is busy there matters here no more than that servers are busy here."""
    elsewhere = replace(BUSY, device="g1", state=("power_capped",))
    assert lesson(activities=(elsewhere, replace(BUSY, consumer="server:vllm-8000"))) == lesson()


SUMS = sums_of(Work(1e15, 1e12), 2_000.0)


def taught(period: int, sums: FitSums, partition: str = "0/1", gpu: str = H100) -> Lesson:
    """Of the period that begins so many minutes after midnight."""
    start = T + 60.0 * period
    return Lesson(gpu=gpu, partition=partition, start=start, taught_at=start + 1_500.0, sums=sums)


def test_from_midnight_to_ten_past_serves_from_half_past_on() -> None:
    """Final at 0:25, in force from 0:30 on for a day; what stands there at 0:35 only, from 0:40 on."""
    learned = Learned()
    learned.add(taught(0, SUMS, "0/2"), T + 25 * 60, Accounting())
    learned.add(taught(0, SUMS, "1/2"), T + 35 * 60, Accounting())
    windows = [
        learned.fit(H100, T + 60.0 * minute).windows for minute in (0, 29.9, 30, 39.9, 40, 24 * 60, 24 * 60 + 10)
    ]
    assert windows == [0, 0, 1, 1, 2, 2, 0]
    assert learned.fit("another", T + 3600.0).windows == 0
    assert learned.gpus == [H100]


def test_a_logs_only_reader_knew_it_when_it_was_taught() -> None:
    """However much stood in the log behind that already, as after a pause or in a replay."""
    learned = Learned()
    learned.add(taught(0, SUMS), T + 5 * 3_600, Accounting())
    assert [learned.fit(H100, T + 60.0 * minute).windows for minute in (29, 30)] == [0, 1]
    learned.add(replace(taught(10, SUMS), taught_at=T + 61 * 60), T + 5 * 3_600, Accounting())
    assert [learned.fit(H100, T + 60.0 * minute).windows for minute in (69, 70)] == [1, 2]


def test_the_first_lesson_of_a_key_counts() -> None:
    """A second one of the same period, partition and board changes nothing."""
    learned = Learned()
    learned.add(taught(0, SUMS), T, Accounting())
    learned.add(taught(0, SUMS.plus(SUMS)), T, Accounting())
    assert learned.fit(H100, T + 3600.0).windows == 1


def test_lessons_that_nobody_can_need_any_more_are_forgotten() -> None:
    """Ten days of them: those of the last day are in force, those of the first are gone, as windows of it are."""
    learned = Learned()
    for period in range(10 * 144):
        start = T + PERIOD_SECONDS * period
        learned.add(replace(taught(0, SUMS), start=start), start + 1_500.0, Accounting())
    assert learned.fit(H100, T + 10 * SECONDS_PER_DAY).windows == 144 - 2
    assert learned.fit(H100, T + 8 * SECONDS_PER_DAY).windows == 144 - 2
    assert learned.fit(H100, T + SECONDS_PER_DAY / 2).windows < 72


def test_a_period_is_taught_when_it_is_over_and_once() -> None:
    """Windows of two periods; a commit in between carries what the open one has."""
    learning = Learning(float("-inf"), {})
    learning.add(T + 580, {H100: SUMS, "L4": SUMS})
    assert learning.over(T + 590, T + 1_490) == []
    again = Learning(T + 590, learning.open)
    again.add(T + 590, {H100: SUMS})
    again.add(T + 600, {"L4": SUMS})
    assert again.over(T + 610, T + 1_500) == [taught(0, SUMS, "", "L4"), taught(0, SUMS.plus(SUMS), "")]
    assert again.over(T + 610, T + 1_510) == []
    assert again.open == {"L4": SUMS}


def test_a_partition_learns_of_so_many_types_at_a_time() -> None:
    """Its sums stand in its commits, which are small: what was begun goes on, more are not begun."""
    learning = Learning(float("-inf"), {})
    learning.add(T, {f"gpu {each}": SUMS for each in range(MOST_TYPES)})
    learning.add(T + 10, {"another": SUMS, "gpu 0": SUMS})
    assert len(learning.open) == MOST_TYPES
    assert learning.open["gpu 0"].windows == 2


def test_a_lesson_comes_back_from_the_log_as_it_was() -> None:
    """To the last bit."""
    record = lesson_record(taught(10, SUMS))
    assert Decoder().decode(_stored(record)) == taught(10, SUMS)
    assert (record.stream, record.key) == ("facts", f"{H100}/0/1/{T + 600:.0f}")


@pytest.mark.parametrize(
    "bad",
    [
        replace(taught(0, SUMS), start=T + 1.0),
        replace(taught(0, SUMS), gpu=""),
        replace(taught(0, SUMS), taught_at=float("nan")),
        taught(0, replace(SUMS, flops_joules=float("nan"))),
        taught(0, replace(SUMS, bytes_bytes=-1.0)),
        taught(0, replace(SUMS, windows=-1)),
    ],
)
def test_a_lesson_that_cannot_be_is_refused(bad: Lesson) -> None:
    """With its reason, like any record."""
    with pytest.raises(Rejected, match="lesson"):
        Decoder().decode(_stored(lesson_record(bad)))


def _stored(record: Append) -> LogRecord:
    return LogRecord(stream="facts", offset=1, stamp=T, key=record.key, schema=record.schema, body=record.body)


RECORDS = taught_for_50_minutes(T)


def _books(folder: Path, lives: Sequence[int]) -> tuple[list[Row], list[LogRecord]]:
    """The request's rows and the facts, by ledgers that follow a growing log, each forgotten after so many records."""
    log, store = SqliteLog(folder / "log"), SqliteStore(folder / "books")
    ends = set(accumulate(lives))
    ledger = None
    for number, record in enumerate([*RECORDS, tick_record("h", T + 5_000)]):
        log.append([record], 0.0)
        if ledger is None or number in ends:
            facts, teach = FactsReader(log), Teacher(log, "0/1")
            ledger = Ledger(log, store, Accounting(), facts, show_provisional=False, teach=teach)
        while ledger.step(7):
            pass
    return store.read(REQUEST_ENERGY, float("-inf"), float("inf")), log.facts()


def test_a_request_is_priced_by_what_was_learned_before_it(tmp_path: Path) -> None:
    """At minute 45 the lessons of 20 minutes and more are in force: marginals are 0.8 of the priors', to 3 %."""
    rows, records = _books(tmp_path, [])
    facts = FactsReader(SqliteLog(tmp_path / "log", read_only=True))()
    fit = facts.learned.fit(H100, T + 2_700)
    assert fit.verdict == "learned"
    assert fit.found.joules_per_flop / PRIOR.joules_per_flop == pytest.approx(FLOP, rel=0.05)
    assert fit.found.joules_per_byte / PRIOR.joules_per_byte == pytest.approx(BYTE, rel=0.05)
    token = 1.6e10 * (fit.found.joules_per_flop + 100.0 / (989e12 * 0.45))
    marginal = [row.fields[REQUEST_ENERGY.fields.index("marginal_joules")] for row in rows]
    assert marginal == [pytest.approx(2_000 * token, rel=1e-9), 0.0]  # it ends with the window, and touches the next
    starts = [Decoder().decode(record) for record in records]
    assert [each.start - T for each in starts if isinstance(each, Lesson)] == [PERIOD_SECONDS * n for n in range(5)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Row], list[LogRecord]]:
    """By one ledger."""
    return _books(tmp_path_factory.mktemp("undisturbed"), [])


@given(st.lists(st.integers(1, 90), min_size=1, max_size=12))
@settings(deadline=None, max_examples=8)
def test_kills_change_neither_lessons_nor_rows(
    tmp_path_factory: pytest.TempPathFactory, undisturbed: tuple[list[Row], list[LogRecord]], lives: list[int]
) -> None:
    """A reader forgotten anywhere: the next one goes on from its commit, and all facts and rows are the same."""
    rows, facts = _books(tmp_path_factory.mktemp("killed"), lives)
    assert rows == undisturbed[0]

    def lessons(records: Sequence[LogRecord]) -> list[object]:
        return list(dict.fromkeys(record.body for record in records))

    assert lessons(facts) == lessons(undisturbed[1])


def test_facts_without_lessons_give_the_priors() -> None:
    """Nothing was learned of a board: the priors hold."""
    assert Facts([]).scalars(H100, T) == PRIOR


def test_books_by_the_whole_recording_know_every_lesson_from_the_start() -> None:
    """Of 40 days, a day's worth of which a window would know: all of them, whatever the window."""
    whole, causal = (
        Facts(
            [
                (T, Accounting(method=method)),
                *((T + 900, replace(taught(0, SUMS), start=T + 600.0 * period)) for period in range(0, 40 * 144, 10)),
            ]
        )
        for method in (WHOLE_FIT, DEFAULT_METHOD)
    )
    assert whole.learned.fit(H100, whole.learned_as_of(T)).windows == 4 * 144
    assert causal.learned.fit(H100, causal.learned_as_of(T)).windows == 0
    assert whole.scalars(H100, T) == whole.scalars(H100, T + 30 * SECONDS_PER_DAY)


def test_fitted_on_the_whole_recording_first(tmp_path: Path) -> None:
    """Played with what all of it teaches, a request of its first minute is priced as one of its last."""
    folder = tmp_path / "recording"
    simulate(PRESETS["heavy"](32.0), 2, folder, permutations=2)
    (recording,) = [load_recording(folder)]
    taught_by_it = lessons_of(Config(), [recording])
    scalars = []
    for method, lessons in ((WHOLE_FIT, taught_by_it), (DEFAULT_METHOD, [])):
        with Embedded(tmp_path / method, Config()) as house:
            run = replay_into(house, [recording], method=method, taught=lessons)
            facts = FactsReader(house.log)()
            gpu = recording.profile.devices[0].hardware
            scalars.append([facts.scalars(gpu, at) for at in (run.start, run.end)])
            told = [Decoder().decode(record) for record in house.log.facts()]
            if lessons:
                assert [each for each in told if isinstance(each, Lesson)][: len(lessons)] == lessons
    (first, last), (before, after) = scalars
    assert first == last != PRIOR
    assert before == PRIOR != after
