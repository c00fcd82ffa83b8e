"""Where a model is served, from facts: deployments as stated, servers as found. Pure. In: facts. Out: hosts, devices.

A fact is in force from a minute after its own log time on; the first of a key also holds for all time before, as with
every fact (monitor/core/facts.py). What is in force changes only at those moments, so an answer is kept between them.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from collectors.units import UnixSeconds

_ANSWERS_KEPT: Final = 4_096


class Deployment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model served on hosts, as an operator states it. No hosts: withdrawn. No devices: those of its servers."""

    name: str
    model: str
    hosts: tuple[str, ...]
    devices: tuple[str, ...] = ()
    team_owner: str | None = None


class FoundServer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model server on a host. `models` are the names it answers to, none where its command line does not tell.

    `devices` are those that its processes use now, none where nobody can tell.
    """

    name: str
    models: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    tensor_parallel_size: int = 1


class HostServers(msgspec.Struct, frozen=True, kw_only=True):
    """All model servers of a host; a new such fact replaces the last one of the host."""

    host: str
    servers: tuple[FoundServer, ...]


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a request may have run. `weight` is 1/n on each of n hosts, `devices` None where nobody knows which."""

    host: str
    weight: float = 1.0
    devices: tuple[str, ...] | None = None
    deployment: str = ""


class Serving:
    """Built from (in force since, fact) in the order of the log. Not for several threads at once."""

    def __init__(self, facts: Iterable[tuple[UnixSeconds, Deployment | HostServers]]) -> None:
        self._deployments: dict[str, tuple[list[UnixSeconds], list[Deployment]]] = {}
        self._servers: dict[str, tuple[list[UnixSeconds], list[HostServers]]] = {}
        moments: set[UnixSeconds] = set()
        for since, fact in facts:
            if isinstance(fact, Deployment):
                since_all, states = self._deployments.setdefault(fact.name, ([], []))
                states.append(fact)
            else:
                since_all, found = self._servers.setdefault(fact.host, ([], []))
                found.append(fact)
            since_all.append(since)
            moments.add(since)
        self._moments = sorted(moments)
        self._answers: dict[tuple[int, str, str], Sequence[Place]] = {}

    def places(self, model: str, deployment: str, at: UnixSeconds) -> Sequence[Place]:
        """Where a request that names this deployment ("" for none) and model ran, if it began at that moment.

        By the deployment of that name, else, for one that names none, by the first deployment of the model, else by
        the servers that serve the model; empty where nothing is known.
        """
        epoch = bisect_right(self._moments, at)
        key = (epoch, model, deployment)
        known = self._answers.get(key)
        if known is None:
            if len(self._answers) >= _ANSWERS_KEPT:  # names made up at random must not fill the memory
                self._answers.clear()
            known = self._answers[key] = self._find(model, deployment, self._moments[epoch - 1] if epoch else -1e300)
        return known

    def deployments(self, at: UnixSeconds) -> Sequence[Deployment]:
        """Those in force at a moment and not withdrawn, in the order in which they were first stated."""
        in_force = [states[_index(since, at)] for since, states in self._deployments.values()]
        return [deployment for deployment in in_force if deployment.hosts]

    def servers(self, host: str, at: UnixSeconds) -> HostServers | None:
        """What was found on a host; None where nobody ever looked."""
        if host not in self._servers:
            return None
        since, found = self._servers[host]
        return found[_index(since, at)]

    def _find(self, model: str, deployment: str, at: UnixSeconds) -> Sequence[Place]:
        for stated in self.deployments(at):
            if deployment == stated.name or (not deployment and model == stated.model):
                return [
                    Place(
                        host=host,
                        weight=1.0 / len(stated.hosts),
                        devices=stated.devices or self._devices_of(host, stated.model, at),
                        deployment=stated.name,
                    )
                    for host in stated.hosts
                ]
        hosts = [host for host in sorted(self._servers) if self._serving(host, model, at)]
        return [
            Place(host=host, weight=1.0 / len(hosts), devices=self._devices_of(host, model, at), deployment=deployment)
            for host in hosts
        ]

    def _serving(self, host: str, model: str, at: UnixSeconds) -> list[FoundServer]:
        found = self.servers(host, at)
        return [] if found is None else [server for server in found.servers if model in server.models]

    def _devices_of(self, host: str, model: str, at: UnixSeconds) -> tuple[str, ...] | None:
        """Of all servers of the model there; None if one of them does not tell."""
        servers = self._serving(host, model, at)
        if not servers or not all(server.devices for server in servers):
            return None
        return tuple(sorted({device for server in servers for device in server.devices}))


def _index(since: list[UnixSeconds], at: UnixSeconds) -> int:
    return max(0, bisect_right(since, at) - 1)
