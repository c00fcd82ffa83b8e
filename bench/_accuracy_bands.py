"""How often the truth lies within the bands that the product gives: of teams and of requests. Pure.

Twice: against the truth times charged/true of the request's board, with the split's part of the band alone, and against
the truth itself, with what a sensor may be off.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench._accuracy_score import Books
from monitor.core.band import Doubt, Gains, Place

NO_GAIN = Gains(ratio=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """How many of how many lie within their band: the split's alone, and the whole."""

    split: int
    whole: int
    of: int

    def plus(self, other: "Held") -> "Held":
        """Those of both."""
        return Held(split=self.split + other.split, whole=self.whole + other.whole, of=self.of + other.of)


NONE_HELD = Held(split=0, whole=0, of=0)


def held_teams(books: Books, method: str) -> Held:
    """Of all teams that have requests."""
    every, metered = Doubt(), books.metered_joules(method)
    teams = []
    for number in sorted(set(books.team.tolist())):
        chosen = books.team == number
        doubt = Doubt()
        for board in sorted(set(books.boards[chosen].tolist())):
            _add(doubt, books, method, (chosen & (books.boards == board)).nonzero()[0].tolist())
        every.merge(doubt)
        charged = float(books.joules(method)[chosen].sum())
        teams.append((doubt, charged, float(books.true_joules[chosen].sum()), float(metered[chosen].sum())))
    return _held((*one, every) for one in teams)


def held_requests(books: Books, method: str) -> Held:
    """Of all requests; beside one of them the others' variance is far more."""
    columns = books.joules(method), books.true_joules, books.metered_joules(method)

    def each() -> Iterator[tuple[Doubt, float, float, float, None]]:
        for place, of_it in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
            doubt = Doubt()
            _add(doubt, books, method, [place])
            yield doubt, *of_it, None

    return _held(each())


def _add(doubt: Doubt, books: Books, method: str, places: Sequence[int]) -> None:
    """Takes requests of one board."""
    place: Place = ("", str(books.boards[places[0]]))
    joules = float(books.joules(method)[places].sum())
    flop, byte, variance = books.doubts[method][:, places].sum(axis=1).tolist()
    doubt.add(place, joules, joules, (flop, byte), variance)


def _held(doubts: Iterable[tuple[Doubt, float, float, float, Doubt | None]]) -> Held:
    split = whole = of = 0
    for doubt, joules, true, metered, every in doubts:
        whole_at = every.variance_at if every else None
        of_split, band = doubt.band(NO_GAIN, whole_at), doubt.band(Gains(), whole_at)
        of += 1
        if band.low_joules is None or band.high_joules is None or of_split.split_joules is None:
            continue
        split += abs(joules - metered) <= of_split.split_joules
        whole += band.low_joules <= true <= band.high_joules
    return Held(split=split, whole=whole, of=of)


def band_table(counted: Mapping[str, Sequence[Books]], methods: Sequence[str]) -> Iterator[str]:
    """A row for each scenario and method, all its seeds together; the last rows are all that the bands are made for."""
    yield "| scenario | method | teams, split | requests, split | teams | requests |"
    yield "|---|---|---|---|---|---|"
    for scenario, books in counted.items():
        for method in methods:
            teams, requests = NONE_HELD, NONE_HELD
            for one in books:
                teams, requests = teams.plus(held_teams(one, method)), requests.plus(held_requests(one, method))
            cells = (teams.split, teams.of), (requests.split, requests.of), (teams.whole, teams.of)
            shown = [_percent(*cell) for cell in (*cells, (requests.whole, requests.of))]
            yield f"| {scenario} | {method} | {' | '.join(shown)} |"


def _percent(part: int, of: int) -> str:
    return f"{100 * part / of:.0f} %" if of else "-"
