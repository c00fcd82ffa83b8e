"""A collector, on one screen: something that can be opened, read again and again, and closed."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

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
