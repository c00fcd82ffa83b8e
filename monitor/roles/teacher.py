"""Lessons into the log's facts: what a partition's windows taught of each GPU type (core/lessons.py)."""

from collections.abc import Callable, Sequence

import msgspec
import structlog

from collectors.units import UnixSeconds
from monitor.core.lessons import Lesson, UnitLesson
from monitor.log.codec import lesson_record
from monitor.log.protocol import LogWriter

logger = structlog.get_logger()


class Teacher:
    """Appends the lessons of one partition, `number/count`. `taught` is called once they stand in the log."""

    def __init__(self, writer: LogWriter, partition: str, taught: Callable[[], None] = lambda: None) -> None:
        self._writer, self._partition, self._taught = writer, partition, taught

    def __call__(self, lessons: Sequence[Lesson | UnitLesson], log_time: UnixSeconds) -> None:
        """Stores them. Raises LogUnavailable."""
        named = [msgspec.structs.replace(lesson, partition=self._partition) for lesson in lessons]
        for refused in self._writer.append([lesson_record(each, log_time) for each in named], log_time):
            logger.error("what a period taught was refused by the log, and is not learned", key=refused.key)
        self._taught()
