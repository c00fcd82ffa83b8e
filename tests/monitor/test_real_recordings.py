"""Measured runs played through the whole house by its command, held against what their energy counters said.

Every figure is printed (`pytest -s`) and recorded as a property of its test. The runs of the public set are skipped
where it is absent; the generated ones, of the same shape, always run.
"""

import math
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from generated_recordings import SHAPES, Shape, generated_source
from real_recordings import (
    ABSENT,
    Run,
    Source,
    aligned,
    before_first_request,
    measured_sources,
    read_run,
    sampled_each_second,
    write_recording,
)
from replayed import Replayed, measured_in_requests, median_request_error, replay, total_error
from truth import counter_joules, excess_joules, joules_between, series_by_device, trapezoid_joules

FALCON, LLAMA_13B, LLAMA_70B = measured_sources()
ONE_GPU, BROKEN_ROWS, FOUR_GPUS = SHAPES
Origin = Source | Shape
Note = Callable[[str, object], None]


def run_from(origin: Origin, folder: Path) -> Run:
    """A run of the public set, if it is there, or a generated one."""
    if isinstance(origin, Shape):
        return read_run(generated_source(origin, folder / origin.name))
    if not origin.folder.is_dir():
        pytest.skip(ABSENT)
    return read_run(origin)


def origin_name(origin: Origin) -> str:
    """Names the test's parameter."""
    return origin.name


@pytest.fixture
def note(record_property: Callable[[str, object], None], request: pytest.FixtureRequest) -> Note:
    """Record a figure with the test, and print it."""

    def write(name: str, value: object) -> None:
        record_property(name, value)
        sys.stdout.write(f"{request.node.name}: {name} = {value}\n")

    return write


@pytest.fixture(scope="module", params=(FALCON, LLAMA_13B, LLAMA_70B, ONE_GPU, BROKEN_ROWS, FOUR_GPUS), ids=origin_name)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Each run, measured and generated."""
    return run_from(request.param, tmp_path_factory.mktemp("logs"))


@pytest.fixture(scope="module")
def as_recorded(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Replayed:
    """Replayed at the recorded rate, about 10 Hz."""
    return replay(write_recording(tmp_path_factory.mktemp("as") / "recorded", [run]), [run])


@pytest.fixture(scope="module")
def each_second(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Replayed:
    """Replayed as a 1 Hz meter would have seen it."""
    slow = sampled_each_second(run)
    return replay(write_recording(tmp_path_factory.mktemp("each") / "second", [slow]), [slow])


@pytest.fixture(scope="module")
def as_counter(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Replayed:
    """Replayed from an energy counter instead of a power."""
    return replay(write_recording(tmp_path_factory.mktemp("as") / "counter", [run], meter="counter"), [run])


@pytest.fixture(scope="module")
def before_requests(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Replayed:
    """Replayed up to just before the first request."""
    cut = before_first_request(run)
    return replay(write_recording(tmp_path_factory.mktemp("before") / "requests", [cut]), [cut])


@pytest.fixture(
    scope="module",
    params=((LLAMA_13B, FALCON), (BROKEN_ROWS, ONE_GPU)),
    ids=lambda pair: "+".join(map(origin_name, pair)),
)
def interleaved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Replayed:
    """Two runs as two models of one host, a GPU each, the second moved to begin 20 s after the first."""
    logs = tmp_path_factory.mktemp("logs")
    first, second = (run_from(origin, logs) for origin in request.param)
    runs = (first, aligned(second, first, after_seconds=20.0))
    return replay(write_recording(tmp_path_factory.mktemp("inter") / "leaved", runs), runs)


def assert_books_close(replayed: Replayed, device_joules: Iterable[float], note: Note) -> None:
    """measured = attributed + idle + unattributed = the file's own energy, in every window and in sum, to 1e-9."""
    books = replayed.books
    accounts = math.fsum(books[f"{account}_joules"] for account in ("attributed", "idle", "unattributed"))
    note("measured_joules", books["measured_joules"])
    note("worst_imbalance", books["worst_imbalance"])
    assert books["windows"] > 0
    assert 0.0 <= books["worst_imbalance"] <= 1e-9
    assert books["measured_joules"] == pytest.approx(math.fsum(device_joules), rel=1e-9)
    assert accounts == pytest.approx(books["measured_joules"], rel=1e-9)
    reasons = math.fsum(books["unattributed_reasons"].values())
    assert reasons == pytest.approx(books["unattributed_joules"], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("variant", ["as_recorded", "each_second", "before_requests"])
def test_books_close_over_a_power_log(variant: str, run: Run, request: pytest.FixtureRequest, note: Note) -> None:
    """The measured energy is one trapezoid over the whole file, and the accounts add up to it."""
    replayed: Replayed = request.getfixturevalue(variant)
    assert replayed.runs[0].source == run.source
    assert_books_close(replayed, trapezoid_joules(replayed.folder / "readings.csv").values(), note)


def test_books_close_over_a_counter_log(as_counter: Replayed, note: Note) -> None:
    """The measured energy is each counter's last value less its first, and the accounts add up to it."""
    assert_books_close(as_counter, counter_joules(as_counter.folder / "readings.csv").values(), note)


def test_model_total_at_the_recorded_rate(as_recorded: Replayed, run: Run, note: Note) -> None:
    """The model's energy is within 1 % of the independent energy counter."""
    error = total_error(as_recorded, run)
    note("total_error_10_hz", error)
    assert abs(error) <= 0.01


def test_model_total_sampled_each_second(each_second: Replayed, run: Run, note: Note) -> None:
    """At one sample per second the model's energy is within 2.5 % of the independent energy counter."""
    error = total_error(each_second, run)
    note("total_error_1_hz", error)
    note("median_request_error_1_hz", median_request_error(each_second, run))
    assert abs(error) <= 0.025


def test_model_total_from_a_counter(as_counter: Replayed, run: Run, note: Note) -> None:
    """Read as a counter the same run gives the same total, within 1 % of the independent one."""
    error = total_error(as_counter, run)
    note("total_error_counter", error)
    assert abs(error) <= 0.01


def test_median_request_at_the_recorded_rate(as_recorded: Replayed, run: Run, note: Note) -> None:
    """Half of the requests are within 5 % of what the energy counter said of each."""
    error = median_request_error(as_recorded, run)
    note("median_request_error_10_hz", error)
    assert error <= 0.05


def test_a_request_alone_gets_what_its_devices_drew(as_recorded: Replayed, run: Run) -> None:
    """One at a time, a request's energy is the meter's over its interval, and no other energy goes to any team."""
    series = series_by_device(as_recorded.folder / "readings.csv")
    for row in run.inferences:
        drawn = math.fsum(joules_between(samples, row.start, row.end) for samples in series.values())
        assert as_recorded.request_joules(run, row) == pytest.approx(drawn, rel=1e-6)
    assert as_recorded.books["attributed_joules"] == pytest.approx(measured_in_requests(as_recorded), rel=1e-9)


def test_statement_and_request_lines_tell_the_same(as_recorded: Replayed, run: Run) -> None:
    """Per team the statement's energy, requests and tokens are the sums over its requests."""
    assert set(as_recorded.lines) == {run.request_id(row) for row in run.inferences}
    assert {row["team"] for row in as_recorded.books["by"]} == {row.team for row in run.inferences}
    for entry in as_recorded.books["by"]:
        own = [row for row in run.inferences if row.team == entry["team"]]
        assert entry["model"] == run.source.model.name
        assert entry["requests"] == len(own)
        assert entry["input_tokens"] == sum(row.input_tokens for row in own)
        assert entry["output_tokens"] == sum(row.output_tokens or 0 for row in own)
        assert entry["energy_joules"] == pytest.approx(math.fsum(as_recorded.request_joules(run, row) for row in own))


def test_nothing_is_rejected(as_recorded: Replayed) -> None:
    """The recordings are good: nothing of them is refused."""
    assert not any(as_recorded.books["rejected"].values())


def test_nothing_before_the_first_request_goes_to_a_team(before_requests: Replayed) -> None:
    """Without requests no team has energy, whatever the GPU drew."""
    assert before_requests.books["attributed_joules"] == 0.0
    assert not any(row["energy_joules"] for row in before_requests.books["by"])


def test_load_is_unreported_above_the_quiet_level(before_requests: Replayed, run: Run, note: Note) -> None:
    """Of what was drawn before the first request, the excess over the quiet level is unreported, the rest is idle."""
    books = before_requests.books
    idle_watts = {f"gpu{gpu}": watts for gpu, watts in enumerate(run.idle_watts)}
    unreported = books["unattributed_reasons"]["unreported"]
    note("unreported_joules_before_first_request", unreported)
    note("of_which_expected", run.source.load_excess_joules)
    note("excess_of_each_interval", excess_joules(before_requests.folder / "readings.csv", idle_watts))
    assert unreported == pytest.approx(run.source.load_excess_joules, rel=0.1)
    assert books["unattributed_joules"] == pytest.approx(unreported, rel=1e-9)
    assert books["idle_joules"] == pytest.approx(books["measured_joules"] - unreported, rel=1e-9)


def test_books_close_over_interleaved_runs(interleaved: Replayed, note: Note) -> None:
    """Two runs on one host: the measured energy is the sum of both files."""
    assert_books_close(interleaved, trapezoid_joules(interleaved.folder / "readings.csv").values(), note)


def test_interleaved_runs_overlap(interleaved: Replayed) -> None:
    """The second model's requests run while the first model's do, so that the split is put to the test."""
    first, second = (run.inferences for run in interleaved.runs)
    overlaps = sum(row.start < other.end and other.start < row.end for row in first for other in second)
    assert overlaps >= len(second)


def test_interleaved_models_keep_their_totals(interleaved: Replayed, note: Note) -> None:
    """Each of two models at once on one host is within 1 % of its own energy counter."""
    for run in interleaved.runs:
        error = total_error(interleaved, run)
        note(f"total_error_interleaved_{run.source.model.name}", error)
        assert abs(error) <= 0.01
    assert interleaved.books["attributed_joules"] == pytest.approx(measured_in_requests(interleaved), rel=1e-9)
