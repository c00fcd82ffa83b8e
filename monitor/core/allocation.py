"""Who pays: rows of the books become lines by model, team, label.. Pure: idle policy and every sum live here.

In: energy, meter and usage rows of any resolution, final and provisional, in any order. Out: lines and totals. All sums
are exactly rounded, so that every reader of the same rows gets the same digits.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import chain
from math import nan
from typing import Final

import msgspec

from collectors.units import UnixSeconds
from monitor.core.allocation_lines import (
    IDLE_KEY,
    LABEL,
    REASONS,
    UNATTRIBUTED_KEY,
    Allocation,
    AllocationLine,
    AllocationRules,
    AllocationTotals,
    IdleDevice,
    label_value,
)
from monitor.core.band import Doubt, Tier, tier
from monitor.core.exact import ExactSum
from monitor.core.nested import Nested
from monitor.core.points import ATTRIBUTED, ENERGY, IDLE, METER, UNATTRIBUTED, USAGE, WHOLE_OR_NOT, Account, Row
from monitor.core.rollup import MIXED_SOME_MISSING

_ACCOUNT_ORDER: Final = {ATTRIBUTED: 0, IDLE: 1, UNATTRIBUTED: 2}
_MARKERS: Final = {ATTRIBUTED: "", IDLE: IDLE_KEY, UNATTRIBUTED: UNATTRIBUTED_KEY}
_PLACES: Final = ("host", "device", "kind")
_JOULES: Final = (
    *("energy_joules", "marginal_joules", "metered_joules", "recovered_joules"),
    *("exact_joules", "steps_joules", "learned_joules", "estimated_start_joules"),
)
_TOKENS: Final = ("input_tokens", "output_tokens", "cached_input_tokens")
_USED: Final = (
    *("requests", "input_tokens", "output_tokens", "cached_input_tokens"),
    "untold_requests",
    "scheduled_requests",
)
_E: Final = {name: place for place, name in enumerate(ENERGY.fields)}
_U: Final = {name: place for place, name in enumerate(USAGE.fields)}
_M: Final = {name: place for place, name in enumerate(METER.fields)}


def allocate(rows: Iterable[Row], rules: AllocationRules) -> Allocation:
    """600 J of team a, 200 J of team b and 80 J idle on one host, shared by host: a pays 600 + 60, b 200 + 20."""
    allocator = Allocator(rules)
    for row in rows:
        allocator.add(row)
    return allocator.result()


class _Sums:
    """The sums of one line in the making; a share of idle uses the first three alone."""

    __slots__ = ("doubt", "factorless", "grams", "joules", "provisional", "unknown")

    def __init__(self) -> None:
        self.joules = {name: ExactSum() for name in _JOULES}
        self.grams = ExactSum()
        self.factorless = ExactSum()
        self.provisional = ExactSum()
        self.doubt = Doubt()
        self.unknown: set[str] = set()  # what a row of an older version does not hold

    def add(self, row: Row, *, provisional: bool) -> None:
        fields = row.fields
        for name, total in self.joules.items():
            value = fields[_E[name]]
            _add(total, value)
            if value is None and name in WHOLE_OR_NOT:
                self.unknown.add(name)
        grams, energy = fields[_E["location_grams"]], fields[_E["energy_joules"]]
        _add(self.grams, grams)
        if grams is None or fields[_E["factor"]] == MIXED_SOME_MISSING:
            _add(self.factorless, energy)
        if provisional:
            _add(self.provisional, energy)
        self.doubt.add((row.tags[0], row.tags[1]), *_doubt_in(row))

    def merge(self, other: "_Sums") -> None:
        for name, total in self.joules.items():
            total.merge(other.joules[name])
        self.grams.merge(other.grams)
        self.factorless.merge(other.factorless)
        self.provisional.merge(other.provisional)
        self.doubt.merge(other.doubt)
        self.unknown |= other.unknown

    def add_share(self, pool: "_Sums", ratio: float) -> None:
        """Takes this part of an idle pool."""
        self.joules["energy_joules"].add(pool.energy * ratio)
        grams = pool.grams.known()
        if grams is not None:
            self.grams.add(grams * ratio)
        self.factorless.add(pool.factorless.value() * ratio)

    @property
    def energy(self) -> float:
        return self.joules["energy_joules"].value()


_Key = tuple[str, ...]


class _Place(msgspec.Struct, frozen=True):
    """Where a row's figures go: its line, and, of an owned device's idle, the line of the owner.

    None is a line that the filters leave out.
    """

    key: _Key | None
    owned: bool
    owner_key: _Key | None


class Allocator:
    """Takes rows one by one, so that memory grows with the lines and not with the rows."""

    def __init__(self, rules: AllocationRules) -> None:
        self._rules = rules
        self._whole = Doubt()
        self._meters = Doubt()
        self._nested = Nested()
        self._own: defaultdict[tuple[str, _Key | None], _Sums] = defaultdict(_Sums)
        self._idle: defaultdict[tuple[str, _Place], _Sums] = defaultdict(_Sums)
        self._idle_devices: dict[_Key, tuple[ExactSum, set[str]]] = {}
        self._unattributed: defaultdict[_Key | None, _Sums] = defaultdict(_Sums)
        self._used: dict[_Key, dict[str, ExactSum]] = {}
        self._unknown: set[tuple[_Key, str]] = set()  # of what was used, what a row does not hold
        self._places: dict[tuple[str, _Key], _Place] = {}
        self._reasons = {reason: ExactSum() for reason in REASONS}
        self._meter = {name: ExactSum() for name in METER.sums}
        self._meter_provisional = ExactSum()
        self._factors: set[str] = set()
        self._first: UnixSeconds | None = None
        self._last: UnixSeconds | None = None

    def add(self, row: Row) -> None:
        """Takes a row of energy, meter or usage, final or provisional; others are a KeyError."""
        name = row.measurement.removeprefix("provisional_")
        {"energy": self._add_energy, "meter": self._add_meter, "usage": self._add_usage}[name](row)
        self._first = row.time if self._first is None else min(self._first, row.time)
        self._last = row.time if self._last is None else max(self._last, row.time)

    def result(self) -> Allocation:
        """The lines and totals of what has come so far."""
        self._whole = Doubt()
        for sums in self._own.values():  # also of lines that the filters leave out
            self._whole.merge(sums.doubt)
        shares, left = self._share_idle()
        lines = self._attributed_lines(shares)
        if self._rules.include_idle or self._rules.share_idle != "false":
            lines += self._plain_lines(left, IDLE)
        if self._rules.include_unattributed:
            lines += self._plain_lines(self._unattributed, UNATTRIBUTED)
        lines.sort(key=lambda line: (_ACCOUNT_ORDER[line.account], line.key))
        return Allocation(
            lines=tuple(lines),
            totals=self._totals(),
            idle_devices=self._idle_by_device(),
            factors=tuple(sorted(self._factors)),
            first=self._first,
            last=self._last,
        )

    def _add_energy(self, row: Row) -> None:
        host, account = row.tags[0], row.tags[3]
        place = self._place_of(row, ENERGY.tags)
        if account == ATTRIBUTED:
            sums = self._own[(host, place.key)]
        elif account == IDLE:
            sums = self._idle[(host, place)]
            self._add_idle_device(row)
        else:
            sums = self._unattributed[place.key]
            for reason, total in self._reasons.items():
                _add(total, row.fields[_E[f"{reason}_joules"]])
        sums.add(row, provisional=row.measurement != ENERGY.name)
        factor = row.fields[_E["factor"]]
        if isinstance(factor, str) and factor:
            self._factors.add(factor)

    def _add_idle_device(self, row: Row) -> None:
        total, sources = self._idle_devices.setdefault(row.tags[:3], (ExactSum(), set()))
        _add(total, row.fields[_E["energy_joules"]])
        source = row.fields[_E["idle_source"]]
        if isinstance(source, str) and source:
            sources.add(source)

    def _idle_by_device(self) -> tuple[IdleDevice, ...]:
        return tuple(
            IdleDevice(
                host=host, device=device, kind=kind, energy_joules=total.value(), idle_sources=tuple(sorted(sources))
            )
            for (host, device, kind), (total, sources) in sorted(self._idle_devices.items())
        )

    def _add_meter(self, row: Row) -> None:
        _add(self._meter["meter_disagreement_joules"], row.fields[_M["meter_disagreement_joules"]])
        energy, metered, parent = (row.fields[_M[name]] for name in ("energy_joules", "metered_joules", "parent"))
        self._nested.add_row(row)
        if parent:
            return  # the meter that contains it has counted it
        for name in ("energy_joules", "metered_joules", "recovered_joules", "covered_seconds"):
            _add(self._meter[name], row.fields[_M[name]])
        if isinstance(energy, int | float) and isinstance(metered, int | float):
            self._meters.add((row.tags[0], row.tags[1]), energy, metered, (0.0, 0.0), 0.0)
        if row.measurement != METER.name:
            _add(self._meter_provisional, row.fields[_M["energy_joules"]])

    def _add_usage(self, row: Row) -> None:
        key = self._place_of(row, USAGE.tags).key
        if key is None or not self._usage_has_keys():
            return
        used = self._used.get(key)
        if used is None:
            used = self._used[key] = {name: ExactSum() for name in _USED}
        for name, total in used.items():
            value = row.fields[_U[name]]
            _add(total, value)
            if value is None and name in WHOLE_OR_NOT:
                self._unknown.add((key, name))

    def _usage_has_keys(self) -> bool:
        """A request on four GPUs is one request: lines of devices have none."""
        return {"device", "kind"}.isdisjoint((*self._rules.by, *self._rules.filters))

    def _place_of(self, row: Row, names: tuple[str, ...]) -> _Place:
        cached = self._places.get((row.measurement, row.tags))
        if cached is None:
            tags = dict(zip(names, row.tags, strict=True))
            marker = _MARKERS[tags.get("account", ATTRIBUTED)]  # type: ignore[index]
            owner = self._owner(tags) if marker == IDLE_KEY else None
            owner_key = None if owner is None else self._key(tags, marker, owner)
            cached = _Place(self._key(tags, marker, marker), owner is not None, owner_key)
            self._places[row.measurement, row.tags] = cached
        return cached

    def _owner(self, tags: Mapping[str, str]) -> str | None:
        owners, host = self._rules.owners, tags["host"]
        return owners.get((host, tags["device"]), owners.get((host, "")))

    def _key(self, tags: Mapping[str, str], marker: str, team: str) -> _Key | None:
        """`marker` stands for what an idle or unattributed row has not, `team` for its team."""

        def value(dimension: str) -> str:
            if dimension in _PLACES:
                return tags.get(dimension, "")
            if marker:
                return team if dimension == "team" else marker
            if dimension.startswith(LABEL):
                return label_value(tags["labels"], dimension.removeprefix(LABEL))
            return tags[dimension]

        chosen = all(value(dimension) in wanted for dimension, wanted in self._rules.filters.items())
        return tuple(value(dimension) for dimension in self._rules.by) if chosen else None

    def _share_idle(self) -> tuple[dict[_Key | None, _Sums], dict[_Key | None, _Sums]]:
        """What idle each line is charged with, and what is left as idle, by its own key."""
        shares: defaultdict[_Key | None, _Sums] = defaultdict(_Sums)
        left: defaultdict[_Key | None, _Sums] = defaultdict(_Sums)
        policy = self._rules.share_idle
        weights = {place: sums.energy for place, sums in self._own.items()} if policy in ("host", "fleet") else {}
        whole: defaultdict[str, ExactSum] = defaultdict(ExactSum)
        for (host, _), weight in weights.items():
            whole["" if policy == "fleet" else host].add(weight)
        pools: defaultdict[str, _Sums] = defaultdict(_Sums)
        for (host, place), sums in self._idle.items():
            pool = "" if policy == "fleet" else host
            if policy == "owner" and place.owned:
                shares[place.owner_key].merge(sums)
            elif pool in whole and whole[pool].value() > 0.0:
                pools[pool].merge(sums)
            else:
                left[place.key].merge(sums)
        for (host, key), weight in weights.items():
            pool = "" if policy == "fleet" else host
            if pool in pools and weight:
                shares[key].add_share(pools[pool], weight / whole[pool].value())
        return shares, left

    def _attributed_lines(self, shares: Mapping[_Key | None, _Sums]) -> list[AllocationLine]:
        own: defaultdict[_Key | None, _Sums] = defaultdict(_Sums)
        for (_, key), sums in self._own.items():
            own[key].merge(sums)
        keys = own.keys() | shares.keys() | self._used.keys()
        none_ended = {name: _zero() for name in _USED} if self._usage_has_keys() else None
        return [
            self._line(key, ATTRIBUTED, own.get(key) or _Sums(), shares.get(key), self._used.get(key, none_ended))
            for key in keys
            if key is not None
        ]

    def _plain_lines(self, sums: Mapping[_Key | None, _Sums], account: Account) -> list[AllocationLine]:
        return [self._line(key, account, each, None, None) for key, each in sums.items() if key is not None]

    def _line(
        self,
        key: _Key,
        account: Account,
        own: _Sums,
        share: _Sums | None,
        used: Mapping[str, ExactSum] | None,
    ) -> AllocationLine:
        joules = {name: total.value() for name, total in own.joules.items()}
        counts = {name: None if used is None or (key, name) in self._unknown else used[name].known() for name in _USED}
        if counts["requests"] and (counts["untold_requests"] or 0.0) >= counts["requests"]:
            counts |= dict.fromkeys(_TOKENS)  # nobody told any, which is not 0
        factorless = ExactSum()
        for each in (own, share):
            if each is not None:
                factorless.merge(each.factorless)
        band = own.doubt.band(self._rules.gains, self._whole.variance_at, self._nested.told_by)
        line = AllocationLine(
            key=key,
            account=account,
            **joules,
            low_joules=band.low_joules,
            high_joules=band.high_joules,
            tier=_tier(account, joules),
            idle_share_joules=0.0 if share is None else share.energy,
            emissions_grams=own.grams.known(),
            idle_share_grams=0.0 if share is None else share.grams.known(),
            factorless_joules=factorless.value(),
            requests=counts["requests"],
            input_tokens=counts["input_tokens"],
            output_tokens=counts["output_tokens"],
            cached_input_tokens=counts["cached_input_tokens"],
            untold_requests=counts["untold_requests"],
            scheduled_requests=counts["scheduled_requests"],
            provisional_joules=own.provisional.value(),
            measured_ratio=_ratio(joules["metered_joules"], joules["energy_joules"]),
        )
        return msgspec.structs.replace(line, **dict.fromkeys(own.unknown))

    def _totals(self) -> AllocationTotals:
        accounts = {
            ATTRIBUTED: _merged(self._own.values()),
            IDLE: _merged(self._idle.values()),
            UNATTRIBUTED: _merged(self._unattributed.values()),
        }
        every = _merged(accounts.values())
        measured, rest = self._meter["energy_joules"].value(), ExactSum()
        rest.merge(self._meter["energy_joules"])
        rest.merge(self._meter["meter_disagreement_joules"])
        rest.subtract(every.joules["energy_joules"])
        band = self._meters.band(self._rules.gains)
        return AllocationTotals(
            measured_joules=measured,
            measured_low_joules=band.low_joules,
            measured_high_joules=band.high_joules,
            covered_device_seconds=self._meter["covered_seconds"].value(),
            attributed_joules=accounts[ATTRIBUTED].energy,
            idle_joules=accounts[IDLE].energy,
            unattributed_joules=accounts[UNATTRIBUTED].energy,
            imbalance_joules=rest.value(),
            measured_ratio=_ratio(self._meter["metered_joules"].value(), measured),
            provisional_joules=self._meter_provisional.value(),
            recovered_joules=self._meter["recovered_joules"].value(),
            meter_disagreement_joules=self._meter["meter_disagreement_joules"].value(),
            emissions_grams=every.grams.known(),
            factorless_joules=every.factorless.value(),
            unattributed_reasons={reason: total.value() for reason, total in self._reasons.items()},
        )


def window_sums(rows: Iterable[Row]) -> tuple[float, float, float, float, float]:
    """Measured, attributed, idle, unattributed, and what is left of the equation; in joules, of one host's window.

    What children's meters claim beyond their parent's (`meter_disagreement_joules`) was accounted and not measured by
    the parent: it is a term of the equation of its own.
    """
    measured: list[float] = []
    disagreed: list[float] = []
    accounts: dict[str, list[float]] = {ATTRIBUTED: [], IDLE: [], UNATTRIBUTED: []}
    for row in rows:
        joules = row.fields[0]
        if not isinstance(joules, int | float):
            continue
        if not row.measurement.endswith(METER.name):
            accounts[row.tags[3]].append(joules)
            continue
        shortfall = row.fields[_M["meter_disagreement_joules"]]
        if isinstance(shortfall, int | float):
            disagreed.append(shortfall)
        if not row.fields[_M["parent"]]:
            measured.append(joules)
    rest = math.fsum(chain(measured, disagreed, (-joules for each in accounts.values() for joules in each)))
    attributed, idle, unattributed = (math.fsum(each) for each in accounts.values())
    return math.fsum(measured), attributed, idle, unattributed, rest


def _add(total: ExactSum, value: object) -> None:
    if isinstance(value, int | float):
        total.add(value)


def _tier(account: Account, joules: Mapping[str, float]) -> Tier:
    """Of what nobody shares it is measured or modelled: no other tier has joules there.

    A row that does not hold what was learned is from before anything was: it rests on the priors.
    """
    metered = joules["metered_joules"]
    exact = joules["exact_joules"] if account == ATTRIBUTED else metered
    return tier(joules["energy_joules"], metered, exact, joules["learned_joules"], joules["steps_joules"])


_METERED, _FLOP, _BYTE, _VARIANCE = (
    _E[name] for name in ("metered_joules", "flop_sensitivity_joules", "byte_sensitivity_joules", "split_variance")
)


def _doubt_in(row: Row) -> tuple[float, float, tuple[float, float], float]:
    """What a row adds to its line's doubt: its energy, metered, moves, variance; what is not known is NaN."""
    fields = row.fields
    moves = _number(fields[_FLOP]), _number(fields[_BYTE])
    return _number(fields[0]), _number(fields[_METERED]), moves, _number(fields[_VARIANCE])


def _number(value: object) -> float:
    return value if isinstance(value, float) else float(value) if isinstance(value, int) else nan


def _zero() -> ExactSum:
    total = ExactSum()
    total.add(0.0)
    return total


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _merged(sums: Iterable[_Sums]) -> _Sums:
    total = _Sums()
    for each in sums:
        total.merge(each)
    return total
