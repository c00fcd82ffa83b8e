"""Three teams on one server, every coalition of them, and what each owes of the joules measured: Shapley's value.

A pass of a model server costs hardly more for ten requests than for one, so what a request "used" is a question of
how what is common is shared. Shapley's value answers it without a model of the hardware: run the same passes with each
coalition of teams alone in them, measure each time, and a team owes what it added, in the mean over all orders of
joining. Every team has as many requests in a pass as any other, so what is owed by team and by request is the same.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from math import factorial


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """A team's requests: prompts of one of these lengths, answers drawn evenly from the range."""

    team: str
    input: tuple[int, ...]
    output: tuple[int, int]


LOADS = (
    Load(team="search", input=(1024, 1536, 2048), output=(40, 120)),
    Load(team="chat", input=(256, 512), output=(150, 250)),
    Load(team="writing", input=(256,), output=(400, 600)),
)
TEAMS = tuple(load.team for load in LOADS)
STREAMS = 4
"""Requests of a team at a time: when one ends its next begins."""


@dataclass(slots=True)
class Asked:
    """A request on its stream's place in the KV cache."""

    id: str
    team: str
    slot: int
    input: int
    output: int


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass: a prompt of one request, or a token for each of several."""

    prompt: Asked | None = None
    tokens: tuple[Asked, ...] = ()


@dataclass(slots=True)
class _Stream:
    load: Load
    slot: int
    drawn: random.Random
    made: int = 0
    asked: Asked | None = None
    count: int = field(default=0)

    def next(self) -> Asked:
        output = self.drawn.randint(*self.load.output)
        if self.count == 0:
            output = self.drawn.randint(2, output)  # as if they had begun at different times
        self.asked = Asked(
            id=f"{self.load.team}-{self.slot}-{self.count}",
            team=self.load.team,
            slot=self.slot,
            input=self.drawn.choice(self.load.input),
            output=output,
        )
        self.count, self.made = self.count + 1, 1
        return self.asked


def passes(seed: int, turns: int, coalition: tuple[str, ...]) -> Iterator[Pass]:
    """The passes of so many turns with only these teams in them; a pass in which none of them is falls away.

    In a turn each stream that has no request begins one, whose prompt is a pass of its own, and then all get a token.
    The other teams' streams go through the same turns, so a coalition's passes are those of all teams less the others.
    """
    streams = [
        _Stream(load=load, slot=slot, drawn=random.Random(f"{seed}-{slot}"))
        for slot, load in enumerate(load for load in LOADS for _ in range(STREAMS))
    ]
    for _ in range(turns):
        for stream in streams:
            if stream.asked is None or stream.made >= stream.asked.output:
                asked = stream.next()
                if asked.team in coalition:
                    yield Pass(prompt=asked)
        going = [stream for stream in streams if stream.asked is not None and stream.made < stream.asked.output]
        for stream in going:
            stream.made += 1
        if tokens := tuple(stream.asked for stream in going if stream.asked and stream.asked.team in coalition):
            yield Pass(tokens=tokens)


def coalitions(teams: tuple[str, ...]) -> list[tuple[str, ...]]:
    """All that are not empty, each larger one after its parts: 7 of three teams."""
    return [some for size in range(1, len(teams) + 1) for some in combinations(teams, size)]


def shapley(worth: Mapping[tuple[str, ...], float], teams: tuple[str, ...]) -> dict[str, float]:
    """What each team owes of `worth[teams]`; a coalition is a tuple in the order of `teams`, the empty one is worth 0.

    Two teams that alone cost 60 and 50 and together 80: 60 / 2 + (80 - 50) / 2 = 45, and 35. Their sum is 80.
    """
    owed = dict.fromkeys(teams, 0.0)
    for team in teams:
        others = tuple(other for other in teams if other != team)
        for size in range(len(others) + 1):
            weight = factorial(size) * factorial(len(others) - size) / factorial(len(teams))
            for some in combinations(others, size):
                joined = tuple(each for each in teams if each in some or each == team)
                owed[team] += weight * (worth[joined] - (worth[some] if some else 0.0))
    return owed
