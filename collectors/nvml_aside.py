"""A GPU that did not answer, or the driver itself: its killed child, and when a new one may ask it again."""

from collectors.clock import monotonic
from collectors.nvml_lane import Lane


class Aside:
    """`corpse` is the child that hung, `probe` the one that asks it now, `why` what happened last."""

    def __init__(self, backoff_seconds: float) -> None:
        self.backoff_seconds = backoff_seconds
        self.retry_at = 0.0
        self.corpse: Lane | None = None
        self.probe: Lane | None = None
        self.why = ""

    def failed(self, lane: Lane, why: str, longest_seconds: float) -> None:
        """It was asked and did not answer; the next time is twice as far away."""
        lane.kill()
        self.corpse, self.probe, self.why = lane, None, why
        self.retry_at = monotonic() + self.backoff_seconds
        self.backoff_seconds = min(2.0 * self.backoff_seconds, longest_seconds)

    def is_due(self) -> bool:
        """Never before the killed child is gone: stuck children must not pile up."""
        return self.probe is None and monotonic() >= self.retry_at and (self.corpse is None or self.corpse.is_reaped())
