"""Of which meters a sum was told: the rest of one that contains others is a difference, and as far off as all of them.

A node of 1 000 J with a GPU of 700 J in it leaves 300 J to the rest. Where the node's meter tells 5 % too much, the
rest is 48 J too much, not 14; and what the GPU's tells too much the rest has too little, so that both together are off
by the node's meter alone. Pure.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from monitor.core.band import Place
from monitor.core.points import METER, Row

_F: Final = {name: place for place, name in enumerate(METER.fields)}


class Nested:
    """Meters by place, with what contains them. Grows row by row."""

    def __init__(self) -> None:
        self._told: dict[Place, list[float]] = {}
        self._parents: dict[Place, str] = {}
        self._inner: dict[Place, list[Place]] = {}

    def add_rows(self, rows: Iterable[Row]) -> None:
        """Takes the final `meter` rows among these."""
        for row in rows:
            if row.measurement == METER.name:
                self.add_row(row)

    def add_row(self, row: Row) -> None:
        """Takes a row with the fields of `meter`; one whose joules are not known tells nothing."""
        energy, metered, parent = (row.fields[_F[name]] for name in ("energy_joules", "metered_joules", "parent"))
        if isinstance(energy, int | float) and isinstance(metered, int | float):
            self.add((row.tags[0], row.tags[1]), str(parent or ""), energy, metered)

    def add(self, place: Place, parent: str, energy: float, metered: float) -> None:
        """Takes a meter's row: its joules, those not modelled, and the device that contains it, "" if none does."""
        told = self._told.setdefault(place, [0.0, 0.0])
        told[0] += energy
        told[1] += metered
        if parent and place not in self._parents:
            self._parents[place] = parent
            self._inner.setdefault((place[0], parent), []).append(place)

    def told_by(self, place: Place, energy: float, metered: float) -> Iterator[tuple[Place, float, float]]:
        """The meters by which these joules of a device were told, and of each its part, and that of those not modelled.

        Of 150 J of that rest: 500 J of the node's meter, and -350 J of the GPU's.
        """
        inner = self._inner.get(place, ())
        whole, of_it = self._told.get(place, (0.0, 0.0))
        rest = whole - sum(self._told[child][0] for child in inner)
        if not inner or rest <= 0.0:
            yield place, energy, metered
            return
        part = energy / rest
        yield place, part * whole, part * of_it
        for child in inner:
            joules, not_modelled = self._told[child]
            yield child, -part * joules, -part * not_modelled
