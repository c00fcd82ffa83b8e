"""What the requests of a host ask of one device of it, as an account asks of all of them at once."""

from typing import Any

from collectors.readings import Device, HostProfile
from monitor.core.attribution.methods import DEFAULT_METHOD, METHODS, Method
from monitor.core.attribution.requests import Requests
from monitor.core.demand import Ask, Demand, requests_on_each


def asked_on(
    demand: Demand,
    device: Device,
    profile: HostProfile,
    *,
    idle_watts: float | None,
    method: Method = METHODS[DEFAULT_METHOD],
    **facts: Any,
) -> Requests:
    """Of those that ran there; `facts` are further fields of `Ask`."""
    chosen = demand.on(device)
    ask = Ask(device, chosen, demand.active[chosen], idle_watts, **facts)
    return requests_on_each([demand], [ask], profile, method)[0]
