"""A role's thread: one step after the other until it is told to stop, with a beat that its watcher can see."""

import threading
from collections.abc import Callable
from typing import Final

import structlog

from collectors.clock import monotonic
from monitor.log.protocol import LogUnavailable
from monitor.store.protocol import StoreUnavailable

RETRY_SECONDS: Final = 5.0
logger = structlog.get_logger()


class Loop:
    """Calls `step` in a thread of its own; it returns how many seconds to wait before the next.

    A log or store that cannot be reached is waited for, and that is said once. Any other error ends the thread: its
    watcher ends the process, and what is in the log is accounted after the restart.
    """

    def __init__(self, name: str, step: Callable[[], float]) -> None:
        self.name = name
        self.beat = monotonic()
        self.waits_for = ""
        self._step = step
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self, timeout_seconds: float) -> bool:
        """Whether it ended in time."""
        self._stop.set()
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """False once it has ended."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                pause = self._step()
                self.say("")
            except (LogUnavailable, StoreUnavailable) as error:
                self.say(str(error))
                pause = RETRY_SECONDS
            self.beat = monotonic()
            self._stop.wait(pause)

    def say(self, why: str) -> None:
        """Tells what the step under way waits for, "" when it goes on; that it waits counts as coming round."""
        self.beat = monotonic()
        if why and not self.waits_for:
            logger.error("waiting until it can be reached again; nothing is lost", role=self.name, why=why)
        elif self.waits_for and not why:
            logger.info("reached again", role=self.name)
        self.waits_for = why
