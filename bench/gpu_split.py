"""The split against a real GPU's own meter: three teams on one model server, every coalition of them measured.

    python -m bench gpu_split            (needs an NVIDIA GPU and PyTorch; 7 minutes)
    python -m bench.gpu_split FOLDER     (the same, and what was recorded stays in FOLDER)
    python -m bench.gpu_split --score FOLDER EARLIER     (of a recorded one, learning from an earlier one too)

How it is done is in bench/_gpu_play.py.
"""

import sys

from bench import _gpu_play
from bench._gpu_plan import TEAMS
from bench._gpu_play import Server

NAME = "split"
SERVERS = (Server(model="llama-8b", teams=TEAMS, turns=2_600),)
"""A coalition takes 20 to 28 s on an H200."""


def run() -> list[str]:
    """Plays it and scores it; nothing stays."""
    return _gpu_play.run(NAME, SERVERS)


if __name__ == "__main__":
    _gpu_play.command(NAME, SERVERS, sys.argv[1:])
