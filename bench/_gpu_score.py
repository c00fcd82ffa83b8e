"""What each method charges the teams of a recording of bench/gpu_split.py, beside what they owe by the meter."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench._gpu_plan import TEAMS, shapley
from bench._house import requests_in
from collectors.simulate.write import ENGINE_FILE

WATTRIBUTE = (sys.executable, "-c", "from monitor.cli.main import main; main()")
METHODS = (
    ("learned, with engine counters", ENGINE_FILE, ["--fit", "whole"]),
    ("learned, from events only", "", ["--fit", "whole"]),
    ("prior, with engine counters", ENGINE_FILE, ["--method", "prior"]),
    ("prior, from events only", "", ["--method", "prior"]),
    ("token-share", "", ["--method", "token-share"]),
    ("time-share", "", ["--method", "time-share"]),
)
_FILES = ("host.toml", "readings.csv", "requests.jsonl")


def owed(folder: Path) -> dict[str, float]:
    """Joules that each team owes of the last coalition, that of all teams, by the measured joules of all of them."""
    told = json.loads((folder / "coalitions.json").read_text())
    return shapley({tuple(each["teams"]): each["energy_joules"] for each in told["coalitions"]}, TEAMS)


def charged(folder: Path, earlier: Sequence[Path], engine_file: str, words: Sequence[str]) -> dict[str, float]:
    """Joules that the product charges each team for the requests of the last coalition, by `replay` with these options.

    `earlier` are recordings of such boards, of other hosts, that are played with it. Without `engine_file` all are
    played from their events alone.
    """
    last = len(json.loads((folder / "coalitions.json").read_text())["coalitions"]) - 1
    charges = dict.fromkeys(TEAMS, 0.0)
    with tempfile.TemporaryDirectory() as made:
        data, copies = Path(made) / "data", []
        for number, recording in enumerate((*earlier, folder)):
            copies.append(Path(made) / str(number))
            copies[-1].mkdir()
            for name in (*_FILES, engine_file) if engine_file else _FILES:
                (copies[-1] / name).write_bytes((recording / name).read_bytes())
        subprocess.run([*WATTRIBUTE, "replay", *copies, "--data", data, *words], check=True, capture_output=True)
        host = json.loads((folder / "coalitions.json").read_text())["host"]
        for line in requests_in(data):
            if host in line.hosts and line.request_id.startswith(f"{last}-"):
                charges[line.team] += line.energy_joules or 0.0
    return charges


def score(folder: Path, earlier: Sequence[Path]) -> list[str]:
    """The board, each coalition's joules, and each method's error by team."""
    told = json.loads((folder / "coalitions.json").read_text())
    lines = [f"{told['hardware']}: bare {told['bare_watts']:.1f} W, loaded and idle {told['idle_watts']:.1f} W"]
    for each in told["coalitions"]:
        joules, seconds = each["energy_joules"], each["end"] - each["start"]
        lines.append(f"  {' + '.join(each['teams']):26} {joules:9.1f} J in {seconds:5.1f} s, {joules / seconds:5.1f} W")
    owes = owed(folder)
    lines.append(f"{'all three together':32}" + "".join(f"{team:>20}" for team in TEAMS))
    lines.append(f"{'owed by the meter (Shapley)':32}" + "".join(f"{owes[team]:18.1f} J" for team in TEAMS))
    for name, engine_file, words in METHODS:
        charges = charged(folder, earlier, engine_file, words)
        cells = [f"{charges[team]:11.1f} {charges[team] / owes[team] - 1.0:+7.1%}" for team in TEAMS]
        lines.append(f"{name:32}" + "".join(f"{cell:>20}" for cell in cells) + f"   of {sum(charges.values()):.1f} J")
    return lines
