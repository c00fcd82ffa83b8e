"""From the messages of one topic to placed usage. In: messages, as they came. Out: usage, and what is not used."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from hashlib import sha256
from typing import Any, Final, Protocol, TypeVar

from collectors.errors import Rejected
from collectors.requests.decoders.native import FUTURE_SECONDS, check_not_future
from collectors.requests.decoders.registry import EventDecoder, decoder_of, events_in
from collectors.requests.event import RequestEvent
from collectors.units import UnixSeconds
from monitor.config.input_sections import Source
from monitor.config.sections import Config
from monitor.log.protocol import DeadLetter
from monitor.roles.placement import with_unknown_team

_AT_ONCE: Final = 128
"""Messages: what they are made into is used up while the processor still has it at hand."""
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)


class Places(Protocol[T_co]):
    """A Placer, or who wants the events as they are."""

    def place(self, event: RequestEvent, *, trust_team: bool) -> Sequence[T_co]:
        """What is made of an event; raises Rejected."""
        ...

    def place_all(self, events: Sequence[RequestEvent], *, trust_team: bool) -> Sequence[T_co] | None:
        """What is made of each, one after the other; None where `place` raises Rejected of one."""
        ...


class Into(Protocol[T_contra]):
    """A list, or whatever takes what is placed."""

    def extend(self, placed: Iterable[T_contra], /) -> None:
        """Takes these behind what it has."""
        ...


class AsTheyAre:
    """Places nothing: hands on the events, of a source that is not believed in its teams without them."""

    def place(self, event: RequestEvent, *, trust_team: bool) -> Sequence[RequestEvent]:
        """The event."""
        return (event if trust_team else with_unknown_team(event),)

    def place_all(self, events: Sequence[RequestEvent], *, trust_team: bool) -> Sequence[RequestEvent]:
        """The events."""
        return events if trust_team else [with_unknown_team(event) for event in events]


class SourceTopic:
    """What holds for the messages of a topic: who sends them, how they are read, and what of them is believed."""

    def __init__(self, source: Source, config: Config) -> None:
        self.source, self.part = source.name, source.part
        self._trust_team = config.requests.trust_team if source.trust_team is None else source.trust_team
        self._most_bytes = config.requests.max_event_size_bytes
        self._decoder: EventDecoder = decoder_of(
            source.format,
            namespace=source.namespace,
            source=source.name,
            allowed_labels=config.accounting.label_keys,
        )

    def read(
        self, messages: Sequence[Any], placer: Places[T], came_at: UnixSeconds, placed: "Into[T]", refused: "Refusals"
    ) -> int:
        """Appends what the messages hold, as `placer` places it, to the two; returns how many events were taken.

        `messages` are Kafka's; `came_at` is the time at which they came, against which an event is of the future.
        """
        before, events = len(refused.letters), 0
        alone = partial(self._read_one, placer=placer, came_at=came_at, placed=placed, refused=refused)
        for begin in range(0, len(messages), _AT_ONCE):
            some = messages[begin : begin + _AT_ONCE]
            for run, common in self._runs(some, came_at + FUTURE_SECONDS):
                parts = placer.place_all(common, trust_team=self._trust_team) if common else None
                if parts is None:
                    events += sum(map(alone, run))
                else:
                    placed.extend(parts)
                    events += len(common)
        return events - (len(refused.letters) - before)

    def _runs(
        self, messages: Sequence[Any], future: UnixSeconds
    ) -> Iterator[tuple[Sequence[Any], Sequence[RequestEvent]]]:
        """The messages in their order, run by run: such as are one good event each, with these; others alone."""
        found = self._decoder.events([message.value for message in messages], self._most_bytes)
        begin, run = 0, []
        for place, event in enumerate(found):
            if event is not None and event.end <= future:
                run.append(event)
                continue
            yield messages[begin:place], run
            yield messages[place : place + 1], ()
            begin, run = place + 1, []
        yield messages[begin:], run

    def _read_one(
        self, message: Any, placer: Places[T], came_at: UnixSeconds, placed: "Into[T]", refused: "Refusals"
    ) -> int:
        """Whatever the message is; returns how many events it holds, those refused included."""
        if message.value is None:
            refused.add(message, "", Rejected("no_value", "a tombstone: key and no value"), b"", came_at)
            return 1
        parts = events_in(message.value)
        for index, raw in enumerate(parts):
            try:
                placed.extend(self.usages(raw, placer, came_at))
            except Rejected as rejected:
                refused.add(message, f"/{index}" if len(parts) > 1 else "", rejected, raw, came_at)
        return len(parts)

    def usages(self, raw: bytes, placer: Places[T], came_at: UnixSeconds) -> Sequence[T]:
        """What `placer` makes of the event; raises Rejected, as `Unplaced` where it was read and nothing places it."""
        event = self.event(raw, came_at)
        try:
            return placer.place(event, trust_team=self._trust_team)
        except Rejected as rejected:
            raise Unplaced(rejected, event) from None

    def event(self, raw: bytes, came_at: UnixSeconds) -> RequestEvent:
        """The event in these bytes; raises Rejected."""
        if len(raw) > self._most_bytes:
            raise Rejected("too_large", f"{len(raw)} bytes; [requests] max_event_size is {self._most_bytes}")
        event = self._decoder.decode(raw)
        check_not_future(event, came_at)
        return event


class Unplaced(Rejected):
    """An event of which nobody knows where it ran; its tokens are counted."""

    def __init__(self, rejected: Rejected, event: RequestEvent) -> None:
        super().__init__(rejected.reason, rejected.detail)
        self.tokens = Counter(input=event.input_tokens or 0, output=event.output_tokens or 0)


class Refusals:
    """What of some messages is not used, with the bytes of each."""

    def __init__(self) -> None:
        self.letters: list[DeadLetter] = []
        self.bodies: list[bytes] = []
        self.unplaced_tokens: Counter[str] = Counter()

    def add(self, message: Any, index: str, rejected: Rejected, raw: bytes, at: UnixSeconds) -> None:
        """The message, or one event of it at an index like "/3". Its place in the topic is its identity."""
        if isinstance(rejected, Unplaced):
            self.unplaced_tokens += rejected.tokens
        self.bodies.append(raw)
        self.letters.append(
            DeadLetter(
                source=message.topic,
                position=f"{message.partition}/{message.offset}{index}",
                reason=rejected.reason,
                detail=rejected.detail,
                sha256=sha256(raw).hexdigest(),
                at=at,
            )
        )
