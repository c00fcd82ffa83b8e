"""What windows teach of which only requests are known: by hand, apart from engines' lessons, and from the log on."""

from collections.abc import Sequence
from math import hypot
from pathlib import Path

import pytest
from msgspec.structs import replace
from taught import ENGINE, GPU, H100, PROFILE

from collectors.readings import ActivityReading, Device, EnergyReading, EngineReading
from collectors.units import SECONDS_PER_DAY
from monitor.core.account import account
from monitor.core.attribution.learning import FitSums, fitted, fitted_from_requests, sums_of, total
from monitor.core.attribution.priors import PRIOR
from monitor.core.attribution.work import Work
from monitor.core.lessons import Learned, Lesson, from_requests
from monitor.core.membership import Accounting
from monitor.core.points import REQUEST_ENERGY
from monitor.core.readings import Piece, Told
from monitor.core.teaching import lesson_asked, tell_work
from monitor.core.usage import Usage
from monitor.core.usage_columns import columns_of
from monitor.ledger.ledger import Ledger
from monitor.log.codec import ReadingBatch, readings_record, tick_record, usage_record
from monitor.log.protocol import Append
from monitor.log.sqlite import SqliteLog
from monitor.roles.control import FactsReader
from monitor.roles.teacher import Teacher
from monitor.store.sqlite import SqliteStore

T = SECONDS_PER_DAY * 20_000.0
PIECE = Piece(T, T + 10, 3_000.0, 0.0, 3_000.0, "counter", 1.0)
WORK = Work(1.6e14, 1.6e12)


def lesson(
    device: Device = GPU,
    pieces: Sequence[Piece] = (PIECE,),
    activities: Sequence[ActivityReading] = (),
    work: Work | None = WORK,
    untaken_joules: float = 0.0,
) -> FitSums | None:
    return lesson_asked(device, pieces, activities, lambda: work, untaken_joules=untaken_joules, length_seconds=10.0)


def test_a_window_worked_by_hand() -> None:
    """3 000 J less 100 W x 10 s; a tenth of these 2 000 J may have found no request."""
    assert lesson() == sums_of(WORK, 2_000.0)
    assert lesson(untaken_joules=200.0) == sums_of(WORK, 2_000.0)
    assert lesson(untaken_joules=201.0) is None


@pytest.mark.parametrize(
    ("device", "pieces"),
    [
        pytest.param(replace(GPU, idle_watts=None), (PIECE,), id="idle power unknown"),
        pytest.param(GPU, (replace(PIECE, end=T + 9),), id="not metered to the end"),
        pytest.param(GPU, (replace(PIECE, energy_joules=900.0),), id="below idle"),
    ],
)
def test_a_doubtful_board_teaches_nothing(device: Device, pieces: Sequence[Piece]) -> None:
    """Whoever tells its work."""
    assert lesson(device, pieces) is None
    capped = ActivityReading(device="g0", start=T, end=T + 10, consumer="", busy_seconds=0.0, state=("power_capped",))
    assert lesson(activities=(capped,)) is None


def test_work_that_is_not_told_or_cannot_be() -> None:
    """Nobody decoded; 1 PFLOP/s. Reads may be four times what the board can do: tokens of one step are told apart."""
    assert lesson(work=None) is None
    assert lesson(work=Work(1e14, 0.0)) is None
    assert lesson(work=Work(1e16, 1e12)) is None
    assert lesson(work=Work(1e14, 3.9 * 3.35e13)) is not None
    assert lesson(work=Work(1e14, 4.1 * 3.35e13)) is None


def test_requests_are_asked_where_no_engine_tells_all() -> None:
    """TGI tells no steps, Ollama nothing."""
    assert tell_work([replace(ENGINE, steps=None), ENGINE])
    assert not tell_work([replace(ENGINE, steps=None), replace(ENGINE, kv_tokens=None)])
    assert not tell_work([])


def window(at: float, *, tokens: int, made: int, flop: float = 0.8, byte: float = 1.1) -> tuple[EnergyReading, Usage]:
    """10 s of one request: a prompt in the first second, then `made` steps of 16e9 B, and what the board takes."""
    work = flop * PRIOR.joules_per_flop * (tokens + made) * 1.6e10 + byte * PRIOR.joules_per_byte * made * 16e9
    usage = Usage(
        host="h",
        namespace="",
        request_id=f"r{at:.0f}",
        model="m",
        team="t",
        start=at,
        scheduled=at,
        first_token=at + 1.0,
        end=at + 10.0,
        devices=("g0",),
        input_tokens=tokens,
        cached_input_tokens=0,
        output_tokens=made + 1,
    )
    return EnergyReading(device="g0", start=at, end=at + 10, energy_joules=1_000.0 + work, method="counter"), usage


def taught(engines: Sequence[EngineReading] = (), *, teach: bool = True) -> dict[str, FitSums]:
    """What the account of such a window teaches."""
    reading, usage = window(T, tokens=10_000, made=500)
    told = Told(reading, PROFILE)
    found = account(
        "h",
        T,
        T + 10,
        readings=[told],
        usages=columns_of([usage]),
        engines=engines,
        nearby=lambda _device, _start, _end: [],
        intensity_at=lambda _zone, _at: None,
        revision=0,
        teach=teach,
    )
    return dict(found.lessons)


def test_an_account_teaches_by_engines_or_else_by_requests() -> None:
    """10 500 tokens of 1.6e10 FLOP and 500 readings of 16e9 B; and only where it is asked what it teaches."""
    joules = 0.8 * 1.2e-12 * 1.68e14 + 1.1 * 0.18e-9 * 8e12
    (sums,) = taught().values()
    assert list(taught()) == [f"{H100} (from requests)"]
    assert sums.windows == 1
    assert (sums.flops_bytes, sums.joules_joules) == (pytest.approx(1.68e14 * 8e12), pytest.approx(joules**2))
    assert list(taught([replace(ENGINE, start=T, end=T + 10)])) == [H100]
    assert list(taught([replace(ENGINE, start=T, end=T + 10, kv_tokens=None)])) == [from_requests(H100)]
    assert taught(teach=False) == {}


KILOJOULE_OF_FLOPS, KILOJOULE_OF_BYTES = 1e3 / PRIOR.joules_per_flop, 1e3 / PRIOR.joules_per_byte


def sums(flop: float, byte: float, times: int) -> FitSums:
    """Windows of FLOPs alone and of bytes alone, that cost that times the priors."""
    one = [sums_of(Work(KILOJOULE_OF_FLOPS, 0.0), 1e3 * flop), sums_of(Work(0.0, KILOJOULE_OF_BYTES), 1e3 * byte)]
    return total(one * times)


def test_engines_lessons_win() -> None:
    """Where there are enough windows of them; else requests' lessons serve, and neither's sums enter the other's."""
    learned = Learned()

    def add(gpu: str, period: int, taught: FitSums) -> None:
        start = T + 600.0 * period
        learned.add(Lesson(gpu=gpu, partition="0/1", start=start, taught_at=start + 1_500.0, sums=taught), T, TERMS)

    add(from_requests(H100), 0, sums(0.8, 1.0, 100))
    add(H100, 1, sums(0.9, 1.0, 10))
    add(H100, 2, sums(0.9, 1.0, 10))
    assert learned.gpus == [H100]
    at_30, at_40, at_50 = (learned.fit(H100, T + 60.0 * minute) for minute in (30, 40, 50))
    assert [(fit.verdict, fit.from_requests, fit.windows) for fit in (at_30, at_40, at_50)] == [
        ("learned", True, 200),
        ("learned", True, 200),
        ("learned", False, 40),
    ]
    assert at_40.scalars.joules_per_flop / PRIOR.joules_per_flop == pytest.approx(0.8, rel=1e-2)
    assert learned.fit(H100, T).from_requests is False


TERMS = Accounting()


def test_speculative_decoding_makes_the_joules_of_a_byte_fewer() -> None:
    """Three tokens at one reading: a third of the prior is believed, of requests, not of counters; a fifth is not."""
    third = sums(1.0, 1 / 3, 100)
    assert fitted_from_requests(third).verdict == "learned"
    assert fitted(third).verdict == "implausible"
    assert fitted_from_requests(sums(1.0, 1 / 5, 100)).verdict == "implausible"
    assert fitted_from_requests(sums(1 / 3, 1.0, 100)).verdict == "implausible"
    assert fitted_from_requests(sums(1.0, 2.2, 100)).verdict == "implausible"


def test_a_byte_that_no_board_has_so_cheap_is_doubted() -> None:
    """A third of the prior is as the steps' tokens make it: J/byte by 25 % more, J/FLOP by 5.5 %. 0.6 is a board's."""
    third, board = sums(1.0, 1 / 3, 100_000), sums(1.0, 0.6, 100_000)
    alike = fitted(third).found.certainty
    doubted, known = (fitted_from_requests(each).scalars.certainty for each in (third, board))
    assert doubted.flop_error_ratio == pytest.approx(hypot(alike.flop_error_ratio, 0.055), rel=1e-9)
    assert doubted.byte_error_ratio == pytest.approx(hypot(alike.byte_error_ratio, 0.25), rel=1e-9)
    assert known == fitted(board).scalars.certainty


def test_what_is_left_unexplained_counts_twice() -> None:
    """Windows that cost 4 % more and 4 % less in turn: by counters 4 % unknown, by requests 8 %."""
    windows = [
        sums_of(Work(1e15 * (1 + number % 3), 1e12 * (1 + number % 5)), factor * joules)
        for number in range(3_000)
        for joules in [
            1e15 * (1 + number % 3) * PRIOR.joules_per_flop + 1e12 * (1 + number % 5) * PRIOR.joules_per_byte
        ]
        for factor in [1.04 if number % 2 else 0.96]
    ]
    by_counters, by_requests = fitted(total(windows)), fitted_from_requests(total(windows))
    assert by_requests.found.joules_per_flop == by_counters.found.joules_per_flop
    assert by_counters.scalars.certainty.flop_error_ratio == pytest.approx(0.04, rel=0.02)
    assert by_requests.scalars.certainty.flop_error_ratio == pytest.approx(0.08, rel=0.02)


def records() -> list[Append]:
    """50 minutes without a counter, prompts and answers in changing proportion."""
    made = []
    for number in range(300):
        at = T + 10.0 * number
        reading, usage = window(at, tokens=20_000 + 40_000 * (number % 5), made=300 + 100 * (number % 7))
        batch = ReadingBatch(profile=replace(PROFILE, host="h"), readings=(reading,))
        made += [readings_record(batch, at + 11), usage_record("h", [usage], at + 11)]
    return [*made, tick_record("h", T + 5_000, stream="readings"), tick_record("h", T + 5_000)]


def test_a_host_without_engine_counters_learns(tmp_path: Path) -> None:
    """From minute 30 on requests are priced by what those of the first ten minutes taught: 0.8 and 1.1, to 3 %."""
    log, store = SqliteLog(tmp_path / "log"), SqliteStore(tmp_path / "books")
    log.append(records(), 0.0)
    ledger = Ledger(log, store, TERMS, FactsReader(log), show_provisional=False, teach=Teacher(log, "0/1"))
    while ledger.step(500):
        pass
    fit = FactsReader(log)().learned.fit(H100, T + 2_700)
    assert (fit.verdict, fit.from_requests) == ("learned", True)
    assert fit.scalars.joules_per_flop / PRIOR.joules_per_flop == pytest.approx(0.8, rel=0.03)
    assert fit.scalars.joules_per_byte / PRIOR.joules_per_byte == pytest.approx(1.1, rel=0.03)
    (row,) = (row for row in store.read(REQUEST_ENERGY, T + 2_700, T + 2_710) if f"r{T + 2_700:.0f}" in row.tags)
    number = 270
    token = 1.6e10 * (fit.scalars.joules_per_flop + 100.0 / (989e12 * 0.45))
    own = (20_000 + 40_000 * (number % 5) + 300 + 100 * (number % 7) + 1) * token
    assert row.fields[REQUEST_ENERGY.fields.index("marginal_joules")] == pytest.approx(own, rel=1e-6)
