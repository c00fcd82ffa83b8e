"""How far joules that were charged are from those that were true: of requests, of teams, minute by minute. Pure.

In: columns, one place for each request. A factor common to all of a board (its sensor's gain, what was booked as idle)
moves all its requests alike, and no split can see it: errors are taken against the truth times charged/true of the
board, and beside them stand those against the truth itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

import numpy as np

from collectors.simulate.rates import Floats, Integers

Doubts = np.ndarray[tuple[int, int], np.dtype[np.float64]]
LEAST_REQUESTS = 5
"""A team of which fewer requests began in 10 minutes says nothing about these 10 minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What each of n requests truly used, and what each method says of it. Columns have length n.

    `team` is a place in `teams`; `minute` is when the request began, from the start of the run. `charged` are the
    methods that charge joules; `shares` those that divide the joules that the first of `charged` has. `doubts` are of
    each method that charges three rows: what J/FLOP and J/byte move, and the variance. `board` numbers the boards that
    have a meter of their own; None: all ran on one.
    """

    teams: Sequence[str]
    team: Integers
    minute: Floats
    true_joules: Floats
    charged: Mapping[str, Floats]
    shares: Mapping[str, Floats]
    doubts: Mapping[str, Doubts] = field(default_factory=dict)
    board: Integers | None = None

    def between(self, first_minute: float, last_minute: float) -> "Books":
        """Those that began in [first_minute, last_minute)."""
        chosen = (first_minute <= self.minute) & (self.minute < last_minute)
        return replace(
            self,
            team=self.team[chosen],
            minute=self.minute[chosen],
            true_joules=self.true_joules[chosen],
            charged={name: joules[chosen] for name, joules in self.charged.items()},
            shares={name: share[chosen] for name, share in self.shares.items()},
            doubts={name: doubts[:, chosen] for name, doubts in self.doubts.items()},
            board=None if self.board is None else self.board[chosen],
        )

    def joules(self, method: str) -> Floats:
        """Of each request by that method: 30 J charged in all, divided by 1 and 2 tokens, are 10 J and 20 J."""
        if method in self.charged:
            return self.charged[method]
        share, all_joules = self.shares[method], next(iter(self.charged.values())).sum()
        divided: Floats = share * (all_joules / share.sum())
        return divided

    @property
    def boards(self) -> Integers:
        """The number of each request's board."""
        return np.zeros(len(self.team), dtype=np.int64) if self.board is None else self.board

    def metered_joules(self, method: str) -> Floats:
        """Of each request the truth times charged/true of its board: what a split without error charges.

        Two boards: 20 J and 40 J true, 30 J and 60 J charged; and 10 J true, 9 J charged: 30, 60 and 9 J. Methods that
        divide know no boards: what a board's meter has in common is told by the first that charges.
        """
        joules = self.charged.get(method, next(iter(self.charged.values())))
        charged, true = np.bincount(self.boards, joules), np.bincount(self.boards, self.true_joules)
        ratio = np.divide(charged, true, out=np.ones_like(true), where=true > 0.0)
        metered: Floats = self.true_joules * ratio[self.boards]
        return metered

    @property
    def methods(self) -> list[str]:
        """Their names."""
        return [*self.charged, *self.shares]


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Relative errors of one method in one run: 0.05 is 5 %. Those of teams have a sign, those of requests none.

    `charged_ratio` is what was charged in all, relative to the truth.
    """

    charged_ratio: float
    teams: Mapping[str, float]
    teams_absolute: Mapping[str, float]
    median_request: float
    ninth_request: float

    @property
    def worst_team(self) -> float:
        """The largest, the common factor taken out."""
        return max(map(abs, self.teams.values()))

    @property
    def worst_absolute(self) -> float:
        """The largest, the common factor left in."""
        return max(map(abs, self.teams_absolute.values()))

    def teams_over(self, goal: float) -> int:
        """How many teams are farther off than that."""
        return sum(abs(error) > goal for error in self.teams.values())


def errors_of(books: Books, method: str) -> Errors:
    """The method's errors over all requests of the books, at least one.

    Team a: 22 J and 44 J for 20 J and 40 J; team b: 66 J for 40 J. 132 J charged for 100 J: the factor is 1.32, and of
    it a has 66 / (60 x 1.32) - 1 = -16.7 %, b 66 / (40 x 1.32) - 1 = +25 %; absolute +10 % and +65 %.
    """
    joules, metered = books.joules(method), books.metered_joules(method)
    requests = np.abs(joules / metered - 1.0)
    return Errors(
        charged_ratio=float(joules.sum() / books.true_joules.sum()),
        teams=_team_errors(books, joules, metered),
        teams_absolute=_team_errors(books, joules, books.true_joules),
        median_request=median(requests.tolist()),
        ninth_request=float(np.quantile(requests, 0.9)),
    )


def _team_errors(books: Books, joules: Floats, owed: Floats) -> dict[str, float]:
    """How far what each team that has requests was charged is from what it owed, relative to that."""
    count = len(books.teams)
    mine = np.bincount(books.team, weights=joules, minlength=count)
    owes = np.bincount(books.team, weights=owed, minlength=count)
    return {team: float(mine[place] / owes[place]) - 1.0 for place, team in enumerate(books.teams) if owes[place] > 0.0}


def worst_lately(books: Books, method: str, *, minutes: int, span: int = 10) -> dict[int, float]:
    """The worst team among the requests that began in the last `span` minutes, at each full minute from `span` on.

    Minutes in whose span any team began fewer than LEAST_REQUESTS are left out (pauses).
    """
    found = {}
    for minute in range(span, minutes + 1):
        lately = books.between(minute - span, minute)
        if np.bincount(lately.team, minlength=len(books.teams)).min() >= LEAST_REQUESTS:
            found[minute] = errors_of(lately, method).worst_team
    return found


@dataclass(frozen=True, slots=True)
class Within:
    """From which minute on an error was within a limit: for the first time, and never beyond it again. None: never."""

    first: int | None
    for_good: int | None


def within(errors: Mapping[int, float], limit: float) -> Within:
    """{10: 20 %, 11: 4 %, 12: 6 %, 13: 3 %} is within 5 % at minute 11, and from 13 on for good."""
    inside = [minute for minute, error in errors.items() if error <= limit]
    last_outside = max((minute for minute, error in errors.items() if error > limit), default=-1)
    return Within(min(inside, default=None), min((minute for minute in inside if minute > last_outside), default=None))
