"""[accounting], [log], [store], [idle], [accuracy], [carbon]: how the books are kept.

Read by aggregate, control and queries.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from monitor.config.problems import KeyPath
from monitor.config.section import Duration, LabelKey, Name, SecretFile, Section, Size

DAY_SECONDS = 86_400.0
HOUR_SECONDS = 3_600.0


class Accounting(Section, frozen=True, kw_only=True):
    """What every account of one host must agree on. `label_keys` are the request labels that become tags."""

    window_seconds: Duration = 10.0
    horizon_seconds: Duration = 900.0
    mark_interval_seconds: Duration = 900.0
    label_keys: Annotated[tuple[LabelKey, ...], Meta(max_length=10)] = ("use_case",)

    def faults(self) -> Iterator[tuple[KeyPath, str]]:
        if self.window_seconds < 1 or self.window_seconds % 1 or HOUR_SECONDS % self.window_seconds:
            yield ("window",), 'must divide an hour into windows of whole seconds, as "10s" or "1m" do'
        if self.horizon_seconds < self.window_seconds:
            yield ("horizon",), "must not be shorter than window"
        if self.mark_interval_seconds < self.window_seconds:
            yield ("mark_interval",), "must not be shorter than window"
        if len(set(self.label_keys)) < len(self.label_keys):
            yield ("label_keys",), "names a label twice; remove one"


class Log(Section, frozen=True, kw_only=True):
    """The host's log. Restating reads it, so it must reach further back than restating does."""

    retention_seconds: Duration = 14 * DAY_SECONDS
    restate_within_seconds: Duration = 7 * DAY_SECONDS
    max_size_bytes: Size = 10 * 2**30

    def faults(self) -> Iterator[tuple[KeyPath, str]]:
        if self.restate_within_seconds >= self.retention_seconds:
            yield ("restate_within",), "must be shorter than retention: what is restated is computed from the log"


class Store(Section, frozen=True, kw_only=True):
    """Where the books are, and for how long each kind of row is kept."""

    kind: Literal["sqlite", "influxdb"] = "sqlite"
    windows_retention_seconds: Duration = 35 * DAY_SECONDS
    requests_retention_seconds: Duration = 7 * DAY_SECONDS
    provisional_retention_seconds: Duration = 3 * DAY_SECONDS
    hours_retention_seconds: Duration = 800 * DAY_SECONDS
    days_retention_seconds: Duration = 3660 * DAY_SECONDS

    def faults(self) -> Iterator[tuple[KeyPath, str]]:
        if self.hours_retention_seconds < self.windows_retention_seconds:
            yield ("hours_retention",), "must not be shorter than windows_retention"
        if self.days_retention_seconds < self.hours_retention_seconds:
            yield ("days_retention",), "must not be shorter than hours_retention"


class Idle(Section, frozen=True, kw_only=True):
    """Who owns a host's or a device's idle energy when a reader asks for shareIdle=owner: {"HOST/DEVICE": team}."""

    owners: dict[Name, Name] = msgspec.field(default_factory=dict)


Gain = Annotated[float, Meta(ge=0, lt=1)]


class Accuracy(Section, frozen=True, kw_only=True):
    """How far meters may be off, for the bands of reports: 0.05 is +-5 %. `gains` by {"HOST/DEVICE": ..} or host."""

    gain: Gain = 0.05
    gains: dict[Name, Gain] = msgspec.field(default_factory=dict)


class Carbon(Section, frozen=True, kw_only=True):
    """Where carbon intensity comes from: yearly mixes that ship with ecologits, or a live source."""

    source: Literal["ecologits", "electricity_maps"] = "ecologits"
    interval_seconds: Duration = 900.0
    token_file: SecretFile = None

    def faults(self) -> Iterator[tuple[KeyPath, str]]:
        if self.source == "electricity_maps" and self.token_file is None:
            yield ("token_file",), 'is missing; source = "electricity_maps" needs the file of its API token'
