"""Role ingest over files: from lines of request events to usage in the log.

events.jsonl --> EventFile --> decode --> place --> log (usage)
                                  \\--> dead letters
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec
import structlog

from collectors.errors import Rejected, RetryLater
from collectors.requests.decoders.native import check_not_future, decode_event
from collectors.requests.file import EventFile
from collectors.requests.file_part import Line, Place
from collectors.units import UnixSeconds
from monitor.config.input_sections import Source
from monitor.config.sections import Config
from monitor.core.usage import Placed
from monitor.log.protocol import DeadLetter, LogUnavailable, LogWriter
from monitor.roles.ingest_counts import IngestCounts
from monitor.roles.placement import Placing
from monitor.roles.usage_batches import append_events

logger = structlog.get_logger()


class FileIngest:
    """Follows the files of the configuration. Where it stands is kept beside the log, after the log has the events.

    A crash in between makes it read some lines twice; their identity makes that harmless.
    """

    def __init__(
        self, log: LogWriter, config: Config, sources: Sequence[Source], folder: Path, placer: Placing
    ) -> None:
        self._log, self._config, self._placer = log, config, placer
        self._places = folder / "sources"
        self._places.mkdir(exist_ok=True)
        self._kept = {source.name: self._kept_place(source.name) for source in sources}
        self._files = [
            (source, EventFile(source.name, source.path, self._kept[source.name]))
            for source in sources
            if source.path is not None
        ]
        self._missing: dict[str, str] = {}
        self._told: dict[str, Counter[str]] = {}
        self.counts = IngestCounts()

    def read(self, now: UnixSeconds) -> int:
        """Takes what has come; returns the number of lines. After LogUnavailable the next call takes the same again."""
        return sum(self._read_file(source, file, now) for source, file in self._files)

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Sources whose file is not there or may not be read, and why."""
        return dict(self._missing)

    def close(self) -> None:
        """Lets go of the files."""
        for _, file in self._files:
            file.close()

    def _read_file(self, source: Source, file: EventFile, now: UnixSeconds) -> int:
        lines: Sequence[Line] = ()
        try:
            lines = file.read()
            self._missing.pop(source.name, None)
        except RetryLater as error:
            if source.name not in self._missing:
                logger.warning("source does not answer", source=source.name, error=str(error))
                self._missing[source.name] = str(error)
        self._tell_events(source.name, file)
        try:
            if lines:
                self._placer.refresh()
            self._take(source, lines, now)
        except LogUnavailable:
            file.rewind()
            raise
        if file.place != self._kept[source.name]:
            self._keep_place(source.name, file.place)
        return len(lines)

    def _take(self, source: Source, lines: Sequence[Line], now: UnixSeconds) -> None:
        events: list[Sequence[Placed]] = []
        letters = []
        for line in lines:
            try:
                events.append(self._usages(source, line, now))
            except Rejected as rejected:
                letters.append(_letter(source.name, line, rejected, now))
        self._log.reject(letters)
        refused = len(append_events(self._log, events, now))
        if letters:
            logger.warning("events rejected", source=source.name, count=len(letters), first=letters[0].reason)
        self.counts.took(source.name, len(events) - refused, letters, now, refused=refused)

    def _tell_events(self, name: str, file: EventFile) -> None:
        """A file that was cut short, or is not found again, may have held lines that nobody has read."""
        new = file.events - self._told.get(name, Counter())
        for word in sorted(new):
            say = logger.info if word == "rotated" else logger.warning
            say("file was " + word.replace("_", " "), source=name, times=new[word])
        self._told[name] = file.events.copy()

    def _usages(self, source: Source, line: Line, now: UnixSeconds) -> Sequence[Placed]:
        labels = self._config.accounting.label_keys
        if len(line.raw) > self._config.requests.max_event_size_bytes:
            raise Rejected("too_large", f"{len(line.raw)} bytes")
        event = decode_event(line.raw, namespace=source.namespace, source=source.name, allowed_labels=labels)
        check_not_future(event, now)
        trust = self._config.requests.trust_team if source.trust_team is None else source.trust_team
        return self._placer.place(event, trust_team=trust)

    def _kept_place(self, name: str) -> Place | None:
        path = self._places / f"{name}.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Place)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            logger.warning("source begins anew: its place is unreadable", source=name, file=str(path), error=str(error))
            return None

    def _keep_place(self, name: str, place: Place) -> None:
        draft = self._places / f"{name}.json.new"
        draft.write_bytes(msgspec.json.encode(place))
        draft.replace(self._places / f"{name}.json")
        self._kept[name] = place


def _letter(source: str, line: Line, rejected: Rejected, now: UnixSeconds) -> DeadLetter:
    return DeadLetter(
        source=source,
        position=line.position,
        reason=rejected.reason,
        detail=rejected.detail,
        sha256=sha256(line.raw).hexdigest(),
        at=now,
    )
