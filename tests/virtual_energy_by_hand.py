"""The split of a device's joules as a plain loop in exact fractions: slow, and sharing nothing with the real one."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

TOP_WATTS = 10_000
SPAN = 2


@dataclass(frozen=True)
class Reading:
    """Seconds from the window's start."""

    start: float
    end: float
    watts: float
    method: str = "counter"


@dataclass(frozen=True)
class Job:
    """A request on the device, and the joules of its own tokens."""

    start: float
    first: float
    end: float
    weight: float = 1.0
    prefill: float = 0.0
    decode: float = 0.0
    growing: float = 0.0


@dataclass
class Paid:
    """Joules of each request, and of idle, gap, unknown device and unreported."""

    energy: list[Fraction]
    marginal: list[Fraction]
    exact: list[Fraction]
    quiet: list[Fraction]


def paid_by_hand(
    readings: Sequence[Reading],
    jobs: Sequence[Job],
    *,
    length: float,
    idle: float | None,
    shares_idle: bool,
    elsewhere: Sequence[tuple[float, float]],
    limit: float | None = None,
) -> Paid:
    """Goes from edge to edge, then from span to span; each request's part of a piece is worked out for it alone."""
    paid = Paid(*([Fraction(0)] * len(jobs) for _ in range(3)), [Fraction(0)] * 4)
    spans: dict[tuple[object, ...], list[_Shared]] = {}
    stretch = 0
    for piece in _laid_out(
        _measured(readings, jobs, length, elsewhere), readings, idle if shares_idle else None, limit
    ):
        stretch += not any(job.start < piece.begin < job.end for job in jobs)
        joules = piece.joules
        floor = joules if idle is None else min(joules, Fraction(idle) * (piece.end - piece.begin))
        if not piece.active or not shares_idle:
            paid.quiet[0] += floor
            joules -= floor
        if not piece.active:
            recovered = piece.reading.method == "recovered"
            paid.quiet[1 if recovered else 2 if piece.unknown else 3] += joules
            continue
        own = {i: Fraction(jobs[i].weight) * _own(jobs[i], piece.begin, piece.end) for i in piece.active}
        spans.setdefault((stretch, *_span(piece.reading, readings)), []).append(_Shared(piece, joules, own))
    for span in spans.values():
        _settle(paid, jobs, span)
    return paid


@dataclass
class _Piece:
    begin: Fraction
    end: Fraction
    reading: Reading
    joules: Fraction
    active: list[int]
    unknown: bool


@dataclass
class _Shared:
    piece: _Piece
    joules: Fraction
    own: dict[int, Fraction]

    @property
    def asked(self) -> Fraction:
        return sum(self.own.values(), Fraction(0))


def _measured(
    readings: Sequence[Reading], jobs: Sequence[Job], length: float, elsewhere: Sequence[tuple[float, float]]
) -> list[_Piece]:
    """The pieces that a reading covers."""
    pieces = []
    for begin, end in _pieces(readings, jobs, length, elsewhere):
        reading = next((each for each in readings if each.start <= begin and end <= each.end), None)
        if reading is not None:
            active = [i for i, job in enumerate(jobs) if job.start <= begin and end <= job.end]
            unknown = any(start <= begin and end <= stop for start, stop in elsewhere)
            pieces.append(_Piece(begin, end, reading, Fraction(reading.watts) * (end - begin), active, unknown))
    return pieces


def _laid_out(
    pieces: list[_Piece], readings: Sequence[Reading], idle: float | None, limit: float | None
) -> list[_Piece]:
    """What readings of about a second hold above quiet, moved from where nobody is active to where somebody is."""
    if idle is None:
        return pieces
    taken = [any((each.active or each.unknown) for each in pieces if each.reading is one) for one in readings]
    for place, reading in enumerate(readings):
        if not taken[place] or not _loose(reading):
            continue
        levels = [
            next((one.watts for one, used in side if not used and _loose(one)), None)
            for side in (
                list(zip(readings, taken, strict=True))[:place][::-1],
                list(zip(readings, taken, strict=True))[place + 1 :],
            )
        ]
        quiet = max(
            [
                Fraction(idle),
                *([Fraction(min(w for w in levels if w is not None))] if any(w is not None for w in levels) else []),
            ]
        )
        mine = [each for each in pieces if each.reading is reading]
        busy = [each for each in mine if each.active or each.unknown]
        seconds = sum((each.end - each.begin for each in busy), Fraction(0))
        over = {id(each): max(each.joules - quiet * (each.end - each.begin), Fraction(0)) for each in mine}
        moved = sum((over[id(each)] for each in mine if each not in busy), Fraction(0))
        room = (
            moved if limit is None else max(Fraction(limit) * seconds - sum(each.joules for each in busy), Fraction(0))
        )
        part = min(Fraction(1), room / moved) if moved else Fraction(0)
        for each in mine:
            if each in busy:
                each.joules += moved * part * (each.end - each.begin) / seconds
            else:
                each.joules -= over[id(each)] * part
    return pieces


def _loose(reading: Reading) -> bool:
    return 0.5 < reading.end - reading.start <= 2.0 and reading.method != "recovered"


def _span(reading: Reading, readings: Sequence[Reading]) -> tuple[object, ...]:
    """Neighbours that begin within the same 2 s, of the same method as far as it counts."""

    def kind(each: Reading) -> tuple[int, bool, bool]:
        return int(each.start // SPAN), each.method == "recovered", each.method == "modelled"

    first = next(i for i, each in enumerate(readings) if each is reading)
    while first > 0 and kind(readings[first - 1]) == kind(reading):
        first -= 1
    return first, *kind(reading)


def _settle(paid: Paid, jobs: Sequence[Job], span: list[_Shared]) -> None:
    had, asked = sum((each.joules for each in span), Fraction(0)), sum((each.asked for each in span), Fraction(0))
    scale = had / asked if asked > had else Fraction(1)
    spare = sum((max(each.joules - each.asked, Fraction(0)) for each in span), Fraction(0))
    for each in span:
        left = max(each.joules - each.asked, Fraction(0)) * (had - asked) / spare if asked < had else Fraction(0)
        weights = sum(Fraction(jobs[i].weight) for i in each.piece.active)
        for i in each.piece.active:
            paid.marginal[i] += scale * each.own[i]
            paid.energy[i] += scale * each.own[i] + left * Fraction(jobs[i].weight) / weights
        if len(each.piece.active) == 1 and not each.piece.unknown and jobs[each.piece.active[0]].weight == 1.0:
            paid.exact[each.piece.active[0]] += min(scale * each.asked + left, each.joules)


def _own(job: Job, begin: Fraction, end: Fraction) -> Fraction:
    """Joules of a request's own tokens in a piece that its prefill or its decode contains."""
    if end <= job.first:
        lasts = Fraction(job.first) - Fraction(job.start)
        return _at_most(job.prefill, lasts) * (end - begin) / lasts
    first = Fraction(job.first)
    lasts = Fraction(job.end) - first
    even, growing = _at_most(job.decode, lasts), _at_most(job.growing, lasts)
    if lasts < 1:
        return (even + growing) * (end - begin) / lasts
    return even * (end - begin) / lasts + growing * ((end - first) ** 2 - (begin - first) ** 2) / lasts**2


def _at_most(joules: float, lasts: Fraction) -> Fraction:
    return min(Fraction(joules), TOP_WATTS * lasts)


def _pieces(
    readings: Sequence[Reading], jobs: Sequence[Job], length: float, elsewhere: Sequence[tuple[float, float]]
) -> list[tuple[Fraction, Fraction]]:
    edges = {0.0, length}
    edges.update(edge for each in readings for edge in (each.start, each.end))
    edges.update(edge for job in jobs for edge in (job.start, job.first, job.end))
    edges.update(edge for span in elsewhere for edge in span)
    return list(pairwise(Fraction(edge) for edge in sorted(edges) if 0.0 <= edge <= length))
