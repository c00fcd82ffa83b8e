"""The reader of measured runs, and the independent truth, over logs where every joule is known."""

import json
from pathlib import Path

import pytest
from generated_recordings import IDLE_WATTS, SHAPES, Shape, generated_source
from real_recordings import Run, Sample, before_first_request, read_run, sampled_each_second, shifted, write_recording
from truth import counter_joules, excess_joules, joules_between, nvml_joules, relative_error, trapezoid_joules

READINGS = """time,device,power_watts
10.0,gpu0,100.0
10.0,gpu1,40.0
12.0,gpu0,200.0
12.0,gpu1,60.0
16.0,gpu0,50.0
"""


@pytest.fixture(params=SHAPES, ids=lambda shape: shape.name)
def shape(request: pytest.FixtureRequest) -> Shape:
    """Each of the generated runs."""
    found: Shape = request.param
    return found


@pytest.fixture
def run(shape: Shape, tmp_path: Path) -> Run:
    """The run as the reader sees it."""
    return read_run(generated_source(shape, tmp_path / "logs"))


def test_reader_gives_each_gpu_its_own_series(shape: Shape, run: Run) -> None:
    """Unlabelled lines go to the GPUs in turn: the second draws 2 % less than the first, the third 4 % less."""
    expected = [round(IDLE_WATTS * (1 - 0.02 * gpu), 2) for gpu in range(shape.gpus)]
    assert list(run.idle_watts) == pytest.approx(expected)
    assert len({len(series) for series in run.power}) == 1


def test_reader_finds_the_times_of_the_log_in_utc(shape: Shape, run: Run) -> None:
    """A local time of UTC-5 is read as the moment it was."""
    assert run.power[0][0].time == shape.begins.timestamp()


def test_reader_leaves_out_requests_that_the_log_does_not_cover(shape: Shape, run: Run) -> None:
    """The request of 1992 and the one that outruns the log are no requests of the recording; the rest is."""
    assert len(run.inferences) == (28 if shape.traps else 30)


def test_truth_finds_the_energy_under_either_name(run: Run) -> None:
    """The power log integrated over the requests agrees with the table's energy within 1 %, whatever its column."""
    table = nvml_joules(run.source.folder / "inference_energy.csv")
    known = sum(table[row.phase] for row in run.inferences)
    integrated = sum(joules_between(series, row.start, row.end) for row in run.inferences for series in run.power)
    assert abs(relative_error(integrated, known)) < 0.01


def test_counter_recording_holds_the_same_energy(run: Run, tmp_path: Path) -> None:
    """Written as a counter in whole millijoules, each GPU's energy is its trapezoid's to a millijoule."""
    power = trapezoid_joules(write_recording(tmp_path / "power", [run]) / "readings.csv")
    counters = counter_joules(write_recording(tmp_path / "counter", [run], meter="counter") / "readings.csv")
    assert counters == pytest.approx(power, abs=0.002)


def test_cut_recording_ends_before_the_first_request(run: Run, tmp_path: Path) -> None:
    """Before the first request there is the load's energy above idle, and no request."""
    cut = before_first_request(run)
    folder = write_recording(tmp_path / "cut", [cut])
    idle_watts = {f"gpu{gpu}": watts for gpu, watts in enumerate(cut.idle_watts)}
    assert (folder / "requests.jsonl").read_text() == ""
    assert excess_joules(folder / "readings.csv", idle_watts) == pytest.approx(run.source.load_excess_joules, rel=0.02)


def test_sampling_each_second_takes_the_nearest_sample(run: Run) -> None:
    """At 1 Hz each sample is one of the log's, at most half its step from a whole second, but at the log's ends."""
    for every, series in zip(run.power, sampled_each_second(run).power, strict=True):
        assert set(series) <= set(every)
        assert all(abs(time - round(time)) <= 0.053 for time, _ in series[1:-1])
        assert {round(later.time) - round(series[0].time) for later in series} == set(range(len(series)))


def test_recording_reads_back_as_the_same_numbers(run: Run, tmp_path: Path) -> None:
    """Times and powers as text, and times as JSON, are exactly the floats that were read, also when shifted."""
    moved = shifted(run, 0.1)
    folder = write_recording(tmp_path / "moved", [moved])
    rows = [line.split(",") for line in (folder / "readings.csv").read_text().splitlines()[1:]]
    first_gpu = tuple(Sample(float(time), float(watts)) for time, device, watts in rows if device == "gpu0")
    events = [json.loads(line) for line in (folder / "requests.jsonl").read_text().splitlines()]
    assert first_gpu == moved.power[0]
    assert [(event["start"], event["end"]) for event in events] == [(row.start, row.end) for row in moved.inferences]
    assert sum("output_tokens" not in event for event in events) == sum(
        row.output_tokens is None for row in moved.inferences
    )


def test_truth_by_hand(tmp_path: Path) -> None:
    """gpu0: 2 s at 150 W and 4 s at 125 W are 800 J; gpu1: 2 s at 50 W are 100 J; above 130 W and 45 W: 40 + 10 J."""
    path = tmp_path / "readings.csv"
    path.write_text(READINGS)
    assert trapezoid_joules(path) == {"gpu0": 800.0, "gpu1": 100.0}
    assert excess_joules(path, {"gpu0": 130.0, "gpu1": 45.0}) == 50.0


def test_truth_counts_the_last_value_less_the_first(tmp_path: Path) -> None:
    """A counter from 7 J over 9 J to 12 J is 5 J."""
    path = tmp_path / "readings.csv"
    path.write_text("time,device,energy_joules_total\n1.0,gpu0,7.0\n2.0,gpu0,9.0\n3.0,gpu0,12.0\n")
    assert counter_joules(path) == {"gpu0": 5.0}


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [(10.0, 12.0, 300.0), (11.0, 13.0, 275.0), (0.0, 11.0, 150.0), (15.0, 99.0, 125.0), (11.5, 11.5, 0.0)],
)
def test_joules_between_by_hand(start: float, end: float, expected: float) -> None:
    """150 W in [10, 12), 125 W in [12, 16), nothing outside."""
    assert joules_between([(10.0, 100.0), (12.0, 200.0), (16.0, 50.0)], start, end) == expected
