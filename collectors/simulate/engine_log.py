"""What an engine tells of itself: its steps -> its counters and gauges at each whole second, as vLLM counts them.

A prompt counts when its first token is made, all at once; a step that makes no token (nothing but a part of a prompt)
is not counted. Both are vLLM's ways, and whoever reads its page has to live with them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from collectors.simulate.rates import Floats, Integers
from collectors.simulate.scenario import Periods

_JOINED, _LEFT, _PREFILL, _CACHED, _STEPS, _MADE, _KV = range(7)
_COUNTERS = slice(_PREFILL, _MADE + 1)


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

    def __init__(self, starts: Sequence[float], up: Periods) -> None:
        self._starts = np.array(starts, np.float64)
        self._up = up
        self._ends: list[Floats] = [np.zeros(0)]
        self._done: list[Integers] = [np.zeros((_KV + 1, 1), np.int64)]  # before any step

    def add(self, ends: Floats, made_tokens: Integers, kv_tokens: Integers, last: BlockEnd) -> None:
        """A block of steps: when each ended, the tokens that it made, and what the cache held after it."""
        done = np.zeros((_KV + 1, len(ends)), np.int64)
        done[: _CACHED + 1, -1] = last.joined, last.left, last.prefill_tokens, last.cached_tokens
        done[_STEPS] = made_tokens > 0
        done[_MADE] = made_tokens
        done[_KV] = kv_tokens
        self._ends.append(ends)
        self._done.append(done)

    def rows(self, seconds: int) -> Iterator[EngineRow]:
        """What a look at each whole second from 0 to `seconds`, both included, shows: steps that have ended by then.

        Nothing, while the server is not up and has no request left.
        """
        done, ends = np.concatenate(self._done, axis=1), np.concatenate(self._ends)
        done[:_KV] = done[:_KV].cumsum(axis=1)
        looks = np.arange(seconds + 1)
        seen = done[:, np.searchsorted(ends, looks, side="right")]
        begins = np.array([begin for begin, _ in self._up])
        begun = begins[np.maximum(np.searchsorted(begins, looks, side="right") - 1, 0)]
        seen[_COUNTERS] -= done[_COUNTERS, np.searchsorted(ends, begun, side="right")]
        come = np.searchsorted(self._starts, looks, side="right")
        for second, (joined, left, prefill, cached, steps, made, kv), came in zip(
            looks.tolist(), seen.T.tolist(), come.tolist(), strict=True
        ):
            if joined == left and not any(begin <= second < end for begin, end in self._up):
                continue
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
