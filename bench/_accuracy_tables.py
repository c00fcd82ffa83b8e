"""Runs -> the tables of docs/accuracy.md, goals beside the figures, between two marker comments of the page."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import mean

from bench._accuracy_play import EVENTS_ONLY, FIT_MINUTES, NAIVE, WITH_ENGINE, Run
from bench._accuracy_score import Books, Errors, Within, errors_of, within, worst_lately

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
BENT = frozenset({"moe", "capped", "dvfs", "skew", "wrong-facts", "cap-change", "speculative", "sensor-1s"})
"""Scenarios in which what the attribution assumes does not hold."""
WORST_GOALS = {WITH_ENGINE: 0.04, EVENTS_ONLY: 0.06}
MEDIAN_GOAL = 0.05
BENT_GOAL = 0.10
CONVERGED = (0.10, 0.05)
CONVERGED_GOAL_MINUTE = 90
"""By then the last of CONVERGED holds for good, however wrong the prior was."""


def goals(scenario: str, method: str) -> tuple[float, float]:
    """How far off the worst team and the median request may be."""
    return (BENT_GOAL, BENT_GOAL) if scenario in BENT else (WORST_GOALS[method], MEDIAN_GOAL)


def reaches(errors: Errors, scenario: str, method: str) -> bool:
    """Whether both its goals are met."""
    worst_goal, median_goal = goals(scenario, method)
    return errors.worst_team <= worst_goal and errors.median_request <= median_goal


def product_table(counted: Mapping[str, Sequence[Books]], method: str) -> Iterator[str]:
    """A row for each scenario, of one of the product's two methods; a goal is met if it is with every seed."""
    yield "| scenario | worst team | teams over the goal | median request | 9 of 10 requests | worst, absolute | goal |"
    yield "|---|---|---|---|---|---|---|"
    for scenario, books in counted.items():
        errors = [errors_of(one, method) for one in books]
        over = ", ".join(f"{one.teams_over(goals(scenario, method)[0])}" for one in errors)
        goal = _goal(scenario, method, met=all(reaches(one, scenario, method) for one in errors))
        cells = (
            *(scenario, _percent(errors, _worst), f"{over} of {len(errors[0].teams)}"),
            *(_percent(errors, _median), _percent(errors, _ninth), _percent(errors, _absolute), goal),
        )
        yield f"| {' | '.join(cells)} |"


def naive_table(counted: Mapping[str, Sequence[Books]]) -> Iterator[str]:
    """Worst team / median request / 9 of 10 requests / worst team, absolute, of each naive method."""
    yield f"| scenario | {' | '.join(NAIVE)} |"
    yield f"|---|{'---|' * len(NAIVE)}"
    for scenario, books in counted.items():
        cells = []
        for name in NAIVE:
            errors = [errors_of(one, name) for one in books]
            parts = (mean(map(figure, errors)) for figure in (_worst, _median, _ninth, _absolute))
            cells.append(" / ".join(f"{100 * part:.0f}" for part in parts) + " %")
        yield f"| {scenario} | {' | '.join(cells)} |"


def learned_table(runs: Sequence[Run]) -> Iterator[str]:
    """What was in force at each run's end, relative to the simulated board's own."""
    yield "| scenario | seed | J/FLOP | J/byte | R2 | windows | condition | verdict |"
    yield "|---|---|---|---|---|---|---|---|"
    for run in runs:
        flop, byte, fit = run.last_fit
        yield (
            f"| {run.scenario.name} | {run.seed} | {flop:.3f} | {byte:.3f} | {fit.r_squared:.4f} | {fit.windows} |"
            f" {fit.condition:.0f} | {fit.verdict} |"
        )


def convergence_table(runs: Sequence[Run]) -> Iterator[str]:
    """Minutes until the worst team of the last 10 minutes was within limits: for the first time, and for good."""
    heads = [f"within {100 * limit:.0f} %, minute (for good)" for limit in CONVERGED]
    goal = f"{100 * CONVERGED[-1]:.0f} % for good by minute {CONVERGED_GOAL_MINUTE}"
    yield f"| run | seed | {' | '.join(heads)} | {goal} | J/FLOP, J/byte at minute {', '.join(map(str, FIT_MINUTES))} |"
    yield f"|---|---|{'---|' * len(heads)}---|---|"
    for run in runs:
        lately = worst_lately(run.books, WITH_ENGINE, minutes=max(run.fits))
        found = [within(lately, limit) for limit in CONVERGED]
        settled = found[-1].for_good
        met = settled is not None and settled <= CONVERGED_GOAL_MINUTE
        cells = [*map(_within, found), _met(met=met)]
        scalars = ", ".join("{:.2f} {:.2f}".format(*run.relative(minute)[:2]) for minute in run.fits)
        yield f"| {run.scenario.name} | {run.seed} | {' | '.join(cells)} | {scalars} |"


def change_table(runs: Sequence[tuple[Run, float, float]]) -> Iterator[str]:
    """Errors in the 10 minutes before and behind a change: (run, until when before counts, from when behind does)."""
    yield "| change | seed | method | worst team, 10 minutes before | 10 behind | median before | behind | goal |"
    yield "|---|---|---|---|---|---|---|---|"
    for run, before_end, after_start in runs:
        before = run.books.between(before_end - 10.0, before_end)
        after = run.books.between(after_start, after_start + 10.0)
        for method in (WITH_ENGINE, EVENTS_ONLY):
            errors = [errors_of(part, method) for part in (before, after)]
            cells = [f"{100 * figure(one):.1f} %" for figure in (_worst, _median) for one in errors]
            cells.append(_goal(run.scenario.name, method, met=reaches(errors[-1], run.scenario.name, method)))
            yield f"| {run.scenario.name} | {run.seed} | {method} | {' | '.join(cells)} |"


def run_lines(run: Run, first_minute: float) -> Iterator[str]:
    """What one run says, for who watches."""
    books = run.books.between(first_minute, float("inf"))
    flop, byte, fit = run.last_fit
    yield (
        f"{run.scenario.name}, seed {run.seed}: {len(books.true_joules)} requests from minute {first_minute:g} on,"
        f" {run.untold} untold; learned: J/FLOP {flop:.3f} and J/byte {byte:.3f} of the true, R2 {fit.r_squared:.4f},"
        f" {fit.windows} windows, {fit.verdict}"
    )
    for method in books.methods:
        errors = errors_of(books, method)
        met = ""
        if method in WORST_GOALS:
            good = reaches(errors, run.scenario.name, method)
            met = f"; goal {_goal(run.scenario.name, method, met=good)}".replace("*", "")
        yield (
            f"  {method}: worst team {100 * errors.worst_team:.1f} % (absolute {100 * errors.worst_absolute:.1f} %),"
            f" median request {100 * errors.median_request:.1f} %, 9 of 10 within {100 * errors.ninth_request:.1f} %,"
            f" charged {100 * errors.charged_ratio:.1f} %{met}"
        )
        if method in WORST_GOALS and len(errors.teams) <= 5:
            yield "    " + ", ".join(f"{team} {100 * error:+.1f}" for team, error in errors.teams.items())


def placed(page: str, figures: Sequence[str]) -> str:
    """The page with these lines between its markers, and the rest as it was; raises ValueError if it has none."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} with {END} behind it")
    return "\n".join([head + begin, *figures, end + tail])


def _goal(scenario: str, method: str, *, met: bool) -> str:
    worst_goal, median_goal = goals(scenario, method)
    return f"{100 * worst_goal:.0f} and {100 * median_goal:.0f} %: {_met(met=met)}"


def _met(*, met: bool) -> str:
    return "met" if met else "**NOT MET**"


def _worst(errors: Errors) -> float:
    return errors.worst_team


def _absolute(errors: Errors) -> float:
    return errors.worst_absolute


def _median(errors: Errors) -> float:
    return errors.median_request


def _ninth(errors: Errors) -> float:
    return errors.ninth_request


def _percent(errors: Sequence[Errors], figure: Callable[[Errors], float]) -> str:
    """The mean over the seeds, and of several the range."""
    values = [100 * figure(one) for one in errors]
    spread = f" ({min(values):.1f}-{max(values):.1f})" if len(values) > 1 else ""
    return f"{mean(values):.1f} %{spread}"


def _within(found: Within) -> str:
    if found.first is None:
        return "never"
    return f"{found.first} ({'not' if found.for_good is None else found.for_good})"
