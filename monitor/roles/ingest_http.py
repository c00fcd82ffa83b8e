"""Role ingest over HTTP: from posted request events to usage in the log.

POST /v1/events --> Receiver --> place --> GroupedAppends --> log (usage), dead letters --> 202
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import structlog

from collectors.clock import Clock
from collectors.errors import Broken, Rejected, RetryLater
from collectors.rejected import RejectedInput
from collectors.requests.decoders.native import check_not_future
from collectors.requests.event import RequestEvent
from monitor.config.input_sections import Source
from monitor.config.sections import Config
from monitor.core.usage import Placed
from monitor.log.protocol import DeadLetter, LogUnavailable, LogWriter
from monitor.roles.ingest_counts import IngestCounts
from monitor.roles.ingest_group import GroupedAppends
from monitor.roles.placement import Placing

if TYPE_CHECKING:  # a web server's worth of memory: only for who receives
    from collectors.http_server import HttpServer
    from collectors.requests.receiver import Receiver

DRAIN_SECONDS: Final = 1.0

logger = structlog.get_logger()


class HttpIngest:
    """The receivers of the configuration, each on its own address, all into one log."""

    def __init__(
        self, log: LogWriter, config: Config, sources: Sequence[Source], placer: Placing, clock: Clock
    ) -> None:
        self._config, self._sources, self._placer, self._clock = config, sources, placer, clock
        self._appends = GroupedAppends(log, clock)
        self._counts = IngestCounts()
        self._receivers: dict[str, Receiver] = {}
        self._servers: dict[str, HttpServer] = {}

    @property
    def counts(self) -> IngestCounts:
        """What came since the start."""
        for name, receiver in self._receivers.items():
            for reason, count in list(receiver.refused.items()):
                self._counts.refused[name, reason] = count
        return self._counts

    @property
    def ports(self) -> dict[str, int]:
        """Where each source listens."""
        return {name: server.port for name, server in self._servers.items()}

    def start(self) -> None:
        """Returns when every source listens; raises Broken, with none listening, where an address cannot be had."""
        if not self._sources:
            return
        self._appends.start()
        try:
            for source in self._sources:
                self._start_source(source)
        except Broken:
            self.stop()
            raise

    def stop(self, seconds: float = DRAIN_SECONDS) -> None:
        """Takes no more posts; those that came whole are stored and answered within that time, or not acknowledged."""
        for server in self._servers.values():
            server.stop(seconds)
        self._appends.stop(seconds)
        for receiver in self._receivers.values():
            receiver.close()

    def _start_source(self, source: Source) -> None:
        from collectors.http_server import HttpServer
        from collectors.requests.receiver import Receiver
        from collectors.requests.receiver_body import Limits

        sink = _SourceSink(
            source,
            self._config,
            self._placer,
            clock=self._clock,
            appends=self._appends,
            counts=self._counts,
        )
        limits = Limits(event_bytes=self._config.requests.max_event_size_bytes)
        receiver = Receiver(
            sink,
            source=source.name,
            namespace=source.namespace,
            allowed_labels=self._config.accounting.label_keys,
            check=sink.check,
            limits=limits,
        )
        self._receivers[source.name] = receiver
        server = HttpServer(
            receiver.app, source.listen or "", name=f"source {source.name}", body_seconds=limits.body_seconds + 5.0
        )
        server.start()
        self._servers[source.name] = server
        logger.info("receiving request events", source=source.name, listen=source.listen, port=server.port)


class _SourceSink:
    """Places the events of one source; an EventSink."""

    def __init__(
        self,
        source: Source,
        config: Config,
        placer: Placing,
        *,
        clock: Clock,
        appends: GroupedAppends,
        counts: IngestCounts,
    ) -> None:
        self._name, self._placer, self._clock = source.name, placer, clock
        self._trust_team = config.requests.trust_team if source.trust_team is None else source.trust_team
        self._appends, self._counts = appends, counts

    def check(self, event: RequestEvent) -> None:
        """Raises Rejected for what comes from the future, or is placed nowhere; RetryLater where nobody knows now."""
        self._placer.check_age()
        check_not_future(event, self._clock.now())
        self._placed(event)

    def accept(self, events: Sequence[RequestEvent], rejected: Sequence[RejectedInput]) -> Sequence[int]:
        """Returns once they are in the log, but for those that it refused for good; raises RetryLater."""
        now = self._clock.now()
        letters = [
            DeadLetter(
                source=self._name,
                position=bad.position,
                reason=bad.reason,
                detail=bad.detail,
                sha256=bad.sha256,
                at=now if bad.at is None else bad.at,
            )
            for bad in rejected
        ]
        refused = self._appends.store([self._still_placed(event) for event in events], letters)
        accepted = len(events) - len(refused)
        self._counts.took(self._name, accepted, letters, self._clock.now(), refused=len(refused))
        if letters:
            logger.warning("events rejected", source=self._name, count=len(letters), first=letters[0].reason)
        return refused

    def _still_placed(self, event: RequestEvent) -> Sequence[Placed]:
        """As it was when it was checked, but for facts that came since."""
        try:
            return self._placed(event)
        except Rejected as rejected:
            raise RetryLater(f"where it ran has just changed: {rejected.detail}; send it again") from rejected

    def _placed(self, event: RequestEvent) -> Sequence[Placed]:
        try:
            return self._placer.place(event, trust_team=self._trust_team)
        except LogUnavailable as error:
            raise RetryLater(f"where it ran cannot be found out now: {error}") from error
