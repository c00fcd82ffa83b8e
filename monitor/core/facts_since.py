"""The facts as whoever began at a snapshot knows them. Pure.

They answer for the moments from the snapshot on. Who asks about an earlier one (an event of last month, a partition
that nobody accounted for two weeks) is answered from all facts, which `earlier` gives; so where a reader may begin is a
question of speed alone, and no answer depends on it.
"""

from collections.abc import Callable, Iterable, Sequence

from collectors.units import UnixSeconds
from monitor.core.attribution.priors import Scalars
from monitor.core.emissions.factors import Intensity
from monitor.core.facts import Fact, Facts
from monitor.core.lessons import Learned
from monitor.core.serving import Place


class FactsSince(Facts):
    """Facts that are whole from a moment on. What `earlier` raises goes through to who asked."""

    def __init__(
        self,
        facts: Iterable[tuple[UnixSeconds, Fact]],
        learned: Learned,
        *,
        since: UnixSeconds,
        earlier: Callable[[], Facts],
    ) -> None:
        super().__init__(facts, learned)
        self._whole_since, self._earlier = since, earlier

    def intensity(self, zone: str, at: UnixSeconds) -> Intensity | None:
        """As in Facts."""
        return super().intensity(zone, at) if at >= self._whole_since else self._earlier().intensity(zone, at)

    def scalars(self, gpu: str, at: UnixSeconds) -> Scalars:
        """As in Facts."""
        return super().scalars(gpu, at) if at >= self._whole_since else self._earlier().scalars(gpu, at)

    def places(self, model: str, deployment: str, at: UnixSeconds) -> Sequence[Place]:
        """As in Facts."""
        if at >= self._whole_since:
            return super().places(model, deployment, at)
        return self._earlier().places(model, deployment, at)
