"""The folder that a simulation leaves."""

import csv
import json
import tomllib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from collectors.recording import load_recording
from collectors.simulate.loads import light
from collectors.simulate.presets import demo
from collectors.simulate.scenario import Reporting
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


def told_differently(folder: Path, reporting: Reporting) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """The events of two minutes of light, honest and as told."""
    scenario = light(2.0)
    simulate(scenario, 1, folder / "honest", permutations=2)
    simulate(replace(scenario, reporting=reporting), 1, folder / "told", permutations=2)
    for name in ("readings.csv", "engine.csv", "oracle.csv", "truth.csv"):
        assert (folder / "told" / name).read_bytes() == (folder / "honest" / name).read_bytes()
    return events(folder / "honest"), events(folder / "told")


def test_missing_events_are_missing_and_their_joules_are_not(tmp_path: Path) -> None:
    """A fifth of the events never come; oracle and truth are to the byte what they were; the others are unchanged."""
    honest, told = told_differently(tmp_path, Reporting(missing_ratio=0.2))
    assert 0 < len(honest) - len(told) < len(honest) / 2
    assert [one for one in honest if one in told] == told
    oracle = rows(tmp_path / "told" / "oracle.csv")
    assert {row["request_id"] for row in oracle} == {str(one["request_id"]) for one in honest}


def test_a_gateway_whose_clock_is_ahead_moves_all_its_times(tmp_path: Path) -> None:
    """By 0.2 s, the time of arrival too; the readings and the engine keep the host's clock."""
    honest, told = told_differently(tmp_path, Reporting(skew_seconds=0.2))
    times = ("start", "scheduled", "first_token", "end", "arrived")
    for one, other in zip(honest, told, strict=True):
        assert {key: other[key] for key in other if key not in times} == {
            key: one[key] for key in one if key not in times
        }
        for key in times:
            assert float(str(other[key])) - float(str(one[key])) == pytest.approx(0.2, abs=1e-6)


def test_events_may_not_say_when_work_began(tmp_path: Path) -> None:
    """Without `scheduled` and `first_token`; all else is the same, and it loads without complaint."""
    honest, told = told_differently(tmp_path, Reporting(scheduled=False, first_token=False))
    assert told == [{key: one[key] for key in one if key not in ("scheduled", "first_token")} for one in honest]
    loaded = load_recording(tmp_path / "told")
    assert not loaded.rejected
    assert {(each.event.scheduled, each.event.first_token) for each in loaded.requests} == {(None, None)}


def test_wrong_facts_are_in_host_toml_alone(tmp_path: Path) -> None:
    """0.7 x 8.03e9 parameters are stated; events, joules and readings are those of the true model."""
    honest, told = told_differently(tmp_path, Reporting(stated_parameters_ratio=0.7))
    assert told == honest
    (model,) = tomllib.loads((tmp_path / "told" / "host.toml").read_text(encoding="utf-8"))["models"]
    assert (model["parameters"], model["active_parameters"]) == pytest.approx((5.621e9, 5.621e9), rel=1e-12)
    assert model["kv_bytes_per_token"] == 131_072.0
