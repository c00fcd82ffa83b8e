"""Role control's and aggregate's regular jobs of a second and longer, on a scheduler of their own.

clock --> ticks (an idle log's time goes on), trimming (log and store), carbon intensities --> log, store
"""

import logging
from collections.abc import Callable
from typing import Final

import structlog
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED, JobEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from collectors.clock import Clock
from collectors.replay import TICK_SECONDS
from collectors.units import SECONDS_PER_HOUR
from monitor.config.sections import Config
from monitor.log.codec import tick_record
from monitor.log.sqlite import SqliteLog
from monitor.roles.control import state_intensities
from monitor.store.sqlite import SqliteStore

_WHAT_HAPPENED: Final = {
    EVENT_JOB_ERROR: "failed",
    EVENT_JOB_MISSED: "missed",
    EVENT_JOB_MAX_INSTANCES: "still running",
}
logger = structlog.get_logger()


class Jobs:
    """Started once, stopped once. A job that fails is told and runs again at its next time."""

    def __init__(self, log: SqliteLog, store: SqliteStore, config: Config, *, host: str, clock: Clock) -> None:
        self._log, self._store, self._config, self._host, self._clock = log, store, config, host, clock
        self.unhappy = 0
        # What goes wrong is told by the listener below, in the daemon's own log.
        logging.getLogger("apscheduler").setLevel(logging.CRITICAL)
        self._scheduler = BackgroundScheduler(
            timezone="UTC",
            executors={"default": ThreadPoolExecutor(2)},
            job_defaults={"coalesce": True, "max_instances": 1},
        )
        self._scheduler.add_listener(self._told, EVENT_JOB_ERROR | EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES)
        self._every(TICK_SECONDS, self.tick)
        self._every(SECONDS_PER_HOUR, self.trim)
        self._every(config.carbon.interval_seconds, self.state_intensities)

    def start(self) -> None:
        """Trims and states once at once, then runs everything at its own pace."""
        self.state_intensities()
        self.trim()
        self._scheduler.start()

    def stop(self) -> None:
        """No further job is begun."""
        self._scheduler.shutdown(wait=False)

    def tick(self) -> None:
        """Moves log time on where no record did for a while, so that a quiet night becomes final too."""
        now = self._clock.now()
        if now - (self._log.log_time() or float("-inf")) >= TICK_SECONDS:
            self._log.append([tick_record(self._host)], now)

    def trim(self) -> None:
        """Deletes what is older than the configuration keeps, and the oldest of a log that is too large."""
        now = self._clock.now()
        self._store.trim(now)
        self._log.trim(now - self._config.log.retention_seconds)
        if dropped := self._log.trim_to_size(self._config.log.max_size_bytes):
            logger.warning("log was over [log] max_size: oldest records deleted", records=dropped)

    def state_intensities(self) -> None:
        """States the carbon intensity of this host's zone where it is new."""
        for zone in state_intensities(self._log, [self._config.host.zone], self._clock.now()):
            logger.warning("emissions are missing, not zero: no carbon intensity is known", zone=zone)

    def _every(self, seconds: float, job: Callable[[], None]) -> None:
        self._scheduler.add_job(job, "interval", seconds=seconds, id=job.__name__, misfire_grace_time=int(seconds) or 1)

    def _told(self, event: JobEvent) -> None:
        self.unhappy += 1
        error = getattr(event, "exception", None)
        what = _WHAT_HAPPENED.get(event.code, "unknown")
        logger.warning(f"job {what}", job=event.job_id, **({"why": str(error)} if error else {}))
