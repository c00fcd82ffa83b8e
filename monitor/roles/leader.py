"""One leader among the processes of role control: who has the one partition of the facts topic in their group."""

from monitor.config.output_sections import Kafka
from monitor.log.kafka_group import SESSION_SECONDS, GroupMember

_PARTITION = 0


class Leader:
    """A part. While it leads `leads` is true; two lead at once only as long as a clock is wrong."""

    def __init__(self, kafka: Kafka, *, session_seconds: float = SESSION_SECONDS) -> None:
        self._member = GroupMember(
            kafka, f"{kafka.group}-control", (kafka.topics.facts,), session_seconds=session_seconds
        )

    def start(self) -> None:
        """Stands for election."""
        self._member.start()

    def stop(self) -> None:
        """Hands over."""
        self._member.stop()

    def leads(self) -> bool:
        """Whether this process is the leader now."""
        return _PARTITION in self._member.partitions
