"""The scenarios by name, each in a line. presets.py makes them; this file is light, for whoever only lists them."""

from collections.abc import Mapping
from types import MappingProxyType

SCENARIOS: Mapping[str, str] = MappingProxyType(
    {
        "demo": "two GPUs, three models, four teams",
        "heavy": "one saturated GPU: five teams, about 48 requests in a step",
        "light": "the same teams, seldom: about 1.6 requests in a step",
        "heavy-50": "the load of heavy from 50 teams",
        "light-50": "the load of light from 50 teams",
        "rag": "long prompts, short answers",
        "long-outputs": "short prompts, long answers",
        "prefix-cache": "prompts that are cached by 30 to 95 %",
        "no-chunks": "heavy with whole prompts in one step",
        "queue": "more requests than the engine takes at once, and nobody tells how long they wait",
        "moe": "a mixture of experts",
        "speculative": "speculative decoding, three drafts in each step",
        "capped": "a power limit of 330 W all the time",
        "cap-change": "the power limit falls from 700 to 330 W",
        "dvfs": "the clock falls to 70 % and comes back, twice",
        "sensor-10ms": "heavy, seen by a power sensor that averages over 10 ms",
        "sensor-100ms": "the same over 100 ms",
        "sensor-1s": "the same over a second",
        "gain-high": "heavy, seen by a counter that shows 5 % too much",
        "gain-low": "the same with 5 % too little",
        "missing-events": "heavy, of which 1 % of the events never come",
        "skew": "heavy, with a gateway whose clock is 200 ms ahead",
        "wrong-facts": "heavy, with 30 % of the model's parameters missing in host.toml",
        "disaggregated": "prompts computed on one GPU, answers made on another one",
        "model-swap": "another model on the same GPU from the middle on",
        "engine-restart": "heavy, with an engine that is restarted in the middle",
    }
)
