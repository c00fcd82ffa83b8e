"""Whose turn it is on a group of boards: engines that share them run one step at a time, in turns.

So their dynamic energies never overlap and idle power counts once: it belongs to the step that runs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from collectors.simulate.cost import StepCosts
from collectors.simulate.engine import LONGEST_BLOCK_STEPS, Engine
from collectors.simulate.scenario import Scenario, Server


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Successive steps of one server, without a pause, from `start` to `end` in seconds."""

    start: float
    end: float
    costs: StepCosts


def device_groups(scenario: Scenario) -> dict[tuple[str, ...], tuple[Server, ...]]:
    """Servers by the boards they run on; raises ValueError if two groups overlap without being the same."""
    groups: dict[tuple[str, ...], tuple[Server, ...]] = {}
    for server in scenario.servers:
        groups[server.devices] = (*groups.get(server.devices, ()), server)
    boards = [device for devices in groups for device in devices]
    if len(boards) != len(set(boards)):
        raise ValueError("servers share either all of their devices or none")
    return groups


def run_in_turns(engines: Sequence[Engine]) -> Iterator[Block]:
    """All blocks of the engines of one group, in order of time, until every request has ended."""
    now = 0.0
    order = list(engines)
    while True:
        busy = [engine for engine in order if engine.admit(now)]
        until = min(engine.next_start for engine in order)
        if not busy:
            if until == np.inf:
                return
            now = until
            continue
        engine = busy[0]
        costs = engine.plan(now, until, LONGEST_BLOCK_STEPS if len(busy) == 1 else 1)
        seconds = costs.step_seconds
        end = now + float(seconds.sum())
        engine.finish(now, seconds)
        yield Block(start=now, end=end, costs=costs)
        now = end
        order.remove(engine)
        order.append(engine)
