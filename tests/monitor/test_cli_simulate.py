"""`wattribute simulate`."""

import json
from pathlib import Path

from click.testing import CliRunner

from collectors.simulate.names import SCENARIOS
from monitor.cli.simulate import simulate


def test_it_says_what_it_wrote_and_what_comes_next(tmp_path: Path) -> None:
    """Each file is named, and the command that replays them."""
    out = tmp_path / "made"
    result = CliRunner().invoke(simulate, [str(out), "--scenario", "light", "--minutes", "1", "--permutations", "2"])
    assert result.exit_code == 0, result.output
    for name in ("host.toml", "readings.csv", "requests.jsonl", "engine.csv", "oracle.csv", "truth.csv"):
        assert f"wrote {out / name}" in result.stdout
        assert (out / name).stat().st_size > 0
    assert result.stdout.splitlines()[-1] == f"Next: wattribute replay {out}"


def test_json_is_the_summary_alone(tmp_path: Path) -> None:
    """Standard output is one JSON object whose joules add up; progress is on standard error."""
    result = CliRunner().invoke(simulate, [str(tmp_path), "--scenario", "light", "--minutes", "1", "--json"])
    summary = json.loads(result.stdout)
    parts = summary["attributed_joules"] + summary["idle_joules"] + summary["unreported_joules"]
    assert abs(parts - summary["total_joules"]) <= 1e-9 * summary["total_joules"]
    assert summary["scenario"] == "light"
    assert "simulating light" in result.stderr


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    """Exit code 2, the folder named, and what was there is untouched."""
    (tmp_path / "mine.txt").write_text("mine")
    result = CliRunner().invoke(simulate, [str(tmp_path)])
    assert result.exit_code == 2
    assert "is not empty" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_help_lists_the_scenarios() -> None:
    """Each on a line of its own, with what it is."""
    lines = CliRunner().invoke(simulate, ["--help"]).stdout.splitlines()
    for name, what in SCENARIOS.items():
        assert f"  {name:14}  {what}" in [line.removeprefix("  ") for line in lines]


def test_what_is_not_wanted_is_not_written(tmp_path: Path) -> None:
    """No engine.csv, and events without the moments that few gateways know."""
    options = ["--scenario", "light", "--minutes", "1", "--no-engine", "--no-scheduled", "--no-first-token"]
    result = CliRunner().invoke(simulate, [str(tmp_path), *options, "--permutations", "2"])
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "engine.csv").exists()
    lines = (tmp_path / "requests.jsonl").read_text(encoding="utf-8").splitlines()
    assert lines
    for line in lines:
        assert not {"scheduled", "first_token"} & json.loads(line).keys()
