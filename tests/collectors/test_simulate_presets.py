"""The scenarios by name: their books close, and each does what its name says."""

from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from collectors.simulate.engine_log import EngineRow
from collectors.simulate.ground import Ground
from collectors.simulate.loads import heavy
from collectors.simulate.names import SCENARIOS
from collectors.simulate.parts import LLAMA_8B, QWEN_14B
from collectors.simulate.presets import DEFAULT_MINUTES, PRESETS
from collectors.simulate.scenario import Scenario
from collectors.simulate.turns import run_in_turns

MINUTES = 1.0


AS_THEY_WERE = {
    "demo": (19, 3462, 16_402.612588),
    "heavy": (272, 7028, 47_782.835563),
    "light": (19, 4621, 18_829.667648),
    "heavy-50": (258, 7763, 48_195.733062),
    "light-50": (20, 7525, 29_808.904855),
    "rag": (178, 2511, 34_200.396035),
    "long-outputs": (77, 12_350, 61_838.026752),
    "prefix-cache": (248, 2237, 38_489.850122),
    "no-chunks": (272, 6909, 47_488.505211),
    "queue": (180, 6855, 41_127.646233),
    "moe": (307, 5403, 41_963.627921),
    "speculative": (316, 4603, 38_974.736766),
    "capped": (128, 6139, 40_477.066015),
    "cap-change": (128, 8618, 47_114.837738),
    "dvfs": (239, 5415, 38_163.672336),
    "sensor-10ms": (272, 7028, 47_782.835563),
    "sensor-100ms": (272, 7028, 47_782.835563),
    "sensor-1s": (272, 7028, 47_782.835563),
    "gain-high": (272, 7028, 47_782.835563),
    "gain-low": (272, 7028, 47_782.835563),
    "missing-events": (272, 7028, 47_782.835563),
    "skew": (272, 7028, 47_782.835563),
    "wrong-facts": (272, 7028, 47_782.835563),
    "disaggregated": (377, 9415, 66_956.173308),
    "model-swap": (131, 9799, 66_350.396392),
    "engine-restart": (272, 7028, 47_782.835563),
}
"""Requests, steps and joules of steps of a minute of each, as once written down."""


@cache
def ran(name: str) -> Ground:
    """A minute of the scenario."""
    ground = Ground(PRESETS[name](MINUTES), 3, 4)
    ground.run(lambda done: None)
    return ground


def rows(ground: Ground) -> list[list[EngineRow]]:
    """What each server tells of itself."""
    return [list(log.rows(int(ground.duration_seconds))) for _, log in ground.logs]


def test_every_scenario_that_is_listed_can_be_made() -> None:
    """One list of names, each that of its scenario; all but demo last 20 minutes if nobody says otherwise."""
    assert set(SCENARIOS) == set(PRESETS) == set(DEFAULT_MINUTES)
    assert {name: make(2.0).name for name, make in PRESETS.items()} == {name: name for name in PRESETS}
    assert {minutes for name, minutes in DEFAULT_MINUTES.items() if name != "demo"} == {20.0}


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_books_of_a_scenario_close(name: str) -> None:
    """Oracle, idle and unreported energy add up to the true energy of the boards, which is that of their curves."""
    ground = ran(name)
    truths = [ground.truth(gpu) for gpu in ground.scenario.gpus]
    others = sum(truth.idle_joules + truth.unreported_joules for truth in truths)
    total = sum(truth.total_joules for truth in truths)
    assert ground.oracle.joules.sum() + others == pytest.approx(total, rel=1e-9)
    for gpu, truth in zip(ground.scenario.gpus, truths, strict=True):
        at_end = ground.curve(gpu).joules(np.array([ground.duration_seconds]))
        assert at_end[0] == pytest.approx(truth.total_joules, rel=1e-9)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_is_what_it_was(name: str) -> None:
    """What makes a new scenario possible changes no other: figures of two releases are of the same requests."""
    ground = ran(name)
    requests, steps, joules = AS_THEY_WERE[name]
    assert (len(ground.requests), ground.steps) == (requests, steps)
    assert sum(ground.truth(gpu).busy_joules for gpu in ground.scenario.gpus) == pytest.approx(joules, rel=1e-9)


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_request_ends_and_its_moments_are_in_order(name: str) -> None:
    """start <= scheduled < first_token <= end, and only a request of one token ends with its first."""
    ground = ran(name)
    starts = np.array([one.start for one in ground.requests])
    single = np.array([one.output_tokens == 1 for one in ground.requests])
    moments = ground.progress
    assert (starts <= moments.scheduled).all()
    assert (moments.scheduled < moments.first_token).all()
    assert ((moments.first_token < moments.end) | single).all()
    assert (ground.oracle.joules > 0).all()


@pytest.mark.parametrize("name", sorted(SCENARIOS.keys() - {"model-swap", "engine-restart", "disaggregated"}))
def test_what_the_engines_tell_is_what_the_requests_had(name: str) -> None:
    """All tokens are counted once in the end, whatever was drafted or throttled."""
    ground = ran(name)
    assert totals([seen[-1] for seen in rows(ground)]) == tokens(ground)


def totals(last: list[EngineRow]) -> tuple[int, int, int]:
    """Prefill, cached and decode tokens."""
    return (
        sum(row.prefill_tokens_total for row in last),
        sum(row.cached_tokens_total for row in last),
        sum(row.decode_tokens_total for row in last),
    )


def tokens(ground: Ground) -> tuple[int, int, int]:
    """The same of the requests."""
    cached = sum(one.cached_tokens for one in ground.requests)
    inputs = sum(one.input_tokens for one in ground.requests)
    return inputs - cached, cached, sum(one.output_tokens for one in ground.requests)


@pytest.mark.parametrize("name", ["heavy-50", "light-50"])
def test_fifty_teams_are_ten_of_each_kind_with_the_load_of_five(name: str) -> None:
    """The tenth of a kind asks ten times as often as the first; together they ask as often as the one team did."""
    few = PRESETS[name.removesuffix("-50")](20.0).tenants
    many = PRESETS[name](20.0).tenants
    assert len({tenant.team for tenant in many}) == 50
    for one in few:
        kind = [each for each in many if each.use_case == one.use_case]
        assert [each.team for each in kind] == [f"{one.team}-{number:02d}" for number in range(1, 11)]
        rates = [each.requests_per_second for each in kind]
        assert sum(rates) == pytest.approx(one.requests_per_second, rel=1e-12)
        assert rates[-1] == pytest.approx(10.0 * rates[0], rel=1e-12)


def test_without_chunks_a_prompt_is_computed_in_one_step() -> None:
    """From the step that begins with it to its first token there is one step; with chunks some prompts take several."""

    def steps_of_prompts(ground: Ground) -> int:
        """The most steps in which one request has computed more than one token."""
        seen = Counter[int]()
        for block in run_in_turns(ground.engines(ground.scenario.servers)):
            busy = block.costs.participants[block.costs.tokens[0] > 1.0]
            seen.update(busy.tolist())
        return max(seen.values())

    assert steps_of_prompts(Ground(PRESETS["no-chunks"](MINUTES), 3, 2)) == 1
    assert steps_of_prompts(Ground(heavy(MINUTES), 3, 2)) > 3


def test_rag_has_long_prompts_and_long_outputs_long_answers() -> None:
    """Median input over median output: above 10 of one, below 1 of the other."""
    ratios = {
        name: np.median([one.input_tokens for one in ran(name).requests])
        / np.median([one.output_tokens for one in ran(name).requests])
        for name in ("rag", "long-outputs")
    }
    assert ratios["rag"] > 10.0
    assert ratios["long-outputs"] < 1.0


def test_most_of_a_prefix_cache_s_prompts_are_not_computed() -> None:
    """Teams at 30, 50, 70, 85 and 95 % of equal prompts: about two thirds of all prompt tokens."""
    requests = PRESETS["prefix-cache"](MINUTES)
    ground = ran("prefix-cache")
    cached = sum(one.cached_tokens for one in ground.requests) / sum(one.input_tokens for one in ground.requests)
    assert 0.55 < cached < 0.75
    assert sorted(tenant.cached_ratio for tenant in requests.tenants) == [0.3, 0.5, 0.7, 0.85, 0.95]


@pytest.mark.parametrize(("name", "since"), [("capped", 0.0), ("cap-change", 0.7)])
def test_a_capped_board_never_draws_more_than_its_cap(name: str, since: float) -> None:
    """330 W all the time in one scenario, from 0.7 of the run on in the other, which draws more before."""
    ground = Ground(PRESETS[name](MINUTES), 3, 2)
    watts = [
        (block.start >= since * 60.0 * MINUTES, float((block.costs.step_joules / block.costs.step_seconds).max()))
        for block in run_in_turns(ground.engines(ground.scenario.servers))
    ]
    assert max(power for capped, power in watts if capped) == pytest.approx(330.0, abs=30.0)
    assert max(power for capped, power in watts if capped) <= 330.0 + 1e-6
    assert all(power > 330.0 for capped, power in watts if not capped)


def test_a_slow_clock_takes_longer_for_a_prompt() -> None:
    """A full chunk is 2 048 tokens: at 70 % of the clock it takes 1 / 0.7 of its time, and less energy."""
    ground = Ground(PRESETS["dvfs"](5.0), 3, 2)
    full = [
        (0.25 <= block.start / 300.0 < 0.4 or 0.65 <= block.start / 300.0 < 0.8, block.costs)
        for block in run_in_turns(ground.engines(ground.scenario.servers))
        if block.costs.tokens[0].sum() == 2048.0
    ]
    slow = [float(costs.step_seconds[0]) - costs.overhead_seconds for low, costs in full if low]
    fast = [float(costs.step_seconds[0]) - costs.overhead_seconds for low, costs in full if not low]
    assert min(slow) == pytest.approx(max(fast) / 0.7, rel=1e-9)


def seldom(scenario: Scenario) -> Ground:
    """The same with a twentieth of the requests, so that the last before the pause ends in time."""
    fewer = [replace(each, requests_per_second=0.05 * each.requests_per_second) for each in scenario.tenants]
    ground = Ground(replace(scenario, tenants=tuple(fewer)), 1, 2)
    ground.run(lambda done: None)
    return ground


def test_another_model_comes_to_the_same_address() -> None:
    """Of 600 s the 8B model tells of itself until 318 s, the 14B one from 327 s on, its counters from 0 on."""
    ground = seldom(PRESETS["model-swap"](10.0))
    (old, new), (before, after) = rows(ground), ground.scenario.servers
    assert before.address == after.address
    assert (before.model, after.model) == (LLAMA_8B, QWEN_14B)
    assert (old[-1].second, new[0].second) == (317, 327)
    assert (old[-1].running, totals(new[:1])) == (0, (0, 0, 0))
    assert totals([old[-1], new[-1]]) == tokens(ground)
    assert {one.tenant.model for one in ground.requests if one.start > 318.0} == {QWEN_14B.name}
    teams = [tenant.team for tenant in ground.scenario.tenants]
    assert teams[:5] == teams[5:]


def test_a_restarted_engine_counts_from_zero_after_a_silence() -> None:
    """Of 600 s it tells nothing from 318 to 327 s; what it serves is heavy's, and 65 W for 9 s are unreported."""
    ground, honest = seldom(PRESETS["engine-restart"](10.0)), seldom(heavy(10.0))
    (seen,) = rows(ground)
    place = next(place for place, row in enumerate(seen) if row.second >= 318)
    before, after = seen[place - 1], seen[place]
    assert (before.second, before.running, after.second) == (317, 0, 327)
    assert totals([after]) == (0, 0, 0)
    assert after.steps_total == 0
    assert before.steps_total > 0
    assert totals([before, seen[-1]]) == tokens(ground)
    np.testing.assert_array_equal(ground.progress.end, honest.progress.end)
    assert ground.truth(ground.scenario.gpus[0]).unreported_joules == pytest.approx(65.0 * 9.0)
