"""Which record belongs to which account. A property of the log itself: the same for every reader, at any time.

A record stands in the log at a log time (the running maximum of its stream's stamps). It belongs to a window's final
account if it stands before the first record stamped `window end + horizon` or later, which is the same as: its own log
time is below that line. Records at or behind the line are late; the next mark restates what they touch.
"""

from itertools import chain
from math import floor
from typing import Any

import msgspec

from collectors.units import UnixSeconds
from monitor.core.attribution.methods import DEFAULT_METHOD
from monitor.core.window import window_start

FUTURE_LIMIT_SECONDS = 7_200.0
"""An event that ends later than this after its log time is a dead letter, so a record stands at most this early."""


class Accounting(msgspec.Struct, frozen=True, kw_only=True):
    """The terms under which books are kept, a fact of the log. All lengths in seconds.

    `restate_seconds`: windows older than this at a mark are no longer restated, what came is listed as too late.
    `method` is how energy is split (attribution/methods.py); another one makes other rows of the same records, so its
    number rises with each change to that: 2 moves joules within readings (docs/decisions/0033); 3 tells a board's MIG
    instances apart (0041), prices a board at its limit and engines that share one (0037), and learns from requests
    where no engine tells its work (0040); 4 shares a CPU by busy servers (0046) and prices experts of a step (0045).
    """

    window_seconds: float = 10.0
    horizon_seconds: float = 900.0
    mark_seconds: float = 900.0
    restate_seconds: float = 604_800.0
    label_keys: tuple[str, ...] = ()
    method: str = DEFAULT_METHOD

    def final_line(self, window: int) -> UnixSeconds:
        """The log time from which on a window's account is closed: its end + horizon."""
        return window_start(window + 1, self.window_seconds) + self.horizon_seconds

    def is_final(self, window: int, log_time: UnixSeconds) -> bool:
        """Whether a record that stands at this log time comes too late for the window's final account."""
        return self.final_line(window) <= log_time

    def last_final(self, log_time: UnixSeconds) -> int:
        """The newest window that is final at this log time: at 1 000 s with 10 s windows, 900 s horizon, window 9."""
        return floor((log_time - self.horizon_seconds) / self.window_seconds) - 1

    def mark_before(self, log_time: UnixSeconds) -> UnixSeconds:
        """The newest mark at or before a log time: 900 s at 1 000 s."""
        return floor(log_time / self.mark_seconds) * self.mark_seconds

    def mark_after(self, log_time: UnixSeconds) -> UnixSeconds:
        """The first mark whose account holds a record that stands at this log time: 1 800 s at 900 s."""
        return self.mark_before(log_time) + self.mark_seconds

    def line_before(self, window: int, mark: UnixSeconds) -> UnixSeconds:
        """The line of the account that the one at `mark` replaces: the final one, or that of the mark before."""
        return max(self.final_line(window), mark - self.mark_seconds)


_Contents = tuple[Any, ...]
"""Digest, log time, digest, log time..: nearly always one pair, and a tuple is a third of what a dict takes."""


class Identities:
    """Tells new records from repeated and contradicting ones.

    A record is a conflict if another one with the same identity and other content stands at most one horizon of log
    time before it. The rule looks back no further, so a reader that starts one horizon early judges like any other.
    """

    def __init__(self, horizon_seconds: float) -> None:
        self._horizon = horizon_seconds
        self._seen: dict[object, _Contents] = {}
        self._before: dict[object, _Contents] = {}
        self._turned_at = float("-inf")

    def is_conflict(self, identity: object, digest: bytes, log_time: UnixSeconds) -> bool:
        """Judges the record that stands next in the log, and remembers it."""
        if log_time - self._turned_at > self._horizon:
            # What was seen before the turn before this one is more than a horizon old.
            self._before, self._seen, self._turned_at = self._seen, {}, log_time
        contents = self._seen.get(identity) or self._before.get(identity)
        if contents is None:
            self._seen[identity] = (digest, log_time)
            return False
        oldest = log_time - self._horizon
        seen = dict(zip(contents[::2], contents[1::2], strict=True))
        conflict = any(seen_at >= oldest for other, seen_at in seen.items() if other != digest)
        seen[digest] = log_time
        self._seen[identity] = tuple(chain.from_iterable(seen.items()))
        return conflict
