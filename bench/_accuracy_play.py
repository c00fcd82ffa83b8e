"""A scenario through the simulator and the whole product, and request by request what was charged beside the truth.

simulate -> recording ------> log, ledger, core, store --> joules with engine counters, and the fit they gave -.
        |       `- engine.csv left out --> the same -----> joules from events only ----------------------------+-> Run
        `-> oracle.csv -----------------------------------> true joules --------------------------------------'
"""

import csv
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench._accuracy_score import Books, Doubts
from bench._house import replay_folder, requests_in
from collectors.simulate.scenario import Scenario
from collectors.simulate.simulate import DEFAULT_START, simulate
from collectors.simulate.write import ENGINE_FILE, HOST_FILE, ORACLE_FILE, READINGS_FILE, REQUESTS_FILE
from monitor.config.load import load_config
from monitor.core.attribution.learning import Fit
from monitor.core.points import REQUEST_ENERGY
from monitor.core.request_sums import RequestLine
from monitor.roles.control import FactsReader
from monitor.roles.embedded import STORE_FILE, Embedded
from monitor.store.sqlite import SqliteStore

PERMUTATIONS = 12
"""They move a request's truth by 0.005 %, 0.2 % at the 99th percentile (docs/simulator.md)."""
WITH_ENGINE, EVENTS_ONLY = "with engine counters", "events only"
DOUBTS = ("flop_sensitivity_joules", "byte_sensitivity_joules", "split_variance")
FIT_MINUTES = (30, 60, 90, 120)

NAIVE: Mapping[str, Callable[[RequestLine], float]] = {
    "by output tokens": lambda line: line.output_tokens or 0.0,
    "by all tokens": lambda line: (line.input_tokens or 0.0) + (line.output_tokens or 0.0),
    "by active seconds": lambda line: (line.end or 0.0) - (line.start or 0.0),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A scenario as it was played once. `fits` are what was in force at a minute, by minute up to the run's end.

    `untold` are requests of the oracle that no event told of.
    """

    scenario: Scenario
    seed: int
    books: Books
    fits: Mapping[int, Fit]
    untold: int

    @property
    def last_fit(self) -> tuple[float, float, Fit]:
        """(J/FLOP, J/byte, fit) at the end, the scalars relative to those of the simulated board."""
        return self.relative(max(self.fits))

    def relative(self, minute: int) -> tuple[float, float, Fit]:
        """The same at one of `fits`' minutes: those found, also where they were not believed."""
        fit, board = self.fits[minute], self.scenario.gpus[0].hardware
        flop = fit.found.joules_per_flop / board.joules_per_flop
        return flop, fit.found.joules_per_byte / board.joules_per_byte, fit


def play(scenario: Scenario, seed: int, recordings: Path) -> Run:
    """Plays it with engine counters and without; its recording is taken from that folder, or made there."""
    recording = recorded(scenario, seed, recordings)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        lines, fits = _replayed(recording, data / "with", scenario)
        bare, _ = _replayed(_without_engine(recording, data / "recording"), data / "without", scenario)
        doubts = {WITH_ENGINE: _doubts_in(data / "with", lines), EVENTS_ONLY: _doubts_in(data / "without", lines)}
    truth = _oracle(recording)
    boards: dict[str, tuple[str, ...]] = {}
    for server in scenario.servers:  # a model that two servers do between them is metered by both's boards
        boards[server.model.name] = tuple(sorted({*boards.get(server.model.name, ()), *server.devices}))
    return Run(
        scenario=scenario,
        seed=seed,
        books=_books(lines, {line.request_id: (line.energy_joules or 0.0) for line in bare}, truth, doubts, boards),
        fits=fits,
        untold=len(truth) - len(lines),
    )


def recorded(scenario: Scenario, seed: int, recordings: Path) -> Path:
    """The scenario's recording in that folder, made if it is not there; one that was cut off is not there."""
    kept = recordings / f"{scenario.name}-{seed}-{scenario.duration_seconds / 60.0:g}"
    if not kept.exists():
        recordings.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=recordings, prefix="making-") as made:
            simulate(scenario, seed, Path(made) / kept.name, permutations=PERMUTATIONS)
            (Path(made) / kept.name).rename(kept)
    return kept


def _without_engine(recording: Path, out: Path) -> Path:
    out.mkdir()
    for name in (HOST_FILE, READINGS_FILE, REQUESTS_FILE):
        shutil.copyfile(recording / name, out / name)
    assert (recording / ENGINE_FILE).exists(), "the recording has no engine counters to leave out"
    return out


def _replayed(recording: Path, data: Path, scenario: Scenario) -> tuple[list[RequestLine], dict[int, Fit]]:
    """The requests' lines, in the order of their ids, and what had been learned of the first board when."""
    replay_folder(recording, data)
    with Embedded(data, load_config(None, environ=os.environ)) as house:
        learned = FactsReader(house.log)().learned
    gpu, minutes = scenario.gpus[0].hardware.name, int(scenario.duration_seconds / 60.0)
    looks = {minute for minute in FIT_MINUTES if minute < minutes} | {minutes}
    fits = {minute: learned.fit(gpu, DEFAULT_START + 60.0 * minute) for minute in sorted(looks)}
    return sorted(requests_in(data), key=lambda line: line.request_id), fits


def _oracle(recording: Path) -> dict[str, float]:
    with (recording / ORACLE_FILE).open(newline="") as file:
        return {row["request_id"]: float(row["energy_joules"]) for row in csv.DictReader(file)}


def _doubts_in(data: Path, lines: Sequence[RequestLine]) -> Doubts:
    """What J/FLOP and J/byte move of each of these requests, and the variance of its share: three rows."""
    places = {line.request_id: place for place, line in enumerate(lines)}
    fields = [REQUEST_ENERGY.fields.index(name) for name in DOUBTS]
    found = np.zeros((len(DOUBTS), len(lines)))
    store = SqliteStore(data / STORE_FILE, read_only=True)
    for row in store.read(REQUEST_ENERGY, float("-inf"), float("inf")):
        found[:, places[row.tags[2]]] += [
            np.nan if row.fields[place] is None else row.fields[place] for place in fields
        ]
    store.close()
    return found


def _books(
    lines: list[RequestLine],
    bare: Mapping[str, float],
    truth: Mapping[str, float],
    doubts: Mapping[str, Doubts],
    boards: Mapping[str, tuple[str, ...]],
) -> Books:
    """`boards` are those that each model runs on, which have meters of their own."""
    metered = sorted(set(boards.values()))
    teams = sorted({line.team for line in lines})
    places = {team: place for place, team in enumerate(teams)}
    return Books(
        teams=teams,
        team=np.array([places[line.team] for line in lines], dtype=np.int64),
        minute=_column(((line.start or DEFAULT_START) - DEFAULT_START) / 60.0 for line in lines),
        true_joules=_column(truth[line.request_id] for line in lines),
        charged={
            WITH_ENGINE: _column((line.energy_joules or 0.0) for line in lines),
            EVENTS_ONLY: _column(bare[line.request_id] for line in lines),
        },
        shares={name: _column(map(share, lines)) for name, share in NAIVE.items()},
        doubts=doubts,
        board=np.array([metered.index(boards[line.model]) for line in lines], dtype=np.int64),
    )


def _column(values: Iterable[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.fromiter(values, dtype=np.float64)
