"""Signals that ask a run with an end of its own to stop early."""

import signal
import threading
from types import FrameType


def stop_on_signals() -> threading.Event:
    """Set by SIGTERM or SIGINT: what is under way is finished, then the process ends."""
    stop = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    return stop
