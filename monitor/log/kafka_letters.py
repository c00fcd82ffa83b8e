"""Dead letters as they stand in their topic. In: [kafka]. Out: DeadLetters, each once, however often it was sent."""

import msgspec

from monitor.config.output_sections import Kafka
from monitor.log.kafka_newest import newest_messages
from monitor.log.kafka_writer import LetterRecord
from monitor.log.protocol import DeadLetter


def newest_letters(kafka: Kafka, count: int) -> list[DeadLetter]:
    """The newest of them, oldest first, out of so many messages. Raises LogUnavailable."""
    found: dict[tuple[str, str], DeadLetter] = {}
    decoder = msgspec.json.Decoder(LetterRecord)
    for message in newest_messages(kafka, kafka.topics.dead_letters, count):
        try:
            wire = decoder.decode(message.value or b"")
        except msgspec.DecodeError:  # a stranger's
            continue
        found.setdefault(
            (wire.source, wire.position),
            DeadLetter(
                source=wire.source,
                position=wire.position,
                reason=wire.reason,
                detail=wire.detail,
                sha256=wire.sha256,
                at=wire.at,
            ),
        )
    return list(found.values())
