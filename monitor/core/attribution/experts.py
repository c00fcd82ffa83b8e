"""What prompts cost a mixture of experts beside their FLOPs: experts that a step would not read without them. Pure.

A step reads the experts that any of its tokens is sent to. Those of n decoding requests bring a token each, and read
few; a chunk of a prompt brings hundreds and reads nearly all, for which everyone would pay if it were shared equally.
The Shapley value says who pays: averaged over all orders in which a step's requests may come, what each one adds. Where
t tokens read B(t) bytes, a chunk of c tokens beside n requests of one token each pays that beyond an equal part if

    x = mean over k = 1 .. n of B(c + k - 1) - B(k)

is its own, and the rest is shared equally. Without company it is 0, as it is for a dense model.
"""

from functools import lru_cache
from typing import Final

import numpy as np

from monitor.core.attribution.models import TokenCost
from monitor.core.attribution.pieces import Column, Places

MOST_TOKENS: Final = 4_096
"""Of a chunk, and of requests beside it: more are taken as so many."""


def company(start: Column, first: Column, end: Column, weight: Column) -> tuple[Column, Column]:
    """(requests that decoded, prompts computed, its own among them) while each request's prompt was, on average.

    Prompts are computed over [start, first), answers made over [first, end); each counts by its weight. Prompts over
    [4, 6) and [5, 6), and two answers over [0, 5): 1 and 1.5 of the first prompt, 0 and 2 of the second. A prompt of no
    time has no company.
    """
    seconds = np.maximum(first - start, 0.0)
    lasts = seconds > 0.0
    decoding, prompts = _present(first, end, start, first, weight), _present(start, first, start, first, weight)
    return (
        np.divide(decoding, seconds, out=np.zeros_like(seconds), where=lasts),
        np.maximum(np.divide(prompts, seconds, out=np.ones_like(seconds), where=lasts), 1.0),
    )


def _present(begin: Column, end: Column, since: Column, until: Column, weight: Column) -> Column:
    """Seconds of all [begin, end) within each [since, until), added up by weight."""
    end = np.maximum(begin, end)
    begun, over = _Passed(begin, weight), _Passed(end, weight)
    passed = begun.at(until) - begun.at(since) - over.at(until) + over.at(since)
    return np.maximum(passed, 0.0)


class _Passed:
    """Seconds since each of the moments that are past, added up by weight: at 5 those since 1 and 4 are 4 + 1."""

    def __init__(self, moments: Column, weight: Column) -> None:
        order = np.argsort(moments, kind="stable")
        self._ordered, weight = moments[order], weight[order]
        self._weights = np.concatenate((np.zeros(1), np.cumsum(weight)))
        self._sums = np.concatenate((np.zeros(1), np.cumsum(weight * self._ordered)))

    def at(self, until: Column) -> Column:
        """At each of these moments."""
        past = np.searchsorted(self._ordered, until, side="right")
        seconds: Column = self._weights[past] * until - self._sums[past]
        return seconds


def own_reads(
    cost: TokenCost, fresh_tokens: Column, decoding: Column, prompts: Column, *, chunk_tokens: float
) -> Column:
    """Bytes that each prompt reads beyond an equal part of its steps.

    It is computed in chunks of at most `chunk_tokens` beside `decoding` requests; one of less shares its step with the
    others of `prompts`. Of weights of 10 bytes for a token and 100 in all, a chunk of 2 beside 1: B(2) - B(1) = 9.
    """
    if not cost.mixes:
        return np.zeros_like(fresh_tokens)
    summed = _summed_reads(cost)
    chunk = np.clip(np.rint(np.minimum(fresh_tokens, chunk_tokens)), 1, MOST_TOKENS).astype(np.intp)
    beside = np.clip(decoding, 0.0, MOST_TOKENS - 1)
    fewer = np.floor(beside).astype(np.intp)
    part = beside - fewer
    own = (1.0 - part) * _own(summed, chunk, fewer) + part * _own(summed, chunk, fewer + 1)
    steps = np.where(fresh_tokens > 0.0, np.maximum(fresh_tokens / chunk_tokens, 1.0 / prompts), 0.0)
    return steps * own


def _own(summed: Column, chunk: Places, beside: Places) -> Column:
    """x of the module's formula; `summed` are the sums of B up to each number of tokens."""
    with_it = summed[chunk + np.maximum(beside, 1) - 1] - summed[chunk - 1]
    return np.divide(with_it - summed[beside], beside, out=np.zeros(len(beside)), where=beside > 0)


@lru_cache(maxsize=64)
def _summed_reads(cost: TokenCost) -> Column:
    return np.cumsum([0.0, *(cost.step_bytes(tokens) for tokens in range(1, 2 * MOST_TOKENS))])
