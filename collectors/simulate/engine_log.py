"""What an engine tells of itself: its steps -> its counters and gauges at each whole second, as vLLM counts them.

A prompt counts when its first token is made, all at once; a step that makes no token (nothing but a part of a prompt)
is not counted. Both are vLLM's ways, and whoever reads its page has to live with them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from collectors.simulate.cost import Floats, Integers

_KV = 6  # the one row of what is done that is no difference


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineRow:
    """One look at an engine, `second` whole seconds after the start of the recording; totals since it was started.

    `running` requests have been in a step and have not ended, `waiting` ones have come and have not been in a step;
    `kv_tokens` is the context held in the cache.
    """

    second: int
    running: int
    waiting: int
    steps_total: int
    prefill_tokens_total: int
    cached_tokens_total: int
    decode_tokens_total: int
    kv_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockEnd:
    """What the last step of a block brought about: requests that it took in or that left, prompts that it finished."""

    joined: int
    left: int
    prefill_tokens: int
    cached_tokens: int


class EngineLog:
    """Gathers what the steps of one engine did, in order of time. `starts` are its requests' arrivals, in order."""

    def __init__(self, starts: Sequence[float]) -> None:
        self._starts = np.array(starts, np.float64)
        self._ends: list[Floats] = []
        self._done: list[Integers] = []

    def add(self, ends: Floats, made_tokens: Integers, kv_tokens: Integers, last: BlockEnd) -> None:
        """A block of steps: when each ended, the tokens that it made, and what the cache held after it."""
        done = np.zeros((_KV + 1, len(ends)), np.int64)
        done[:4, -1] = last.joined, last.left, last.prefill_tokens, last.cached_tokens
        done[4] = made_tokens > 0
        done[5] = made_tokens
        done[_KV] = kv_tokens
        self._ends.append(ends)
        self._done.append(done)

    def rows(self, seconds: int) -> Iterator[EngineRow]:
        """What a look at each whole second from 0 to `seconds`, both included, shows: steps that have ended by then."""
        looks = np.arange(seconds + 1)
        done = np.concatenate([np.zeros((_KV + 1, 1), np.int64), *self._done], axis=1)
        done[:_KV] = done[:_KV].cumsum(axis=1)
        ends = np.concatenate([np.zeros(0), *self._ends])
        seen = done[:, np.searchsorted(ends, looks, side="right")]
        come = np.searchsorted(self._starts, looks, side="right")
        for second, (joined, left, prefill, cached, steps, made, kv), came in zip(
            looks.tolist(), seen.T.tolist(), come.tolist(), strict=True
        ):
            yield EngineRow(
                second=second,
                running=joined - left,
                waiting=came - joined,
                steps_total=steps,
                prefill_tokens_total=prefill,
                cached_tokens_total=cached,
                decode_tokens_total=made,
                kv_tokens=kv,
            )
