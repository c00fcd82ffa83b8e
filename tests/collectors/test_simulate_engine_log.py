"""engine.csv: what a simulated engine tells of itself, second by second."""

import csv
from math import inf
from pathlib import Path

import numpy as np
import pytest

from collectors.recording import load_recording
from collectors.simulate.engine_log import BlockEnd, EngineLog, EngineRow
from collectors.simulate.ground import Ground
from collectors.simulate.loads import heavy
from collectors.simulate.presets import demo
from collectors.simulate.scenario import Scenario
from collectors.simulate.simulate import DEFAULT_START, simulate

HEADER = (
    "time,server,model,devices,running,waiting,steps_total,prefill_tokens_total,cached_tokens_total,"
    "decode_tokens_total,kv_tokens"
)

ALWAYS = ((0.0, inf),)


def told(rows: list[EngineRow]) -> list[tuple[int, ...]]:
    """Running, waiting, steps, prefill, cached, decode, kv of each second."""
    return [
        (
            row.running,
            row.waiting,
            row.steps_total,
            row.prefill_tokens_total,
            row.cached_tokens_total,
            row.decode_tokens_total,
            row.kv_tokens,
        )
        for row in rows
    ]


def test_a_prompt_in_two_chunks_counts_with_its_first_token() -> None:
    """One request comes at 0.5 s; 8 of 10 tokens at 1.5 s, the rest and the first token at 2.5, the second at 3.0.

    4 of its 14 prompt tokens are cached. The step without a token is not counted, though the cache holds its work.
    """
    log = EngineLog([0.5], ALWAYS)
    waits = BlockEnd(joined=1, left=0, prefill_tokens=0, cached_tokens=0)
    log.add(np.array([1.5]), np.array([0]), np.array([12]), waits)
    log.add(
        np.array([2.5]), np.array([1]), np.array([15]), BlockEnd(joined=0, left=0, prefill_tokens=10, cached_tokens=4)
    )
    log.add(
        np.array([3.0]), np.array([1]), np.array([0]), BlockEnd(joined=0, left=1, prefill_tokens=0, cached_tokens=0)
    )
    assert told(list(log.rows(4))) == [
        (0, 0, 0, 0, 0, 0, 0),
        (0, 1, 0, 0, 0, 0, 0),
        (1, 0, 0, 0, 0, 0, 12),
        (0, 0, 2, 10, 4, 2, 0),
        (0, 0, 2, 10, 4, 2, 0),
    ]


def test_an_engine_without_work_tells_zeros() -> None:
    """A row for each second, both ends included."""
    rows = list(EngineLog([], ALWAYS).rows(2))
    assert [row.second for row in rows] == [0, 1, 2]
    assert told(rows) == [(0,) * 7] * 3


def test_a_server_that_is_down_tells_nothing_and_begins_again_at_zero() -> None:
    """Up until 2 s and from 5 s on. Its last request ends at 3.5 s, so that it tells of itself until then."""
    log = EngineLog([0.5, 4.0], ((0.0, 2.0), (5.0, inf)))
    log.add(
        np.array([1.5]), np.array([1]), np.array([9]), BlockEnd(joined=1, left=0, prefill_tokens=8, cached_tokens=0)
    )
    log.add(
        np.array([3.5]), np.array([1]), np.array([0]), BlockEnd(joined=0, left=1, prefill_tokens=0, cached_tokens=0)
    )
    log.add(
        np.array([5.5]), np.array([1]), np.array([6]), BlockEnd(joined=1, left=0, prefill_tokens=5, cached_tokens=0)
    )
    rows = list(log.rows(6))
    assert [row.second for row in rows] == [0, 1, 2, 3, 5, 6]
    assert told(rows)[3:] == [(1, 0, 1, 8, 0, 1, 9), (0, 1, 0, 0, 0, 0, 0), (1, 0, 1, 5, 0, 1, 6)]


@pytest.mark.parametrize("scenario", [heavy(1.0), demo(3.0)], ids=lambda one: one.name)
def test_the_counters_are_those_of_the_requests(scenario: Scenario) -> None:
    """At each second: prompts whose first token is made; those who came but left; and at the end every token."""
    ground = Ground(scenario, 3, 2)
    ground.run(lambda done: None)
    for server, log in ground.logs:
        mine = [k for k, one in enumerate(ground.requests) if one.tenant.model == server.model.name]
        requests = [ground.requests[k] for k in mine]
        first, end = ground.progress.first_token[mine], ground.progress.end[mine]
        start = np.array([one.start for one in requests])
        cached = np.array([one.cached_tokens for one in requests])
        computed = np.array([one.input_tokens for one in requests]) - cached
        rows = list(log.rows(int(ground.duration_seconds)))
        assert len(rows) == ground.duration_seconds + 1
        for row in rows:
            assert row.prefill_tokens_total == computed[first <= row.second].sum()
            assert row.cached_tokens_total == cached[first <= row.second].sum()
            assert row.running + row.waiting == ((start <= row.second) & (end > row.second)).sum()
        assert rows[-1].decode_tokens_total == sum(one.output_tokens for one in requests)
        assert (rows[-1].running, rows[-1].waiting, rows[-1].kv_tokens) == (0, 0, 0)
    assert (
        0 < sum(list(log.rows(int(ground.duration_seconds)))[-1].steps_total for _, log in ground.logs) <= ground.steps
    )


def test_engine_csv_has_a_row_for_each_server_and_second(tmp_path: Path) -> None:
    """Three servers under their ports, by time; totals never fall."""
    summary = simulate(demo(3.0), 1, tmp_path, permutations=2)
    text = (tmp_path / "engine.csv").read_text(encoding="utf-8")
    assert text.splitlines()[0] == HEADER
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == 3 * (summary.duration_seconds + 1)
    assert [(row["time"], row["server"], row["model"], row["devices"]) for row in rows[:3]] == [
        (repr(DEFAULT_START), "127.0.0.1:8000", "qwen3-14b", "gpu0"),
        (repr(DEFAULT_START), "127.0.0.1:8001", "llama-3.1-8b", "gpu1"),
        (repr(DEFAULT_START), "127.0.0.1:8002", "qwen3-4b", "gpu1"),
    ]
    for server in ("127.0.0.1:8000", "127.0.0.1:8001", "127.0.0.1:8002"):
        steps = [int(row["steps_total"]) for row in rows if row["server"] == server]
        assert steps == sorted(steps)
        assert steps[-1] > 0


def test_a_recording_reads_the_same_with_and_without_engine_csv(tmp_path: Path) -> None:
    """The file is beside the others and changes none of them."""
    with_engine = simulate(demo(2.0), 1, tmp_path / "with", permutations=2)
    without = simulate(demo(2.0), 1, tmp_path / "without", permutations=2, engine=False)
    assert set(with_engine.files) - set(without.files) == {"engine.csv"}
    assert not (tmp_path / "without" / "engine.csv").exists()
    one, other = load_recording(tmp_path / "with"), load_recording(tmp_path / "without")
    assert (one.readings, [each.event for each in one.requests]) == (
        other.readings,
        [each.event for each in other.requests],
    )
    assert not one.rejected
