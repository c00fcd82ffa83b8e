"""Cases for the split of a device's joules: from plain lists, and any that Hypothesis may think of."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from hypothesis import strategies as st
from virtual_energy_by_hand import Job, Reading

from monitor.core.attribution.pieces import Column
from monitor.core.attribution.requests import Requests, Steps
from monitor.core.attribution.virtual_energy import NOBODY_ELSE, Foreign, Meter, Split, Window, split

NOWHERE: list[tuple[float, float]] = []


def _column(values: list[float]) -> Column:
    return np.array(values, dtype=np.float64)


def _meter(readings: list[Reading]) -> Meter:
    return Meter(
        start=_column([each.start for each in readings]),
        end=_column([each.end for each in readings]),
        watts=_column([each.watts for each in readings]),
        lasts_seconds=_column([each.end - each.start for each in readings]),
        recovered=np.array([each.method == "recovered" for each in readings], dtype=np.bool_),
        modelled=np.array([each.method == "modelled" for each in readings], dtype=np.bool_),
    )


def _requests(jobs: list[Job], steps: Steps | None) -> Requests:
    return Requests(
        start=_column([job.start for job in jobs]),
        first=_column([job.first for job in jobs]),
        end=_column([job.end for job in jobs]),
        weight=_column([job.weight for job in jobs]),
        prefill_joules=_column([job.prefill for job in jobs]),
        decode_joules=_column([job.decode for job in jobs]),
        growing_joules=_column([job.growing for job in jobs]),
        steps=steps,
    )


def split_of(
    readings: list[Reading],
    jobs: list[Job],
    *,
    length: float = 10.0,
    idle: float | None = 50.0,
    shares_idle: bool = True,
    elsewhere: list[tuple[float, float]] = NOWHERE,
    perhaps: list[tuple[float, float]] = NOWHERE,
    foreign: Foreign = NOBODY_ELSE,
    limit: float | None = None,
    steps: Steps | None = None,
) -> Split:
    """The split of plain lists."""
    meter, requests = _meter(readings), _requests(jobs, steps)
    others, maybe = (
        (_column([start for start, _ in each]), _column([end for _, end in each])) for each in (elsewhere, perhaps)
    )
    return split(
        meter,
        requests,
        length_seconds=length,
        idle_watts=idle,
        shares_idle=shares_idle,
        elsewhere=others,
        perhaps=maybe,
        foreign=foreign,
        limit_watts=limit,
    )


def sum_of(shared: Split) -> float:
    """All shares and all quiet parts."""
    quiet = (shared.idle, shared.gap, shared.unknown_device, shared.other_process, shared.unreported)
    return float(shared.energy.sum()) + sum(part.energy for part in quiet)


@dataclass(frozen=True)
class Case:
    """One window of one device."""

    readings: list[Reading]
    jobs: list[Job]
    idle: float | None
    shares_idle: bool
    elsewhere: list[tuple[float, float]]
    limit: float | None

    @property
    def measured(self) -> float:
        return sum((each.end - each.start) * each.watts for each in self.readings)

    def split(self) -> Split:
        return split_of(
            self.readings,
            self.jobs,
            idle=self.idle,
            shares_idle=self.shares_idle,
            elsewhere=self.elsewhere,
            limit=self.limit,
        )


def window_of(case: Case, steps: Steps | None = None) -> Window:
    """What its energy is split from, for those who split several."""
    return Window(
        meter=_meter(case.readings),
        requests=_requests(case.jobs, steps),
        idle_watts=case.idle,
        elsewhere=(_column([start for start, _ in case.elsewhere]), _column([end for _, end in case.elsewhere])),
        limit_watts=case.limit,
    )


def moments(low: int, high: int) -> st.SearchStrategy[float]:
    """On a grid, so that edges meet, or anywhere."""
    return st.one_of(st.integers(low * 4, high * 4).map(lambda n: n / 4), st.floats(low, high))


JOULES = st.one_of(st.just(0.0), st.floats(0.0, 50.0), st.floats(0.0, 1e6))


@st.composite
def _readings(draw: st.DrawFn) -> list[Reading]:
    edges = sorted(set(draw(st.lists(moments(0, 10), max_size=12))))
    watts = st.one_of(st.just(0.0), st.floats(10.0, 1_000.0))
    methods = st.sampled_from(["counter", "counter", "modelled", "recovered"])
    pieces = [Reading(a, b, draw(watts), draw(methods)) for a, b in pairwise(edges) if b - a > 1e-6]
    return [piece for piece in pieces if draw(st.integers(0, 4))]  # now and then a hole


@st.composite
def _jobs(draw: st.DrawFn, growing: st.SearchStrategy[float] = JOULES) -> list[Job]:
    jobs = []
    for _ in range(draw(st.integers(0, 6))):
        start, first, end = sorted(draw(st.tuples(*[moments(-5, 15)] * 3)))
        weight = draw(st.sampled_from([1.0, 1.0, 0.5, 1 / 3, 1 / 64]))
        jobs.append(Job(start, first, end, weight, draw(JOULES), draw(JOULES), draw(growing)))
    return jobs


@st.composite
def cases(draw: st.DrawFn, growing: st.SearchStrategy[float] = JOULES) -> Case:
    spans = st.lists(st.tuples(moments(-5, 15), moments(-5, 15)).map(lambda pair: (min(pair), max(pair))), max_size=2)
    idle = st.sampled_from([None, 0.0, 50.0, 400.0])
    limit = st.sampled_from([None, 300.0, 700.0])
    return Case(draw(_readings()), draw(_jobs(growing)), draw(idle), draw(st.booleans()), draw(spans), draw(limit))
