"""How many experts the tokens of a step read: lessons of other ways, and when one of them is believed."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.structs import replace
from taught import GPU, H100

from collectors.readings import EnergyReading, EngineReading, HostProfile, ModelFacts
from monitor.cli.coefficients import coefficients
from monitor.cli.explain import priced_by
from monitor.core.attribution.learning import FitSums, fitted, sums_of, total
from monitor.core.attribution.models import token_cost
from monitor.core.attribution.priors import PRIOR, Scalars
from monitor.core.attribution.work import Work
from monitor.core.lessons import MOST_ROUTINGS, MOST_TYPES, PERIOD_SECONDS, Learned, Learning, Lesson, from_requests
from monitor.core.membership import Accounting
from monitor.core.routing import EXPONENTS, Place, proven, routed, saved, type_of
from monitor.ledger.ledger import Ledger
from monitor.log.codec import Decoder, ReadingBatch, lesson_record, readings_record, tick_record
from monitor.log.protocol import LogRecord
from monitor.log.sqlite import SqliteLog
from monitor.roles.control import FactsReader
from monitor.roles.embedded import LOG_FILE
from monitor.roles.teacher import Teacher
from monitor.store.sqlite import SqliteStore

T = 86_400.0 * 20_000.0
MODEL = ModelFacts(
    name="m", parameters=50e9, active_parameters=5e9, bytes_per_parameter=2.0, kv_bytes_per_token=0.0, devices=("g0",)
)
FLOP, BYTE = 0.9, 1.2  # of the priors, what this board truly takes
SUMS = sums_of(Work(1e15, 1e13), 2_000.0)


def seen(window: int) -> EngineReading:
    """Ten seconds: 100 to 220 steps of 10 to 760 tokens each."""
    steps = 100.0 + 20.0 * (window % 7)
    return EngineReading(
        server="vllm-8000",
        model="m",
        devices=("g0",),
        start=T + 10.0 * window,
        end=T + 10.0 * window + 10.0,
        steps=steps,
        prefill_tokens=steps * 250.0 * (window % 4),
        decode_tokens=10.0 * steps,
        kv_tokens=0.0,
    )


def work_of(told: EngineReading, exponent: float) -> Work:
    """By hand: every token 1e10 FLOP, every step the experts of its tokens."""
    assert told.prefill_tokens is not None
    assert told.decode_tokens is not None
    assert told.steps is not None
    tokens = told.prefill_tokens + told.decode_tokens
    chosen = (tokens / told.steps) ** exponent
    return Work(tokens * 1e10, told.steps * 100e9 * (1.0 - 0.9**chosen))


def joules_of(told: EngineReading, exponent: float) -> float:
    """Above idle, of a board where n tokens read the experts of n^exponent."""
    work = work_of(told, exponent)
    return FLOP * PRIOR.joules_per_flop * work.flops + BYTE * PRIOR.joules_per_byte * work.bytes


def lessons_where(exponent: float, periods: int) -> tuple[dict[Place, FitSums], dict[float, dict[Place, FitSums]]]:
    """Those of a board of that exponent, 60 windows each: as if choices were independent, and what the others save."""
    base: dict[Place, FitSums] = {}
    ways: dict[float, dict[Place, FitSums]] = {each: {} for each in EXPONENTS}
    for period in range(periods):
        place = T + PERIOD_SECONDS * period, "0/1"
        windows = [(told, joules_of(told, exponent)) for told in map(seen, range(60 * period, 60 * period + 60))]
        base[place] = total(sums_of(work_of(told, 1.0), joules) for told, joules in windows)
        for each, held in ways.items():
            less = total(sums_of(work_of(told, each), joules) for told, joules in windows)
            held[place] = saved(base[place], less)
    return base, ways


def found(exponent: float, periods: int) -> Scalars:
    """What is believed."""
    base, ways = lessons_where(exponent, periods)
    return proven(fitted(total(base.values())), base, ways, fitted).scalars


def test_four_tokens_chosen_alike_read_what_two_do() -> None:
    """50e9 parameters, 5e9 active, two bytes: of four tokens 100 GB x (1 - 0.9^2) = 19 GB where the exponent is 0.5."""
    assert token_cost("m", MODEL, 0.5).step_bytes(4.0) == pytest.approx(19e9)
    assert token_cost("m", MODEL).step_bytes(4.0) == pytest.approx(100e9 * (1 - 0.9**4))
    assert token_cost("house-8b", None, 0.5) == token_cost("house-8b", None)


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_the_way_that_foretells_is_found_with_its_scalars(exponent: float) -> None:
    """Windows of a board that reads so: J/byte comes out to 3 %, which by independent choices it does not.

    FLOPs are a fifth of the joules: the prior, a tenth above the board, still pulls J/FLOP by 6 %.
    """
    scalars = found(exponent, 4)
    assert scalars.routing_exponent == exponent
    assert scalars.joules_per_flop / PRIOR.joules_per_flop == pytest.approx(FLOP, rel=0.065)
    assert scalars.joules_per_byte / PRIOR.joules_per_byte == pytest.approx(BYTE, rel=0.03)
    base, _ = lessons_where(exponent, 4)
    by_independent = fitted(total(base.values())).found
    assert by_independent.joules_per_byte / PRIOR.joules_per_byte != pytest.approx(BYTE, rel=0.05)


def test_independent_choices_stay_where_they_foretell() -> None:
    """Nothing is better than what is true."""
    assert found(1.0, 4).routing_exponent == 1.0


def test_two_lessons_are_no_proof() -> None:
    """What was fitted to one is tried on the other alone: an hour's quarter is not enough."""
    assert found(0.6, 2).routing_exponent == 1.0
    assert found(0.6, 3).routing_exponent == 0.6


def test_a_little_better_is_no_proof() -> None:
    """A way that takes nothing off foretells as well as independent choices do, which stay."""
    base, _ = lessons_where(1.0, 6)
    nothing = {0.6: {place: FitSums(windows=60) for place in base}}
    assert proven(fitted(total(base.values())), base, nothing, fitted).scalars.routing_exponent == 1.0


@pytest.mark.parametrize("name", [H100, from_requests(H100)])
def test_lessons_of_ways_are_kept_beside_the_types(name: str) -> None:
    """Under a name of their own, in force with those of the type; nobody takes them for another GPU type."""
    base, ways = lessons_where(0.6, 3)
    learned = Learned()
    for of, held in ((name, base), *((routed(name, exponent), held) for exponent, held in ways.items())):
        for (start, partition), sums in held.items():
            lesson = Lesson(gpu=of, partition=partition, start=start, taught_at=start + 1_500, sums=sums)
            stored = lesson_record(lesson)
            record = LogRecord(
                stream="facts", offset=1, stamp=T, key=stored.key, schema=stored.schema, body=stored.body
            )
            decoded = Decoder().decode(record)
            assert decoded == lesson
            learned.add(lesson, start + 1_500, Accounting())
    assert learned.gpus == [H100]
    assert type_of(routed(name, 0.6)) == name
    assert learned.scalars(H100, T + 2_400).routing_exponent == 1.0  # two of the three are in force
    assert learned.scalars(H100, T + 3_000).routing_exponent == 0.6
    assert learned.fit(H100, T + 3_000).from_requests == (name != H100)


def test_commands_name_the_way(tmp_path: Path) -> None:
    """Beside the figures that hold with it."""
    base, ways = lessons_where(0.6, 3)
    log = SqliteLog(tmp_path / LOG_FILE)
    for of, held in ((H100, base), *((routed(H100, exponent), held) for exponent, held in ways.items())):
        for (start, partition), sums in held.items():
            lesson = Lesson(gpu=of, partition=partition, start=start, taught_at=start + 1_500, sums=sums)
            log.append([lesson_record(lesson)], start + 1_500)
    log.close()
    asked = ["--data", str(tmp_path), "--at", str(T + 3_600)]
    shown = CliRunner().invoke(coefficients, asked, catch_exceptions=False).stdout.splitlines()
    assert shown[2].startswith(f"{H100}  learned, experts n^0.6  ")
    assert shown[3] == ""  # ways are no GPU types
    found = json.loads(CliRunner().invoke(coefficients, [*asked, "--json"], catch_exceptions=False).stdout)
    assert found[H100]["routing_exponent"] == 0.6
    assert priced_by(replace(PRIOR, routing_exponent=0.6)) == (
        "1.200 pJ/FLOP and 0.1800 nJ/byte (n tokens read the experts of n^0.6)"
    )
    assert priced_by(PRIOR) == "1.200 pJ/FLOP and 0.1800 nJ/byte"


def test_ways_take_no_room_of_gpu_types() -> None:
    """Of more than one type the first one's ways are learned; all types are. A commit carries both."""
    learning = Learning(float("-inf"), {})
    types = {f"gpu {each}": SUMS for each in range(MOST_TYPES)}
    learning.add(T, types | {routed(gpu, each): SUMS for gpu in types for each in EXPONENTS})
    assert set(types) < set(learning.open)
    assert len(learning.open) == MOST_TYPES + MOST_ROUTINGS
    again = Learning(T + 10, learning.open)
    assert again.open == learning.open
    assert len(again.over(T + 600, T + 1_500)) == MOST_TYPES + MOST_ROUTINGS
    assert again.open == {}


def test_windows_teach_ways_of_mixtures_alone(tmp_path: Path) -> None:
    """An engine of a mixture of experts for 50 minutes, on a board of exponent 0.6: found, and by whoever reads."""
    profile = HostProfile(host="h", devices=(GPU,), models=(MODEL,))
    log, store = SqliteLog(tmp_path / "log"), SqliteStore(tmp_path / "books")
    for window in range(300):
        told = seen(window)
        energy = 1_000.0 + joules_of(told, 0.6)
        reading = EnergyReading(device="g0", start=told.start, end=told.end, energy_joules=energy, method="counter")
        log.append(
            [readings_record(ReadingBatch(profile=profile, readings=(reading,), engines=(told,)), told.end + 1)], 0.0
        )
    log.append([tick_record("h", T + 5_000, stream=stream) for stream in ("readings", "usage")], 0.0)
    facts = FactsReader(log)
    ledger = Ledger(log, store, Accounting(), facts, show_provisional=False, teach=Teacher(log, "0/1"))
    while ledger.step(50):
        pass
    decoded = [Decoder().decode(record) for record in log.facts()]
    assert {each.gpu for each in decoded if isinstance(each, Lesson)} == {H100, *(routed(H100, x) for x in EXPONENTS)}
    scalars = FactsReader(log)().scalars(H100, T + 3_000)
    assert scalars.routing_exponent == 0.6
    assert scalars.joules_per_byte / PRIOR.joules_per_byte == pytest.approx(BYTE, rel=0.03)
    assert replace(scalars, routing_exponent=1.0) != FactsReader(log)().scalars(H100, T + 2_400)
