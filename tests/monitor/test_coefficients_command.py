"""`wattribute coefficients` over a log with lessons, and over one without."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from collectors.units import SECONDS_PER_DAY
from monitor.cli.coefficients import coefficients
from monitor.core.attribution.learning import FitSums, sums_of, total
from monitor.core.attribution.priors import PRIOR
from monitor.core.attribution.units import UnitSums, unit_sums_of
from monitor.core.attribution.work import Work
from monitor.core.lessons import Lesson, UnitLesson, from_requests
from monitor.core.membership import Accounting
from monitor.log.codec import accounting_record, lesson_record
from monitor.log.sqlite import SqliteLog
from monitor.roles.embedded import LOG_FILE

T = SECONDS_PER_DAY * 20_000.0
KILOJOULE_OF_FLOPS, KILOJOULE_OF_BYTES = 1e3 / PRIOR.joules_per_flop, 1e3 / PRIOR.joules_per_byte
LEARNED = total([sums_of(Work(KILOJOULE_OF_FLOPS, 0.0), 800.0), sums_of(Work(0.0, KILOJOULE_OF_BYTES), 1_100.0)] * 100)
ALWAYS_THE_SAME = total([sums_of(Work(KILOJOULE_OF_FLOPS, KILOJOULE_OF_BYTES), 1_500.0)] * 50)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A log in which two GPU types were learned of, from 0:00 to 0:10."""
    log = SqliteLog(tmp_path / LOG_FILE)
    lessons: dict[str, FitSums] = {"NVIDIA H100": LEARNED, "NVIDIA L4": ALWAYS_THE_SAME}
    for gpu, sums in lessons.items():
        log.append(
            [lesson_record(Lesson(gpu=gpu, partition="0/1", start=T, taught_at=T + 1_500.0, sums=sums))], T + 1_500.0
        )
    log.close()
    return tmp_path


def run(data: Path, *arguments: str) -> Result:
    return CliRunner().invoke(coefficients, ["--data", str(data), *arguments])


def test_what_is_in_force_and_what_was_found(data: Path) -> None:
    """0.8 of the prior's J/FLOP and 1.1 of its J/byte; of the other type any split explains as much: priors."""
    shown = run(data, "--at", str(T + 3_600)).stdout.splitlines()
    assert shown[0].split() == [
        "gpu",
        "in",
        "force",
        "pJ/FLOP",
        "nJ/byte",
        "found",
        "pJ/FLOP",
        "found",
        "nJ/byte",
        "R2",
        "condition",
        "windows",
    ]
    assert " ".join(shown[2].split()) == "NVIDIA H100 learned 0.961 0.1980 0.961 0.1980 1.0000 1 200"
    assert " ".join(shown[3].split()).startswith("NVIDIA L4 prior (work never changed its mix) 1.200 0.1800 0.")
    assert shown[-1] == "priors: 1.200 pJ/FLOP, 0.1800 nJ/byte"


def test_as_json_in_base_units(data: Path) -> None:
    """The condition of windows that are all alike is no number."""
    found = json.loads(run(data, "--at", str(T + 3_600), "--json").stdout)
    assert found["NVIDIA H100"]["joules_per_flop"] == pytest.approx(0.8 * PRIOR.joules_per_flop, rel=5e-3)
    assert found["NVIDIA L4"]["verdict"] == "unidentifiable"
    assert found["NVIDIA L4"]["condition"] is None
    assert found["NVIDIA L4"]["joules_per_flop"] == PRIOR.joules_per_flop


def test_what_only_requests_taught_says_so(data: Path) -> None:
    """A type whose engines tell nothing; its row is under its own name."""
    log, at = SqliteLog(data / LOG_FILE), T + 1_500.0
    taught = Lesson(gpu=from_requests("NVIDIA L40S"), partition="0/1", start=T, taught_at=at, sums=LEARNED)
    log.append([lesson_record(taught)], at)
    log.close()
    shown = run(data, "--at", str(T + 3_600)).stdout.splitlines()
    assert " ".join(shown[4].split()) == "NVIDIA L40S learned from requests 0.961 0.1980 0.961 0.1980 1.0000 1 200"
    found = json.loads(run(data, "--at", str(T + 3_600), "--json").stdout)
    assert {gpu: fit["from_requests"] for gpu, fit in found.items()} == {
        "NVIDIA H100": False,
        "NVIDIA L4": False,
        "NVIDIA L40S": True,
    }


def test_before_it_was_in_force(data: Path) -> None:
    """At 0:20 nothing is learned yet."""
    assert "prior (too few windows)" in run(data, "--at", str(T + 1_200)).stdout


def test_a_log_in_which_nothing_was_learned(tmp_path: Path) -> None:
    """It says so, and what everything goes by."""
    SqliteLog(tmp_path / LOG_FILE).close()
    assert run(tmp_path).stdout.startswith("nothing has been learned; every GPU type goes by the priors: 1.200 pJ/FLOP")


def test_units_of_work_stand_below(data: Path) -> None:
    """Of a GPU type of which nothing else is known too: 300 J and 1.5 s an image, 40 windows; 5 of the other model."""
    log = SqliteLog(data / LOG_FILE)
    sums = unit_sums_of(2.0, 3.0, 600.0)
    for model, windows in (("painter", 40), ("sketcher", 5)):
        added = UnitSums()
        for _ in range(windows):
            added = added.plus(sums)
        lesson = UnitLesson(
            gpu="NVIDIA A10", model=model, unit="image", partition="0/1", start=T, taught_at=T + 1_500.0, sums=added
        )
        log.append([lesson_record(lesson)], T + 1_500.0)
    log.close()
    shown = [" ".join(line.split()) for line in run(data, "--at", str(T + 3_600)).stdout.splitlines()]
    assert shown[-2:] == [
        "NVIDIA A10 painter image learned 300 1.5 1.0000 40",
        "NVIDIA A10 sketcher image active time (too few windows) 300 1.5 1.0000 5",
    ]
    found = json.loads(run(data, "--at", str(T + 3_600), "--json").stdout)
    assert [each["verdict"] for each in found["NVIDIA A10"]["units"]] == ["learned", "few"]
    assert found["NVIDIA A10"]["verdict"] == "few"
    assert found["NVIDIA H100"]["units"] == []


def test_books_that_do_not_go_by_what_is_learned(data: Path) -> None:
    """Begun by another method: it says so beside the figures."""
    assert run(data).stderr == ""
    log = SqliteLog(data / LOG_FILE)
    log.append([accounting_record(Accounting(method="token-share.4"))], T + 1_600.0)
    log.close()
    assert run(data).stderr == "coefficients: the books are kept by token-share.4, which does not go by these\n"


def test_a_moment_that_is_none(tmp_path: Path) -> None:
    """Wrong use."""
    result = run(tmp_path, "--at", "teatime")
    assert result.exit_code == 2
    assert "'teatime' is not a moment" in result.stderr
