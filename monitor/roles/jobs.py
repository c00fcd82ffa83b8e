"""Role control's and aggregate's regular jobs of a second and longer, on a scheduler of their own.

clock --> ticks (an idle log's time goes on), trimming (log and store), carbon intensities --> log, store
"""

import structlog

from collectors.clock import Clock
from collectors.replay import TICK_SECONDS
from collectors.units import SECONDS_PER_HOUR
from monitor.config.sections import Config
from monitor.log.codec import tick_record
from monitor.log.sqlite import SqliteLog
from monitor.roles.control import state_intensities
from monitor.roles.schedule import Schedule
from monitor.store.protocol import Store

logger = structlog.get_logger()


class Jobs:
    """Started once, stopped once. A job that fails is told and runs again at its next time."""

    def __init__(self, log: SqliteLog, store: Store, config: Config, *, host: str, clock: Clock) -> None:
        self._log, self._store, self._config, self._host, self._clock = log, store, config, host, clock
        self._schedule = Schedule({"default": 2})
        self._schedule.every(TICK_SECONDS, self.tick)
        self._schedule.every(SECONDS_PER_HOUR, self.trim)
        self._schedule.every(config.carbon.interval_seconds, self.state_intensities)

    def start(self) -> None:
        """Trims and states once at once, then runs everything at its own pace."""
        self.state_intensities()
        self.trim()
        self._schedule.start()

    def stop(self) -> None:
        """No further job is begun."""
        self._schedule.stop()

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
