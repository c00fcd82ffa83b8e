"""Rules that are wrong in one point each: the model must tell every one of them from the right ones."""

from collections.abc import Mapping, Sequence
from math import inf

import msgspec

from accounting_model.partition import PARTS, MemoryLog
from monitor.ledger.entering import RequestsTouch, Touch
from monitor.ledger.ledger import Ledger
from monitor.ledger.restating import Source
from monitor.log.codec import TICK_SCHEMA
from monitor.log.protocol import Commit, LogRecord, Stream


class CommitsBeforeStoring(Ledger):
    """Claims rows that no store has yet."""

    def _flush(self) -> None:
        if self._rows and not self.__dict__.get("_ahead"):
            self.__dict__["_ahead"] = True
            self._commit()
            self.__dict__["_ahead"] = False
        super()._flush()


class ForgetsWhatToRestate(Ledger):
    """A new life does not look for what the next mark has to restate in what it reads again."""

    def _note_late(self, news: Touch | RequestsTouch) -> None:
        if max([news.log_time] if isinstance(news, Touch) else news.log_time.tolist()) > self._reread_until:
            super()._note_late(news)


class LooksNoHorizonBack(Ledger):
    """A new life begins where the first needed record stands, and cannot know what contradicts it."""

    def _commit(self) -> None:
        terms, self._terms = self._terms, msgspec.structs.replace(self._terms, horizon_seconds=0.0)
        super()._commit()
        self._terms = terms


class NeverLooksBack(Ledger):
    """Believes that what was restated stays in the store."""

    def _mend(self, source: Source, newest: float) -> None:
        pass


class BeginsAtWhatIsNeeded(MemoryLog):
    """Right, too: the commit passes by ticks, which no window needs, and says which log time they led to."""

    def commit_streams(self, commit: Commit, streams: Sequence[Stream]) -> None:
        """Each stream's position on its first record that says something, with its own log time."""
        for stream in streams:
            topic = self._partition.topics[stream]
            offset = commit.positions[stream]
            while offset < len(topic.records) and topic.records[offset].schema == TICK_SCHEMA:
                offset += 1
            reached = topic.log_times[offset - 1] if offset else -inf
            positions = {**commit.positions, stream: offset}
            super().commit_streams(msgspec.structs.replace(commit, positions=positions), [stream])
            self._partition.floors[stream] = self._said(reached)

    @staticmethod
    def _said(log_time: float) -> float:
        return log_time


class CommitsNoLogTime(BeginsAtWhatIsNeeded):
    """The same without the log time: where clocks stepped back, a new life takes late records for early ones."""

    @staticmethod
    def _said(log_time: float) -> float:
        return -inf


class ReadsOutOfStep(MemoryLog):
    """Gives what there is of one stream without waiting for the other."""

    def read(self, positions: Mapping[str, int], limit: int) -> list[LogRecord]:
        """The next records of both, each as far as it goes."""
        found = super().read(positions, limit)
        if not found:
            for stream in PARTS:
                offset = positions.get(stream, 0)
                found += self._partition.topics[stream].records[offset : offset + limit]
        return found[:limit]
