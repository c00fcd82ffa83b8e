"""What a decoder looks like: enough to build it, and to price its passes."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """A decoder's shape. Widths in numbers, `context` in tokens a request."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    hidden: int
    vocabulary: int
    context: int

    @property
    def head_width(self) -> int:
        """128 in Llama 3.1 8B: 4 096 / 32."""
        return self.width // self.heads

    @property
    def parameters(self) -> int:
        """Weights that a pass uses. Llama 3.1 8B: 32 x (25.2 + 16.8 + 176.2 M) + 525 M = 7.50e9, embedding left out."""
        qkv = self.width * self.head_width * (self.heads + 2 * self.kv_heads)
        layer = qkv + self.width * self.width + 3 * self.width * self.hidden
        return self.layers * layer + self.vocabulary * self.width

    @property
    def kv_bytes_per_token(self) -> int:
        """Llama 3.1 8B: 2 x 32 layers x 8 heads x 128 x 2 bytes = 131 072."""
        return 2 * self.layers * self.kv_heads * self.head_width * 2


LLAMA_8B = Shape(
    layers=32, width=4096, heads=32, kv_heads=8, hidden=14336, vocabulary=128256, context=2304
)  # Llama 3.1 8B's config.json, a shorter context
LLAMA_3B = Shape(
    layers=28, width=3072, heads=24, kv_heads=8, hidden=8192, vocabulary=128256, context=2304
)  # Llama 3.2 3B's config.json, a shorter context
SHAPES = {"llama-8b": LLAMA_8B, "llama-3b": LLAMA_3B}
TINY = Shape(layers=2, width=64, heads=4, kv_heads=2, hidden=128, vocabulary=256, context=2304)
"""To try the program on a CPU."""
