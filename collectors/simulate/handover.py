"""Servers that serve one phase of their requests: what each is asked to do, and what the gateway tells of it. Pure.

A prefill server computes a prompt and makes the first token; then the KV cache goes to a decode server of the model,
which joins the request to its batch as soon as the cache is there and makes the tokens that are left.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from collectors.simulate.rates import Floats
from collectors.simulate.scenario import Scenario, Server
from collectors.simulate.traffic import Request
from collectors.units import UnixSeconds


def asked_of(server: Server, requests: Sequence[Request], first_token: Floats) -> list[tuple[int, Request]]:
    """(index, request) of those that this server serves, by start, as they look to it.

    `first_token` is that of each request, in seconds: when prefill servers were done with it. A prompt of 10 000 tokens
    at 131 072 B that is done at 2 s comes at 2.031 s to a server that takes over 50 GB/s and needs 5 ms beside it.
    Raises ValueError for a decode server that is asked before the prompts are computed.
    """
    mine = [(index, each) for index, each in enumerate(requests) if each.tenant.model == server.model.name]
    if server.phase == "prefill":
        return [(index, replace(each, output_tokens=1)) for index, each in mine]
    if server.phase == "both":
        return mine
    if np.isnan(first_token[[index for index, _ in mine]]).any():
        raise ValueError(f"the decode server of {server.model.name} stands behind its prefill server in a scenario")
    handed = [
        (index, replace(each, start=float(first_token[index]) + handover_seconds(server, each.input_tokens)))
        for index, each in mine
        if each.output_tokens > 1
    ]
    return sorted(handed, key=lambda pair: pair[1].start)


def handover_seconds(server: Server, input_tokens: int) -> float:
    """How long it takes until a decode server has the KV cache of a prompt."""
    return server.handover_seconds + input_tokens * server.model.kv_bytes_per_token / server.handover_bytes_per_second


def parts_of(scenario: Scenario, request: Request, prefill_end: UnixSeconds | None) -> list[dict[str, object]]:
    """The `parts` of its event, one for each server that worked on it; none where one server did all of it.

    `prefill_end` is told where the event itself has no first token, from which its phases would follow.
    """
    parts: list[dict[str, object]] = []
    for server in scenario.servers:
        if server.model.name != request.tenant.model or server.phase == "both":
            continue
        if server.phase == "prefill" or request.output_tokens > 1:
            told = {"end": prefill_end} if server.phase == "prefill" and prefill_end is not None else {}
            parts.append({"phase": server.phase, "host": scenario.host, "devices": list(server.devices), **told})
    return parts
