"""A decoder of Llama's shape in PyTorch, for a GPU: what a pass through it costs is real, its weights are random.

Prompts go through whole; answers a token a pass for all requests together, reading of each request's KV cache what it
has and no more (a kernel of our own). Each length of a prompt and each batch size is a CUDA graph. So a pass reads the
weights once however many share it, which is what makes the split of its joules a question. Fast enough to be like a
server, and no more.
"""

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch.nn import functional

from bench._gpu_shape import Shape

BATCHES = (1, 2, 4, 8, 12, 16, 20, 24, 32, 40, 48)
"""Batch sizes with a graph of their own; a pass takes the next larger one."""


@triton.jit
def _attend(  # noqa: PLR0917 -- as Triton's launch passes them
    query, keys, values, out, slots, lengths, scale, slot_stride, place_stride,
    heads: tl.constexpr, group: tl.constexpr, width: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """One request's one KV head: its group of queries over the places that the request has."""
    row, head = tl.program_id(0), tl.program_id(1)
    slot, length = tl.load(slots + row), tl.load(lengths + row) + 1
    member, column = tl.arange(0, 16), tl.arange(0, width)  # 16: the least that tl.dot takes
    at = row * heads * width + (head * group + member[:, None]) * width + column[None, :]
    asked = tl.load(query + at, mask=member[:, None] < group, other=0.0)
    most = tl.full((16,), float("-inf"), tl.float32)
    total = tl.zeros((16,), tl.float32)
    found = tl.zeros((16, width), tl.float32)
    for begin in range(0, length, block):
        place = begin + tl.arange(0, block)
        there = place < length
        cell = slot * slot_stride + place[:, None] * place_stride + head * width + column[None, :]
        key = tl.load(keys + cell, mask=there[:, None], other=0.0)
        score = tl.dot(asked, tl.trans(key)) * scale
        score = tl.where(there[None, :], score, float("-inf"))
        higher = tl.maximum(most, tl.max(score, 1))
        weight = tl.exp(score - higher[:, None])
        kept = tl.exp(most - higher)
        value = tl.load(values + cell, mask=there[:, None], other=0.0)
        found = found * kept[:, None] + tl.dot(weight.to(value.dtype), value)
        total = total * kept + tl.sum(weight, 1)
        most = higher
    tl.store(out + at, (found / total[:, None]).to(out.dtype.element_ty), mask=member[:, None] < group)


class Decoder:
    """Weights, a KV cache of `BATCHES[-1]` places, and the two passes. Errors: torch's own."""

    def __init__(self, shape: Shape, device: str = "cuda") -> None:
        self.shape, self.device = shape, device
        self.slots = BATCHES[-1]
        kept = torch.bfloat16 if device == "cuda" else torch.float32  # the CPU has no kernels of note for bfloat16

        def weights(rows: int, columns: int) -> torch.Tensor:
            made = torch.empty(rows, columns, dtype=kept, device=device)
            return made.normal_(0.0, columns**-0.5)

        qkv = shape.head_width * (shape.heads + 2 * shape.kv_heads)
        self._layers = [
            (
                weights(qkv, shape.width),
                weights(shape.width, shape.width),
                weights(2 * shape.hidden, shape.width),
                weights(shape.width, shape.hidden),
            )
            for _ in range(shape.layers)
        ]
        self._embedding = weights(shape.vocabulary, shape.width)
        self._out = weights(shape.vocabulary, shape.width)
        # One place more than there are: that of the rows that only fill up a batch.
        cells = (shape.layers, self.slots + 1, shape.context, shape.kv_heads, shape.head_width)
        self._keys = torch.zeros(cells, dtype=kept, device=device)
        self._values = torch.zeros(cells, dtype=kept, device=device)
        self._lengths = torch.zeros(self.slots + 1, dtype=torch.int64, device=device)
        self._last = torch.zeros(self.slots + 1, dtype=torch.int64, device=device)
        half = torch.arange(shape.head_width // 2, device=device, dtype=torch.float32)
        turns = torch.arange(shape.context, device=device)[:, None] * 500_000.0 ** (-2.0 * half / shape.head_width)
        self._cosine, self._sine = turns.cos().to(kept), turns.sin().to(kept)
        self._steps: dict[int, tuple[Callable[[], None], torch.Tensor]] = {}
        self._prompts: dict[int, tuple[Callable[[], None], torch.Tensor, torch.Tensor]] = {}

    @torch.inference_mode()
    def prompt(self, slot: int, tokens: torch.Tensor) -> None:
        """Reads a whole prompt of shape (n,) into the place and makes its first token."""
        count = tokens.shape[0]
        if count not in self._prompts:
            place = torch.full((1,), self.slots, dtype=torch.int64, device=self.device)
            static = torch.zeros(count, dtype=torch.int64, device=self.device)
            self._prompts[count] = (self._captured(lambda: self._prompt(place, static)), place, static)
        run, place, static = self._prompts[count]
        place.fill_(slot)
        static.copy_(tokens)
        run()

    @torch.inference_mode()
    def step(self, slots: list[int]) -> None:
        """One more token for each of the places."""
        batch = next(size for size in BATCHES if size >= len(slots))
        rows = torch.tensor(slots + [self.slots] * (batch - len(slots)), dtype=torch.int64)
        if batch not in self._steps:
            static = torch.full((batch,), self.slots, dtype=torch.int64, device=self.device)
            self._steps[batch] = (self._captured(lambda: self._step(static)), static)
        run, static = self._steps[batch]
        static.copy_(rows, non_blocking=True)
        run()

    def warm_up(self, prompts: list[int]) -> None:
        """Captures the passes of every batch size and of these lengths of a prompt; all places are empty then."""
        for count in prompts:
            self.prompt(0, torch.zeros(count, dtype=torch.int64, device=self.device))
        for batch in BATCHES:
            self.step(list(range(batch)))
        self.wait()
        self.forget()

    def forget(self) -> None:
        """All places are empty again."""
        self._lengths.zero_()

    def wait(self) -> None:
        """Until the passes are done."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def _captured(self, work: Callable[[], None]) -> Callable[[], None]:
        """The same as a CUDA graph's replay, without the launches of its kernels one by one."""
        if self.device != "cuda":
            return work
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            work()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        return graph.replay

    def _prompt(self, slot: torch.Tensor, tokens: torch.Tensor) -> None:
        count = tokens.shape[0]
        places = torch.arange(count, device=self.device)
        state = self._embedding[tokens]
        for number in range(self.shape.layers):
            query, key, value = self._projected(state, number, places)
            self._keys[number][slot, places] = key
            self._values[number][slot, places] = value
            seen = functional.scaled_dot_product_attention(
                query.transpose(0, 1)[None], key.transpose(0, 1)[None], value.transpose(0, 1)[None],
                is_causal=True, enable_gqa=True,
            )  # fmt: skip
            state = self._after(state, seen[0].transpose(0, 1).reshape(count, -1), number)
        self._last[slot] = self._chosen(state[-1:])
        self._lengths.index_fill_(0, slot, count)

    def _step(self, slots: torch.Tensor) -> None:
        shape, batch = self.shape, slots.shape[0]
        lengths = self._lengths[slots]
        state = self._embedding[self._last[slots]]
        for number in range(shape.layers):
            query, key, value = self._projected(state, number, lengths)
            keys, values = self._keys[number], self._values[number]
            keys[slots, lengths] = key
            values[slots, lengths] = value
            seen = torch.empty_like(query)
            _attend[(batch, shape.kv_heads)](
                query, keys, values, seen, slots, lengths, shape.head_width**-0.5, keys.stride(0), keys.stride(1),
                heads=shape.heads, group=shape.heads // shape.kv_heads, width=shape.head_width, block=64,
            )  # fmt: skip
            state = self._after(state, seen.view(batch, -1), number)
        self._last[slots] = self._chosen(state)
        self._lengths[slots] = lengths + 1
        self._lengths[self.slots :] = 0

    def _projected(
        self, state: torch.Tensor, number: int, places: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        shape = self.shape
        mixed = functional.linear(functional.rms_norm(state, (shape.width,)), self._layers[number][0])
        mixed = mixed.view(-1, shape.heads + 2 * shape.kv_heads, shape.head_width)
        query, key, value = mixed.split((shape.heads, shape.kv_heads, shape.kv_heads), dim=1)
        cosine, sine = self._cosine[places][:, None], self._sine[places][:, None]
        return _turned(query, cosine, sine), _turned(key, cosine, sine), value.contiguous()

    def _after(self, state: torch.Tensor, seen: torch.Tensor, number: int) -> torch.Tensor:
        _, out, up, down = self._layers[number]
        state = state + functional.linear(seen, out)
        gate, wide = functional.linear(functional.rms_norm(state, (self.shape.width,)), up).chunk(2, dim=-1)
        return state + functional.linear(functional.silu(gate) * wide, down)

    def _chosen(self, state: torch.Tensor) -> torch.Tensor:
        return functional.linear(functional.rms_norm(state, (self.shape.width,)), self._out).argmax(dim=-1)


def _turned(vectors: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    first, second = vectors.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1).contiguous()
