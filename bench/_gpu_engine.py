"""A model server that batches continuously, on a real GPU, through given passes: events to a file, counters over HTTP.

    python -m bench._gpu_engine --events FILE --name NAME --port PORT

It prints `ready` once the model is loaded. Each line of stdin then is `{"prefix": .., "teams": [..], "turns": ..,
"seed": ..}`: it plays those passes (bench/_gpu_plan.py) and answers `{"start": .., "end": ..}`. `/metrics` shows what
vLLM shows, by its names; `/counters` the same as JSON. It ends when stdin does.
"""

import argparse
import json
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TextIO

import torch

from bench._gpu_model import Decoder
from bench._gpu_plan import LOADS, Asked, passes
from bench._gpu_shape import SHAPES, TINY


@dataclass(slots=True)
class Counters:
    """What vLLM counts. Written by the engine's thread, read by those that serve pages."""

    running: int = 0
    waiting: int = 0
    steps: int = 0
    prefill_tokens: int = 0
    decode_tokens: int = 0
    kv_tokens: int = 0

    def page(self, model: str, kv_places: int) -> str:
        """The page of /metrics."""
        labels = f'engine="0",model_name="{model}"'
        rows = [
            ("num_requests_running", "gauge", "", self.running),
            ("num_requests_waiting", "gauge", "", self.waiting),
            ("iteration_tokens_total_count", "counter", "", self.steps),
            ("prompt_tokens_by_source_total", "counter", ',source="local_compute"', self.prefill_tokens),
            ("prompt_tokens_cached_total", "counter", "", 0),
            ("generation_tokens_total", "counter", "", self.decode_tokens),
            ("kv_cache_usage_perc", "gauge", "", self.kv_tokens / kv_places),
        ]
        lines = [
            f"# TYPE vllm:{name} {kind}\nvllm:{name}{{{labels}{more}}} {value!r}" for name, kind, more, value in rows
        ]
        shown = f'vllm:cache_config_info{{{labels},block_size="16",num_gpu_blocks="{kv_places // 16}"}} 1.0'
        return "\n".join([*lines, "# TYPE vllm:cache_config_info gauge", shown, ""])


@dataclass(slots=True)
class _Going:
    """A request's times, and how far it is."""

    start: float
    made: int = 0
    first_token: float = 0.0


@dataclass(slots=True)
class Engine:
    """Plays passes, one after the other."""

    decoder: Decoder
    events: TextIO
    model: str
    device: str
    counters: Counters = field(default_factory=Counters)

    def play(self, prefix: str, teams: tuple[str, ...], turns: int, seed: int) -> tuple[float, float]:
        """The passes of these teams; returns when they began and ended. Requests that are not done then end there."""
        going: dict[int, tuple[Asked, _Going]] = {}
        told, random = self.counters, torch.randint(256, (4096,), device=self.decoder.device)
        start = time.time()
        for each in passes(seed, turns, teams):
            if asked := each.prompt:
                going[asked.slot] = asked, _Going(start=time.time())
                told.running = len(going)
                self.decoder.prompt(asked.slot, random[: asked.input])
            else:
                self.decoder.step([asked.slot for asked in each.tokens])
            self.decoder.wait()
            now = time.time()
            told.steps += 1
            told.prefill_tokens += each.prompt.input if each.prompt else 0
            told.kv_tokens += each.prompt.input if each.prompt else 0
            for asked in (each.prompt,) if each.prompt else each.tokens:
                state = going[asked.slot][1]
                state.made += 1
                state.first_token = state.first_token or now
                told.decode_tokens += 1
                told.kv_tokens += 1
                if state.made == asked.output:
                    self._end(prefix, *going.pop(asked.slot), now)
        for left in list(going.values()):
            self._end(prefix, *left, time.time())
        told.running = 0
        self.events.flush()
        return start, time.time()

    def _end(self, prefix: str, asked: Asked, state: _Going, end: float) -> None:
        self.counters.kv_tokens -= asked.input + state.made
        event = {
            "schema": "wattribute.request.v1", "request_id": f"{prefix}-{asked.id}", "model": self.model,
            "team": asked.team, "devices": [self.device], "start": state.start, "scheduled": state.start,
            "first_token": state.first_token, "end": end, "input_tokens": asked.input, "cached_input_tokens": 0,
            "output_tokens": state.made,
        }  # fmt: skip
        self.events.write(json.dumps(event) + "\n")
        self.events.flush()


def _serve(engine: Engine, port: int) -> None:
    places = engine.decoder.slots * engine.decoder.shape.context

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            told = engine.counters
            if self.path == "/metrics":
                body = told.page(engine.model, places)
            else:
                body = json.dumps({name: getattr(told, name) for name in Counters.__slots__})
            self.send_response(200)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            """Nothing to stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def main() -> None:
    """Loads the model, says so, and plays what it is told."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", default="llama-8b", choices=SHAPES)
    parser.add_argument("--device", default="")
    parser.add_argument("--cpu", action="store_true", help="a tiny model on the CPU, to try the program")
    chosen = parser.parse_args()
    decoder = Decoder(TINY, "cpu") if chosen.cpu else Decoder(SHAPES[chosen.name])
    decoder.warm_up(sorted({length for load in LOADS for length in load.input}))
    with chosen.events.open("a") as events:
        engine = Engine(decoder=decoder, events=events, model=chosen.name, device=chosen.device)
        _serve(engine, chosen.port)
        print("ready", flush=True)
        for line in sys.stdin:
            told = json.loads(line)
            start, end = engine.play(told["prefix"], tuple(told["teams"]), told["turns"], told["seed"])
            print(json.dumps({"start": start, "end": end}), flush=True)


if __name__ == "__main__":
    main()
