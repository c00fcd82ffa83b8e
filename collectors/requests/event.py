"""RequestEvent: who used what, and how much. Whatever decoder it came through, it looks like this."""

from typing import ClassVar, Literal

import msgspec

from collectors.units import UnixSeconds

UNKNOWN_TEAM = "unknown"
DEFAULT_NAMESPACE = "default"


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What a model that makes no tokens has done: {"unit": "image", "amount": 4}."""

    unit: str
    amount: float


PhaseName = Literal["prefill", "decode"]


class EventPart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Where servers worked on a request that more than one of them served, and from when until when (unix seconds).

    `phase` is what they did of it, None both: parts of one phase did equal parts of it. Without a host the part ran
    where its deployment, else the request's, else the model's servers are. `devices` None: nobody said.
    """

    start: UnixSeconds
    end: UnixSeconds
    phase: PhaseName | None = None
    host: str | None = None
    devices: tuple[str, ...] | None = None
    deployment: str = ""


class RequestEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One attempt of one request, known when it has ended. Identity is (namespace, request_id, attempt).

    Times are unix seconds, start <= scheduled <= first_token <= end where known. Tokens are None where the emitter did
    not say; `cached_input_tokens` are among `input_tokens`. `devices` None: the emitter did not say where it ran. Of
    one with `parts` these alone say it: its own host is None. Prompts and bodies are never part of it.
    """

    weight: ClassVar[float] = 1.0
    """All of it, where it says itself on which host it ran."""
    phases: ClassVar[None] = None
    """Both of them; what has `parts` is placed by these."""

    # The first eighteen are Usage's, too (monitor/core/usage.py).
    request_id: str
    model: str
    start: UnixSeconds
    end: UnixSeconds
    namespace: str = DEFAULT_NAMESPACE
    team: str = UNKNOWN_TEAM
    host: str | None = None
    devices: tuple[str, ...] | None = None
    deployment: str = ""
    attempt: int = 0
    scheduled: UnixSeconds | None = None
    first_token: UnixSeconds | None = None
    input_tokens: int | None = None
    cached_input_tokens: int | None = None
    output_tokens: int | None = None
    work: Work | None = None
    labels: dict[str, str] = {}
    status: str = "ok"
    source: str = ""
    provider: str = ""
    conversation_id: str = ""
    trace_id: str = ""
    parts: tuple[EventPart, ...] = ()
