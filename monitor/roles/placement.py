"""Places a request on the hosts that may have served it. Pure. In: an event, the configuration. Out: Usage records."""

from collections.abc import Sequence

import msgspec

from collectors.errors import Rejected
from collectors.requests.event import UNKNOWN_TEAM, RequestEvent
from monitor.config.sections import Config
from monitor.core.usage import Usage, usage_of


def place(event: RequestEvent, config: Config, this_host: str, *, trust_team: bool) -> Sequence[Usage]:
    """The event's part on each host: where it says, else where its deployment is, else on this host if it is metered.

    A deployment of n hosts gets n records of weight 1/n: nobody knows which of them it was. Raises Rejected as
    "unplaced".
    """
    if not trust_team:
        event = with_unknown_team(event)
    if event.host is not None:
        return [usage_of(event, event.host)]
    for deployment in config.deployments:
        if event.deployment == deployment.name or (not event.deployment and event.model == deployment.model):
            devices = event.devices if event.devices is not None else deployment.devices or None
            placed = msgspec.structs.replace(event, devices=devices, deployment=deployment.name)
            return [usage_of(placed, host, weight=1.0 / len(deployment.hosts)) for host in deployment.hosts]
    if this_host:
        return [usage_of(event, this_host)]
    raise Rejected("unplaced", f"model {event.model!r:.80} names no host and no [[deployments]] entry has it")


def with_unknown_team(event: RequestEvent) -> RequestEvent:
    """The event from a source whose word for the team is not believed."""
    return msgspec.structs.replace(event, team=UNKNOWN_TEAM)
