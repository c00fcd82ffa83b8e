"""A replayed hour, killed at 30 random points and started again each time, beside one that nobody disturbed.

Real processes and `kill -9`. The seed and the log time of each kill are printed (`pytest -s`).
"""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from collectors.simulate.presets import demo
from collectors.simulate.simulate import simulate
from monitor.core.points import MEASUREMENTS, PROVISIONAL
from monitor.log.sqlite import SqliteLog
from monitor.store.sqlite import SqliteStore

SEED = 20_260_117
KILLS = 30
SPEED = "450"
HOUR_SECONDS = 3_600.0
HORIZON_SECONDS = MARK_SECONDS = 900.0
REREAD_BOUND_SECONDS = 2 * HORIZON_SECONDS + MARK_SECONDS + 120.0
HOLE = (0.30 * HOUR_SECONDS, 0.62 * HOUR_SECONDS)
"""gpu0's counter is not read for 19 minutes: what is recovered across the hole comes late for its first windows."""


@dataclass(frozen=True, kw_only=True)
class Life:
    """One process: the log time at which it was killed (None: it ended by itself), and what it wrote.

    `reread_seconds` is what it found to read again (None: no commit, so nothing was claimed before).
    """

    killed_at: float | None
    logged: tuple[dict[str, Any], ...]
    reread_seconds: float | None
    stdout: bytes


@dataclass(frozen=True, kw_only=True)
class Hour:
    """The recording that is played, its first moment, and the configuration."""

    recording: Path
    start: float
    config: Path

    def command(self, data: Path, speed: str) -> list[str]:
        """The installed command, as a person would give it."""
        wattribute = str(Path(sys.executable).with_name("wattribute"))
        arguments = [str(self.recording), "--json", "--speed", speed, "--data", str(data)]
        return [wattribute, "replay", *arguments, "--config", str(self.config)]


@pytest.fixture(scope="module")
def hour(tmp_path_factory: pytest.TempPathFactory) -> Hour:
    """The simulator's hour of a host with two GPUs, made worse: late, doubled and contradicting events, and a hole."""
    folder = tmp_path_factory.mktemp("hour")
    recording = folder / "hour"
    simulate(demo(60.0), SEED, recording, permutations=2)
    start = make_hole(recording / "readings.csv")
    requests = recording / "requests.jsonl"
    events = [json.loads(line) for line in requests.read_bytes().splitlines()]
    with requests.open("a") as out:
        out.writelines(json.dumps(event) + "\n" for event in trouble(events, random.Random(SEED)))
    config = folder / "config.toml"
    config.write_text('[logging]\nlevel = "debug"\nformat = "json"\n')
    return Hour(recording=recording, start=start, config=config)


def make_hole(readings_csv: Path) -> float:
    """Takes gpu0's rows out of the hole; returns the time of the first row."""
    header, *rows = readings_csv.read_text().splitlines(keepends=True)
    start = float(rows[0].split(",")[0])

    def is_in_hole(row: str) -> bool:
        moment, device, *_ = row.split(",")
        return device == "gpu0" and HOLE[0] < float(moment) - start < HOLE[1]

    readings_csv.write_text("".join([header, *(row for row in rows if not is_in_hole(row))]))
    return start


def trouble(events: Sequence[dict[str, Any]], chance: random.Random) -> Iterator[dict[str, Any]]:
    """Events 20 to 40 minutes late, duplicates at once and later, and other content under an id that is taken."""
    for number, event in enumerate(chance.sample(events, 60)):
        late_seconds = chance.uniform(1_200.0, 2_400.0)
        yield event | {"request_id": f"late-{number}", "team": "batch", "arrived": event["end"] + late_seconds}
    for event in chance.sample(events, 60):
        yield event | {"arrived": event["arrived"] + chance.choice([0.0, 30.0, 600.0, 1_500.0])}
    for event in chance.sample(events, 40):
        # Up to a horizon behind the first it is a conflict, later another request.
        other = {"output_tokens": event["output_tokens"] + 1, "team": "imposter"}
        yield event | other | {"arrived": event["arrived"] + chance.uniform(1.0, 1_800.0)}
    for event in chance.sample(events, 80):
        # The same of an id that is used again for a request at another time, mostly just within the horizon.
        later_seconds = chance.uniform(500.0, 1_000.0)
        yield moved(event, later_seconds) | {"team": "imposter"}


def moved(event: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The event with all its moments so much later."""
    moments = ("start", "scheduled", "first_token", "end", "arrived")
    return event | {name: event[name] + seconds for name in moments if name in event}


def life(hour: Hour, data: Path, kill_at: float | None, chance: random.Random) -> Life:
    """Starts the replay on this data folder, and kills it when its log reaches `kill_at` (None: lets it end)."""
    reread = owed_seconds(data)
    errors = data.parent / "stderr"
    killed_at = None
    with (
        errors.open("wb") as stderr,
        subprocess.Popen(hour.command(data, SPEED), stdout=subprocess.PIPE, stderr=stderr) as process,
    ):
        if kill_at is not None:
            wait_for_log(process, data, kill_at, chance)
            assert process.poll() is None, f"it ended before it could be killed: {errors.read_text()}"
            os.kill(process.pid, signal.SIGKILL)
        stdout, _ = process.communicate(timeout=60)
        assert process.returncode == (0 if kill_at is None else -signal.SIGKILL), errors.read_text()
    if kill_at is not None:
        killed_at = newest_stamp(data)
    logged = tuple(json.loads(line) for line in errors.read_text().splitlines())
    return Life(killed_at=killed_at, logged=logged, reread_seconds=reread, stdout=stdout)


def wait_for_log(process: subprocess.Popen[bytes], data: Path, log_time: float, chance: random.Random) -> None:
    """Until the log is there: then up to 20 ms more, so that any line of the program may be under way."""
    deadline = time.monotonic() + 60.0
    while newest_stamp(data) < log_time and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(chance.uniform(0.0, 0.02))


def newest_stamp(data: Path) -> float:
    """The log's time, read beside whoever writes it; -infinity where there is none yet."""
    try:
        with_log = sqlite3.connect(f"file:{data / 'log.db'}?mode=ro", uri=True)
    except sqlite3.OperationalError:
        return float("-inf")
    try:
        (stamp,) = with_log.execute("SELECT stamp FROM log ORDER BY offset DESC LIMIT 1").fetchone() or (float("-inf"),)
        return float(stamp)
    except sqlite3.OperationalError:
        return float("-inf")
    finally:
        with_log.close()


def owed_seconds(data: Path) -> float | None:
    """The log time that a process started now reads a second time at most: from the commit to the log's end."""
    if not (data / "log.db").exists():
        return None
    log = SqliteLog(data / "log.db", read_only=True)
    try:
        commit, end = log.committed(), log.log_time()
        return None if commit is None or end is None else max(end - commit.log_time, 0.0)
    finally:
        log.close()


def stored(data: Path) -> list[str]:
    """Every final point and roll-up, as line protocol."""
    store = SqliteStore(data / "store.db", read_only=True)
    try:
        return list(store.dump([each for each in MEASUREMENTS.values() if each not in PROVISIONAL]))
    finally:
        store.close()


def rejected(data: Path) -> list[tuple[str, ...]]:
    """Every dead letter, in an order of their own.

    Of those in the log the offset is left out: what engines taught stands in the same log, wherever a life had come to.
    """
    log = SqliteLog(data / "log.db", read_only=True)
    try:
        letters = [letter for _, letter in log.rejections(limit=10_000)]
        return sorted(
            (
                each.source,
                each.position.partition(".")[2] if each.source.startswith("log/") else each.position,
                each.reason,
                each.detail,
                each.sha256,
            )
            for each in letters
        )
    finally:
        log.close()


def kill_points(hour: Hour, chance: random.Random) -> list[float]:
    """A random log time in each thirtieth of the hour."""
    part = HOUR_SECONDS / KILLS
    return [hour.start + part * (number + chance.random()) for number in range(KILLS)]


@pytest.fixture(scope="module")
def undisturbed(hour: Hour, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The data folder of a replay that nobody killed, as fast as it goes; and its statement."""
    data = tmp_path_factory.mktemp("undisturbed") / "data"
    done = subprocess.run(hour.command(data, "max"), capture_output=True, timeout=120, check=True)
    return data, json.loads(done.stdout)


@pytest.fixture(scope="module")
def killed(hour: Hour, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Life]]:
    """The data folder of a replay that was killed 30 times; and its lives, the last one whole."""
    chance = random.Random(SEED)
    data = tmp_path_factory.mktemp("killed") / "data"
    lives = [life(hour, data, point, chance) for point in kill_points(hour, chance)]
    return data, [*lives, life(hour, data, None, chance)]


def test_the_trouble_is_there(undisturbed: tuple[Path, dict[str, Any]]) -> None:
    """The hour has late requests and a late reading that restate, conflicts, and energy recovered across the hole."""
    _, books = undisturbed
    late = [line for line in stored(undisturbed[0]) if line.startswith("restatement,")]
    assert len(late) >= 4
    assert any("late reading" in line for line in late)
    assert any("late request" in line for line in late)
    assert books["rejected"]["conflict"] > 5
    assert books["recovered_joules"] > 0
    assert books["worst_imbalance"] <= 1e-9


def test_thirty_kills_change_no_stored_byte(
    hour: Hour, killed: tuple[Path, list[Life]], undisturbed: tuple[Path, dict[str, Any]]
) -> None:
    """Killed 30 times, all over the hour, it stores what it stores undisturbed, and answers the same."""
    data, lives = killed
    minutes = [(each.killed_at - hour.start) / 60.0 for each in lives if each.killed_at is not None]
    sys.stdout.write(f"seed {SEED}, killed at minutes {', '.join(f'{minute:.2f}' for minute in minutes)}\n")
    assert len(minutes) == KILLS
    assert len({int(minute) for minute in minutes}) >= 20
    assert stored(data) == stored(undisturbed[0])
    assert rejected(data) == rejected(undisturbed[0])
    assert json.loads(lives[-1].stdout) == undisturbed[1]


def test_a_restart_reads_little_again(killed: tuple[Path, list[Life]]) -> None:
    """Each restart says how much it may read again, as the files say it, and it is never more than the bound."""
    _, lives = killed
    resumed = [line for each in lives for line in each.logged if line["event"] == "ledger resumes"]
    sys.stdout.write(f"read again, seconds of log time: {[round(line['reread_seconds']) for line in resumed]}\n")
    for each in lives:
        told = [line["reread_seconds"] for line in each.logged if line["event"] == "ledger resumes"]
        assert told == ([] if each.reread_seconds is None else [each.reread_seconds])
    assert max(line["reread_seconds"] for line in resumed) <= REREAD_BOUND_SECONDS
    (ended,) = [line for line in lives[-1].logged if line["event"] == "replayed"]
    assert ended["finished"]
    assert 0 < ended["reread_records"] < ended["records"]
