"""The engine: what its steps do, take and cost."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from collectors.simulate.engine import Engine, Progress
from collectors.simulate.ground import Ground
from collectors.simulate.loads import heavy, light
from collectors.simulate.oracle import Oracle
from collectors.simulate.parts import H100, LLAMA_8B, QWEN_4B
from collectors.simulate.presets import demo
from collectors.simulate.rates import RatesOverTime, server_rates
from collectors.simulate.scenario import Gpu, Hardware, Lengths, Model, Server, Tenant
from collectors.simulate.traffic import Request, draw_requests
from collectors.simulate.turns import Block, device_groups, run_in_turns

ROUND = Hardware(
    name="round numbers",
    peak_flops_per_second=2e12,
    peak_bytes_per_second=1e9,
    flops_efficiency=0.5,
    bytes_efficiency=1.0,
    idle_watts=100.0,
    power_limit_watts=1e9,
    joules_per_flop=1e-12,
    joules_per_byte=1e-9,
)
TINY = Model(
    name="tiny", parameters=1e9, active_parameters=1e9, bytes_per_parameter=1.0, kv_bytes_per_token=1e6
)  # 1 s and 1 J per step for the weights; 2 ms and 2 mJ to compute a token; 1 ms and 1 mJ to read one of context
SERVER = Server(model=TINY, devices=("gpu0",), step_seconds=0.5, step_joules=7.0, chunk_tokens=8)
TENANT = Tenant(
    team="a",
    use_case="test",
    model="tiny",
    requests_per_second=1.0,
    inputs=Lengths(median_tokens=10, sigma=0.5, maximum_tokens=40),
    outputs=Lengths(median_tokens=5, sigma=0.5, maximum_tokens=20),
    active=((0.0, 10.0),),
)


def request(start: float, inputs: int, outputs: int, cached: int = 0) -> Request:
    return Request(tenant=TENANT, start=start, input_tokens=inputs, cached_tokens=cached, output_tokens=outputs)


def engine(queue: list[tuple[int, Request]], progress: Progress, server: Server, hardware: Hardware = ROUND) -> Engine:
    """One whose rates never change."""
    rates = RatesOverTime(starts=(0.0,), rates=(server_rates(server, hardware),))
    return Engine(server, rates, queue, progress, np.random.default_rng(0))


def run(requests: list[Request], server: Server = SERVER) -> tuple[Progress, list[Block], Oracle]:
    """All blocks of one server, and what the oracle makes of them."""
    progress = Progress(len(requests))
    oracle = Oracle(len(requests), 50, np.random.default_rng(0))
    blocks = list(run_in_turns([engine(list(enumerate(requests)), progress, server)]))
    for block in blocks:
        oracle.add(block.costs)
    return progress, blocks, oracle


def test_one_request_alone_takes_and_costs_what_its_steps_do() -> None:
    """10 tokens in chunks of 8 and 2, then two decode steps: 1.508 + 1.510 s, then 1.511 + 1.512 s.

    Of 12 computed tokens compute would need 24 ms in all, less than memory. Joules: 4 x (1 + 7) of the steps, 0.041 of
    41 tokens of context, 0.024 of 12 tokens computed, and 100 W for 6.041 s.
    """
    progress, blocks, oracle = run([request(3.0, 10, 3)])
    assert progress.scheduled[0] == 3.0
    assert progress.first_token[0] == pytest.approx(3.0 + 1.508 + 1.510, rel=1e-12)
    assert progress.end[0] == pytest.approx(3.0 + 6.041, rel=1e-12)
    assert oracle.joules[0] == pytest.approx(32.0 + 0.041 + 0.024 + 604.1, rel=1e-12)
    assert sum(len(block.costs.own_joules) for block in blocks) == 4


def test_a_cached_prefix_is_read_but_not_computed() -> None:
    """8 of 10 tokens cached: one step computes 2 tokens and reads 10."""
    progress, _, oracle = run([request(0.0, 10, 1, cached=8)])
    assert progress.end[0] == progress.first_token[0] == pytest.approx(1.510, rel=1e-12)
    assert oracle.joules[0] == pytest.approx(8.0 + 0.010 + 0.004 + 151.0, rel=1e-12)


def test_the_power_limit_stretches_a_step() -> None:
    """8 J in 1.008 s of memory time above 100 W idle: at a limit of 104 W the step's kernels take 2.006 s."""
    progress = Progress(1)
    tight = replace(ROUND, power_limit_watts=104.0)
    (block,) = run_in_turns([engine([(0, request(0.0, 8, 1))], progress, SERVER, tight)])
    assert progress.end[0] == pytest.approx(0.5 + (8.0 + 0.008 + 0.016) / 4.0, rel=1e-12)
    assert block.costs.step_joules[0] == pytest.approx(8.024 + 100.0 * progress.end[0], rel=1e-12)


def test_two_equal_requests_share_equally() -> None:
    """Two requests that are alike in everything have the same joules, half of all."""
    _, blocks, oracle = run([request(0.0, 4, 6), request(0.0, 4, 6)])
    total = sum(float(block.costs.step_joules.sum()) for block in blocks)
    np.testing.assert_allclose(oracle.joules, total / 2.0, rtol=1e-12)


def test_a_tensor_parallel_pair_halves_the_time_of_the_work() -> None:
    """Twice the boards: half of 1.008 s, idle power twice, the work's own joules the same."""
    pair = replace(SERVER, devices=("gpu0", "gpu1"))
    progress, blocks, _ = run([request(0.0, 8, 1)], pair)
    assert progress.end[0] == pytest.approx(0.5 + 0.504, rel=1e-12)
    assert blocks[0].costs.step_joules[0] == pytest.approx(8.024 + 200.0 * 1.004, rel=1e-12)


def test_a_cap_holds_from_the_next_step_on() -> None:
    """Steps of about 1.51 s; from 10 s on the limit is 104 W, and those that begin after it take over 2.5 s.

    8 J of weights and overhead at 4 W above idle are 2 s, and 0.5 s of overhead.
    """
    free, capped = (server_rates(SERVER, replace(ROUND, power_limit_watts=watts)) for watts in (1e9, 104.0))
    rates, progress = RatesOverTime(starts=(0.0, 10.0), rates=(free, capped)), Progress(1)
    one = Engine(SERVER, rates, [(0, request(0.0, 8, 20))], progress, np.random.default_rng(0))
    seconds = np.concatenate([block.costs.step_seconds for block in run_in_turns([one])])
    starts = np.cumsum(seconds) - seconds
    assert len(seconds) == 20
    assert seconds[starts < 10.0].max() == pytest.approx(1.514, rel=1e-12)  # the seventh, with 14 tokens of context
    assert seconds[starts >= 10.0].min() == pytest.approx(0.5 + (8.0 + 0.015 + 0.002) / 4.0, rel=1e-12)


def test_kept_drafts_save_steps_and_dropped_ones_cost_their_computing() -> None:
    """3 drafts for a request of 8 + 5 tokens. All kept: after the prompt one step of 4 tokens makes the other 4.

    Joules: 2 x 8 of the steps, 17 tokens of context, 12 computed, 100 W for 1.508 + 1.509 s. None kept (they fail with
    0.999 999): four steps, each computing 4 tokens, over 9, 10, 11 and 12 tokens of context.
    """
    draft = replace(SERVER, drafted_tokens=3, acceptance_ratio=1.0 - 1e-9)
    progress, _, oracle = run([request(0.0, 8, 5)], draft)
    assert progress.end[0] == pytest.approx(1.508 + 1.509, rel=1e-12)
    assert oracle.joules[0] == pytest.approx(16.0 + 0.017 + 0.024 + 301.7, rel=1e-12)
    progress, blocks, oracle = run([request(0.0, 8, 5)], replace(draft, acceptance_ratio=1e-9))
    assert sum(len(block.costs.own_joules) for block in blocks) == 5
    assert progress.end[0] == pytest.approx(1.508 + 1.509 + 1.510 + 1.511 + 1.512, rel=1e-12)
    assert oracle.joules[0] == pytest.approx(40.0 + 0.050 + 0.048 + 755.0, rel=1e-12)


def test_drafts_are_kept_up_to_the_first_that_fails() -> None:
    """At 0.7 a step makes 1 + 0.7 + 0.49 + 0.343 = 2.533 tokens: 20 000 take about 7 896 of them.

    The standard deviation of a step's tokens is 1.2, so that of the number of steps is 0.5 %.
    """
    server = replace(SERVER, drafted_tokens=3, acceptance_ratio=0.7)
    progress, blocks, _ = run([request(0.0, 8, 10_000), request(0.0, 8, 10_000)], server)
    made = sum(len(block.costs.own_joules) * len(block.costs.participants) for block in blocks)
    assert made == pytest.approx(20_000 / 2.533, rel=0.02)
    assert not np.isnan(progress.end).any()


def test_a_server_that_is_down_takes_nobody_in_and_ends_what_it_has() -> None:
    """Up until 1 s and from 20 s on: the first request is served to its end at 6.041 s, the second waits for 20 s."""
    server = replace(SERVER, up=((0.0, 1.0), (20.0, 30.0)))
    progress, _, _ = run([request(0.0, 10, 3), request(5.0, 10, 3)], server)
    assert progress.end[0] == pytest.approx(6.041, rel=1e-12)
    assert progress.scheduled[1] == 20.0
    with pytest.raises(ValueError, match="down for good"):
        run([request(30.0, 10, 3)], server)


def reference_ends(requests: list[Request], max_batch: int, chunk_tokens: int) -> list[float]:
    """The same engine, one step and one request at a time, in plain Python."""
    ends, now = [0.0] * len(requests), 0.0
    waiting = list(range(len(requests)))
    computed = {index: one.cached_tokens for index, one in enumerate(requests)}
    made = dict.fromkeys(waiting, 0)
    batch: list[int] = []
    while waiting or batch:
        while waiting and requests[waiting[0]].start <= now and len(batch) < max_batch:
            batch.append(waiting.pop(0))
        if not batch:
            now = requests[waiting[0]].start
            continue
        decoding = [index for index in batch if made[index]]
        room, tokens, context = chunk_tokens - len(decoding), len(decoding), 0
        for index in decoding:
            context += requests[index].input_tokens + made[index]
            made[index] += 1
        for index in [index for index in batch if index not in decoding]:
            chunk = min(room, requests[index].input_tokens - computed[index])
            if chunk == 0:
                break
            computed[index] += chunk
            made[index] += computed[index] == requests[index].input_tokens
            room, tokens, context = room - chunk, tokens + chunk, context + computed[index]
        now += 0.5 + max(1.0 + 1e-3 * context, 2e-3 * tokens)
        for index in [index for index in batch if made[index] == requests[index].output_tokens]:
            ends[index] = now
            batch.remove(index)
    return ends


@pytest.mark.parametrize(("max_batch", "chunk_tokens"), [(2, 8), (4, 16), (50, 1000)])
def test_blocks_of_steps_end_where_single_steps_do(max_batch: int, chunk_tokens: int) -> None:
    """Planning many decode steps at once changes nothing, queue, small chunks and arrivals included."""
    rng = np.random.default_rng(4)
    starts = np.cumsum(rng.exponential(6.0, 40))
    inputs, outputs = rng.integers(1, 60, 40).tolist(), rng.integers(1, 30, 40).tolist()
    requests = [
        request(float(start), inputs[number], outputs[number], cached=inputs[number] // 3)
        for number, start in enumerate(starts)
    ]
    progress, _, _ = run(requests, replace(SERVER, max_batch=max_batch, chunk_tokens=chunk_tokens))
    np.testing.assert_allclose(progress.end, reference_ends(requests, max_batch, chunk_tokens), rtol=1e-9)


def test_engines_that_share_a_board_never_run_at_once() -> None:
    """Blocks of two servers of one GPU follow one another, and both get their turn."""
    ground = Ground(demo(6.0), 2, 2)
    shared = device_groups(ground.scenario)[("gpu1",)]
    blocks = list(run_in_turns(ground.engines(shared)))
    assert all(before.end <= after.start for before, after in pairwise(blocks))
    models = {ground.requests[block.costs.participants[0]].tenant.model for block in blocks}
    assert models == {LLAMA_8B.name, QWEN_4B.name}


def test_servers_that_share_some_of_their_boards_are_refused() -> None:
    """Whose step runs is undefined where groups of boards overlap."""
    scenario = replace(demo(1.0), servers=(SERVER, replace(SERVER, devices=("gpu0", "gpu1"))))
    with pytest.raises(ValueError, match="all of their devices or none"):
        device_groups(scenario)


def test_requests_come_in_the_tenants_active_periods_at_their_rate() -> None:
    """2 per second in two periods of 500 s: about 2 000, none outside, and the cache serves from the second on."""
    tenant = replace(
        TENANT, requests_per_second=2.0, active=((100.0, 600.0), (900.0, 1400.0)), burstiness=2.0, cached_ratio=0.9
    )
    scenario = replace(light(1.0), servers=(SERVER,), tenants=(tenant,))
    requests = draw_requests(scenario, 1)
    assert len(requests) == pytest.approx(2000, abs=150)  # standard deviation sqrt(2 x 2000) = 63
    assert all(100.0 <= one.start < 600.0 or 900.0 <= one.start < 1400.0 for one in requests)
    assert requests[0].cached_tokens == 0
    assert all(one.cached_tokens < one.input_tokens and one.cached_tokens % 16 == 0 for one in requests)
    assert any(one.cached_tokens for one in requests)


def test_heavy_saturates_and_light_does_not() -> None:
    """About 48 requests to a step against about 1.6, on the same hardware."""
    loads = {}
    for scenario in (heavy(12.0), light(20.0)):
        ground = Ground(scenario, 1, 2)
        ground.run(lambda done: None)
        loads[scenario.name] = ground.batch_seconds / ground.step_seconds
    assert 40.0 < loads["heavy"] < 56.0
    assert 1.2 < loads["light"] < 2.2


def test_presets_keep_their_boards_below_the_power_limit() -> None:
    """No step of a heavy run draws more than 700 W on average."""
    ground = Ground(heavy(1.0), 1, 2)
    for servers in device_groups(ground.scenario).values():
        for block in run_in_turns(ground.engines(servers)):
            assert (block.costs.step_joules / block.costs.step_seconds <= H100.power_limit_watts + 1e-6).all()


def test_a_tensor_parallel_scenario_spreads_its_energy_over_its_boards() -> None:
    """Both boards of a pair have the same account."""
    scenario = replace(
        light(1.0),
        gpus=(Gpu(id="gpu0", hardware=ROUND), Gpu(id="gpu1", hardware=ROUND)),
        servers=(replace(SERVER, devices=("gpu0", "gpu1")),),
        tenants=(TENANT,),
        sensors=(),
    )
    ground = Ground(scenario, 1, 2)
    ground.run(lambda done: None)
    one, other = (ground.truth(gpu) for gpu in scenario.gpus)
    assert replace(other, device="gpu0") == one
