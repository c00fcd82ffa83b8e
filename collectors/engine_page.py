"""A model server's page -> figures per model. Pure. In: the bytes of /metrics. Out: what of the table it tells.

A value that is none (NaN, infinity, below 0, beyond 2^53, no number at all) makes its figure untold, never 0, and the
metric is named in `bad`.
"""

from collections.abc import Iterable, Mapping
from math import prod
from typing import Final

import msgspec

from collectors.engine_names import Formula, Kind, Pick, Product, Total, kind_of, needed_by
from collectors.prometheus_text import Row, found_rows

MOST: Final = 2.0**53
MOST_MODELS: Final = 64
"""On one page; one that names others each time must not fill the memory."""

_Values = dict[str, dict[str, float] | None]
"""Model -> engine -> value; None where a row of that model could not be read."""


class EnginePage(msgspec.Struct, frozen=True, kw_only=True):
    """`models`: model -> figure -> value, as far as they are told; the model is "" where the page names none.

    The figures are those of EngineSample. `bad` are metrics with a value that is none.
    """

    kind: str
    models: Mapping[str, Mapping[str, float]]
    bad: frozenset[str]


def read_page(page: bytes) -> EnginePage | None:
    """What the page tells; None where it is no model server's. Two engines of 3 running requests each run 6."""
    page = b"\n" + page
    kind = kind_of(page)
    if kind is None:
        return None
    reading = _Reading(kind, page)
    models: dict[str, dict[str, float]] = {}
    for figure, formulas in kind.figures.items():
        for model, value in reading.first_told(formulas).items():
            if model in models or len(models) < MOST_MODELS:
                models.setdefault(model, {})[figure] = value
    return EnginePage(kind=kind.name, models=models, bad=frozenset(reading.bad))


class _Reading:
    """One page, of which a metric is searched for when a formula asks for it: those of other versions rarely are."""

    def __init__(self, kind: Kind, page: bytes) -> None:
        self._kind, self._page = kind, page
        self._rows: dict[str, list[Row]] = {}
        self._known: dict[Pick, _Values] = {}
        self.bad: set[str] = set()

    def first_told(self, formulas: Iterable[Formula]) -> dict[str, float]:
        """Model -> value by the first formula whose metrics are on the page, and by no other if that tells none."""
        for formula in formulas:
            if all(self._rows_of(pick.name) for pick in needed_by(formula)):
                told = self._product(formula) if isinstance(formula, Product) else self._total(formula)
                return {model: value for model, value in told.items() if value <= MOST}
        return {}

    def _total(self, formula: Total) -> dict[str, float]:
        parts = [self._values(pick) for pick in formula.picks]
        hindered = {
            model
            for pick in formula.none_of
            for model, engines in self._values(pick).items()
            if engines is None or any(engines.values())
        }
        found = {}
        for model in parts[0]:
            engines = [part.get(model) for part in parts]
            if model not in hindered and "" not in hindered and all(engines):
                found[model] = sum(sum(each.values()) for each in engines if each)
        return found

    def _product(self, formula: Product) -> dict[str, float]:
        first, *others = (self._values(pick) for pick in formula.factors)
        found = {}
        for model, engines in first.items():
            rest = [(other.get(model) or other.get("") or {}) for other in others]
            if engines and all(engine in each for each in rest for engine in engines):
                found[model] = sum(value * prod(each[engine] for each in rest) for engine, value in engines.items())
        return found

    def _values(self, pick: Pick) -> _Values:
        found = self._known.get(pick)
        if found is None:
            found = self._known[pick] = self._read(pick)
        return found

    def _rows_of(self, name: str) -> list[Row]:
        if name not in self._rows:
            self._rows[name] = list(found_rows(self._page, name))
        return self._rows[name]

    def _read(self, pick: Pick) -> _Values:
        """The rows summed, but for those that are copies of each other: of these the largest sum counts."""
        kind, sums = self._kind, dict[str, dict[str, dict[tuple[str, ...], float]]]()
        unreadable: set[str] = set()
        for row in self._rows_of(pick.name):
            labels, value = row.labels, row.value
            model = next((labels[label] for label in kind.model if label in labels), "")
            if labels:  # a line without any may be one that could not be read: it may be any of them
                if pick.where and labels.get(pick.where) not in pick.values:
                    continue
                if kind.subset and labels.get(kind.subset):
                    continue
                if pick.in_label:
                    told = labels.get(pick.in_label, "")
                    if not (told.isascii() and told.isdigit()):
                        continue  # vLLM has "None" there until it has measured its memory
                    value = float(told)
            elif value is not None and (pick.where or pick.in_label):
                continue
            if value is None or not 0.0 <= value <= MOST:
                self.bad.add(pick.name)
                unreadable.add(model)
                continue
            ranks = sums.setdefault(model, {}).setdefault(labels.get(kind.engine, ""), {})
            copy = tuple(labels.get(label, "") for label in kind.copies) if kind.copies else ()
            ranks[copy] = ranks.get(copy, 0.0) + value
        found: _Values = {
            model: {engine: max(ranks.values()) for engine, ranks in engines.items()} for model, engines in sums.items()
        }
        if "" in unreadable:  # a line of which nothing is known may be any model's
            unreadable |= set(found)
        return found | dict.fromkeys(unreadable)
