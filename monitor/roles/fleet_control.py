"""Role control in a fleet: its leader states what the configuration says of deployments and of the grid.

config, carbon/mixes --> FleetControl --> facts topic
"""

from collections.abc import Callable
from typing import Final

import structlog

from collectors.clock import Clock
from monitor.config.sections import Config
from monitor.log.kafka_facts import KafkaFacts
from monitor.log.kafka_writer import KafkaWriter
from monitor.roles.control import FactsReader
from monitor.roles.deployments import state_deployments

PAUSE_SECONDS: Final = 15.0
logger = structlog.get_logger()


class FleetControl:
    """`step` for a Loop; raises LogUnavailable. Who does not lead states nothing."""

    def __init__(self, config: Config, writer: KafkaWriter, leads: Callable[[], bool], *, clock: Clock) -> None:
        self._config, self._writer, self._leads, self._clock = config, writer, leads, clock
        self._facts = FactsReader(KafkaFacts(config.kafka))

    def step(self) -> float:
        """States what is new; returns how long to wait before the next look."""
        if not self._leads():
            return 1.0
        changed = state_deployments(self._facts(), self._writer, self._config.deployments, self._clock.now())
        if changed:
            logger.info("deployments stated", names=changed)
        return PAUSE_SECONDS
