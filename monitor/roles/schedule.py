"""Regular jobs of a second and longer, on APScheduler; named executors, so that no kind of job waits for another."""

import logging
from collections.abc import Callable, Mapping
from typing import Final

import structlog
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED, JobEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

_WHAT_HAPPENED: Final = {
    EVENT_JOB_ERROR: "failed",
    EVENT_JOB_MISSED: "missed",
    EVENT_JOB_MAX_INSTANCES: "still running",
}
logger = structlog.get_logger()


class Schedule:
    """`executors` are threads by name. A job that fails is told and runs again at its next time."""

    def __init__(self, executors: Mapping[str, int]) -> None:
        # What goes wrong is told by the listener below, in the daemon's own log.
        logging.getLogger("apscheduler").setLevel(logging.CRITICAL)
        self._scheduler = BackgroundScheduler(
            timezone="UTC",
            executors={name: ThreadPoolExecutor(threads) for name, threads in executors.items()},
            job_defaults={"coalesce": True, "max_instances": 1},
        )
        self._scheduler.add_listener(self._told, EVENT_JOB_ERROR | EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES)

    def every(self, seconds: float, job: Callable[[], None], *, executor: str = "default") -> None:
        """Runs it at this pace once started, never twice at a time; known by its own name."""
        late = int(seconds) or 1
        self._scheduler.add_job(
            job, "interval", seconds=seconds, id=job.__name__, misfire_grace_time=late, executor=executor
        )

    def start(self) -> None:
        """Every job runs one pace from now for the first time."""
        self._scheduler.start()

    def stop(self) -> None:
        """No further job is begun."""
        self._scheduler.shutdown(wait=False)

    def _told(self, event: JobEvent) -> None:
        error = getattr(event, "exception", None)
        what = _WHAT_HAPPENED.get(event.code, "unknown")
        logger.warning(f"job {what}", job=event.job_id, **({"why": str(error)} if error else {}))
