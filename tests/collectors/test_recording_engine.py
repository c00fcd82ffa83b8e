"""engine.csv: differences of counters by hand, and every bad row named and costing only itself."""

import hashlib
import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.engine_sample import EngineSample, reading_between
from collectors.readings import Device, EngineReading, HostProfile
from collectors.recording import Recording, RecordingError, load_recording, write_recording
from collectors.replay import HostStep, Replay

T0 = 1_712_043_381.0
HOST_TOML = 'host = "gpu-07"\n[[devices]]\nid = "GPU-0"\nkind = "gpu"\n[[devices]]\nid = "GPU-1"\nkind = "gpu"\n'
HEADER = (
    "time,server,model,devices,running,waiting,steps_total,prefill_tokens_total,cached_tokens_total,"
    "decode_tokens_total,kv_tokens\n"
)


def load(tmp_path: Path, rows: str, header: str = HEADER) -> Recording:
    """A recording whose engine.csv has these rows."""
    folder = tmp_path / "run"
    folder.mkdir(exist_ok=True)
    (folder / "host.toml").write_text(HOST_TOML)
    (folder / "readings.csv").write_text("time,device,power_watts\n")
    (folder / "engine.csv").write_bytes((header + rows).encode())
    return load_recording(folder)


def row(after: float, steps: float | str, *, server: str = "vllm-8000", model: str = "m", devices: str = "") -> str:
    """A row that tells steps alone, `after` seconds from T0."""
    return f"{T0 + after},{server},{model},{devices},,,{steps},,,,\n"


def reasons(recording: Recording) -> list[tuple[str, str]]:
    return [(rejected.position, rejected.reason) for rejected in recording.rejected]


def steps(recording: Recording) -> list[tuple[float, float, float | None]]:
    return [(each.start - T0, each.end - T0, each.steps) for each in recording.engines]


def test_two_rows_are_what_was_done_between_them(tmp_path: Path) -> None:
    """4 100 and 4 131 steps are 31; gauges and devices are those of the later row; a blank cell is not told."""
    rows = (
        f"{T0},vllm-8000,m,GPU-0;GPU-1,0,0,4100,90210,1024,18300,0\n"
        f"{T0 + 1},vllm-8000,m,GPU-0; GPU-1,2,1,4131,90562,1024,18361,400.5\n"
        f"{T0 + 2},vllm-8000,m,,1,,4170,,1024,18428,\n"
    )
    recording = load(tmp_path, rows)
    assert recording.engines == (
        EngineReading(
            server="vllm-8000",
            model="m",
            devices=("GPU-0", "GPU-1"),
            start=T0,
            end=T0 + 1,
            steps=31.0,
            prefill_tokens=352.0,
            cached_tokens=0.0,
            decode_tokens=61.0,
            running=2.0,
            waiting=1.0,
            kv_tokens=400.5,
        ),
        EngineReading(
            server="vllm-8000",
            model="m",
            start=T0 + 1,
            end=T0 + 2,
            steps=39.0,
            cached_tokens=0.0,
            decode_tokens=67.0,
            running=1.0,
        ),
    )
    assert recording.rejected == ()
    assert recording.counts == {}


def test_each_server_and_model_has_counters_of_its_own(tmp_path: Path) -> None:
    """Rows in any order, columns in any order, columns that nobody knows: by end, server and model they come out."""
    header = "note,steps_total, model ,server,time\r\n"
    rows = "".join(
        f"x,{total},{model},{server},{T0 + after}\r\n"
        for after, server, model, total in (
            (2, "b", "m", 60),
            (0, "b", "m", 50),
            (0, "a", "n", 7),
            (1, "a", "n", 9),
            (1, "a", "m", 3),
            (0, "a", "m", 3),
            (0, "a", " ", 1),
            (2, "a", "", 1.5),
        )
    )
    found = load(tmp_path, rows, header).engines
    assert [(each.server, each.model, each.end - T0, each.steps) for each in found] == [
        ("a", "m", 1, 0.0),
        ("a", "n", 1, 2.0),
        ("a", "", 2, 0.5),
        ("b", "m", 2, 10.0),
    ]


@pytest.mark.parametrize("counter", range(4))
def test_a_counter_that_falls_is_a_restart(tmp_path: Path, counter: int) -> None:
    """Whichever it is: what was done between the two is not known, and no difference of it is told."""
    totals = [[100, 100, 100, 100], [110, 110, 110, 110], [120, 120, 120, 120], [130, 130, 130, 130]]
    for each in totals[2:]:
        each[counter] -= 109
    rows = "".join(f"{T0 + i},s,m,,,,{','.join(map(str, each))},\n" for i, each in enumerate(totals))
    recording = load(tmp_path, rows)
    assert [(each.end - T0, each.decode_tokens) for each in recording.engines] == [(1, 10.0), (3, 10.0)]
    assert reasons(recording) == [("4", "counter_reset")]
    assert "fell from 110 to 11: it began anew" in recording.rejected[0].detail
    assert recording.rejected[0].at == T0 + 2
    assert recording.rejected[0].source == "run/engine.csv"


def test_a_gap_of_over_30_s_tells_nothing(tmp_path: Path) -> None:
    """30 s are none; what was done in 31 s is known in sum, but not when."""
    recording = load(tmp_path, "".join(row(after, after) for after in (0, 1, 2, 32, 63, 64)))
    assert steps(recording) == [(0, 1, 1.0), (1, 2, 1.0), (2, 32, 30.0), (63, 64, 1.0)]
    assert reasons(recording) == [("6", "engine_gap")]


def test_a_repeated_row_is_counted_and_a_conflict_is_named(tmp_path: Path) -> None:
    """Of one moment the first row of the file counts."""
    recording = load(tmp_path, row(1, 7) + row(0, 5) + row(1, 9) + row(0, 5.0) + row(1, 8, model="n"))
    assert steps(recording) == [(0, 1, 2.0)]
    assert recording.counts == {"duplicate_engine": 1}
    assert reasons(recording) == [("4", "conflict")]
    assert recording.rejected[0].sha256 == hashlib.sha256(row(1, 9).encode()).hexdigest()


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row(0.5, "nan"), "not_finite"),
        (row(0.5, "inf"), "not_finite"),
        (row(0.5, -1), "negative_value"),
        (row(0.5, 1e16), "absurd_value"),
        (row(0.5, "many"), "not_a_number"),
        (row(0.5, ""), "blank_value"),
        (row(0.5, 6, server=""), "blank_value"),
        (row(0.5, 6, devices="GPU-0;GPU-9"), "unknown_device"),
        (row(0.5, 6, devices="GPU-0,GPU-1"), "too_many_columns"),
        (f"{T0},s,m\n", "cut_row"),
        ("0,s,m,,,,6,,,,\n", "time_out_of_range"),
        ("soon,s,m,,,,6,,,,\n", "bad_time"),
        (row(0.5, "6" * 70_000), "too_large"),
    ],
)
def test_a_bad_row_is_named_and_its_neighbours_are_kept(tmp_path: Path, bad: str, reason: str) -> None:
    """The rows around it give the interval between them."""
    recording = load(tmp_path, row(0, 5) + bad + row(1, 7))
    assert reasons(recording) == [("3", reason)]
    assert steps(recording) == [(0, 1, 2.0)]
    assert recording.rejected[0].sha256 == hashlib.sha256(bad.encode()).hexdigest()


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("", "empty"),
        ("time,server,steps_total\n", "no column model"),
        ("time,model,steps_total\n", "no column server"),
        ("server,model,steps_total\n", "no column time"),
        ("time,server,model,steps_total,steps_total\n", "twice"),
    ],
)
def test_an_unusable_header_is_named(tmp_path: Path, header: str, words: str) -> None:
    """Without a header no row can be read."""
    with pytest.raises(RecordingError, match=words):
        load(tmp_path, "", header)


SAMPLES = st.lists(
    st.builds(
        EngineSample,
        time=st.integers(0, 10**6).map(lambda tick: T0 + tick * 0.01),
        server=st.sampled_from(["vllm-8000", 'tgi "x", y']),
        model=st.sampled_from(["m", "org/n"]),
        devices=st.sampled_from([(), ("GPU-0",), ("GPU-0", "GPU-1")]),
        running=st.none() | st.floats(0, 2**53),
        waiting=st.none(),
        steps_total=st.floats(0, 2**53),
        prefill_tokens_total=st.none(),
        cached_tokens_total=st.none() | st.floats(0, 1e-300),
        decode_tokens_total=st.none() | st.integers(0, 2**53),
        kv_tokens=st.none() | st.floats(0, 2**53),
    ),
    unique_by=lambda sample: sample[:3],
    max_size=12,
)


@settings(max_examples=50)
@given(samples=SAMPLES)
def test_what_is_written_is_what_was_told(
    tmp_path_factory: pytest.TempPathFactory, samples: list[EngineSample]
) -> None:
    """Each neighbouring pair of a server and model is its difference, bit for bit, or is named; none twice."""
    folder = tmp_path_factory.mktemp("law") / "run"
    profile = HostProfile(host="h", devices=tuple(Device(id=name, kind="gpu") for name in ("GPU-0", "GPU-1")))
    write_recording(folder, profile, [], [], samples)
    recording = load_recording(folder)
    bad = {rejected.at for rejected in recording.rejected}
    told = {}
    for key in {(sample.server, sample.model) for sample in samples}:
        own = sorted(sample for sample in samples if (sample.server, sample.model) == key)
        for before, after in itertools.pairwise(own):
            if after.time not in bad:
                told[(*key, before.time)] = reading_between(before, after)
    found = {(each.server, each.model, each.start): each for each in recording.engines if each.end not in bad}
    assert found == told
    assert {rejected.reason for rejected in recording.rejected} <= {"counter_reset", "engine_gap"}


def test_a_folder_written_again_without_engines_has_none(tmp_path: Path) -> None:
    """engine.csv of what stood there before does not stay."""
    profile = HostProfile(host="h", devices=(Device(id="GPU-0", kind="gpu"),))
    write_recording(tmp_path, profile, [], [], [EngineSample(T0, "s", "m", running=1.0)])
    assert (tmp_path / "engine.csv").read_text() == HEADER + f"{T0},s,m,,1.0,,,,,,\n"
    write_recording(tmp_path, profile, [], [])
    assert not (tmp_path / "engine.csv").exists()


def test_a_replay_hands_an_engine_on_at_its_end(tmp_path: Path) -> None:
    """[T0 + 0.5, T0 + 1.5) is known in the step that ends at T0 + 2, and the replay begins at T0 + 0.5."""
    recording = load(tmp_path, row(0.5, 5) + row(1.5, 7))
    replay = Replay([recording])
    assert replay.start == T0 + 0.5
    (step,) = replay.steps()
    assert step.now == T0 + 2
    assert step.hosts == (HostStep(recording.profile, (), (), recording.engines),)


@settings(max_examples=50)
@given(content=st.binary(max_size=200))
def test_any_bytes_in_the_file_load_or_raise_recording_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """Nothing else comes out, and never a reading of one row."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "host.toml").write_text(HOST_TOML)
    (folder / "readings.csv").write_text("time,device,power_watts\n")
    (folder / "engine.csv").write_bytes(row(0, 1).encode() + content)
    with pytest.raises(RecordingError, match="no column time"):
        load_recording(folder)
    (folder / "engine.csv").write_bytes((HEADER + row(0, 1)).encode() + content)
    assert load_recording(folder).engines == ()
