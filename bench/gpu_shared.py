"""Two models on one GPU against its own meter: two servers that take turns on it, every coalition of three teams.

    python -m bench gpu_shared           (needs an NVIDIA GPU and PyTorch; 5 minutes)
    python -m bench.gpu_shared FOLDER    (the same, and what was recorded stays in FOLDER)
    python -m bench.gpu_shared --score FOLDER EARLIER    (of a recorded one, learning from an earlier one too)

Each server is a process of its own, and the GPU gives them slices of its time, as where nobody set up MPS. How it is
done is in bench/_gpu_play.py.
"""

import sys

from bench import _gpu_play
from bench._gpu_play import Server

NAME = "shared"
SERVERS = (
    Server(model="llama-8b", teams=("search",), turns=1_000),
    Server(model="llama-3b", teams=("chat", "writing"), turns=2_000),
)


def run() -> list[str]:
    """Plays it and scores it; nothing stays."""
    return _gpu_play.run(NAME, SERVERS)


if __name__ == "__main__":
    _gpu_play.command(NAME, SERVERS, sys.argv[1:])
