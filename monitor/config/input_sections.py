"""[requests], [[sources]], [[deployments]] and [[models]]: who used what. Read by ingest, [[models]] by collect."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Final, Literal

from msgspec import Meta

from monitor.config.problems import KeyPath
from monitor.config.section import Address, Duration, Name, OptionalPath, Positive, Section, Size, Speed

SourceKind = Literal["recording", "file", "http", "kafka"]
_NEEDS: Final[Mapping[SourceKind, tuple[str, ...]]] = {
    "recording": ("path",),
    "file": ("path",),
    "http": ("listen",),
    "kafka": ("topics",),
}
_ALSO_TAKES: Final[Mapping[SourceKind, tuple[str, ...]]] = {
    "recording": ("speed",),
    "file": ("format",),
    "http": ("format",),
    "kafka": ("format", "part"),
}
_OF_SOME_KINDS: Final = ("path", "speed", "listen", "topics", "format", "part")


class Requests(Section, frozen=True, kw_only=True):
    """What holds for every source. With `trust_team` false an event's own team is not believed: it is unknown."""

    trust_team: bool = True
    max_event_size_bytes: Size = 2**20
    join_wait_seconds: Duration = 60.0


class Source(Section, frozen=True, kw_only=True):
    """One place that request events come from; None takes [requests]' word, or the kind's own default."""

    identity = "name"

    name: Name
    kind: SourceKind
    namespace: Name = "default"
    trust_team: bool | None = None
    path: OptionalPath = None
    speed: Speed | None = None
    listen: Address | None = None
    topics: tuple[Name, ...] = ()
    format: Literal["auto", "native"] | None = None
    part: Literal["gateway", "engine"] | None = None

    def faults(self) -> Iterator[tuple[KeyPath, str]]:
        for key in _NEEDS[self.kind]:
            if not getattr(self, key):
                yield (key,), f'is missing; a source of kind = "{self.kind}" needs it'
        for key in _OF_SOME_KINDS:
            if getattr(self, key) and key not in (*_NEEDS[self.kind], *_ALSO_TAKES[self.kind]):
                yield (key,), f'means nothing for a source of kind = "{self.kind}"; remove it'


class Deployment(Section, frozen=True, kw_only=True):
    """Where a model is served, for events that do not say it. No `devices`: those of the model's servers."""

    identity = "name"

    name: Name
    model: Name
    hosts: Annotated[tuple[Name, ...], Meta(min_length=1)]
    devices: tuple[Name, ...] = ()
    team_owner: Name | None = None


class Model(Section, frozen=True, kw_only=True):
    """What is known of a model; None is unknown. Units as in collectors/readings.py, ModelFacts."""

    identity = "name"

    name: Name
    parameters: Positive | None = None
    active_parameters: Positive | None = None
    bytes_per_parameter: Positive | None = None
    kv_bytes_per_token: Positive | None = None

    def faults(self) -> Iterator[tuple[KeyPath, str]]:
        if self.parameters and self.active_parameters and self.active_parameters > self.parameters:
            yield ("active_parameters",), "must not be more than parameters"
