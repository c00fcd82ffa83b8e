"""What the gateway tells of its requests: their fate -> events of docs/request-events.md, as the log learns of them."""

from collections.abc import Sequence

import numpy as np

from collectors.simulate.ground import Ground
from collectors.simulate.handover import parts_of
from collectors.simulate.traffic import Request
from collectors.units import UnixSeconds

LONGEST_ARRIVAL_DELAY_SECONDS = 0.5


def request_events(ground: Ground, ids: Sequence[str], start: UnixSeconds) -> list[dict[str, object]]:
    """The events by arrival, at most half a second after their end; all their times are of the gateway's clock."""
    reporting = ground.scenario.reporting
    delays = np.random.default_rng([ground.seed, 4]).uniform(0.0, LONGEST_ARRIVAL_DELAY_SECONDS, len(ids))
    lost = np.random.default_rng([ground.seed, 6]).uniform(size=len(ids)) < reporting.missing_ratio
    start += reporting.skew_seconds
    events: list[tuple[float, dict[str, object]]] = []
    for index, request in enumerate(ground.requests):
        if lost[index]:
            continue
        arrived = start + float(ground.progress.end[index]) + float(delays[index])
        events.append((arrived, _event(ground, index, ids[index], request, start) | {"arrived": arrived}))
    return [event for _, event in sorted(events, key=lambda pair: pair[0])]


def _event(ground: Ground, index: int, request_id: str, request: Request, start: UnixSeconds) -> dict[str, object]:
    reporting, progress = ground.scenario.reporting, ground.progress
    scheduled = {"scheduled": start + float(progress.scheduled[index])} if reporting.scheduled else {}
    first_token = {"first_token": start + float(progress.first_token[index])} if reporting.first_token else {}
    parts = parts_of(ground.scenario, request, None if first_token else start + float(progress.first_token[index]))
    return {
        "schema": "wattribute.request.v1",
        "request_id": request_id,
        "attempt": 0,
        "model": request.tenant.model,
        "team": request.tenant.team,
        "host": ground.scenario.host,
        "start": start + request.start,
        **scheduled,
        **first_token,
        "end": start + float(progress.end[index]),
        "input_tokens": request.input_tokens,
        "cached_input_tokens": request.cached_tokens,
        "output_tokens": request.output_tokens,
        "labels": {"use_case": request.tenant.use_case},
        "status": "ok",
        **({"parts": parts} if parts else {}),
    }
