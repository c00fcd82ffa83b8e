"""Judges all rules on every window in turn. In: the query gate, the rules, what was kept. Out: what is to be kept.

The moments judged are those of the books. A window is judged a minute after it closed, since a request's energy is
known only when the request ends; windows that came in a heap, after an outage, are judged one after the other.
"""

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from collectors.units import SECONDS_PER_DAY, UnixSeconds
from monitor.alerts.kept import Kept, KeptAlert, KeptDevice, KeptRule
from monitor.alerts.measures import Instance, SpanBooks, windows_over
from monitor.alerts.state import AlertState, step
from monitor.config.output_sections import Alert
from monitor.core.questions import Principal, Status
from monitor.core.window import window_at, window_start
from monitor.query import Query

SETTLE_SECONDS: Final = 60.0
STALLED_SECONDS: Final = 300.0
"""Where no host has a newer window for so long, the clock goes on in place of the books: all are then missing."""
MOST_WINDOWS: Final = 360
"""No more are judged at once; those before are as if their values were missing."""
RESOLVED_SECONDS: Final = 900.0
"""So long a resolved alert is still listed once its receiver knows; where it cannot be told, for a day."""


def evaluate(
    query: Query, principal: Principal, rules: Sequence[Alert], kept: Kept, *, now: UnixSeconds, window_seconds: float
) -> Kept:
    """What is known after all that can be judged at `now`; the same again where there is nothing new.

    Raises what the gate raises.
    """
    last = judged_end(query.status(principal, since=math.inf), now, window_seconds)
    if last is None or (kept.judged_until is not None and last <= window_at(kept.judged_until, window_seconds)):
        return kept
    before = last - 1 if kept.judged_until is None else window_at(kept.judged_until, window_seconds)
    first = max(before, last - MOST_WINDOWS) + 1
    start = first - max((windows_over(rule, window_seconds) for rule in rules), default=1)
    books = SpanBooks(
        query,
        principal,
        rules,
        {each.key: each.seen for each in kept.devices},
        start=window_start(start, window_seconds),
        end=window_start(last, window_seconds),
        window_seconds=window_seconds,
    )
    moments = [window_start(number, window_seconds) for number in range(first, last + 1)]
    skipped = window_start(before + 1, window_seconds) if first > before + 1 else None
    return Kept(
        judged_until=moments[-1],
        rules=tuple(_judged(rule, kept.alerts_of(rule), books, moments, skipped) for rule in rules),
        devices=tuple(KeptDevice(key=key, seen=seen) for key, seen in sorted(books.devices.items())),
    )


def judged_end(status: Status, now: UnixSeconds, window_seconds: float) -> int | None:
    """The window that begins where judging ends for now; None where there are no books yet."""
    newest = max((*status.final_until.values(), *status.provisional_until.values()), default=None)
    if newest is None:
        return None
    until = min(now, max(newest + window_seconds, now - STALLED_SECONDS))  # a host whose clock is ahead moves no other
    return window_at(until - SETTLE_SECONDS, window_seconds)


def _judged(
    rule: Alert,
    known: dict[Instance, KeptAlert],
    books: SpanBooks,
    moments: Sequence[UnixSeconds],
    skipped: UnixSeconds | None,
) -> KeptRule:
    present, now = books.instances(rule), moments[-1]
    alerts = []
    for instance in sorted(present | known.keys()):
        alert = known.get(instance, KeptAlert(instance=instance, state=AlertState()))
        state = alert.state
        if skipped is not None:
            state = step(rule, state, None, skipped)
        for moment in moments:
            state = step(rule, state, books.value(rule, instance, moment), moment)
        if instance not in present:
            state = _without_its_instance(state, now)
        kept = KeptAlert(instance=instance, state=state, told=alert.told)
        if _is_worth_keeping(kept, now, present=instance in present):
            alerts.append(kept)
    return KeptRule(name=rule.name, measure=rule.measure, per=rule.per, alerts=tuple(alerts))


def _without_its_instance(state: AlertState, now: UnixSeconds) -> AlertState:
    """A host that was taken away fires for a day more."""
    gone = state.missing_since is not None and now - state.missing_since >= SECONDS_PER_DAY
    if gone and state.phase == "firing":
        return msgspec.structs.replace(state, resolved_at=now, active_since=None)
    return AlertState() if gone and state.phase == "pending" else state


def _is_worth_keeping(alert: KeptAlert, now: UnixSeconds, *, present: bool) -> bool:
    """A quiet instance for its value, as long as the books know it; any other for what is to be told of it."""
    resolved_at = alert.state.resolved_at
    if resolved_at is not None:
        is_told = alert.told is not None and alert.told.resolved_at == resolved_at
        return now - resolved_at < (RESOLVED_SECONDS if is_told else SECONDS_PER_DAY)
    return alert.state.phase != "inactive" or (present and alert.state.at is not None)
