"""Role ingest on a live host: files that are followed, receivers, and orders that people left, into the log.

files --> FileIngest --\\
http --> HttpIngest ----> log (usage), dead letters
orders --------------/
"""

from pathlib import Path

from collectors.clock import Clock
from monitor.config.input_sections import Source
from monitor.config.sections import Config
from monitor.log.protocol import LogWriter
from monitor.roles.ingest import FileIngest
from monitor.roles.ingest_http import HttpIngest
from monitor.roles.orders import carry_out_orders
from monitor.roles.placement import Placing
from monitor.selfmetrics import SourceSnapshot

PAUSE_SECONDS = 1.0


class Sourced:
    """Every source of the configuration that needs no broker.

    Places in files are kept in `folder`. What is posted goes to `posts_log` in a thread of its own; the rest goes to
    `log` in the thread that calls `step`.
    """

    def __init__(
        self,
        config: Config,
        *,
        folder: Path,
        log: LogWriter,
        posts_log: LogWriter,
        placer: Placing,
        clock: Clock,
    ) -> None:
        self._sources = [source for source in config.sources if source.kind in ("file", "http")]
        files = [source for source in config.sources if source.kind == "file"]
        posts = [source for source in config.sources if source.kind == "http"]
        self._folder, self._log, self._clock = folder, log, clock
        self._placer = placer
        self.files = FileIngest(log, config, files, folder, placer)
        self.http = HttpIngest(posts_log, config, posts, placer, clock)

    def start(self) -> None:
        """Opens the receivers; files are read by `step`."""
        self.http.start()

    def stop(self) -> None:
        """Takes no more posts; those that were taken are in the log."""
        self.http.stop()
        self.files.close()

    def snapshots(self) -> tuple[SourceSnapshot, ...]:
        """What came from each source since the start."""
        return tuple(self._snapshot(source) for source in self._sources)

    def _snapshot(self, source: Source) -> SourceSnapshot:
        counts = self.files.counts if source.kind == "file" else self.http.counts
        rejected = {reason: count for (name, reason), count in list(counts.rejected.items()) if name == source.name}
        refused = {reason: count for (name, reason), count in list(counts.refused.items()) if name == source.name}
        accepted, unreadable = counts.accepted[source.name], self.files.unreadable.get(source.name, "")
        posts = ", ".join(f"{count} {reason}" for reason, count in sorted(refused.items()))
        return SourceSnapshot(
            name=source.name,
            kind=source.kind,
            state="retrying" if unreadable else "ok" if accepted else "waiting",
            detail=unreadable or (f"posts refused as a whole: {posts}" if posts else ""),
            accepted=accepted,
            rejected=rejected,
            last_event_at=counts.last_at.get(source.name),
        )

    def step(self) -> float:
        """Reads what has come; returns how long to wait before the next."""
        if self._sources:
            self._placer.refresh()
        now = self._clock.now()
        carry_out_orders(self._folder, self._log, now)
        return 0.0 if self.files.read(now) else PAUSE_SECONDS
