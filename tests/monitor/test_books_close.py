"""The books of a recording against its raw file: each device's meter, window by window and in sum, to 1e-9.

The right side is tests/truth.py, which reads readings.csv alone and shares nothing with what it is held against.
"""

import json
import math
import random
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner
from truth import counter_joules, trapezoid_joules

from collectors.simulate.disaggregated import disaggregated
from collectors.simulate.presets import demo
from collectors.simulate.scenario import Scenario
from collectors.simulate.simulate import simulate
from monitor.cli.main import cli
from monitor.core.points import ENERGY, METER, Measurement, Row
from monitor.store.sqlite import SqliteStore

T = 1_712_043_381.37
"""Off the grid of the windows."""
SECONDS = 1_500
TOLERANCE = 1e-9
Rows = list[tuple[float, str, float]]
Truth = dict[str, float]
Made = tuple[Path, Truth]


def host_toml(host: str, devices: Sequence[str]) -> str:
    """A host with these GPUs, at rest at 60 W; the last of them tells no idle power."""
    tables = [f'[[devices]]\nid = "{device}"\nkind = "gpu"\nidle_watts = 60.0\n' for device in devices]
    return f'host = "{host}"\nzone = "DE"\n\n' + "\n".join(
        [*tables[:-1], tables[-1].replace("idle_watts = 60.0\n", "")]
    )


def events(host: str, devices: Sequence[str], chance: random.Random) -> Iterator[str]:
    """Requests of three teams on one GPU, on all of them, or on none that is known; some come very late."""
    for number in range(150):
        start = T + chance.uniform(-20.0, SECONDS)
        end = start + chance.choice([0.0, 0.3, chance.expovariate(0.1), chance.uniform(30.0, 300.0)])
        places: list[list[str] | None] = [[chance.choice(devices)], list(devices), None]
        event = {"request_id": f"{host}-{number}", "model": "m", "team": chance.choice("abc"), "start": start}
        event |= {"end": end, "input_tokens": chance.randrange(4_000), "output_tokens": chance.randrange(800)}
        event |= {"devices": chance.choice(places), "arrived": end + chance.choice([0.1, 5.0, 1_300.0])}
        yield json.dumps(event) + "\n"


def made(folder: Path, value: str, rows: Rows, seed: int) -> Path:
    """A recording named for its host, of these rows in the order they are given."""
    folder.mkdir()
    devices = sorted({device for _, device, _ in rows})
    (folder / "host.toml").write_text(host_toml(folder.name, devices))
    lines = [f"{time!r},{device},{number!r}\n" for time, device, number in rows]
    (folder / "readings.csv").write_text("".join([f"time,device,{value}\n", *lines]))
    (folder / "requests.jsonl").write_text("".join(events(folder.name, devices, random.Random(seed))))
    return folder


def power_rows(chance: random.Random, devices: Iterable[str]) -> Rows:
    """Samples at uneven moments, from 55 to 700 W."""
    rows: Rows = []
    for device in devices:
        time = T + chance.random()
        while time < T + SECONDS:
            rows.append((time, device, chance.choice([55.0, 61.25, chance.uniform(100.0, 700.0)])))
            time += chance.choice([0.1, 0.7, 1.0, 3.3, 12.0])
    return rows


def counter_rows(chance: random.Random, devices: Iterable[str]) -> Rows:
    """Counters that began long ago, read about each second."""
    rows: Rows = []
    for device in devices:
        total = chance.uniform(1e7, 2e7)
        for second in range(SECONDS):
            rows.append((T + second + chance.uniform(0.0, 0.5), device, total))
            total += chance.choice([0.0, chance.uniform(50.0, 700.0)])
    return rows


def power(folder: Path) -> Made:
    """Two power sensors."""
    path = made(folder / "power", "power_watts", power_rows(random.Random(1), ["g0", "g1"]), 1)
    return path, trapezoid_joules(path / "readings.csv")


def counters(folder: Path) -> Made:
    """Two counters."""
    path = made(folder / "counters", "energy_joules_total", counter_rows(random.Random(2), ["g0", "g1"]), 2)
    return path, counter_joules(path / "readings.csv")


def out_of_order(folder: Path) -> Made:
    """Counters whose rows stand in no order, some of them twice."""
    chance = random.Random(3)
    rows = counter_rows(chance, ["g0", "g1"])
    rows += chance.sample(rows, 100)
    chance.shuffle(rows)
    path = made(folder / "out-of-order", "energy_joules_total", rows, 3)
    return path, counter_joules(path / "readings.csv")


def across_holes(folder: Path) -> Made:
    """A counter that is not read for a minute, and another for 18 minutes: more than the horizon."""
    rows = counter_rows(random.Random(4), ["g0", "g1"])
    holes = {"g0": (100.0, 160.0), "g1": (200.0, 1_280.0)}
    kept = [row for row in rows if not holes[row[1]][0] < row[0] - T < holes[row[1]][1]]
    path = made(folder / "holes", "energy_joules_total", kept, 4)
    return path, counter_joules(path / "readings.csv")


def simulated(folder: Path) -> Made:
    """The simulator's host: gpu0 has a counter, gpu1 a noisy power sensor."""
    return of_scenario(folder, demo(8.0), {"gpu0": (3, counter_joules), "gpu1": (2, trapezoid_joules)})


def apart(folder: Path) -> Made:
    """Prompts are computed on gpu0 and answers made on gpu1, each of which has a counter."""
    return of_scenario(folder, disaggregated(2.0), {"gpu0": (3, counter_joules), "gpu1": (3, counter_joules)})


def of_scenario(folder: Path, scenario: Scenario, meters: Mapping[str, tuple[int, Callable[[Path], Truth]]]) -> Made:
    """The simulator's recording; of each device in which column its meter's rows stand, and what sums them up."""
    path = folder / "simulated"
    simulate(scenario, 5, path, permutations=2)
    header, *lines = (path / "readings.csv").read_text().splitlines()
    assert header == "time,device,power_watts,energy_joules_total"
    truth: Truth = {}
    for device, (column, of) in meters.items():
        alone = folder / f"{device}.csv"
        cells = [line.split(",") for line in lines]
        own = [f"{row[0]},{device},{row[column]}" for row in cells if row[1] == device]
        alone.write_text("\n".join(["time,device,value", *own]))
        truth |= of(alone)
    return path, truth


Maker = Callable[[Path], Made]
MAKERS: tuple[Maker, ...] = (power, counters, out_of_order, across_holes, simulated, apart)


def replayed(recordings: Sequence[Path], data: Path) -> dict[Measurement, list[Row]]:
    """The rows of the books that the command stored."""
    result = CliRunner().invoke(cli, ["replay", *map(str, recordings), "--json", "--data", str(data)])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["worst_imbalance"] <= TOLERANCE
    store = SqliteStore(data / "store.db", read_only=True)
    try:
        return {each: list(store.read(each, T - 86_400.0, T + 1e9)) for each in (METER, ENERGY)}
    finally:
        store.close()


def field(row: Row, measurement: Measurement, name: str = "energy_joules") -> float:
    """A sum of a row."""
    value = row.fields[measurement.fields.index(name)]
    assert isinstance(value, float)
    return value


def check_sums(rows: Iterable[Row], host: str, truth: Truth) -> None:
    """Each device's meter, over all windows, is what the raw file says."""
    parts: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        of_host, device, _kind = row.tags
        if of_host == host:
            parts[device].append(field(row, METER))
    assert parts.keys() == truth.keys()
    for device, joules in truth.items():
        assert math.fsum(parts[device]) == pytest.approx(joules, rel=TOLERANCE), (host, device)


def check_windows(books: dict[Measurement, list[Row]]) -> None:
    """In each window each device's meter is what its accounts add up to, and each account is there."""
    measured = {(row.time, row.tags): field(row, METER) for row in books[METER]}
    accounts: dict[object, list[float]] = defaultdict(list)
    named: dict[object, set[str]] = defaultdict(set)
    for row in books[ENERGY]:
        key = (row.time, row.tags[:3])
        accounts[key].append(field(row, ENERGY))
        named[key].add(row.tags[3])
    assert measured.keys() == accounts.keys()
    for key, joules in measured.items():
        assert math.fsum(accounts[key]) == pytest.approx(joules, rel=TOLERANCE), key
        assert named[key] >= {"idle", "unattributed"}
        assert min(accounts[key]) >= 0.0


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_the_meter_is_the_raw_file(tmp_path: Path, make: Maker) -> None:
    """Per device, all windows together hold the file's energy, and every window balances."""
    path, truth = make(tmp_path)
    books = replayed([path], tmp_path / "data")
    host = tomllib.loads((path / "host.toml").read_text())["host"]
    check_sums(books[METER], host, truth)
    check_windows(books)


def test_the_hole_is_recovered_and_marked(tmp_path: Path) -> None:
    """What was used across a hole is in the meter row, as recovered: the counter's step over it, no more."""
    path, _ = across_holes(tmp_path)
    books = replayed([path], tmp_path / "data")
    rows = [line.split(",") for line in (path / "readings.csv").read_text().splitlines()[1:]]
    for device in ("g0", "g1"):
        own = sorted((float(time), float(total)) for time, of, total in rows if of == device)
        steps = [after[1] - before[1] for before, after in pairwise(own) if after[0] - before[0] > 30]
        stored = [field(row, METER, "recovered_joules") for row in books[METER] if row.tags[1] == device]
        assert len(steps) == 1
        assert math.fsum(stored) == pytest.approx(steps[0], rel=TOLERANCE)


def test_hosts_on_one_clock_keep_books_of_their_own(tmp_path: Path) -> None:
    """Four hosts in one replay: each one's devices hold its own file's energy, and every window of each balances."""
    all_made = [make(tmp_path) for make in (power, counters, out_of_order, across_holes)]
    books = replayed([path for path, _ in all_made], tmp_path / "data")
    assert {row.tags[0] for row in books[METER]} == {path.name for path, _ in all_made}
    for path, truth in all_made:
        check_sums(books[METER], path.name, truth)
    check_windows(books)
