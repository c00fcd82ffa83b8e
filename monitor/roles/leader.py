"""One leader among the processes of role control: who has the one partition of the facts topic in their group."""

from monitor.config.output_sections import Kafka
from monitor.log.kafka_group import GroupMember

_PARTITION = 0


class Leader:
    """A part. While it leads `leads` is true; two lead at once only as long as a clock is wrong."""

    def __init__(self, kafka: Kafka) -> None:
        self._member = GroupMember(kafka, f"{kafka.group}-control", (kafka.topics.facts,))

    def start(self) -> None:
        """Stands for election."""
        self._member.start()

    def stop(self) -> None:
        """Hands over."""
        self._member.stop()

    @property
    def waits_for(self) -> str:
        """Why it cannot be elected, and what to do; "" while nothing is known."""
        return self._member.waits_for

    @property
    def alive(self) -> bool:
        """False once it can no longer be elected, by an error that nobody foresaw."""
        return self._member.alive

    def leads(self) -> bool:
        """Whether this process is the leader now."""
        return _PARTITION in self._member.partitions
