"""Usage: a request placed on one host, as it stands in the log. In: a RequestEvent. Out: what attribution needs."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from collectors.requests.event import EventPart, RequestEvent, Work
from collectors.units import UnixSeconds
from monitor.core.phases import Phases, host_parts
from monitor.core.serving import Place


class Identity(NamedTuple):
    """Who a request is, on one host. Two records with it are the same request, or a conflict."""

    host: str
    namespace: str
    request_id: str
    attempt: int


class Usage(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One request's part on one host. `weight` is 1/n where a balancer may have sent it to any of n hosts.

    `devices` None: on this host, but nobody knows on which device. Times are unix seconds, `end` may equal `start`.
    Times, tokens and status are the whole request's, `phases` tells what this host did of it where several servers
    worked on it together. Made with keywords, but by `usage_of`.
    """

    request_id: str
    model: str
    start: UnixSeconds
    end: UnixSeconds
    namespace: str
    team: str
    host: str
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
    weight: float = 1.0
    phases: Phases | None = None

    @property
    def identity(self) -> Identity:
        """(host, namespace, request_id, attempt)."""
        return Identity(self.host, self.namespace, self.request_id, self.attempt)

    @property
    def active_start(self) -> UnixSeconds:
        """When an engine began to work on it: time in its queue is not active time."""
        return self.start if self.scheduled is None else self.scheduled


Placed = Usage | RequestEvent
"""A request's part on one host. An event that says itself where it ran is that, and stays as it came: to make another
object of it would cost as much as to decode it."""


def usage_of(
    event: RequestEvent,
    host: str,
    *,
    weight: float = 1.0,
    devices: tuple[str, ...] | None = None,
    deployment: str = "",
) -> Usage:
    """The part of an event on one host; what the accounting does not need stays behind.

    `devices` are its devices where the event names none, `deployment` is its deployment unless it is "".
    Attribute by attribute and by position, which costs a third of the same by name: this is done for every request of a
    fleet.
    """
    return _by_position(
        event.request_id,
        event.model,
        event.start,
        event.end,
        event.namespace,
        event.team,
        host,
        devices if event.devices is None else event.devices,
        deployment or event.deployment,
        event.attempt,
        event.scheduled,
        event.first_token,
        event.input_tokens,
        event.cached_input_tokens,
        event.output_tokens,
        event.work,
        event.labels,
        event.status,
        weight,
    )


def usages_of_parts(event: RequestEvent, places_of: Callable[[EventPart], Sequence[Place]]) -> list[Usage]:
    """An event that tells parts, on each host that these places name; each counts as its part of one request."""
    found = []
    for part in host_parts(event, places_of):
        usage = usage_of(event, part.host, weight=part.weight)
        found.append(
            msgspec.structs.replace(usage, devices=part.devices, deployment=part.deployment, phases=part.phases)
        )
    return found


_by_position: Callable[..., Usage] = Usage

_encoder = msgspec.json.Encoder(order="sorted")


def canonical_labels(labels: dict[str, str]) -> str:
    """Labels as one tag value: canonical JSON, "" for none. {"b": "2", "a": "1"} is '{"a":"1","b":"2"}'."""
    return _encoder.encode(labels).decode() if labels else ""
