"""Places a request on the hosts that may have served it. In: an event, the facts. Out: Usage records."""

import threading
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from collectors.clock import monotonic
from collectors.errors import Rejected, RetryLater
from collectors.requests.event import UNKNOWN_TEAM, EventPart, RequestEvent
from collectors.units import SECONDS_PER_DAY
from monitor.config.input_sections import Deployment as ConfiguredDeployment
from monitor.config.sections import Config
from monitor.core.facts import Facts
from monitor.core.lessons import IN_FORCE_AFTER_SECONDS
from monitor.core.serving import Deployment, Place
from monitor.core.usage import Placed, Usage, usage_of, usages_of_parts

OLD_SECONDS: Final = IN_FORCE_AFTER_SECONDS / 2
"""Facts that were read so long ago may lack one that is in force now; half, as clocks differ."""
FACTS_BEFORE_SECONDS: Final = SECONDS_PER_DAY
"""So far back facts are read at a start: requests come within minutes. For an older one all of them are read."""
_NOWHERE: Final[Sequence[Place]] = ()


class Placing(Protocol):
    """Places the events of one process's sources. One thread calls `refresh`, any number the rest."""

    def refresh(self) -> None:
        """Reads what is new of the facts. Raises LogUnavailable."""
        ...

    def check_age(self) -> None:
        """Raises RetryLater where too little is known to place anything now."""
        ...

    def place(self, event: RequestEvent, *, trust_team: bool) -> Sequence[Placed]:
        """The event's part on each host. Raises Rejected as "unplaced".

        LogUnavailable where it is so old that all facts have to be read, and they cannot be.
        """
        ...


class Placer:
    """Places events by the facts in force at their start; the facts are those that it is given.

    An event's part goes where it says, else where its deployment is, else where servers of its model were found, else
    on this host if it is metered. Of n hosts each gets a record of weight 1/n: nobody knows which of them it was.
    """

    def __init__(self, facts: Facts, this_host: str = "") -> None:
        self._facts = facts
        self._here: Sequence[Place] = (Place(host=this_host),) if this_host else _NOWHERE

    def refresh(self) -> None:
        """Nothing is read."""

    def check_age(self) -> None:
        """They hold."""

    def place(self, event: RequestEvent, *, trust_team: bool) -> Sequence[Placed]:
        """The event's part on each host. Raises Rejected as "unplaced"."""
        if not trust_team:
            event = with_unknown_team(event)
        if event.parts:
            return usages_of_parts(event, lambda part: self._places_of_part(event, part))
        if event.host is not None:
            return (event,)
        return [_part(event, place) for place in self._places(event, event.deployment)]

    def _places_of_part(self, event: RequestEvent, part: EventPart) -> Sequence[Place]:
        """Of one part of it, as of a whole request that says what the part says."""
        deployment = part.deployment or event.deployment
        if part.host is not None:
            return (Place(host=part.host, devices=part.devices, deployment=deployment),)
        places = self._places(event, deployment)
        if part.devices is None:
            return places
        return [msgspec.structs.replace(place, devices=part.devices) for place in places]

    def _places(self, event: RequestEvent, deployment: str) -> Sequence[Place]:
        places = self._facts.places(event.model, deployment, event.start) or self._here
        if not places:
            raise Rejected(
                "unplaced",
                f"model {event.model!r:.80} names no host, no [[deployments]] entry has it, and no server found has",
            )
        return places

    def place_all(self, events: Sequence[RequestEvent], *, trust_team: bool) -> Sequence[Placed] | None:
        """What `place` gives of each, one after the other; None where one of them is unplaced."""
        if trust_team and not [event for event in events if event.host is None]:
            return events
        try:
            return [part for event in events for part in self.place(event, trust_team=trust_team)]
        except Rejected:
            return None


class PlacerByFacts:
    """Places by the facts of a fleet as they were read last; `facts` reads them. Before the first look it knows none.

    So all that a fleet's processes ingest is placed alike, whatever their own configuration says.
    """

    def __init__(self, facts: Callable[[], Facts], this_host: str) -> None:
        self._read, self._this_host = facts, this_host
        self._facts, self._placer = Facts(()), Placer(Facts(()), this_host)
        self._read_at = float("-inf")
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Reads what is new. Raises LogUnavailable."""
        facts = self._read()
        with self._lock:
            self._read_at = monotonic()
            if facts is not self._facts:
                self._facts, self._placer = facts, Placer(facts, self._this_host)

    def check_age(self) -> None:
        """Raises RetryLater before they were read, and where they could not be for too long."""
        if monotonic() - self._read_at > OLD_SECONDS:
            raise RetryLater("the facts that tell where models are served cannot be read now; send it again")

    def place(self, event: RequestEvent, *, trust_team: bool) -> Sequence[Placed]:
        """The event's part on each host. Raises Rejected as "unplaced"."""
        with self._lock:
            return self._placer.place(event, trust_team=trust_team)


def place_by_config(config: Config, this_host: str) -> Placer:
    """Places by the configuration alone: for a host that ingests for itself."""
    return Placer(Facts([(float("-inf"), deployment_of(each)) for each in config.deployments]), this_host)


def deployment_of(configured: ConfiguredDeployment) -> Deployment:
    """The fact that an entry of [[deployments]] states."""
    return Deployment(
        name=configured.name,
        model=configured.model,
        hosts=tuple(dict.fromkeys(configured.hosts)),
        devices=configured.devices,
        team_owner=configured.team_owner,
    )


def with_unknown_team(event: RequestEvent) -> RequestEvent:
    """The event from a source whose word for the team is not believed."""
    return msgspec.structs.replace(event, team=UNKNOWN_TEAM)


def _part(event: RequestEvent, place: Place) -> Usage:
    return usage_of(event, place.host, weight=place.weight, devices=place.devices, deployment=place.deployment)
