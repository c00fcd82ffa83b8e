"""Who asks what, and when: tenants -> requests, in order of their start."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from collectors.simulate.scenario import Lengths, Scenario, Tenant

CACHE_BLOCK_TOKENS = 16  # engines cache prefixes in whole blocks


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What is asked of an engine. `start` is in seconds from the start of the recording."""

    tenant: Tenant
    start: float
    input_tokens: int
    cached_tokens: int
    output_tokens: int


def draw_requests(scenario: Scenario, seed: int) -> tuple[Request, ...]:
    """All requests of the scenario, by start; each tenant has a random stream of its own."""
    cached = {server.model.name: server.prefix_cache for server in scenario.servers}
    requests: list[Request] = []
    for number, tenant in enumerate(scenario.tenants):
        rng = np.random.default_rng([seed, 1, number])
        requests += _tenant_requests(tenant, rng, prefix_cache=cached[tenant.model])
    return tuple(sorted(requests, key=lambda request: request.start))


def _tenant_requests(tenant: Tenant, rng: np.random.Generator, *, prefix_cache: bool) -> list[Request]:
    starts = _starts(tenant, rng)
    inputs = _draw_tokens(tenant.inputs, len(starts), rng)
    outputs = _draw_tokens(tenant.outputs, len(starts), rng)
    ratio = tenant.cached_ratio if prefix_cache else 0.0
    return [
        Request(
            tenant=tenant,
            start=start,
            input_tokens=inputs[number],
            cached_tokens=_cached_tokens(inputs[number], ratio) if number else 0,
            output_tokens=outputs[number],
        )
        for number, start in enumerate(starts)
    ]


def _starts(tenant: Tenant, rng: np.random.Generator) -> list[float]:
    """Gamma-distributed gaps in the tenant's own active time, laid onto its periods."""
    active_seconds = sum(end - start for start, end in tenant.active)
    starts: list[float] = []
    elapsed = 0.0
    while True:
        elapsed += rng.gamma(1.0 / tenant.burstiness, tenant.burstiness / tenant.requests_per_second)
        if elapsed >= active_seconds:
            return starts
        starts.append(_on_the_clock(elapsed, tenant.active))


def _on_the_clock(elapsed: float, periods: Sequence[tuple[float, float]]) -> float:
    """The moment at which `elapsed` seconds of activity have passed: 5 s into (0, 3), (10, 20) is 12."""
    for start, end in periods:
        if elapsed < end - start:
            return start + elapsed
        elapsed -= end - start
    return periods[-1][1]


def _draw_tokens(lengths: Lengths, count: int, rng: np.random.Generator) -> list[int]:
    drawn = rng.lognormal(np.log(lengths.median_tokens), lengths.sigma, count)
    clipped: list[int] = np.clip(np.rint(drawn), 1, lengths.maximum_tokens).astype(int).tolist()
    return clipped


def _cached_tokens(input_tokens: int, cached_ratio: float) -> int:
    """Whole blocks, and never the whole prompt: its last token has to be computed to have an answer."""
    blocks = int(min(input_tokens * cached_ratio, input_tokens - 1)) // CACHE_BLOCK_TOKENS
    return blocks * CACHE_BLOCK_TOKENS
