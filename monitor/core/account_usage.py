"""What a window's requests did, and what each of them used in it: rows of usage, and shares. Pure."""

from math import fsum

import numpy as np

from collectors.units import UnixSeconds
from monitor.core import points
from monitor.core.account_rows import Terms
from monitor.core.attribution.pieces import Column
from monitor.core.phased import counted
from monitor.core.points import Row
from monitor.core.shares import COLUMNS, ENERGY, Shares
from monitor.core.usage_columns import Index, UsageColumns, all_known, all_known_counts, told_or_nothing

MOST_EXACT = 2.0**53
"""Below it every whole number is a float."""
MOST_SMALL = 2**15
"""Fewer groups than this fit 16 bits."""


def usage_rows(host: str, interval: tuple[UnixSeconds, UnixSeconds], usages: UsageColumns, revision: int) -> list[Row]:
    """Requests and tokens of what ended in the window."""
    start, end = interval
    ended = np.flatnonzero((start <= usages.end) & (usages.end < end))
    if not len(ended):
        return []
    tags = [(host, route.model, route.team, route.deployment, route.status, route.key[3]) for route in usages.routes]
    groups = sorted(set(tags))
    places = {each: place for place, each in enumerate(groups)}
    group = np.array([places[each] for each in tags], dtype=np.intp)[usages.route[ended]]
    few = group.astype(np.int16) if len(groups) < MOST_SMALL else group  # small numbers are sorted by their digits
    order = np.argsort(few, kind="stable")
    group, ended = group[order], ended[order]
    begins = np.flatnonzero(np.concatenate(([True], group[1:] != group[:-1])))
    sums = [_exact_sums(column, begins) for column in _usage_columns(usages, ended)]
    return [
        Row(points.USAGE.name, start, groups[place], (*fields, revision))
        for place, *fields in zip(group[begins].tolist(), *sums, strict=True)
    ]


def _usage_columns(usages: UsageColumns, ended: Index) -> tuple[Column, ...]:
    """What each of those that ended adds to the sums of a usage row, in the order of its fields."""
    prompt, answer, active_seconds = (column[ended] for column in counted(usages))
    weight = usages.weight[ended]
    told, made = usages.input_tokens[ended], usages.output_tokens[ended]
    return (
        weight,
        prompt * told_or_nothing(told),
        prompt * told_or_nothing(usages.cached_input_tokens[ended]),
        answer * told_or_nothing(made),
        active_seconds,
        np.where(np.isnan(told) & np.isnan(made), weight, 0.0),
        np.where(usages.scheduled_told[ended], weight, 0.0),
    )


def _exact_sums(values: Column, begins: Index) -> list[float]:
    """The sums, rounded once, of values >= 0 from each place to the next. Of whole numbers any sum is, while small."""
    if (values == np.floor(values)).all() and (sums := np.add.reduceat(values, begins)).max() < MOST_EXACT:
        return list(sums.tolist())
    ends = [*begins[1:].tolist(), len(values)]
    told = values.tolist()
    return [fsum(told[begin:end]) for begin, end in zip(begins.tolist(), ends, strict=True)]


class RequestShares:
    """Each request's joules over all devices of the host, in this window."""

    def __init__(self, usages: UsageColumns) -> None:
        self._usages = usages
        self._terms: Terms | None = None
        self._chosen: list[Index] = []
        self._columns: list[tuple[Column, ...]] = []
        self._measured = np.zeros(len(usages), dtype=np.bool_)

    def add(self, chosen: Index, columns: tuple[Column, ...], terms: Terms, *, measured: bool) -> None:
        """Adds one device's split; `measured` tells whether a meter of it was read in this window.

        All devices of an account are on the same terms.
        """
        self._terms = terms
        self._chosen.append(chosen)
        self._columns.append(columns)
        if measured:
            self._measured[chosen] = True

    def shares(self) -> Shares:
        """One share for each request that touches the window, also where it used nothing that was measured."""
        count, terms = len(self._usages), self._terms
        grams = np.full(count, np.nan)  # no meter, or no factor: not known, which is not 0
        factor = np.full(count, "", dtype=np.object_)
        if terms is None:
            return Shares(self._usages, np.zeros((COLUMNS, count)), grams, factor, self._measured)
        chosen = np.concatenate(self._chosen)
        told = [np.concatenate(values) for values in zip(*self._columns, strict=True)]
        joules = np.empty((COLUMNS, count))
        for sums, values in zip(joules, told, strict=True):
            sums[:] = np.bincount(chosen, values, count)  # of each request in the order of the devices
        if terms.label:
            factor[chosen] = terms.label
            if (told_grams := terms.grams(told[ENERGY])) is not None:
                known = np.bincount(chosen, told_grams, count)
                grams[chosen] = known[chosen]
        return Shares(self._usages, joules, grams, factor, self._measured)


def request_rows(host: str, start: UnixSeconds, shares: Shares, revision: int) -> list[Row]:
    """One row for each request; where no meter of its devices told anything its joules are None."""
    usages = shares.usages
    keys = [route.key for route in usages.routes]
    joules, grams = (np.where(shares.measured, each, np.nan) for each in (shares.joules, shares.grams))
    columns = zip(
        usages.route.tolist(),
        usages.request_id.tolist(),
        *map(all_known, joules),
        all_known(grams),
        usages.start.tolist(),
        all_known(usages.first_token),
        usages.end.tolist(),
        all_known_counts(usages.input_tokens),
        all_known_counts(usages.cached_input_tokens),
        all_known_counts(usages.output_tokens),
        all_known(usages.work_amount),
        usages.weight.tolist(),
        shares.factor.tolist(),
        strict=True,
    )
    rows = []
    for place, request_id, *sums_and_facts in columns:
        route = usages.routes[place]
        *sums, amount, weight, factor = sums_and_facts
        tags = (host, route.namespace, request_id, str(route.attempt), *keys[place])
        fields = (*sums, route.work_unit, amount, weight, route.status, factor, revision)
        rows.append(Row(points.REQUEST_ENERGY.name, start, tags, fields))
    return rows
