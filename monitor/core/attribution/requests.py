"""What requests ask of a device: their own joules, and how these lie in time. Columns in, columns out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from monitor.core.attribution.pieces import Column, Places

TOP_WATTS = 1e4
"""No GPU draws it. A request's own rate above it comes of times told too coarsely (all tokens within a microsecond);
it is cut off there, because cumulative sums of such rates would lose the last digits of everyone else's."""
GROWTH_SECONDS = 1.0
"""Within a decode shorter than this the context's growth is spread evenly, for the same reason."""


class ToldSteps(NamedTuple):
    """Joules that the steps of an engine cost beside tokens in [start, end), seconds from the window's start."""

    start: float
    end: float
    joules: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Which engine serves each request, and the power of that engine's steps beside tokens, as each tells. Length n.

    `engine` is 0 to `engines` - 1. The watts are joules of a step (the weights, read once) x steps a second: while a
    request's prompt is computed, and while it decodes; 0 where it does not tell. `told` is for each engine what its own
    counter says, disjoint and sorted.
    """

    engines: int
    engine: Places
    prefill_watts: Column
    decode_watts: Column
    told: Sequence[Sequence[ToldSteps]]

    @property
    def edges(self) -> Column:
        """When what the counters say changes."""
        return np.array([at for engine in self.told for each in engine for at in each[:2]], dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Requests active on the device, in an order that is the same for whoever computes. Length n each.

    Active over [start, end), its prefill over [start, first), decoding over [first, end); start <= first <= end, also
    outside the window. `prefill_joules` are spread evenly over the prefill, `decode_joules` evenly over decoding,
    `growing_joules` over decoding in proportion to the tokens already made (the reads of a context that grows); a part
    that lasts 0 s has none. `weight` > 0; all are of one whole request, before its weight. `steps` None: all are served
    by one engine, or nobody knows better.
    """

    start: Column
    first: Column
    end: Column
    weight: Column
    prefill_joules: Column
    decode_joules: Column
    growing_joules: Column
    steps: Steps | None = None

    def __len__(self) -> int:
        return len(self.start)


def stacked(parts: Sequence[Requests]) -> Requests:
    """All of these, one device's after the other's; of those that tell engines' steps there is no other."""
    if len(parts) == 1:
        return parts[0]
    return Requests(
        start=np.concatenate([each.start for each in parts]),
        first=np.concatenate([each.first for each in parts]),
        end=np.concatenate([each.end for each in parts]),
        weight=np.concatenate([each.weight for each in parts]),
        prefill_joules=np.concatenate([each.prefill_joules for each in parts]),
        decode_joules=np.concatenate([each.decode_joules for each in parts]),
        growing_joules=np.concatenate([each.growing_joules for each in parts]),
    )


@dataclass(frozen=True, slots=True)
class Rates:
    """Watts of each request's own tokens: `prefill` until its first, then base + slope * t at t s of the window."""

    prefill: Column
    base: Column
    slope: Column


def rates_of(requests: Requests) -> Rates:
    """Worked: growing 8 J over [1, 5) is 0 W at 1 s and 4 W at 5 s: slope 1 W/s, base -1 W."""
    decoding = requests.end - requests.first
    grows = decoding >= GROWTH_SECONDS
    growth = _watts(requests.growing_joules, decoding)
    slope = 2.0 * np.where(grows, growth, 0.0) / np.where(grows, decoding, 1.0)
    return Rates(
        prefill=_watts(requests.prefill_joules, requests.first - requests.start),
        base=_watts(requests.decode_joules, decoding) + np.where(grows, -slope * requests.first, growth),
        slope=slope,
    )


def _watts(joules: Column, seconds: Column) -> Column:
    most = np.minimum(joules, TOP_WATTS * seconds)
    lasts = seconds > 0.0
    return np.where(lasts, most, 0.0) / np.where(lasts, seconds, 1.0)  # a divide with `where` takes thrice as long
