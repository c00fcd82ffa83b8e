"""Three Kafka brokers on 127.0.0.1: the first is the controller too, the others may die without taking that along."""

from pathlib import Path
from typing import Any

from daemon_process import wait_for
from kafka import KafkaAdminClient, TopicPartition
from servers.kafka import KafkaServer

REPLICATED = {
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
}


class KafkaCluster:
    """`nodes[0]` has node id 1."""

    def __init__(self, folder: Path) -> None:
        self.nodes = [KafkaServer(folder / f"node-{number}", REPLICATED) for number in (1, 2, 3)]
        first = self.nodes[0]
        for number, node in enumerate(self.nodes, start=1):
            node.cluster_id = first.cluster_id
            node.set(node_id=str(number), controller_quorum_voters=f"1@127.0.0.1:{first.ports['CONTROLLER']}")
            if node is not first:
                node.set(process_roles="broker", listeners=f"PLAINTEXT://{node.bootstrap}")

    @property
    def bootstrap(self) -> tuple[str, ...]:
        """host:port of each."""
        return tuple(node.bootstrap for node in self.nodes)

    def start(self) -> None:
        """Starts all of them, and returns once each is ready."""
        for node in self.nodes:
            node.start(wait=False)
        for node in self.nodes:
            node.wait_ready()

    def stop(self) -> None:
        """Stops all of them."""
        for node in reversed(self.nodes):
            node.stop()

    def lead(self, topic: str, number: int) -> KafkaServer:
        """Makes node `number` the leader of the topic's first partition, and returns it."""
        others = [other for other in range(1, len(self.nodes) + 1) if other != number]
        admin = KafkaAdminClient(bootstrap_servers=[node.bootstrap for node in self.nodes])
        try:
            admin.alter_partition_reassignments({TopicPartition(topic, 0): [number, *others]})
            wait_for("the new order", lambda: self._first(admin, topic)["replica_nodes"][0] == number)
            if self._first(admin, topic)["leader_id"] != number:
                admin.elect_leaders(0, {topic: [0]})
            wait_for("the leader", lambda: self._first(admin, topic)["leader_id"] == number)
        finally:
            admin.close()
        return self.nodes[number - 1]

    def _first(self, admin: KafkaAdminClient, topic: str) -> dict[str, Any]:
        (found,) = admin.describe_topics([topic])
        return next(part for part in found["partitions"] if part["partition_index"] == 0)
