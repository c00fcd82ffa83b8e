"""A recording loads whole or raises RecordingError; a bad row or event costs only itself and is named."""

import csv
import hashlib
import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.readings import Device, EnergyReading, HostProfile, ModelFacts
from collectors.recording import ArrivedEvent, Recording, RecordingError, Sample, load_recording, write_recording
from collectors.requests.event import RequestEvent, Work

T0 = 1_712_043_381.0
DOCS = Path(__file__).parents[2] / "docs"
HOST_TOML = """\
host = "gpu-07"
zone = "FR"
pue = 1.2

[[devices]]
id = "GPU-0"
kind = "gpu"
hardware = "NVIDIA A100-SXM4-40GB"
idle_watts = 52.5
"""
TWO_GPUS = HOST_TOML + '\n[[devices]]\nid = "GPU-1"\nkind = "gpu"\n'


def load(
    tmp_path: Path,
    rows: str | bytes = "",
    events: str | bytes | None = None,
    host: str | bytes = HOST_TOML,
    header: str = "time,device,power_watts\n",
) -> Recording:
    """The recording of these texts."""
    files = {"host.toml": host, "readings.csv": header.encode() + _bytes(rows), "requests.jsonl": events}
    folder = tmp_path / "run"
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        if content is not None:
            (folder / name).write_bytes(_bytes(content))
    return load_recording(folder)


def _bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


def reasons(recording: Recording) -> list[tuple[str, str]]:
    return [(rejected.position, rejected.reason) for rejected in recording.rejected]


def event_line(**fields: Any) -> str:
    return json.dumps({"request_id": "r", "model": "m", "start": T0, "end": T0 + 1} | fields) + "\n"


def reading(start: float, end: float, joules: float, method: Any, device: str = "GPU-0") -> EnergyReading:
    return EnergyReading(device=device, start=T0 + start, end=T0 + end, energy_joules=joules, method=method)


def test_power_is_integrated_by_the_trapezoid(tmp_path: Path) -> None:
    """100, 140 and 60 W at 0, 0.5 and 1.5 s are 60 J and 100 J."""
    recording = load(tmp_path, f"{T0},GPU-0,100\n{T0 + 0.5},GPU-0,140\n{T0 + 1.5},GPU-0,60\n")
    assert recording.readings == (reading(0, 0.5, 60.0, "integrated"), reading(0.5, 1.5, 100.0, "integrated"))
    assert recording.rejected == ()
    assert recording.counts == {}
    assert recording.profile == HostProfile(
        host="gpu-07",
        zone="FR",
        pue=1.2,
        devices=(
            Device(
                id="GPU-0",
                kind="gpu",
                hardware="NVIDIA A100-SXM4-40GB",
                idle_watts=52.5,
                idle_source="configured",
            ),
        ),
    )


def test_a_counter_gives_its_differences(tmp_path: Path) -> None:
    """A counter that stands still is a reading of 0 J, for that was measured."""
    rows = f"{T0},GPU-0,1000.5\n{T0 + 1},GPU-0,1200.5\n{T0 + 2},GPU-0,1200.5\n"
    recording = load(tmp_path, rows, header="time,device,energy_joules_total\n")
    assert recording.readings == (reading(0, 1, 200.0, "counter"), reading(1, 2, 0.0, "counter"))


def test_both_kinds_stand_in_one_file_and_in_any_order(tmp_path: Path) -> None:
    """Columns in another order, blanks, extra columns, quotes, spaces, CRLF, a BOM and RFC 3339 times are all read."""
    rows = (
        "x, 300 ,GPU-1 ,,2024-04-02T07:36:22Z\r\n"
        'y,,"GPU-0",100,2024-04-02T07:36:21Z\r\n'
        "\r\n"
        "z,,GPU-0,200, 1712043382\r\n"
        ",100,GPU-1,,2024-04-02T09:36:21+02:00"
    )
    header = "\ufeffnote, energy_joules_total,device,power_watts,time\r\n"
    recording = load(tmp_path, rows, host=TWO_GPUS, header=header)
    assert recording.readings == (reading(0, 1, 150.0, "integrated"), reading(0, 1, 200.0, "counter", "GPU-1"))
    assert recording.rejected == ()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{t},GPU-0,nan", "not_finite"),
        ("{t},GPU-0,-inf", "not_finite"),
        ("{t},GPU-0,-1", "negative_value"),
        ("{t},GPU-0,1e308", "absurd_value"),
        ("{t},GPU-0,[N/A]", "not_a_number"),
        ("{t},GPU-0,52.88 W", "not_a_number"),
        ("{t},GPU-0,", "blank_value"),
        ("{t},GPU-0", "cut_row"),
        ("{t}", "cut_row"),
        ("{t},GPU-0,52,88", "too_many_columns"),
        ("{t},GPU-9,52", "unknown_device"),
        ("{t},,52", "unknown_device"),
        ("2024-04-02T07:36:21,GPU-0,52", "bad_time"),
        (",GPU-0,52", "bad_time"),
        ("0,GPU-0,52", "time_out_of_range"),
        ("nan,GPU-0,52", "time_out_of_range"),
        ("712043381.5,GPU-0,52", "time_out_of_range"),
        ("1712043381500,GPU-0,52", "wrong_time_unit"),
        ('{t},"GPU-0,52', "bad_quotes"),
        ("{t},GPU-0,\x00", "not_a_number"),
        ("{t},GPU-0," + "5" * 70_000, "too_large"),
    ],
)
def test_bad_row_is_named_and_its_neighbours_are_kept(tmp_path: Path, row: str, reason: str) -> None:
    """The rows around a bad one give the interval between them."""
    bad = row.replace("{t}", str(T0 + 0.5))
    recording = load(tmp_path, f"{T0},GPU-0,100\n{bad}\n{T0 + 1},GPU-0,100\n")
    assert reasons(recording) == [("3", reason)]
    assert recording.readings == (reading(0, 1, 100.0, "integrated"),)
    rejected = recording.rejected[0]
    assert rejected.source == "run/readings.csv"
    assert rejected.sha256 == hashlib.sha256(f"{bad}\n".encode()).hexdigest()
    assert rejected.at in (None, T0 + 0.5)


def test_a_row_that_is_not_utf8_costs_itself(tmp_path: Path) -> None:
    """Bytes of another encoding are named."""
    rows = f"{T0},GPU-0,1\n".encode() + b"\xff\xfe,GPU-0,1\n" + f"{T0 + 1},GPU-0,1\n".encode()
    recording = load(tmp_path, rows)
    assert reasons(recording) == [("3", "not_utf8")]
    assert len(recording.readings) == 1


def test_a_unit_behind_the_number_is_explained(tmp_path: Path) -> None:
    """The detail says what to write instead."""
    recording = load(tmp_path, f"{T0},GPU-0,52.88 W\n")
    assert "write 52.88 without its unit" in recording.rejected[0].detail


def test_two_values_in_a_row_and_two_kinds_of_a_device_are_named(tmp_path: Path) -> None:
    """A device has one kind of sensor, that of its first row."""
    rows = f"{T0},GPU-0,100,\n{T0 + 1},GPU-0,100,5\n{T0 + 1},GPU-0,,5\n{T0 + 2},GPU-0,100,\n"
    recording = load(tmp_path, rows, header="time,device,power_watts,energy_joules_total\n")
    assert reasons(recording) == [("3", "two_values"), ("4", "mixed_kinds")]
    assert recording.readings == (reading(0, 2, 200.0, "integrated"),)


def test_duplicate_row_is_counted_and_a_conflict_is_named(tmp_path: Path) -> None:
    """Of one moment the first row of the file counts, wherever the others stand."""
    rows = f"{T0 + 1},GPU-0,100\n{T0},GPU-0,50\n{T0 + 1},GPU-0,70\n{T0},GPU-0,50.0\n{T0},GPU-0,50\n"
    recording = load(tmp_path, rows)
    assert recording.readings == (reading(0, 1, 75.0, "integrated"),)
    assert recording.counts == {"duplicate_reading": 2}
    assert reasons(recording) == [("4", "conflict")]
    assert recording.rejected[0].sha256 == hashlib.sha256(f"{T0 + 1},GPU-0,70\n".encode()).hexdigest()
    assert recording.rejected[0].at == T0 + 1


def test_a_power_gap_has_no_joules_and_a_name(tmp_path: Path) -> None:
    """What was not measured for over 30 s is absent."""
    rows = "".join(f"{T0 + second},GPU-0,100\n" for second in (0, 1, 2, 3, 33, 63.5, 64.5))
    recording = load(tmp_path, rows)
    assert [(row.start - T0, row.end - T0) for row in recording.readings][3:] == [(3, 33), (63.5, 64.5)]
    assert reasons(recording) == [("7", "power_gap")]
    assert "from 2024-04-02T07:36:54.000Z to 2024-04-02T07:37:24.500Z (30.500 s)" in recording.rejected[0].detail


def test_a_slow_sensor_has_longer_holes(tmp_path: Path) -> None:
    """At one sample a minute, 5 minutes are no hole, and more are."""
    rows = "".join(f"{T0 + 60 * minute},GPU-0,100\n" for minute in (0, 1, 2, 7, 8, 13.5))
    recording = load(tmp_path, rows)
    assert reasons(recording) == [("7", "power_gap")]
    assert math.fsum(row.energy_joules for row in recording.readings) == 100 * 480


def test_a_counter_recovers_a_hole_and_names_a_reset(tmp_path: Path) -> None:
    """Over a hole the counter still tells the sum; going back it tells nothing."""
    rows = "".join(f"{T0 + t},GPU-0,{v}\n" for t, v in ((0, 10), (1, 110), (101, 5_110), (102, 40), (103, 140)))
    recording = load(tmp_path, rows, header="time,device,energy_joules_total\n")
    assert recording.readings == (
        reading(0, 1, 100.0, "counter"),
        reading(1, 101, 5_000.0, "recovered"),
        reading(102, 103, 100.0, "counter"),
    )
    assert reasons(recording) == [("5", "counter_reset")]
    assert "1.000 s" in recording.rejected[0].detail


def test_events_are_placed_on_the_host(tmp_path: Path) -> None:
    """Host and devices default to the recording's host and its only GPU."""
    recording = load(tmp_path, events=event_line(arrived=T0 + 9) + "\n" + event_line(start=T0, end=T0 + 2, team="a"))
    first, second = recording.requests
    assert (first.arrived, first.line, first.event.team) == (T0 + 2, 3, "a")
    assert (second.arrived, second.line) == (T0 + 9, 1)
    assert second.event == RequestEvent(
        request_id="r", model="m", start=T0, end=T0 + 1, host="gpu-07", devices=("GPU-0",)
    )


def test_devices_of_an_event_come_from_its_model_where_there_are_several(tmp_path: Path) -> None:
    """A model's server says where it runs; another model is unknown; an event's own devices hold."""
    host = TWO_GPUS + '\n[[models]]\nname = "m"\ndevices = ["GPU-1"]\n\n[[models]]\nname = "plain"\n'
    lines = event_line() + event_line(model="other") + event_line(devices=["GPU-0"]) + event_line(devices=[])
    recording = load(tmp_path, events=lines + event_line(model="plain"), host=host)
    assert [item.event.devices for item in recording.requests] == [("GPU-1",), None, ("GPU-0",), (), None]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (event_line(host="gpu-08"), "unknown_host"),
        (event_line(devices=["GPU-0", "GPU-9"]), "unknown_device"),
        (event_line(arrived=T0 - 7_200), "future"),
        (event_line(arrived="soon"), "bad_time"),
        (event_line()[:-10] + "\n", "truncated"),
        ("\x00\n", "not_json"),
        ('{"x": "' + "y" * (1 << 20) + '"}\n', "too_large"),
        ("x" * (1 << 22) + "\n", "too_large"),
    ],
)
def test_bad_event_is_named_and_its_neighbours_are_kept(tmp_path: Path, line: str, reason: str) -> None:
    """A bad line costs itself only."""
    recording = load(tmp_path, events=event_line() + line + event_line(request_id="s"))
    assert reasons(recording) == [("2", reason)]
    assert [item.event.request_id for item in recording.requests] == ["r", "s"]
    assert recording.rejected[0].sha256 == hashlib.sha256(line.encode()).hexdigest()
    assert recording.rejected[0].source == "run/requests.jsonl"


def test_repeated_events_are_all_passed_on(tmp_path: Path) -> None:
    """Which of several events counts is the account's to decide."""
    recording = load(tmp_path, events=event_line() * 2 + event_line(team="other") + event_line().rstrip("\n"))
    assert len(recording.requests) == 4


def test_nobody_asked_a_host_without_events(tmp_path: Path) -> None:
    """A missing requests.jsonl is no error."""
    assert load(tmp_path).requests == ()


@pytest.mark.parametrize(
    ("host", "line", "words"),
    [
        (None, None, "there is no such file"),
        (b"\xff", None, "UTF-8"),
        ('zone = "FR"\nhost = gpu-07\n', 2, "not TOML"),
        ("x = " + "[" * 20_000, None, "not TOML"),
        ('host = "h"\n', None, "no [[devices]]"),
        ('zone = "FR"\n', None, "host"),
        (HOST_TOML.replace("zone", "zones"), 2, "did you mean zone?"),
        (HOST_TOML + "idel_watts = 5\n", 10, "did you mean idle_watts?"),
        (HOST_TOML.replace("1.2", "0.9"), 3, "pue"),
        (HOST_TOML.replace("1.2", "nan"), 3, "finite"),
        (HOST_TOML.replace("52.5", "-1"), 9, "idle_watts"),
        (HOST_TOML.replace("52.5", "inf"), 9, "finite"),
        (HOST_TOML.replace("52.5", '"52 W"'), 9, "idle_watts"),
        (HOST_TOML.replace('"gpu"', '"gpuu"'), 7, "kind"),
        (HOST_TOML.replace('"GPU-0"', '" GPU-0"'), 6, "white space"),
        (HOST_TOML + HOST_TOML[HOST_TOML.index("[[") :], 11, "twice"),
        (HOST_TOML + 'parent = "BMC"\n', 10, "no device"),
        (HOST_TOML + 'parent = "GPU-0"\n', 10, "itself"),
        (HOST_TOML + '[[models]]\nname = "m"\ndevices = ["GPU-1"]\n', 12, "GPU-1"),
        (HOST_TOML + '[[models]]\nname = "m"\nparameters = 0\n', 12, "parameters"),
        (HOST_TOML + '[[models]]\nname = "m"\n[[models]]\nname = "m"\n', 13, "twice"),
        ('host = "h"\ndevices = [{ id = "g", kind = "tpu" }]\n', None, "kind"),
    ],
)
def test_unusable_host_file_names_the_place(tmp_path: Path, host: str | None, line: int | None, words: str) -> None:
    """File, line, what is wrong and what to do."""
    with pytest.raises(RecordingError, match=re.escape(words)) as error:
        load(tmp_path, host=host)  # type: ignore[arg-type]
    assert error.value.file == tmp_path / "run" / "host.toml"
    assert error.value.line == line
    assert error.value.remedy


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("", "empty"),
        ("\n\n", "empty"),
        ("time,device\n", "neither power_watts nor"),
        ("time,power_watts\n", "no column device"),
        ("device,power_watts\n", "no column time"),
        ("time,device,power_watts,time\n", "twice"),
        ("x" * 70_000, "header"),
        ("Zeit;Gerät\r", "no column time"),
    ],
)
def test_unusable_header_is_named(tmp_path: Path, header: str, words: str) -> None:
    """Without a header no row can be read."""
    with pytest.raises(RecordingError, match=words):
        load(tmp_path, header=header)


def test_a_folder_without_readings_is_no_recording(tmp_path: Path) -> None:
    """Neither a missing folder nor one without readings.csv is taken for a silent host."""
    with pytest.raises(RecordingError, match="no such folder"):
        load_recording(tmp_path / "nowhere")
    (tmp_path / "host.toml").write_text(HOST_TOML)
    with pytest.raises(RecordingError, match=r"readings\.csv: there is no such file"):
        load_recording(tmp_path)


MOMENTS = st.integers(0, 200_000).map(lambda tick: T0 + tick * 0.1)


@settings(max_examples=50)
@given(
    powers=st.dictionaries(MOMENTS, st.floats(0, 1_000), max_size=30),
    increments=st.lists(st.tuples(st.floats(0.01, 1e4), st.floats(0, 1e6)), max_size=30),
    shuffle=st.randoms(use_true_random=False),
)
def test_energy_of_a_device_is_that_of_its_whole_file(
    tmp_path_factory: pytest.TempPathFactory,
    powers: dict[float, float],
    increments: list[tuple[float, float]],
    shuffle: Any,
) -> None:
    """Per device the sum of the readings is one trapezoid, less its gaps, or last less first counter, to 1e-12."""
    samples = [Sample(time, "GPU-0", power_watts=power) for time, power in powers.items()]
    time, totals = T0, [1e6]
    for step, joules in increments:
        time = time + step
        totals.append(totals[-1] + joules)
        samples.append(Sample(time, "GPU-1", energy_joules_total=totals[-1]))
    shuffle.shuffle(samples)
    folder = tmp_path_factory.mktemp("law") / "run"
    profile = HostProfile(host="h", devices=tuple(Device(id=name, kind="gpu") for name in ("GPU-0", "GPU-1")))
    write_recording(folder, profile, samples, [])
    recording = load_recording(folder)
    energy = {
        device: math.fsum(row.energy_joules for row in recording.readings if row.device == device)
        for device in ("GPU-0", "GPU-1")
    }
    gaps = {rejected.at for rejected in recording.rejected}
    expected = 0.0
    with (folder / "readings.csv").open(newline="") as file:
        rows = sorted(
            (float(row["time"]), float(row["power_watts"])) for row in csv.DictReader(file) if row["power_watts"]
        )
    for (before, first), (after, last) in itertools.pairwise(rows):
        expected += 0 if after in gaps else (first + last) / 2 * (after - before)
    assert energy["GPU-0"] == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert energy["GPU-1"] == pytest.approx(totals[-1] - totals[min(1, len(increments))], rel=1e-12, abs=1e-9)
    assert {rejected.reason for rejected in recording.rejected} <= {"power_gap"}


@settings(max_examples=50)
@given(content=st.binary(max_size=200), where=st.sampled_from(["host.toml", "readings.csv", "requests.jsonl"]))
def test_any_bytes_in_any_file_load_or_raise_recording_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, where: str
) -> None:
    """Nothing but RecordingError comes out of a bad folder."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "host.toml").write_text(HOST_TOML)
    (folder / "readings.csv").write_text("time,device,power_watts\n")
    with (folder / where).open("ab") as file:
        file.write(content)
    try:
        recording = load_recording(folder)
    except RecordingError as error:
        problem = error
    else:
        assert recording.readings == ()
        return
    assert where in {"host.toml", "readings.csv"}
    assert problem.remedy


def test_what_is_written_loads_again_bit_for_bit(tmp_path: Path) -> None:
    """Profile, events and their arrival survive; so do names with commas, quotes and backslashes."""
    odd = 'GPU "0", left\\'
    profile = HostProfile(
        host="h-ü",
        zone="US-CAL-CISO",
        site="lab",
        pue=1.1 + 0.2,
        devices=(
            Device(id="node", kind="node"),
            Device(id=odd, kind="gpu", parent="node", idle_watts=52.1, idle_source="configured"),
            Device(id="GPU-1", kind="gpu"),
        ),
        models=(
            ModelFacts(name="m", parameters=13e9, bytes_per_parameter=2.0, kv_bytes_per_token=1e20, devices=(odd,)),
        ),
    )
    events = [
        ArrivedEvent(
            event=RequestEvent(
                request_id="a",
                model="m",
                start=T0 + 0.1,
                end=T0 + 0.3,
                host="h-ü",
                devices=(odd,),
                work=Work(unit="image", amount=4.0),
                input_tokens=7,
            ),
            arrived=T0 + 0.7,
            line=1,
        ),
        ArrivedEvent(
            event=RequestEvent(request_id="b", model="x", start=T0, end=T0 + 5, host="h-ü", devices=()),
            arrived=T0 + 5,
            line=2,
        ),
    ]
    samples = [Sample(T0 + 0.1 * tick, odd, power_watts=0.1 * tick) for tick in range(3)]
    write_recording(tmp_path / "run", profile, samples, events)
    recording = load_recording(tmp_path / "run")
    assert recording.profile == profile
    assert recording.requests == tuple(events)
    assert recording.rejected == ()
    assert [row.start for row in recording.readings] == [T0 + 0.1 * tick for tick in range(2)]


def test_the_example_of_the_page_loads(tmp_path: Path) -> None:
    """docs/recording.md shows a whole recording, and what comes of it."""
    page = (DOCS / "recording.md").read_text(encoding="utf-8")
    files = re.findall(r"^`([a-z]+\.(?:toml|csv|jsonl))`:\n\n```\w*\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert [name for name, _ in files] == ["host.toml", "readings.csv", "requests.jsonl"]
    for name, content in files:
        (tmp_path / name).write_text(content, encoding="utf-8")
    recording = load_recording(tmp_path, allowed_labels=("use_case",))
    assert recording.rejected == ()
    assert len(recording.requests) == 2
    joules = math.fsum(row.energy_joules for row in recording.readings if row.device == "GPU-0")
    assert joules == pytest.approx(540.0, rel=1e-12)
    assert "540 J" in page
