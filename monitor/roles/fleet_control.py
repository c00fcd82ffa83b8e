"""Role control in a fleet: its leader states what the configuration says of deployments, and sums up the facts daily.

[[deployments]] --> FleetControl --> facts topic
                      Snapshots <--->
"""

from collections.abc import Callable
from typing import Final

import structlog

from collectors.clock import Clock
from monitor.config.sections import Config
from monitor.log.kafka_facts import KafkaFacts
from monitor.log.kafka_writer import KafkaWriter
from monitor.log.protocol import LogUnavailable
from monitor.roles.control import FactsReader
from monitor.roles.deployments import state_deployments
from monitor.roles.leader import Leader
from monitor.roles.snapshots import Snapshots

PAUSE_SECONDS: Final = 15.0
logger = structlog.get_logger()


class FleetControl:
    """`step` for a Loop; raises LogUnavailable, and what `check` does. Who does not lead states nothing."""

    def __init__(
        self,
        config: Config,
        writer: KafkaWriter,
        leader: Leader,
        *,
        clock: Clock,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Before it stands for election it calls `check`, which raises what keeps it from doing a leader's work."""
        self._check, self._stands = check, False
        self._config, self._writer, self._leader, self._clock = config, writer, leader, clock
        self._facts_log = KafkaFacts(config.kafka)
        self._facts = FactsReader(self._facts_log, lambda: self._facts_log.snapshot(clock.now()))
        self._snapshots = Snapshots(config.kafka, writer) if config.kafka.clock == "broker" else None

    def close(self) -> None:
        """Lets go of the connections that the facts are read through; the writer is its maker's."""
        self._facts_log.close()

    def step(self) -> float:
        """States what is new; returns how long to wait before the next look."""
        if not self._stands:
            self._check()
            self._leader.start()
            self._stands = True
        if not self._leader.leads():
            if why := self._leader.waits_for:
                raise LogUnavailable(f"cannot stand for election: {why}")
            return 1.0
        changed = state_deployments(self._facts(), self._writer, self._config.deployments, self._clock.now())
        if changed:
            logger.info("deployments stated", names=changed)
        if self._snapshots is not None:  # a replay's facts may be of any year, and are few
            self._snapshots.step(self._clock.now())
        return PAUSE_SECONDS
