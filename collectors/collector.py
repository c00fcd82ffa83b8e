"""A collector, on one screen: something that can be opened, read again and again, and closed; or that is sent to."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from collectors.errors import RetryLater

if TYPE_CHECKING:  # a meter has no use for what a receiver needs
    from collectors.rejected import RejectedInput
    from collectors.requests.event import RequestEvent

T_co = TypeVar("T_co", covariant=True)


class Source(Protocol[T_co]):
    """Pulled by its role. Clocks, roots and addresses are given at construction."""

    @property
    def name(self) -> str:
        """What a person calls it, as in config.toml."""
        ...

    def open(self) -> None:
        """Makes it ready; raises RetryLater or Broken."""
        ...

    def read(self) -> Sequence[T_co]:
        """What has come since the last read, oldest first, possibly nothing; raises RetryLater, Gone or Broken."""
        ...

    def close(self) -> None:
        """Lets go of everything; never raises."""
        ...


class EventSink(Protocol):
    """Where a receiver puts what it was sent. Called by many threads at once."""

    def accept(self, events: "Sequence[RequestEvent]", rejected: "Sequence[RejectedInput]") -> "Sequence[int]":
        """Returns once all of it is stored for good; raises RetryLater (SinkFull) where it is not: send it again.

        What is returned are the events, by index, that can never be stored: to send those again is of no use.
        """
        ...


class SinkFull(RetryLater):
    """More is under way than the sink keeps up with: the sender has to slow down."""
