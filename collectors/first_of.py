"""The first of several meters for one thing that works: RAPL, else a model of the same CPUs, never both."""

from collections.abc import Sequence

from collectors.errors import Broken, CollectorError, Gone
from collectors.meter import Measured, Meter, MeterHealth
from collectors.readings import CounterMark, Device


class FirstOf:
    """A Meter that stands for the first of `meters` that opens. It keeps to that one until it is closed.

    Why the ones before it did not open is told in its health, so that a model never takes a meter's place in silence.
    """

    def __init__(self, meters: Sequence[Meter]) -> None:
        self._meters = meters
        self._chosen = meters[0]
        self._refused = ""

    @property
    def name(self) -> str:
        """The name of the one that is in use."""
        return self._chosen.name

    @property
    def interval_seconds(self) -> float:
        return self._chosen.interval_seconds

    @property
    def devices(self) -> Sequence[Device]:
        return self._chosen.devices

    @property
    def marks(self) -> Sequence[CounterMark]:
        return self._chosen.marks

    def resume(self, marks: Sequence[CounterMark]) -> None:
        """Given on to each of them; a counter's mark is of no use to another meter."""
        for meter in self._meters:
            meter.resume(marks)

    def open(self) -> None:
        """Opens the first that can be. Raises what the last one raised; RetryLater of any at once."""
        refused: list[str] = []
        error: CollectorError | None = None
        for meter in self._meters:
            try:
                meter.open()
            except (Gone, Broken) as verdict:
                error = verdict
                refused.append(f"in place of {meter.name}: {verdict}")
            else:
                self._chosen, self._refused = meter, "; ".join(refused)
                return
        if error is not None:
            raise error

    def read(self) -> Sequence[Measured]:
        return self._chosen.read()

    def close(self) -> None:
        self._chosen.close()

    def health(self) -> MeterHealth:
        """The chosen meter's, with a note of those that could not be opened."""
        health = self._chosen.health()
        return MeterHealth(devices=health.devices, events=health.events, note=self._refused)
