"""The engine: continuous batching with chunked prefill, step by step; requests -> blocks of steps with their costs.

In a step each decoding request makes one token; what is left of the step's tokens computes prompts, in order of
arrival, in chunks. The last chunk of a prompt makes the first output token. A cached prefix is not computed, only read.
"""

from collections import deque
from collections.abc import Sequence

import numpy as np

from collectors.simulate.cost import Floats, Integers, Rates, StepCosts, step_costs
from collectors.simulate.engine_log import BlockEnd, EngineLog
from collectors.simulate.scenario import Server
from collectors.simulate.traffic import Request

LONGEST_BLOCK_STEPS = 512  # bounds the memory of a block, not its meaning


class Progress:
    """What became of each request, by its index: seconds from the start of the recording; NaN until it happens."""

    def __init__(self, requests: int) -> None:
        self.scheduled: Floats = np.full(requests, np.nan)
        self.first_token: Floats = np.full(requests, np.nan)
        self.end: Floats = np.full(requests, np.nan)


class _Prompt:
    """A request whose prompt is not yet computed to its end."""

    __slots__ = ("computed", "index", "request")

    def __init__(self, index: int, request: Request) -> None:
        self.index = index
        self.request = request
        self.computed = request.cached_tokens


class Engine:
    """One server's queue and batch. `queue` holds (index, request) by start; times come from the device's turn."""

    def __init__(self, server: Server, rates: Rates, queue: Sequence[tuple[int, Request]], progress: Progress) -> None:
        self.rates = rates
        self.server = server
        self.log = EngineLog([request.start for _, request in queue])
        self._queue = deque(queue)
        self._progress = progress
        self._prompts: list[_Prompt] = []
        self._chunks: list[int] = []
        self._decoding: Integers = np.empty(0, np.int64)  # indices of requests
        self._context: Integers = np.empty(0, np.int64)
        self._remaining: Integers = np.empty(0, np.int64)

    @property
    def next_start(self) -> float:
        """When the next request that is not yet admitted comes; infinite if none does."""
        return self._queue[0][1].start if self._queue else np.inf

    def admit(self, now: float) -> bool:
        """Takes what has come into the batch, as far as it has room; says whether there is anything to do."""
        while self.next_start <= now and len(self._prompts) + len(self._decoding) < self.server.max_batch:
            self._prompts.append(_Prompt(*self._queue.popleft()))
        return bool(self._prompts) or len(self._decoding) > 0

    def plan(self, now: float, until: float, most_steps: int) -> StepCosts:
        """The next steps from `now` on: one with prompts in it, or decode steps that start before `until`.

        The batch must hold something. At least one step is planned, and only what ends with the last one may leave.
        """
        self._chunks = self._plan_chunks()
        steps = 1 if self._chunks else self._decode_steps(now, until, most_steps)
        tokens, kv_bytes = self._work(steps)
        chunked = [prompt.index for prompt in self._prompts[: len(self._chunks)]]
        participants = np.concatenate([self._decoding, np.array(chunked, np.int64)])
        costs = step_costs(self.rates, participants, tokens, kv_bytes)
        starts = now + np.cumsum(costs.step_seconds) - costs.step_seconds
        return costs.first(max(1, int(np.searchsorted(starts, until))))

    def _plan_chunks(self) -> list[int]:
        """How many tokens of each prompt, from the first on, the next step computes."""
        room = self.server.chunk_tokens - len(self._decoding)
        chunks: list[int] = []
        for prompt in self._prompts:
            if room <= 0:
                break
            chunks.append(min(room, prompt.request.input_tokens - prompt.computed))
            room -= chunks[-1]
        return chunks

    def _decode_steps(self, now: float, until: float, most_steps: int) -> int:
        """An upper bound on the decode steps that start before `until` with the batch as it is."""
        most = min(most_steps, LONGEST_BLOCK_STEPS, int(self._remaining.min()))
        if until == np.inf:
            return most
        return max(1, min(most, int(np.ceil((until - now) / self.rates.shortest_step_seconds))))

    def _work(self, steps: int) -> tuple[Floats, Floats]:
        """Tokens computed and KV bytes moved, each (steps, participants): decoding requests first, then prompts."""
        decoding, chunks = len(self._decoding), len(self._chunks)
        tokens = np.ones((steps, decoding + chunks))
        context = np.empty((steps, decoding + chunks))
        context[:, :decoding] = self._context + np.arange(steps)[:, None]
        for place, (prompt, chunk) in enumerate(zip(self._prompts, self._chunks, strict=False), start=decoding):
            tokens[:, place] = chunk
            context[:, place] = prompt.computed + chunk
        return tokens, context * self.server.model.kv_bytes_per_token

    def finish(self, start: float, seconds: Floats) -> None:
        """Books the planned steps, which ran from `start` on and took these seconds each."""
        ends = start + np.cumsum(seconds)
        end = start + float(seconds.sum())
        made = np.full(len(seconds), len(self._decoding))
        kv_tokens = self._kv_tokens() + np.cumsum(made)
        self._context = self._context + len(seconds)
        self._remaining = self._remaining - len(seconds)
        left = self._leave(end)
        joined = self._compute(start)
        prompts = self._finish_prompts()
        for prompt in prompts:
            left += self._start_decoding(prompt, end)
        made[-1] += len(prompts)
        kv_tokens[-1] = self._kv_tokens()
        cached = sum(prompt.request.cached_tokens for prompt in prompts)
        prefill = sum(prompt.request.input_tokens for prompt in prompts) - cached
        last = BlockEnd(joined=joined, left=left, prefill_tokens=prefill, cached_tokens=cached)
        self.log.add(ends, made, kv_tokens, last)

    def _kv_tokens(self) -> int:
        """Context in the cache: of the requests that decode, and of prompts that have been in a step."""
        prompts = sum(prompt.computed for prompt in self._prompts if not self._waits(prompt))
        return int(self._context.sum()) + prompts

    def _waits(self, prompt: _Prompt) -> bool:
        """Whether it has not been in a step yet."""
        return bool(np.isnan(self._progress.scheduled[prompt.index]))

    def _leave(self, end: float) -> int:
        """Lets those go who have all their tokens; how many these are."""
        done = self._remaining == 0
        if done.any():
            self._progress.end[self._decoding[done]] = end
            self._decoding, self._context = self._decoding[~done], self._context[~done]
            self._remaining = self._remaining[~done]
        return int(done.sum())

    def _compute(self, start: float) -> int:
        """Books the chunks of the step that began at `start`; how many prompts were in a step for the first time."""
        joined = 0
        for prompt, chunk in zip(self._prompts, self._chunks, strict=False):
            if self._waits(prompt):
                self._progress.scheduled[prompt.index] = start
                joined += 1
            prompt.computed += chunk
        return joined

    def _finish_prompts(self) -> list[_Prompt]:
        """Takes those out that are computed to their end."""
        done: list[_Prompt] = []
        while self._prompts and self._prompts[0].computed == self._prompts[0].request.input_tokens:
            done.append(self._prompts.pop(0))
        return done

    def _start_decoding(self, prompt: _Prompt, end: float) -> int:
        """Its first token is made; 1 if it wanted no more and leaves, else 0."""
        self._progress.first_token[prompt.index] = end
        if prompt.request.output_tokens == 1:
            self._progress.end[prompt.index] = end
            return 1
        self._decoding = np.append(self._decoding, prompt.index)
        self._context = np.append(self._context, prompt.request.input_tokens + 1)
        self._remaining = np.append(self._remaining, prompt.request.output_tokens - 1)
        return 0
