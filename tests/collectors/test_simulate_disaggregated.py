"""Prefill and decode on servers of their own: what each does, what it costs, and what is told of it."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from test_simulate_engine import SERVER, engine, request

from collectors.recording import load_recording
from collectors.requests.event import EventPart
from collectors.simulate.disaggregated import disaggregated
from collectors.simulate.engine import Progress
from collectors.simulate.ground import Ground
from collectors.simulate.handover import asked_of, handover_seconds
from collectors.simulate.oracle import Oracle
from collectors.simulate.rates import Floats
from collectors.simulate.scenario import Reporting, Scenario, Server
from collectors.simulate.simulate import DEFAULT_START, simulate
from collectors.simulate.traffic import Request
from collectors.simulate.turns import Block, run_in_turns

PREFILL = replace(SERVER, phase="prefill")
DECODE = replace(SERVER, devices=("gpu1",), phase="decode", handover_seconds=0.2, handover_bytes_per_second=1e8)


def apart(requests: list[Request], decode: Server = DECODE) -> tuple[Progress, list[list[Block]], Oracle]:
    """Requests through both servers: the blocks of each, and what the oracle makes of all of them."""
    progress, oracle = Progress(len(requests)), Oracle(len(requests), 50, np.random.default_rng(0))

    def served(server: Server) -> list[Block]:
        return list(run_in_turns([engine(asked_of(server, requests, progress.first_token), progress, server)]))

    ran = [served(PREFILL), served(decode)]
    for block in (block for blocks in ran for block in blocks):
        oracle.add(block.costs)
    return progress, ran, oracle


def test_a_request_alone_costs_what_it_does_on_one_server_and_ends_as_much_later_as_its_cache_takes() -> None:
    """10 tokens in chunks of 8 and 2: 1.508 + 1.510 s. 10 MB at 100 MB/s and 0.2 s: 0.3 s. Two tokens: 1.511 + 1.512 s.

    Joules as in test_simulate_engine.py: 32 of four steps, 0.041 of context, 0.024 of tokens, 100 W for 6.041 s.
    """
    progress, ran, oracle = apart([request(3.0, 10, 3)])
    assert progress.scheduled[0] == 3.0
    assert progress.first_token[0] == pytest.approx(6.018, rel=1e-12)
    assert progress.end[0] == pytest.approx(6.018 + 0.3 + 3.023, rel=1e-12)
    assert oracle.joules[0] == pytest.approx(32.0 + 0.041 + 0.024 + 604.1, rel=1e-12)
    assert [sum(len(block.costs.own_joules) for block in blocks) for blocks in ran] == [2, 2]


def test_an_answer_of_one_token_is_never_handed_over() -> None:
    """It ends with its first token, on the server that computed its prompt; the other has nothing to do."""
    progress, (_, decoding), _ = apart([request(0.0, 8, 1)])
    assert progress.end[0] == progress.first_token[0] == pytest.approx(1.508, rel=1e-12)
    assert decoding == []


def test_a_full_decode_server_lets_who_comes_wait_and_the_prefill_server_not() -> None:
    """Prompts of 4 and 4 tokens are done in one step; of two answers of 3 tokens the second begins when the first ends.

    Both caches are there at 1.508 + 0.2 + 0.04 s. The first answer takes 1.505 + 1.506 s, the second the same again.
    """
    progress, _, _ = apart([request(0.0, 4, 3), request(0.0, 4, 3)], replace(DECODE, max_batch=1))
    assert progress.first_token.tolist() == pytest.approx([1.516, 1.516], rel=1e-2)
    there = float(progress.first_token[0]) + 0.24
    assert progress.end.tolist() == pytest.approx([there + 3.011, there + 6.022], rel=1e-12)


def test_a_decode_server_needs_prompts_that_are_computed() -> None:
    """Where it stands before its prefill server, nobody knows yet when they are: refused."""
    scenario = disaggregated(1.0)
    with pytest.raises(ValueError, match="stands behind its prefill server"):
        Ground(replace(scenario, servers=scenario.servers[::-1]), 1, 2).run(lambda done: None)


def test_a_long_prompt_takes_31_milliseconds_to_hand_over() -> None:
    """10 000 tokens of 131 072 B at 50 GB/s: 26.2 ms, and 5 ms."""
    _, decode = disaggregated(1.0).servers
    assert handover_seconds(decode, 10_000) == pytest.approx(0.0312144, rel=1e-12)


@cache
def ran() -> tuple[Ground, list[list[Block]], list[Floats]]:
    """Two minutes of the scenario: of each server its blocks, and what each request truly used on its board."""
    ground = Ground(disaggregated(2.0), 3, 4)
    ground.run(lambda done: None)
    again = Ground(disaggregated(2.0), 3, 4)
    blocks = [list(run_in_turns(again.engines((server,)))) for server in again.scenario.servers]
    return ground, blocks, [used_in(each, len(again.requests)) for each in blocks]


def used_in(blocks: list[Block], requests: int) -> Floats:
    """Each request's share of these steps."""
    oracle = Oracle(requests, 4, np.random.default_rng(1))
    for block in blocks:
        oracle.add(block.costs)
    return oracle.joules


def test_one_server_computes_prompts_alone_and_the_other_one_tokens_alone() -> None:
    """A prefill step computes up to 2 048 tokens of prompts, of several where they wait; a decode step one of each."""
    _, (prefilling, decoding), _ = ran()
    steps = [block.costs.tokens for block in prefilling]
    assert all(len(tokens) == 1 for tokens in steps)
    assert max(float(tokens.sum()) for tokens in steps) == 2048.0
    assert max(tokens.shape[1] for tokens in steps) >= 4
    assert all((block.costs.tokens == 1.0).all() for block in decoding)
    batch = sum(block.costs.tokens.sum() for block in decoding) / sum(len(block.costs.tokens) for block in decoding)
    assert 20.0 < batch < 60.0


def test_a_request_s_truth_is_its_share_of_both_servers_steps() -> None:
    """Board by board the requests' joules are those of its steps, and a request's are the sum of both."""
    ground, _, used = ran()
    for gpu, joules in zip(ground.scenario.gpus, used, strict=True):
        assert joules.sum() == pytest.approx(ground.truth(gpu).busy_joules, rel=1e-9)
    np.testing.assert_allclose(ground.oracle.joules, used[0] + used[1], rtol=0.02)  # few orders are sampled


def test_who_reads_pays_on_one_board_and_who_writes_on_the_other() -> None:
    """Searches and summaries by the prompt, reasoning by the answer: a split that mixes both boards would show."""
    ground, _, (prefills, decodes) = ran()
    team = np.array([one.tenant.team for one in ground.requests])
    prompt_part = {
        name: float(prefills[team == name].sum() / (prefills + decodes)[team == name].sum()) for name in set(team)
    }
    assert min(prompt_part["search"], prompt_part["legal"]) > 0.5
    assert prompt_part["research"] < 0.05
    assert 0.05 < prompt_part["helpdesk"] < 0.5


def test_each_server_tells_of_itself_what_it_did() -> None:
    """Computed prompts and a token of each on one; the others, their prompts all cached, on the other one."""
    ground, _, _ = ran()
    prefill, decode = (list(log.rows(int(ground.duration_seconds)))[-1] for _, log in ground.logs)
    inputs, cached, outputs = (
        np.array([getattr(one, name) for one in ground.requests])
        for name in ("input_tokens", "cached_tokens", "output_tokens")
    )
    assert prefill.prefill_tokens_total == (inputs - cached).sum()
    assert (prefill.cached_tokens_total, prefill.decode_tokens_total) == (cached.sum(), len(outputs))
    assert (decode.prefill_tokens_total, decode.cached_tokens_total) == (0, inputs[outputs > 1].sum())
    assert decode.decode_tokens_total == (outputs - 1).sum()
    for last in (prefill, decode):
        assert (last.running, last.waiting, last.kv_tokens) == (0, 0, 0)


def recorded(scenario: Scenario, folder: Path) -> tuple[list[dict[str, object]], list[tuple[EventPart, ...]]]:
    """Its events as they are written, and their parts as they are read."""
    simulate(scenario, 3, folder, permutations=2)
    loaded = load_recording(folder)
    assert not loaded.rejected
    assert [model.devices for model in loaded.profile.models] == [("gpu0", "gpu1")]
    assert {(each.server, each.devices) for each in loaded.engines} == {
        ("127.0.0.1:8000", ("gpu0",)),
        ("127.0.0.1:8001", ("gpu1",)),
    }
    lines = (folder / "requests.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines], [each.event.parts for each in loaded.requests]


@pytest.mark.parametrize("first_token", [True, False])
def test_events_tell_where_each_phase_ran(tmp_path: Path, first_token: bool) -> None:
    """Prefill from scheduling to the first token on gpu0, decoding from there to the end on gpu1; on host sim-1.

    A gateway that does not know the first token tells when the prefill ended.
    """
    told, parts = recorded(replace(disaggregated(1.0), reporting=Reporting(first_token=first_token)), tmp_path)
    ground = Ground(disaggregated(1.0), 3, 2)
    ground.run(lambda done: None)
    assert len(told) == len(ground.requests) > 50
    for event, (prefill, *decode) in zip(told, parts, strict=True):
        index = int(str(event["request_id"]).rpartition("-")[2])
        turn = DEFAULT_START + float(ground.progress.first_token[index])
        assert prefill == EventPart(
            phase="prefill", host="sim-1", devices=("gpu0",), start=float(str(event["scheduled"])), end=turn
        )
        many = ground.requests[index].output_tokens > 1
        whole = EventPart(phase="decode", host="sim-1", devices=("gpu1",), start=turn, end=float(str(event["end"])))
        assert decode == [whole] * many
