"""The state of one alert, pure: a rule, the state before, a value and its moment give the state after.

Inactive, pending, firing and resolved are read off the times that are known, so that no flag can contradict them. The
moments are those of the books (event time), not of the machine that looks.
"""

import math
from typing import Literal, Protocol

import msgspec

from collectors.units import UnixSeconds

Phase = Literal["inactive", "pending", "firing", "resolved"]


class Threshold(Protocol):
    """What of a rule decides: above `above` for `for_seconds`."""

    @property
    def above(self) -> float: ...

    @property
    def for_seconds(self) -> float: ...


class AlertState(msgspec.Struct, frozen=True, kw_only=True):
    """`at` is the last moment judged, `value` the last value known, from before `missing_since` where that is a time.

    `active_since` begins the run of values above the threshold, `fired_at` and `resolved_at` belong to the last firing.
    """

    at: UnixSeconds | None = None
    value: float | None = None
    missing_since: UnixSeconds | None = None
    active_since: UnixSeconds | None = None
    fired_at: UnixSeconds | None = None
    resolved_at: UnixSeconds | None = None

    @property
    def phase(self) -> Phase:
        """What the times say."""
        if self.resolved_at is not None:
            return "resolved"
        if self.fired_at is not None:
            return "firing"
        return "inactive" if self.active_since is None else "pending"


def step(rule: Threshold, state: AlertState, value: float | None, now: UnixSeconds) -> AlertState:
    """The state after `value` at `now`; a moment that was judged before changes nothing.

    None is not known, which is neither above nor below: the state stays and is marked, and the time does not count
    towards `for`. Above 5 for 20 s, a value each 10 s: 9 9 9 fires at the third, 9 9 1 9 9 does not, 9 _ _ 9 9 fires at
    the fifth.
    """
    if state.at is not None and now <= state.at:
        return state
    if value is None or math.isnan(value):
        since = now if state.missing_since is None else state.missing_since
        return msgspec.structs.replace(state, at=now, missing_since=since)
    known = msgspec.structs.replace(state, at=now, value=value, missing_since=None)
    if value <= rule.above:
        resolved_at = now if state.phase == "firing" else state.resolved_at
        return msgspec.structs.replace(known, active_since=None, resolved_at=resolved_at)
    if state.phase == "firing":
        return known
    active_since = _active_since(state, now)
    fired_at = now if now - active_since >= rule.for_seconds else None
    return msgspec.structs.replace(known, active_since=active_since, fired_at=fired_at, resolved_at=None)


def _active_since(state: AlertState, now: UnixSeconds) -> UnixSeconds:
    if state.active_since is None:
        return now
    return state.active_since + (0.0 if state.missing_since is None else now - state.missing_since)
