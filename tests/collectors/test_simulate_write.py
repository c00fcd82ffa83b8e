"""The folder that a simulation leaves."""

import csv
import json
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from collectors.simulate.loads import light
from collectors.simulate.presets import demo
from collectors.simulate.simulate import DEFAULT_START, simulate


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    simulate(demo(5.0), 1, out, permutations=10)
    return out


def events(recording: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (recording / "requests.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_same_seed_gives_the_same_bytes(recording: Path, tmp_path: Path) -> None:
    """Every file, to the byte; and another seed gives other requests."""
    summary = simulate(demo(5.0), 1, tmp_path / "again", permutations=10)
    assert sorted(path.name for path in recording.iterdir()) == sorted(summary.files)
    for name in summary.files:
        assert (tmp_path / "again" / name).read_bytes() == (recording / name).read_bytes()
    simulate(demo(5.0), 2, tmp_path / "other", permutations=10)
    assert (tmp_path / "other" / "oracle.csv").read_bytes() != (recording / "oracle.csv").read_bytes()


def test_the_truth_closes_as_written(recording: Path) -> None:
    """Oracle, idle and unreported joules of the files add up to the total of the files."""
    truths = rows(recording / "truth.csv")
    oracle = sum(float(row["energy_joules"]) for row in rows(recording / "oracle.csv"))
    others = sum(float(row["idle_joules"]) + float(row["unreported_joules"]) for row in truths)
    assert oracle + others == pytest.approx(sum(float(row["total_joules"]) for row in truths), rel=1e-9)
    assert float(truths[0]["unreported_joules"]) == pytest.approx(0.012 * 300 * 65 + 0.03 * 300 * 240)


def test_the_counter_of_the_demo_counts_the_true_energy(recording: Path) -> None:
    """gpu0's counter is true: last minus first is the total of truth.csv; gpu1's power, integrated, is within 1 %."""
    truth = {row["device"]: float(row["total_joules"]) for row in rows(recording / "truth.csv")}
    readings = rows(recording / "readings.csv")
    counter = [float(row["energy_joules_total"]) for row in readings if row["device"] == "gpu0"]
    assert counter[-1] - counter[0] == pytest.approx(truth["gpu0"], rel=1e-9)
    samples = [(float(row["time"]), float(row["power_watts"])) for row in readings if row["device"] == "gpu1"]
    trapezoid = sum((later[0] - earlier[0]) * (later[1] + earlier[1]) / 2.0 for earlier, later in pairwise(samples))
    assert trapezoid == pytest.approx(truth["gpu1"], rel=0.01)


def test_each_reading_fills_the_column_of_its_sensor(recording: Path) -> None:
    """A counter has no power and a power sensor no counter; readings are in order of time."""
    readings = rows(recording / "readings.csv")
    assert {(row["device"], row["power_watts"] == "", row["energy_joules_total"] == "") for row in readings} == {
        ("gpu0", True, False),
        ("gpu1", False, True),
    }
    times = [float(row["time"]) for row in readings]
    assert times == sorted(times)
    assert times[0] == DEFAULT_START


def test_host_toml_holds_the_devices_and_the_models_with_their_boards(recording: Path) -> None:
    """Two GPUs; three models, two of them on the second GPU."""
    host = tomllib.loads((recording / "host.toml").read_text(encoding="utf-8"))
    assert (host["host"], host["zone"], host["pue"]) == ("gpu-host-1", "FR", 1.2)
    assert [(device["id"], device["kind"], device["idle_watts"]) for device in host["devices"]] == [
        ("gpu0", "gpu", 110.0),
        ("gpu1", "gpu", 110.0),
    ]
    assert {model["name"]: model["devices"] for model in host["models"]} == {
        "qwen3-14b": ["gpu0"],
        "llama-3.1-8b": ["gpu1"],
        "qwen3-4b": ["gpu1"],
    }
    assert host["models"][1]["kv_bytes_per_token"] == 131_072.0


def test_events_come_in_the_order_in_which_the_log_learns_of_them(recording: Path) -> None:
    """After their end, within half a second; each has its row in the oracle, and no team is unknown."""
    found = events(recording)
    arrived = [float(str(event["arrived"])) for event in found]
    assert arrived == sorted(arrived)
    assert all(0.0 <= float(str(one["arrived"])) - float(str(one["end"])) <= 0.5 for one in found)
    oracle = {row["request_id"]: (row["model"], row["team"]) for row in rows(recording / "oracle.csv")}
    assert {str(one["request_id"]): (one["model"], one["team"]) for one in found} == oracle
    assert {team for _, team in oracle.values()} <= {"support", "coding", "research", "search"}
    assert all(one["schema"] == "wattribute.request.v1" and "devices" not in one for one in found)


def test_the_start_moves_a_recording_and_nothing_else(tmp_path: Path) -> None:
    """The same seed at another time has the same joules."""
    simulate(light(2.0), 1, tmp_path / "one", start=0.0)
    simulate(light(2.0), 1, tmp_path / "other", start=86_400.0)
    assert (tmp_path / "one" / "oracle.csv").read_bytes() == (tmp_path / "other" / "oracle.csv").read_bytes()
    assert float(rows(tmp_path / "other" / "readings.csv")[0]["time"]) == 86_400.0


def test_progress_rises_to_the_end(tmp_path: Path) -> None:
    """It never falls, and never passes 1."""
    seen: list[float] = []
    simulate(demo(2.0), 1, tmp_path, permutations=2, progress=seen.append)
    assert seen == sorted(seen)
    assert 0.9 < seen[-1] <= 1.0
