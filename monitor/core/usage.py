"""Usage: a request placed on one host, as it stands in the log. In: a RequestEvent. Out: what attribution needs."""

from typing import NamedTuple

import msgspec

from collectors.requests.event import RequestEvent, Work
from collectors.units import UnixSeconds


class Identity(NamedTuple):
    """Who a request is, on one host. Two records with it are the same request, or a conflict."""

    host: str
    namespace: str
    request_id: str
    attempt: int


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One request's part on one host. `weight` is 1/n where a balancer may have sent it to any of n hosts.

    `devices` None: on this host, but nobody knows on which device. Times are unix seconds, `end` may equal `start`.
    """

    host: str
    namespace: str
    request_id: str
    attempt: int = 0
    model: str
    team: str
    deployment: str = ""
    devices: tuple[str, ...] | None = None
    weight: float = 1.0
    start: UnixSeconds
    scheduled: UnixSeconds | None = None
    first_token: UnixSeconds | None = None
    end: UnixSeconds
    input_tokens: int | None = None
    cached_input_tokens: int | None = None
    output_tokens: int | None = None
    work: Work | None = None
    labels: dict[str, str] = {}
    status: str = "ok"

    @property
    def identity(self) -> Identity:
        """(host, namespace, request_id, attempt)."""
        return Identity(self.host, self.namespace, self.request_id, self.attempt)

    @property
    def active_start(self) -> UnixSeconds:
        """When an engine began to work on it: time in its queue is not active time."""
        return self.start if self.scheduled is None else self.scheduled


def usage_of(event: RequestEvent, host: str, *, weight: float = 1.0) -> Usage:
    """The part of an event on one host; what the accounting does not need stays behind."""
    return Usage(
        host=host,
        namespace=event.namespace,
        request_id=event.request_id,
        attempt=event.attempt,
        model=event.model,
        team=event.team,
        deployment=event.deployment,
        devices=event.devices,
        weight=weight,
        start=event.start,
        scheduled=event.scheduled,
        first_token=event.first_token,
        end=event.end,
        input_tokens=event.input_tokens,
        cached_input_tokens=event.cached_input_tokens,
        output_tokens=event.output_tokens,
        work=event.work,
        labels=event.labels,
        status=event.status,
    )


_encoder = msgspec.json.Encoder(order="sorted")


def canonical_labels(labels: dict[str, str]) -> str:
    """Labels as one tag value: canonical JSON, "" for none. {"b": "2", "a": "1"} is '{"a":"1","b":"2"}'."""
    return _encoder.encode(labels).decode() if labels else ""
