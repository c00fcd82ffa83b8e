"""The engine: continuous batching with chunked prefill, step by step; requests -> blocks of steps with their costs.

In a step each decoding request makes one token, or more with speculation; what is left of the step's tokens computes
prompts, in order of arrival, in chunks. The last chunk of a prompt makes the first output token. A cached prefix is not
computed, only read. A decode server takes requests over whose prompt another one has computed (handover.py).
"""

from collections import deque
from collections.abc import Sequence

import numpy as np

from collectors.simulate.cost import StepCosts, step_costs
from collectors.simulate.engine_log import BlockEnd, EngineLog
from collectors.simulate.rates import Floats, Integers, Rates, RatesOverTime
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

    __slots__ = ("computed", "index", "request", "waits")

    def __init__(self, index: int, request: Request) -> None:
        self.index = index
        self.request = request
        self.computed = request.cached_tokens
        self.waits = True  # for its first step


class Engine:
    """One server's queue and batch. `queue` holds (index, request) by start; times come from the device's turn.

    Raises ValueError if a request comes when the server will not be up any more.
    """

    def __init__(
        self,
        server: Server,
        rates: RatesOverTime,
        queue: Sequence[tuple[int, Request]],
        progress: Progress,
        rng: np.random.Generator,
    ) -> None:
        self.server = server
        self.log = EngineLog([request.start for _, request in queue], server.up)
        self._rates = rates
        self._queue = deque((_admission(request.start, server), index, request) for index, request in queue)
        self._progress = progress
        self._rng = rng
        self._prompts: list[_Prompt] = []
        self._chunks: list[int] = []
        self._taken_over: list[Request] = []  # decode, and have not been in a step here
        self._decoding: Integers = np.empty(0, np.int64)  # indices of requests
        self._context: Integers = np.empty(0, np.int64)
        self._remaining: Integers = np.empty(0, np.int64)
        self._made: Integers = np.empty((0, 0), np.int64)  # tokens, of the planned steps by decoding requests

    @property
    def next_start(self) -> float:
        """When the next request that is not yet admitted can be; infinite if none comes."""
        return self._queue[0][0] if self._queue else np.inf

    def admit(self, now: float) -> bool:
        """Takes what has come into the batch, as far as it has room; says whether there is anything to do."""
        while self.next_start <= now and len(self._prompts) + len(self._decoding) < self.server.max_batch:
            _, index, request = self._queue.popleft()
            if self.server.phase == "decode":
                self._taken_over.append(request)
                self._decode(index, request)
            else:
                self._prompts.append(_Prompt(index, request))
        return bool(self._prompts) or len(self._decoding) > 0

    def plan(self, now: float, until: float, most_steps: int) -> StepCosts:
        """The next steps from `now` on: one with prompts or newcomers in it, or decode steps that start before `until`.

        The batch must hold something. At least one step is planned, and only what ends with the last one may leave.
        """
        rates, changed = self._rates.at(now)
        until = min(until, changed)
        self._chunks = self._plan_chunks()
        once = self._chunks or self._taken_over
        self._made = self._plan_tokens(1 if once else self._decode_steps(rates, now, until, most_steps))
        tokens, kv_bytes = self._work()
        chunked = [prompt.index for prompt in self._prompts[: len(self._chunks)]]
        participants = np.concatenate([self._decoding, np.array(chunked, np.int64)])
        costs = step_costs(rates, participants, tokens, kv_bytes)
        if len(tokens) == 1:
            return costs
        starts = now + np.cumsum(costs.step_seconds) - costs.step_seconds
        return costs.first(max(1, int(np.searchsorted(starts, until))))

    def _plan_chunks(self) -> list[int]:
        """How many tokens of each prompt, from the first on, the next step computes."""
        room = self.server.chunk_tokens - len(self._decoding) * (1 + self.server.drafted_tokens)
        chunks: list[int] = []
        for prompt in self._prompts:
            if room <= 0:
                break
            chunks.append(min(room, prompt.request.input_tokens - prompt.computed))
            room -= chunks[-1]
        return chunks

    def _decode_steps(self, rates: Rates, now: float, until: float, most_steps: int) -> int:
        """An upper bound on the decode steps that start before `until` with the batch as it is."""
        most = min(most_steps, LONGEST_BLOCK_STEPS, int(self._remaining.min()))
        if until == np.inf:
            return most
        return max(1, min(most, int(np.ceil((until - now) / rates.shortest_step_seconds))))

    def _plan_tokens(self, steps: int) -> Integers:
        """Tokens that each decoding request makes in each step, up to the step in which the first one has all."""
        made = np.ones((steps, len(self._decoding)), np.int64)
        if self.server.drafted_tokens:
            kept = self._rng.geometric(1.0 - self.server.acceptance_ratio, made.shape) - 1
            made += np.minimum(kept, self.server.drafted_tokens)
            over = np.cumsum(made, axis=0) - self._remaining
            done = (over >= 0).any(axis=1)
            made = made[: int(done.argmax()) + 1] if done.any() else made
            made[-1] -= np.maximum(over[len(made) - 1], 0)
        return made

    def _work(self) -> tuple[Floats, Floats]:
        """Tokens computed and KV bytes moved, each (steps, participants): decoding requests first, then prompts."""
        steps, decoding = self._made.shape
        tokens = np.full((steps, decoding + len(self._chunks)), 1.0 + self.server.drafted_tokens)
        context = np.empty(tokens.shape)
        context[:, :decoding] = self._context + np.cumsum(self._made, axis=0) - self._made
        for place, (prompt, chunk) in enumerate(zip(self._prompts, self._chunks, strict=False), start=decoding):
            tokens[:, place] = chunk
            context[:, place] = prompt.computed + chunk
        return tokens, context * self.server.model.kv_bytes_per_token

    def finish(self, start: float, seconds: Floats) -> None:
        """Books the planned steps, which ran from `start` on and took these seconds each."""
        end = start + float(seconds.sum())
        made, made_tokens = self._made[: len(seconds)], self._made[: len(seconds)].sum(axis=1)
        kv_tokens = self._kv_tokens() + np.cumsum(made_tokens)
        self._context = self._context + made.sum(axis=0)
        self._remaining = self._remaining - made.sum(axis=0)
        left = self._leave(end)
        joined = self._compute(start) + len(self._taken_over)
        prompts = self._finish_prompts()
        for prompt in prompts:
            left += self._start_decoding(prompt, end)
        made_tokens[-1] += len(prompts)
        kv_tokens[-1] = self._kv_tokens()
        cached = sum(prompt.request.cached_tokens for prompt in prompts)
        prefill = sum(prompt.request.input_tokens for prompt in prompts) - cached
        cached += sum(request.input_tokens for request in self._taken_over)
        self._taken_over = []
        last = BlockEnd(joined=joined, left=left, prefill_tokens=prefill, cached_tokens=cached)
        self.log.add(start + np.cumsum(seconds), made_tokens, kv_tokens, last)

    def _kv_tokens(self) -> int:
        """Context in the cache: of the requests that decode, and of prompts that have been in a step."""
        return int(self._context.sum()) + sum(prompt.computed for prompt in self._prompts if not prompt.waits)

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
            if prompt.waits:
                prompt.waits = False
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
        self._decode(prompt.index, prompt.request)
        return 0

    def _decode(self, index: int, request: Request) -> None:
        """It has its first token and wants more."""
        self._decoding = np.append(self._decoding, index)
        self._context = np.append(self._context, request.input_tokens + 1)
        self._remaining = np.append(self._remaining, request.output_tokens - 1)


def _admission(start: float, server: Server) -> float:
    """When a request that comes at `start` can be taken in; raises ValueError for never."""
    for begin, end in server.up:
        if start < end:
            return max(start, begin)
    raise ValueError(f"a request for {server.model.name} comes at {start:.1f} s, when its server is down for good")
