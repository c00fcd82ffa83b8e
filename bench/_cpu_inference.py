"""A small real load: a transformer in numpy answers requests one by one, and posts an event for each.

    python -m bench._cpu_inference --url http://127.0.0.1:8096/v1/events --seconds 600

Random weights made on the spot: what it costs to multiply them does not depend on their values. Two models and two
teams take turns; prompts and answers have random lengths. It prints what it did, to be held against the books.
"""

import argparse
import http.client
import json
import time
import urllib.parse
import uuid
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Tensor = NDArray[np.float32]
VOCABULARY = 4_096


@dataclass(frozen=True)
class Size:
    """A decoder's shape."""

    layers: int
    width: int


MODELS = {"tiny-8m": Size(layers=6, width=256), "tiny-40m": Size(layers=8, width=640)}


class Transformer:
    """A decoder with a KV cache: single head, ReLU, no training. Good for nothing but heat."""

    def __init__(self, size: Size, random: np.random.Generator) -> None:
        def weights(rows: int, columns: int) -> Tensor:
            return (random.standard_normal((rows, columns)) / np.sqrt(rows)).astype(np.float32)

        width = size.width
        self._embedding = weights(VOCABULARY, width)
        self._layers = [
            (weights(width, 3 * width), weights(width, width), weights(width, 4 * width), weights(4 * width, width))
            for _ in range(size.layers)
        ]

    @property
    def parameters(self) -> int:
        """How many weights there are."""
        return self._embedding.size + sum(each.size for layer in self._layers for each in layer)

    def answer(self, prompt: NDArray[np.intp], tokens: int) -> float:
        """Reads the prompt and makes so many tokens; returns when the first was there."""
        cache: list[Tensor] = [np.zeros((0, 2 * self._embedding.shape[1]), dtype=np.float32) for _ in self._layers]
        last = self._step(prompt, cache)
        first = time.time()
        for _ in range(tokens - 1):
            last = self._step(np.array([last]), cache)
        return first

    def _step(self, tokens: NDArray[np.intp], cache: list[Tensor]) -> int:
        state = self._embedding[tokens]
        width = state.shape[1]
        for number, (qkv, out, up, down) in enumerate(self._layers):
            mixed = _normal(state) @ qkv
            cache[number] = np.concatenate((cache[number], mixed[:, width:]))
            keys, values = cache[number][:, :width], cache[number][:, width:]
            scores = mixed[:, :width] @ keys.T / np.sqrt(width)
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            state = state + (weights / weights.sum(axis=1, keepdims=True)) @ values @ out
            state = state + np.maximum(_normal(state) @ up, 0.0) @ down
        return int((state[-1] @ self._embedding.T).argmax())


def _normal(state: Tensor) -> Tensor:
    result: Tensor = (state - state.mean(axis=1, keepdims=True)) / (state.std(axis=1, keepdims=True) + 1e-5)
    return result


def _post(url: urllib.parse.SplitResult, event: dict[str, object]) -> int:
    connection = http.client.HTTPConnection(url.netloc, timeout=10)
    try:
        connection.request("POST", url.path, json.dumps(event), {"Content-Type": "application/json"})
        return connection.getresponse().status
    finally:
        connection.close()


def main() -> None:
    """Answers requests until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8096/v1/events")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--pause", type=float, default=1.0, help="mean pause between requests in seconds")
    chosen = parser.parse_args()
    url = urllib.parse.urlsplit(chosen.url)
    random = np.random.default_rng(7)
    models = {name: Transformer(size, random) for name, size in MODELS.items()}
    done: dict[tuple[str, str], list[float]] = {}
    until = time.monotonic() + chosen.seconds
    while time.monotonic() < until:
        model, team = str(random.choice(list(models))), str(random.choice(["search", "support"], p=[0.7, 0.3]))
        reads, makes = int(random.integers(32, 512)), int(random.integers(16, 160))
        start = time.time()
        first = models[model].answer(random.integers(0, VOCABULARY, reads), makes)
        end = time.time()
        event = {
            "schema": "wattribute.request.v1",
            "request_id": str(uuid.uuid4()),
            "model": model,
            "team": team,
            "start": start,
            "first_token": first,
        }
        status = _post(url, event | {"end": end, "input_tokens": reads, "output_tokens": makes})
        if status != 202:
            print(f"the receiver answered {status}")
        sums = done.setdefault((model, team), [0, 0.0, 0, 0])
        for place, value in enumerate((1, end - start, reads, makes)):
            sums[place] += value
        time.sleep(float(random.exponential(chosen.pause)))
    print("model      team     requests  busy s   tok in  tok out")
    for (model, team), (requests, busy, reads_sum, makes_sum) in sorted(done.items()):
        print(f"{model:10} {team:8} {requests:8.0f} {busy:7.1f} {reads_sum:8.0f} {makes_sum:8.0f}")


if __name__ == "__main__":
    main()
