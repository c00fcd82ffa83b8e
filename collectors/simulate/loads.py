"""Scenarios of who asks and what: all of one H100 with an 8B model, a true counter and honest events."""

from dataclasses import replace

from collectors.simulate.parts import (
    AGENT,
    LLAMA_8B,
    LONG_ANSWER,
    REASON,
    SHORT_ANSWER,
    SUMMARY,
    Shape,
    day,
    five_tenants,
    one_gpu,
    tenant,
)
from collectors.simulate.scenario import Lengths, Reporting, Scenario, Tenant

HEAVY_LOAD = 2.1
LIGHT_LOAD = 0.12
_QUEUED_LOAD, _SMALL_BATCH = 1.4, 24
_TEAMS_OF_A_KIND = 10
_WHOLE_PROMPTS_TOKENS = 32_768  # two of the longest prompts, and no prompt is ever cut


def heavy(minutes: float = 20.0) -> Scenario:
    """A saturated engine: about 48 requests in a step."""
    return one_gpu("heavy", minutes, HEAVY_LOAD)


def light(minutes: float = 20.0) -> Scenario:
    """The same tenants, seldom: about 1.6 requests in a step."""
    return one_gpu("light", minutes, LIGHT_LOAD)


def heavy_50(minutes: float = 20.0) -> Scenario:
    """The load of heavy from 50 teams."""
    return _fifty("heavy-50", minutes, HEAVY_LOAD)


def light_50(minutes: float = 20.0) -> Scenario:
    """The load of light from 50 teams."""
    return _fifty("light-50", minutes, LIGHT_LOAD)


def _fifty(name: str, minutes: float, load: float) -> Scenario:
    """Ten teams of each kind, of which the tenth asks ten times as often as the first."""
    whole = five_tenants(day(minutes), load)
    teams = [_one_of_ten(each, number) for each in whole for number in range(1, _TEAMS_OF_A_KIND + 1)]
    return replace(one_gpu(name, minutes, load), tenants=tuple(teams))


def _one_of_ten(kind: Tenant, number: int) -> Tenant:
    """Number 1 of 10 has 1/55 of the requests of its kind, number 10 has 10/55."""
    part = number / sum(range(1, _TEAMS_OF_A_KIND + 1))
    return replace(kind, team=f"{kind.team}-{number:02d}", requests_per_second=part * kind.requests_per_second)


def rag(minutes: float = 20.0) -> Scenario:
    """Long prompts and short answers: five searches over texts of 1 500 to 11 000 tokens."""
    texts = {"faq": 1500, "tickets": 3000, "search": 5000, "wiki": 8000, "contracts": 11_000}
    shapes: dict[str, Shape] = {
        team: (Lengths(median_tokens=tokens, sigma=0.3, maximum_tokens=16_000), SHORT_ANSWER, 1.5, 0.0)
        for team, tokens in texts.items()
    }
    return _same_rate("rag", minutes, 0.65, shapes)


def long_outputs(minutes: float = 20.0) -> Scenario:
    """Short prompts and long answers: five teams that let a model think for 500 to 4 000 tokens."""
    inputs, _, burstiness, cached_ratio = REASON
    answers = {"planning": 500, "mathematics": 1000, "coding": 2000, "research": 3000, "proofs": 4000}
    shapes: dict[str, Shape] = {
        team: (inputs, Lengths(median_tokens=tokens, sigma=0.5, maximum_tokens=8000), burstiness, cached_ratio)
        for team, tokens in answers.items()
    }
    return _same_rate("long-outputs", minutes, 0.28, shapes)


def prefix_cache(minutes: float = 20.0) -> Scenario:
    """Prompts that the engine mostly knows: five teams, of whose prompts 30 to 95 % are cached."""
    shapes: dict[str, Shape] = {
        "minutes": (SUMMARY[0], LONG_ANSWER, 2.0, 0.3),
        "search": (SUMMARY[0], SHORT_ANSWER, 1.5, 0.5),
        "helpdesk": (SUMMARY[0], LONG_ANSWER, 1.5, 0.7),
        "coding": AGENT,
        "agents": (AGENT[0], SHORT_ANSWER, 3.0, 0.95),
    }
    return _same_rate("prefix-cache", minutes, 0.85, shapes)


def no_chunks(minutes: float = 20.0) -> Scenario:
    """Chunked prefill off: a prompt is computed whole, in one step, and whoever decodes waits for it."""
    scenario = one_gpu("no-chunks", minutes, HEAVY_LOAD)
    (server,) = scenario.servers
    return replace(scenario, servers=(replace(server, chunk_tokens=_WHOLE_PROMPTS_TOKENS),))


def queue(minutes: float = 20.0) -> Scenario:
    """More comes than the engine takes at once: requests wait for seconds, and no event tells until when."""
    scenario = one_gpu("queue", minutes, _QUEUED_LOAD)
    (server,) = scenario.servers
    servers = (replace(server, max_batch=_SMALL_BATCH),)
    return replace(scenario, servers=servers, reporting=Reporting(scheduled=False))


def _same_rate(name: str, minutes: float, rate: float, shapes: dict[str, Shape]) -> Scenario:
    teams = (tenant(team, name, LLAMA_8B, rate, shape, active=day(minutes)) for team, shape in shapes.items())
    return replace(one_gpu(name, minutes, rate), tenants=tuple(teams))
