"""The split on recordings of real H200s and an H100 (bench/gpu_split.py, bench/gpu_shared.py), and their plan."""

from itertools import pairwise
from pathlib import Path

import pytest

from bench._gpu_plan import LOADS, STREAMS, TEAMS, Pass, coalitions, passes, shapley
from bench._gpu_score import charged, owed
from collectors.simulate.write import ENGINE_FILE

RECORDINGS = Path(__file__).parent / "recordings"
COALITIONS = RECORDINGS / "h200-coalitions"
EARLIER = RECORDINGS / "h200-open-arrivals"
"""Another board, the same model, requests that come whenever they come: 29 windows to learn from."""

H100 = RECORDINGS / "h100-coalitions"
TWO_MODELS = RECORDINGS / "h100-two-models"
"""The same board with a server of 8e9 parameters for one team, and one of 3e9 for the two others."""


def worst(charges: dict[str, float], recording: Path = COALITIONS) -> float:
    """The largest error of a team, as a share of what it owes."""
    owes = owed(recording)
    return max(abs(charges[team] / owes[team] - 1.0) for team in TEAMS)


def named(each: Pass, teams: tuple[str, ...]) -> list[str]:
    """The pass's requests of these teams; a prompt is told from a token."""
    prompts = [f"prompt of {each.prompt.id}"] if each.prompt and each.prompt.team in teams else []
    return prompts + [asked.id for asked in each.tokens if asked.team in teams]


def test_teams_owe_all_that_the_meter_counted_for_them_together() -> None:
    assert sum(owed(COALITIONS).values()) == pytest.approx(12_929.1, abs=0.1)
    assert owed(COALITIONS) == pytest.approx({"search": 7_107.0, "chat": 3_068.0, "writing": 2_754.0}, abs=0.1)


@pytest.mark.parametrize("engine_file", [ENGINE_FILE, ""], ids=["counters", "events"])
def test_learned_split_of_a_real_board_is_within_three_percent(engine_file: str) -> None:
    charges = charged(COALITIONS, [EARLIER], engine_file, ["--fit", "whole"])
    assert worst(charges) < 0.03
    # The edges of the play are known to a tenth of a second, of 25 s.
    assert sum(charges.values()) == pytest.approx(sum(owed(COALITIONS).values()), rel=0.005)


def test_priors_are_within_four_percent_where_shares_of_tokens_or_time_are_half_off() -> None:
    assert worst(charged(COALITIONS, [], ENGINE_FILE, ["--method", "prior"])) < 0.04
    assert worst(charged(COALITIONS, [], "", ["--method", "token-share"])) > 0.6
    assert worst(charged(COALITIONS, [], "", ["--method", "time-share"])) > 0.5


@pytest.mark.parametrize("engine_file", [ENGINE_FILE, ""], ids=["counters", "events"])
def test_another_type_of_board(engine_file: str) -> None:
    """An H100: priors, and what its own windows teach beside those with two models, which are 34 in all."""
    assert worst(charged(H100, [], engine_file, ["--method", "prior"]), H100) < 0.01
    charges = charged(H100, [TWO_MODELS], engine_file, ["--fit", "whole"])
    assert worst(charges, H100) < 0.03
    assert sum(charges.values()) == pytest.approx(sum(owed(H100).values()), rel=0.005)
    assert worst(charged(H100, [], "", ["--method", "token-share"]), H100) > 0.6
    assert worst(charged(H100, [], "", ["--method", "time-share"]), H100) > 0.5


@pytest.mark.parametrize(("engine_file", "most"), [(ENGINE_FILE, 0.05), ("", 0.065)], ids=["counters", "events"])
def test_two_models_that_take_turns_on_a_board(engine_file: str, most: float) -> None:
    charges = charged(TWO_MODELS, [H100], engine_file, ["--fit", "whole"])
    assert worst(charges, TWO_MODELS) < most
    assert sum(charges.values()) == pytest.approx(sum(owed(TWO_MODELS).values()), rel=0.005)
    assert worst(charged(TWO_MODELS, [], "", ["--method", "token-share"]), TWO_MODELS) > 0.4
    assert worst(charged(TWO_MODELS, [], "", ["--method", "time-share"]), TWO_MODELS) > 0.7


def test_shapley_of_two_teams_by_hand() -> None:
    assert shapley({("a",): 60.0, ("b",): 50.0, ("a", "b"): 80.0}, ("a", "b")) == {"a": 45.0, "b": 35.0}


def test_shapley_of_three_teams_by_hand() -> None:
    """c adds nothing to anybody; a and b share 90 like two teams: 40 / 2 + (90 - 20) / 2 = 55."""
    worth = {("a",): 40.0, ("b",): 20.0, ("c",): 0.0, ("a", "b"): 90.0, ("a", "c"): 40.0, ("b", "c"): 20.0}
    assert shapley(worth | {("a", "b", "c"): 90.0}, ("a", "b", "c")) == pytest.approx({"a": 55.0, "b": 35.0, "c": 0.0})


@pytest.mark.parametrize("teams", coalitions(TEAMS))
def test_a_coalition_goes_through_the_passes_of_all_less_the_others(teams: tuple[str, ...]) -> None:
    expected = [named(each, teams) for each in passes(1, 200, TEAMS)]
    assert [named(each, TEAMS) for each in passes(1, 200, teams)] == [names for names in expected if names]


def test_each_team_has_as_many_requests_in_a_pass_and_each_request_its_tokens() -> None:
    made: dict[str, int] = {}
    told: dict[str, int] = {}
    for each in passes(1, 300, TEAMS):
        for asked in (each.prompt,) if each.prompt else each.tokens:
            made[asked.id] = made.get(asked.id, 0) + 1
            told[asked.id] = asked.output
        if each.tokens:
            assert [sum(asked.team == load.team for asked in each.tokens) for load in LOADS] == [STREAMS] * len(LOADS)
    ended = {name for name, count in made.items() if count == told[name]}
    assert all(made[name] <= told[name] for name in made)
    assert len(made) - len(ended) <= STREAMS * len(LOADS)


@pytest.mark.parametrize("recording", [COALITIONS, H100, TWO_MODELS])
def test_recorded_counters_only_rise(recording: Path) -> None:
    rows = [line.split(",") for line in (recording / "readings.csv").read_text().splitlines()[1:]]
    assert all(float(late[2]) > float(early[2]) for early, late in pairwise(rows))
